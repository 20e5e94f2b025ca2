"""Every family learns from each format that holds what it needs, by `data.path=` alone: the folder or file says what it is."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image

from adapt.cli import main
from adapt.data import folder
from adapt.plug import load, schema
from adapt.verbs.convert import convert
from adapt.verbs.converting.request import Request

CLASSES = ["ant", "bee"]
QUICK = [
    "tracker=none",
    "train.epochs=1",
    "train.validate_every=1",
    "train.batch=8",
    "evals.0.bootstrap=100",
]


def classes(root: Path) -> dict[str, Path]:
    """Pictures with classes, in all formats that have such: name → what `data.path` is."""
    rows = load("data", "emoji").load(schema("data", "emoji").model_validate({"source": "emoji", "hand": "openmoji"}))["train"]
    for number, image in enumerate(rows.select(range(24))["image"]):
        place = root / "folder" / CLASSES[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number:02d}.png")
    config = folder.Config(path=str(root / "folder"))
    for to in ("csv", "labelstudio"):
        convert(config, Request(to, str(root / to)))
    files = sorted((root / "folder").glob("*/*.png"))
    features = Features(image=Image(), label=ClassLabel(names=CLASSES))
    columns = {
        "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
        "label": [file.parent.name for file in files],
    }
    pictures = Dataset.from_dict(columns, features=features)
    (root / "parquet").mkdir()
    pictures.to_parquet(root / "parquet" / "train-00000-of-00001.parquet")
    pictures.save_to_disk(root / "saved")
    with tarfile.open(root / "0.tar", "w") as tar:
        for file in files:
            for suffix, data in ((".png", file.read_bytes()), (".cls", file.parent.name.encode())):
                info = tarfile.TarInfo(file.stem + suffix)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return {name: root / name for name in ("folder", "parquet", "saved")} | {
        "csv": root / "csv" / "labels.csv",
        "labelstudio": root / "labelstudio" / "tasks.json",
        "webdataset": root / "0.tar",
    }


def objects(root: Path) -> dict[str, Path]:
    """Pictures with things on them: boxes, and masks where the format has them."""
    options = {"source": "emoji_scenes", "hands": ["openmoji"], "train": 8, "validation": 4, "test": 4, "max_things": 2}
    config = schema("data", "emoji_scenes").model_validate(options | {"things": "all", "cast": 8, "classes": "thing"})
    for to in ("coco", "yolo", "voc", "png", "labelstudio"):
        convert(config, Request(to, str(root / to)))
    shutil.copytree(root / "coco" / "images", root / "labelme")
    for file in (root / "coco" / "annotations").glob("instances_*.json"):
        document = json.loads(file.read_text())
        names = {one["id"]: one["name"] for one in document["categories"]}
        for image in document["images"]:
            mine = [one for one in document["annotations"] if one["image_id"] == image["id"]]
            shapes = [
                {"label": names[one["category_id"]], "points": corners(one["bbox"]), "shape_type": "polygon"} for one in mine
            ]
            about = {"imagePath": Path(image["file_name"]).name, "imageWidth": image["width"], "imageHeight": image["height"]}
            (root / "labelme" / image["file_name"]).with_suffix(".json").write_text(
                json.dumps({"version": "5.0", "shapes": shapes, "imageData": None} | about)
            )
    return {name: root / name for name in ("coco", "yolo", "voc", "png", "labelme")} | {
        "labelstudio": root / "labelstudio" / "tasks.json"
    }


def corners(box: list[float]) -> list[list[float]]:
    left, top, width, height = box
    return [[left, top], [left + width, top], [left + width, top + height], [left, top + height]]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, dict[str, Path]]:
    return {"classes": classes(tmp_path_factory.mktemp("classes")), "objects": objects(tmp_path_factory.mktemp("objects"))}


def learns(recipe: str, path: Path, capsys, *more: str) -> list[dict]:
    """The rows that a recipe ends with, on other data, of which nothing is said but where they lie."""
    status = main(["finetune", f"recipe={recipe}", f"data.path={path}", *QUICK, *more, "--json"])
    said = capsys.readouterr()
    assert status == 0, said.err
    entries = json.loads(said.out)["entries"]
    assert [entry["name"] for entry in entries] == ["zero-shot", "adapted"][-len(entries) :]
    assert all(np.isfinite(entry["metrics"][entry["main"]]) for entry in entries)
    return entries


@pytest.mark.slow
@pytest.mark.parametrize("name", ["folder", "csv", "labelstudio", "webdataset", "parquet", "saved"])
@pytest.mark.parametrize("recipe", ["clip_lora", "dinov2_lora"])
def test_a_family_of_classes(recipe, name, places, capsys):
    entries = learns(recipe, places["classes"][name], capsys)
    assert entries[-1]["classes"] == CLASSES


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco", "png", "labelme"])
@pytest.mark.parametrize("recipe", ["sam_lora", "dinov2_segment"])
def test_a_family_of_masks(recipe, name, places, capsys):
    learns(recipe, places["objects"][name], capsys, *(["evals.0.clicks=[1]"] if recipe == "sam_lora" else []))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coco", "yolo", "voc", "labelstudio", "labelme"])
def test_a_family_of_boxes(name, places, capsys):
    learns("paligemma_detect_student", places["objects"][name], capsys, "model.max_tokens=8")
