"""Recipes for users' own data: photographs, masks and lines of their own, nothing of the embedded world."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from adapt.cli import main
from adapt.plug import UserError
from adapt.recipe import available, find, load_recipe

YOURS = [name for name in available("recipes") if name.startswith("yours/")]
FEW = ["tracker=none", "train.epochs=1", "train.batch=8", "evals.0.bootstrap=100"]


def photo(seed: int, colour: str) -> Image.Image:
    """A picture of 80 × 60 pixels, of noise under a colour."""
    noise = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    return Image.blend(Image.fromarray(noise), Image.new("RGB", (80, 60), colour), 0.6)


@pytest.mark.parametrize("name", YOURS)
def test_nothing_of_the_embedded_world_is_in_it(name):
    text = find("recipes", name).read_text()
    recipe = load_recipe(name)
    assert "/" in recipe.model.checkpoint, "a public checkpoint"
    assert not [word for word in ("emoji", "openmoji", "tiny", "icon", "drawing", "white") if word in text]
    assert recipe.data.source in ("folder", "masks", "jsonl")
    assert recipe.notes == []
    first = text.splitlines()[0]
    assert first.startswith("# adapt ")
    assert f"recipe={name} data.path=" in first, "how to call it"


@pytest.mark.parametrize("name", YOURS)
@pytest.mark.parametrize("given", [[], ["data.path=elsewhere"]])
def test_data_that_are_not_there_are_one_clear_line(name, given, capsys):
    assert main(["finetune", f"recipe={name}", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("data.path: no f")
    assert (given[0].partition("=")[2] if given else load_recipe(name).data.path) in line


@pytest.mark.slow
def test_photographs_teach_clip_and_a_student(tmp_path, capsys):
    """Their files: `test_wheel.py`, by the recipe that `adapt init` writes."""
    for i, colour in enumerate(["red", "blue", "lime"]):
        (tmp_path / "mine" / colour).mkdir(parents=True)
        for k in range(14):
            photo(100 * i + k, colour).save(tmp_path / "mine" / colour / f"{k}.jpg")
    student = ["distill.student=resnet10t", "distill.pretrained=cnn-tiny", "distill.train.epochs=1", "distill.views=1"]
    small = ["model.checkpoint=clip-tiny", *student, "distill.train.batch=8", "export=[]"]
    assert main(["road", "recipe=yours/photos", "data.path=mine", *FEW, *small, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in said["entries"]] == ["zero-shot", "adapted", "student logits-resnet10t"]
    assert said["entries"][0]["classes"] == ["blue", "lime", "red"]


def test_pictures_with_masks_teach_sam(tmp_path, capsys):
    for kind in ("images", "masks"):
        (tmp_path / "cells" / kind).mkdir(parents=True)
    for k in range(10):
        mask = np.zeros((60, 80), np.uint8)
        mask[10 + k : 30 + k, 20:50] = 1 + k % 2
        photo(k, "navy").save(tmp_path / "cells" / "images" / f"{k}.jpg")
        Image.fromarray(mask).save(tmp_path / "cells" / "masks" / f"{k}.png")
    small = ["model.checkpoint=sam-tiny", "data.path=cells", "evals.0.clicks=[1]", "evals.0.pictures=1"]
    assert main(["finetune", "recipe=yours/masks", *FEW, *small, "--json"]) == 0
    assert [entry["main"] for entry in json.loads(capsys.readouterr().out)["entries"]] == ["miou", "miou"]


def test_lines_teach_paligemma(tmp_path, capsys):
    lines = []
    for k in range(10):
        photo(k, ["red", "blue"][k % 2]).save(tmp_path / f"{k}.jpg")
        lines.append({"image": f"{k}.jpg", "prefix": "answer en what colour is it?", "suffix": ["red", "blue"][k % 2]})
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    small = ["model.checkpoint=paligemma-tiny", "data.path=lines.jsonl", "model.max_tokens=8"]
    assert main(["finetune", "recipe=yours/jsonl", *FEW, *small, "--json"]) == 0
    assert [entry["main"] for entry in json.loads(capsys.readouterr().out)["entries"]] == ["accuracy", "accuracy"]


def test_a_placeholder_is_no_choice_for_the_user():
    """Printed as it is, the recipe says where its data would lie."""
    assert load_recipe("yours/photos").data.path == "photos"
    with pytest.raises(UserError, match=r"data\.path: missing"):
        load_recipe("yours/photos", ["data={source: folder}"])
