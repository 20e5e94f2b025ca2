"""The commands of the README, of AGENTS.md and of the pages of docs/ do their work, page by page, in the order in which a reader meets them.

A command that several pages name is run once. They run as they stand, but small and offline: recipes of the same names learn for an epoch from
a few pictures, and where a public checkpoint or data set is named, an embedded one stands in. What a launcher starts runs here in one process;
`tests/test_launch.py` has several. The page on extensions is `tests/contracts/test_stranger.py`'s.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from adapt import cli, recipe
from adapt.demo import app
from adapt.run import Run
from adapt.verbs import export
from tests.docs.test_commands import BLOCK, DATA, PAGES, ROOT, ours
from tests.models import test_florence2
from tests.suite_trees import SETS, write_set

CHECKPOINTS = {"clip": "clip-tiny", "sam": "sam-tiny", "dinov2": "dinov2-tiny", "paligemma": "paligemma-tiny"}
"""Family → what stands in for its public checkpoints."""
INSTEAD = {
    "model.checkpoint=openai/clip-vit-base-patch32": "model.checkpoint=clip-tiny",
    "model.checkpoint=open_clip:ViT-B-16/laion2b_s34b_b88k": "model.checkpoint=clip-tiny",
    "model.checkpoint=facebook/sam-vit-base": "model.checkpoint=sam-tiny",
    "model.checkpoint=google/paligemma2-3b-pt-224": "model.checkpoint=paligemma-tiny",
    "model.checkpoint=florence-community/Florence-2-base": "model.checkpoint=florence",
    "evals=[{name: zeroshot}, {name: robustness}]": "evals=[{name: zeroshot}, {name: robustness, limit: 4}]",
    "port=8000": "port=0",
    "methods=zero-shot,tip_adapter,linear_text": "methods=zero-shot,tip_adapter",
    "methods=zero-shot,linear_text,tip_adapter,prolip": "methods=zero-shot,tip_adapter,prolip",
    "train.epochs=20": "train.epochs=2",
    "train.epochs=5": "train.epochs=1",
    "data.shots=null": "data.shots=2",
    "shots=1,4": "shots=1",
    "shots=5": "shots=1",
}
FEWER = {
    "shots": ["seeds=1", "shots=1", "methods=zero-shot,tip_adapter"],
    "workbench": ["pictures=24", "space={drawings: [crop], subtract: [0]}"],
    "demo": ["port=0"],
}
"""Verb → what makes its search small, or lets it run beside others."""
OF_SOURCE = {"emoji": {"shots": 2, "unlabelled": []}, "emoji_scenes": {"train": 16, "validation": 2, "test": 3}}
OF_EVAL = {"zeroshot": {"bootstrap": 100}, "segmentation": {"clicks": [1], "pictures": 1}, "linear": {"steps": 20}}


def small(text: str) -> str:
    """A recipe's file, with its sizes made small and its checkpoint embedded."""
    content = yaml.safe_load(text)
    content["tracker"] = "none"
    content["model"]["checkpoint"] = CHECKPOINTS[content["model"]["name"]]
    content["data"] |= OF_SOURCE.get(content["data"]["source"], {})
    content.get("train", {})["epochs"] = 1
    for each in content.get("evals", []):
        each |= OF_EVAL.get(each["name"], {})
    if student := content.get("distill"):
        student["train"] = student.get("train", {}) | {"epochs": 1}
        if student["name"] == "logits":
            student |= {"views": 1, "size": 48}
        if student["student"] != "resnet10t":
            student |= {"student": "test_resnet", "pretrained": False}
    for each in content.get("export", []):
        each |= {"calibration": 16, "bench": 0.05}
    return yaml.safe_dump(content, sort_keys=False)


def short(text: str) -> str:
    """A suite's file; of one of the embedded world a set or two, and few corrupted pictures."""
    content = yaml.safe_load(text)
    if "data" in content["sets"][0]:
        content["sets"] = content["sets"][: 2 if "name" in content else 1]
        for each in content["sets"][0].get("evals", []):
            each |= {"limit": 4} if each["name"] == "robustness" else {}
    return yaml.safe_dump(content, sort_keys=False)


def page(path: Path) -> list[list[str]]:
    """The commands of our own on a page, in their order."""
    found = []
    for block in BLOCK.findall(path.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.partition(" > ")[0], comments=True)
            if words and ours(words):
                found.append(ours(words))
    return found


def photo(seed: int, colour: tuple[int, int, int]) -> Image.Image:
    noise = np.random.default_rng(seed).normal(colour, 40, (80, 100, 3))
    return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))


def photos(place: Path, names: tuple[str, ...] = ("cat", "dog")) -> None:
    for number, name in enumerate(names):
        (place / name).mkdir(parents=True)
        for k in range(14):
            photo(100 * number + k, (40 * number % 256, 90, 220 - 40 * number % 200)).save(place / name / f"{k}.jpg")


def unsorted(place: Path) -> None:
    """Pictures to answer for."""
    place.mkdir()
    for k in range(3):
        photo(k, (80, 90, 100)).save(place / f"{k}.jpg")


def sheet(place: Path) -> None:
    photo(5, (80, 90, 100)).resize((200, 160)).save(place)


def scene(place: Path) -> None:
    """Drawn things, as the embedded SAM knows them."""
    from adapt.data.emoji_scenes import Config, load

    load(Config(train=2, validation=2, test=2))["test"][0]["image"].save(place)


def cells(place: Path) -> None:
    """Pictures with masks of two classes."""
    for kind in ("images", "masks"):
        (place / kind).mkdir(parents=True)
    for k in range(10):
        mask = np.zeros((80, 100), np.uint8)
        mask[10 + k : 30 + k, 20:50] = 1 + k % 2
        photo(k, (30, 30, 90)).save(place / "images" / f"{k}.jpg")
        Image.fromarray(mask).save(place / "masks" / f"{k}.png")


def lines(place: Path) -> None:
    """Questions and answers."""
    rows = []
    for k in range(10):
        photo(k, [(200, 30, 30), (30, 30, 200)][k % 2]).save(place.with_name(f"{k}.jpg"))
        rows.append({"image": f"{k}.jpg", "prefix": "answer en what colour?", "suffix": ["red", "blue"][k % 2]})
    place.write_text("\n".join(map(json.dumps, rows)))


def labelled(place: Path) -> None:
    """Polygons, as Label Studio exports them; the pictures lie in media/upload."""
    unsorted_, tasks = Path("media/upload"), []
    unsorted_.mkdir(parents=True)
    for k in range(10):
        photo(k, (30, 30, 90)).save(unsorted_ / f"{k}.jpg")
        value = {"points": [[10, 10], [60, 10], [60, 70], [10, 60]], "polygonlabels": ["cell"]}
        region = {"id": "a", "type": "polygonlabels", "from_name": "tag", "to_name": "img", "value": value}
        region |= {"original_width": 100, "original_height": 80, "image_rotation": 0}
        done = {"id": 100 + k, "result": [region], "was_cancelled": False, "ground_truth": False}
        tasks.append({"id": k, "data": {"image": f"/data/upload/{k}.jpg"}, "annotations": [done], "predictions": []})
    place.write_text(json.dumps(tasks))


def food(place: Path) -> None:
    """A folder of `save_to_disk`, as a data set of the hub would be."""
    from datasets import Dataset

    photos(Path("food"), ("apple pie", "sushi"))
    files = sorted(Path("food").rglob("*.jpg"))
    rows = {"image": [{"bytes": file.read_bytes(), "path": None} for file in files], "label": [f.parent.name for f in files]}
    from datasets import Features, Value
    from datasets import Image as Picture

    Dataset.from_dict(rows, Features(image=Picture(), label=Value("string"))).class_encode_column("label").save_to_disk(place)


def sets(place: Path) -> None:
    """One of the sets of `core`."""
    write_set(place, next(each for each in SETS if each.name == "flickr8k"))


def satellite(place: Path) -> None:
    photos(place, tuple(yaml.safe_load((ROOT / "prompts/clip/eurosat.yaml").read_text(encoding="utf-8"))["classes"]))


MADE = DATA | {
    "photos": photos,
    "new/": unsorted,
    "aerial/": unsorted,
    "photo.jpg": sheet,
    "scene.png": scene,
    "cells": cells,
    "annotations.jsonl": lines,
    "export.json": labelled,
    "food101": food,
    "sets": sets,
    "florence": lambda place: test_florence2.write(place, test_florence2.words()),
    "people.txt": lambda place: place.write_text("ann:secret-words\n"),
}
"""What of the reader's is named → what puts it there."""


def mine() -> None:
    """The reader's recipe, as the README has it written, if it is not there yet."""
    if not Path("mine.yaml").exists():
        if not Path("photos").exists():
            photos(Path("photos"))
        assert cli.main(["init", "photos", "write=mine.yaml"]) == 0
        Path("mine.yaml").write_text(small(Path("mine.yaml").read_text()))


def run(name: str) -> str:
    """The run folder of a recipe; where nothing is adapted in it yet, its road comes first."""
    if name == "mine":
        mine()
    called = "mine.yaml" if name == "mine" else name
    path = Run.open(recipe.load_recipe(called)).path
    if not (path / "adapter").exists():
        assert cli.main(["road", f"recipe={called}"]) == 0
    return str(path)


def two_runs() -> list[str]:
    """Names of two, made if they are not there."""
    assert cli.main(["evaluate", "recipe=clip_few_labels"]) == 0
    return [Path(run("clip_lora")).name, Run.open(recipe.load_recipe("clip_few_labels")).path.name]


def typed(words: list[str]) -> list[str]:
    """The command as a reader of the page can run it now."""
    verb, *rest = words
    if verb == "export":  # of what a reader has made before
        run("clip_lora")
    if rest[:1] == ["compare"]:
        return [verb, "compare", *two_runs()]
    rest = [
        re.sub(r"runs/(\w+)-…", lambda found: run(found[1]), INSTEAD.get(word, word).replace("resnet18", "test_resnet"))
        for word in rest
    ]
    for value in (word.rpartition("=")[2] for word in rest):
        if value in MADE and not Path(value).exists():
            MADE[value](Path(value))
        elif value == "mine.yaml" and verb != "init":
            mine()
    given = {word.partition("=")[0] for word in rest}
    return [verb, *rest, *(word for word in FEWER.get(verb, []) if word.partition("=")[0] not in given)]


DONE: set[str] = set()
"""Commands that an earlier page has had run."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """Where the reader works, from page to page."""
    return tmp_path_factory.mktemp("desk")


class Ended:
    """For `threading.Event`: the visitor leaves as soon as the page is there."""

    def wait(self) -> None:
        raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.usefixtures("fewer")
@pytest.mark.parametrize("path", [path for path in PAGES if page(path) and path.stem != "extend"], ids=lambda path: path.stem)
def test_the_commands_of_a_page_do_their_work(path, desk, tmp_path, monkeypatch, capfd):
    for kind in ("recipes", "suites"):
        for file in (ROOT / kind).rglob("*.yaml"):
            copy = tmp_path / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            made = small if kind == "recipes" else short
            copy.write_text(made(file.read_text(encoding="utf-8")), encoding="utf-8")
    if path.stem != "README":
        monkeypatch.setattr(export, "TOWER", 0)  # once is enough: the teacher is timed in torch alone
    folder = recipe.folder
    monkeypatch.setattr(recipe, "folder", lambda kind: tmp_path / kind if kind in ("recipes", "suites") else folder(kind))
    monkeypatch.setattr(app, "threading", SimpleNamespace(Event=Ended))
    if path.stem == "prompts":  # its first words are for these pictures
        satellite(Path("photos"))
    else:
        monkeypatch.chdir(desk)
    for words in page(path):
        same = shlex.join(word for word in words if word != "--json")
        if same in DONE:
            continue
        given = typed(words)
        status = cli.main(given)
        said = capfd.readouterr()
        lacking = given[:2] == ["doctor", "suite=core"]  # of its 41 sets one is there, and that is what it says
        assert status == (2 if lacking else 0), f"{shlex.join(given)}: {said.err[-2000:]}"
        DONE.add(same)
        if given[0] == "init":
            Path("mine.yaml").write_text(small(Path("mine.yaml").read_text()))
