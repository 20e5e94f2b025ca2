"""From a folder to a recipe: what was found is said, and what is written is valid, short, and runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapt.cli import main
from adapt.recipe import load_recipe


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def pictures(folder: str, count: int, start: int = 0) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise = np.random.default_rng(start + i).integers(0, 256, (16, 24, 3), np.uint8)
        Image.fromarray(noise).save(f"{folder}/{i}.png")


def folders() -> str:
    for number, name in enumerate(("ant", "bee")):
        pictures(f"my photos/{name}", 10, 100 * number)
    return "my photos"


def labelme(*shapes: dict) -> str:
    pictures("shelf", 8)
    for i in range(8):
        content = {"shapes": list(shapes), "imagePath": f"{i}.png", "imageHeight": 16, "imageWidth": 24}
        Path(f"shelf/{i}.json").write_text(json.dumps(content))
    return "shelf"


def boxes() -> str:
    return labelme({"label": "cup", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"})


def outlines() -> str:
    return labelme({"label": "cup", "points": [[1, 1], [20, 2], [9, 14]], "shape_type": "polygon"})


def lines() -> str:
    pictures("talk", 10)
    text = [json.dumps({"image": f"{i}.png", "prefix": "answer en what?", "suffix": f"{i}"}) for i in range(10)]
    Path("talk/train.jsonl").write_text("\n".join(text))
    return "talk"


def captions() -> str:
    pictures("told", 8)
    tasks = [
        {
            "id": i,
            "data": {"image": f"{i}.png"},
            "annotations": [{"result": [{"type": "textarea", "value": {"text": "a cat"}}]}],
        }
        for i in range(8)
    ]
    Path("told/export.json").write_text(json.dumps(tasks))
    return "told"


FITTING = {
    "folders": (folders, "folder", "clip", "zeroshot", "logits"),
    "boxes": (boxes, "labelme", "paligemma", "detection", "boxes"),
    "outlines": (outlines, "labelme", "sam", "segmentation", "masks"),
    "lines": (lines, "jsonl", "paligemma", "vqa", None),
    "captions": (captions, "labelstudio", "paligemma", "caption", None),
}


@pytest.mark.parametrize("what", FITTING)
def test_a_recipe_that_fits_is_written_and_resolves(what, capsys):
    make, source, family, measure, objective = FITTING[what]
    assert main(["init", make(), "write=mine.yaml"]) == 0
    out = capsys.readouterr().out.splitlines()
    recipe = load_recipe("mine.yaml")
    assert (recipe.data.source, recipe.model.name, recipe.evals[0].name) == (source, family, measure)
    assert (recipe.distill and recipe.distill.name) == objective
    assert recipe.notes == [] and "/" in recipe.model.checkpoint, "a public checkpoint"
    text = Path("mine.yaml").read_text()
    assert len(text.splitlines()) <= 30 and text.startswith("# adapt ")
    assert out[0].startswith("data: ") and f"source={source}" in out[0]
    assert out[-1] == f"Next: adapt {'road' if objective else 'finetune'} recipe=mine.yaml"


def test_what_was_found_is_said(capsys):
    path = folders()
    Path(path, "ant", "broken.png").write_bytes(b"no picture")
    assert main(["init", path]) == 0
    out = capsys.readouterr().out
    assert "train: 12 rows; what is left of 'my photos'" in out and "classes: ant 6, bee 6" in out
    assert "left out: 'ant/broken.png': unreadable" in out
    assert "Recipe: my-photos.yaml" in out
    text = Path("my-photos.yaml").read_text()
    assert "data: {source: folder, path: my photos, on_error: skip}  # 1 problem left out; adapt doctor data recipe=" in text


def test_the_recipe_for_class_folders_really_measures(capsys):
    assert main(["init", folders()]) == 0
    capsys.readouterr()
    given = ["model.checkpoint=clip-tiny", "tracker=none", "evals.0.bootstrap=100", "--json"]
    assert main(["evaluate", "recipe=my-photos.yaml", *given]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["entries"]
    assert entry["name"] == "zero-shot" and entry["classes"] == ["ant", "bee"]


def test_names_of_classes_cannot_break_out_of_the_comment(capsys):
    for name in ("a\nevals: []", "b: {"):
        pictures(f"odd/{name}", 5, len(name))
    assert main(["init", "odd"]) == 0
    assert load_recipe("odd.yaml").evals, capsys.readouterr().out


@pytest.mark.parametrize("name", ["2024", "yes", "1e3", "null", "010", "true", "12"])
def test_a_folder_whose_name_is_a_number_or_a_word_of_yaml_is_one_too(name, capsys):
    Path(folders()).rename(name)
    assert main(["init", name]) == 0, capsys.readouterr().err
    recipe = load_recipe(f"{name}.yaml")
    assert (recipe.name, recipe.data.path) == (name, name)
    Path("again.yaml").write_text(recipe.to_yaml())
    assert load_recipe("again.yaml") == recipe


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["init"], "init: which folder?"),
        (["init", "a", "b"], "init: which folder?"),
        (["init", "nowhere"], "data.path: no folder 'nowhere'"),
        (["init", "shelf", "write=mine.txt"], "write: 'mine.txt' must end in .yaml"),
        (["init", "shelf", "write=there.yaml"], "write: 'there.yaml' is there already"),
    ],
)
def test_a_mistake_is_one_line(arguments, words, capsys):
    boxes()
    Path("there.yaml").write_text("mine")
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line and Path("there.yaml").read_text() == "mine"
