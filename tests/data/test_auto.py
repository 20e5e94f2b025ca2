"""A path alone: each layout is known by its files, said in a line, and read as by its own source."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Picture

from adapt import plug
from adapt.data.auto import Config, chosen, layouts, load
from adapt.data.auto.layouts import recognise
from adapt.plug import UserError

SIZE = {"imageHeight": 16, "imageWidth": 24}


def write(root, files: dict) -> str:
    """Name → text, JSON, or a number: a picture of that seed."""
    for name, what in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(what, int):
            noise = np.random.default_rng(what).integers(0, 256, (16, 24, 3), np.uint8)
            Picture.fromarray(noise if "masks" not in name else noise[..., 0] // 128).save(path)
        else:
            path.write_text(what if isinstance(what, str) else json.dumps(what))
    return str(root)


PICTURES = {f"{i}.png": i for i in range(6)}
SHAPE = {"label": "a", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
TASK = {"data": {"image": "0.png"}, "annotations": [{"result": [{"type": "choices", "value": {"choices": ["a"]}}]}]}
LINE = '{"image": "0.png", "prefix": "caption en", "suffix": "a cat"}\n'
COCO = {"images": [{"id": 1, "file_name": "0.png"}], "annotations": [], "categories": [{"id": 1, "name": "a"}]}
LAYOUTS = {
    "folder": {f"{name}/{i}.png": 10 * ord(name) + i for name in "ab" for i in range(5)},
    "masks": {f"{kind}/{i}.png": i for kind in ("images", "masks") for i in range(5)},
    "table": PICTURES | {"labels.csv": "path;label\n" + "".join(f"{i}.png;{'ab'[i % 2]}\n" for i in range(6))},
    "jsonl": PICTURES | {"train.jsonl": LINE, "test.jsonl": LINE.replace("0.png", "1.png")},
    "labelme": PICTURES | {"0.json": {"version": "5", "flags": {}, "shapes": [SHAPE], "imagePath": "0.png"} | SIZE},
    "labelstudio": PICTURES | {"export.json": [TASK | {"id": 0}]},
    "coco": PICTURES | {"annotations/train.json": COCO},
    "yolo": {
        "data.yaml": "train: images/train\nval: images/val\nnames: [a]\n",
        "images/train/0.png": 0,
        "labels/train/0.txt": "",
    },
    "voc": {"Annotations/0.xml": "<annotation><filename>0.png</filename></annotation>", "JPEGImages/0.png": 0},
}


def test_a_folder_of_many_pictures_hides_neither_its_masks_nor_what_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(layouts, "MOST", 50)
    for kind in ("images", "masks"):
        (tmp_path / "shelf" / kind).mkdir(parents=True)
        for number in range(200 if kind == "images" else 1):
            (tmp_path / "shelf" / kind / f"{number}.png").touch()
    assert recognise(str(tmp_path / "shelf")).source == "masks"
    (tmp_path / "shelf" / "masks").rename(tmp_path / "shelf" / "more")
    (tmp_path / "shelf" / "images" / "z.csv").write_text("path,label\n0.png,a\n")
    guess = recognise(str(tmp_path / "shelf" / "images"))
    assert guess.source == "table" and guess.why == "z.csv has a column path"


@pytest.mark.parametrize("place", ["", "train/"])
def test_an_imagefolder_is_known_by_its_metadata(tmp_path, place):
    line = json.dumps({"file_name": "0.png", "objects": {"bbox": [[1, 1, 9, 9]], "categories": [0]}})
    guess = recognise(write(tmp_path / "mine", {f"{place}0.png": 0, f"{place}metadata.jsonl": line}))
    assert guess.source == "hub" and guess.why == f"{place}metadata.jsonl describes the pictures as datasets' imagefolder does"


@pytest.mark.parametrize(
    ("names", "path", "sizes"),
    [
        (["a.parquet", "b.parquet"], "/*.parquet", {"train": 8}),
        (["part1.parquet", "part2.parquet"], "", {"train": 4, "test": 4}),
        (["train.parquet", "test.parquet"], "", {"train": 4, "test": 4}),
        (["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"], "", {"train": 4, "test": 4}),
    ],
)
def test_parquet_with_pictures_is_known_and_keeps_its_splits(tmp_path, make, names, path, sizes):
    for start, name in enumerate(names):
        (tmp_path / "mine" / name).parent.mkdir(parents=True, exist_ok=True)
        pictures = [{"bytes": make.encode(make.picture(4 * start + i)), "path": None} for i in range(4)]
        rows = Dataset.from_dict({"image": pictures, "label": [0, 1, 0, 1]}, Features(image=Image(), label=ClassLabel(2)))
        rows.to_parquet(tmp_path / "mine" / name)
    if "part" in names[0]:
        card = "configs:\n- config_name: default\n  data_files:\n  - {split: train, path: part1.parquet}\n"
        (tmp_path / "mine" / "README.md").write_text(f"---\n{card}  - {{split: test, path: part2.parquet}}\n---\n# Mine\n")
    guess = recognise(str(tmp_path / "mine"))
    assert (guess.source, guess.options) == ("hub", {"path": f"{tmp_path / 'mine'}{path}"})
    splits = load(Config(path=str(tmp_path / "mine"), validation=0, test=0))
    assert {name: len(rows) for name, rows in splits.items()} == sizes


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_known_by_its_files(tmp_path, name):
    guess = recognise(write(tmp_path / "mine", LAYOUTS[name]))
    assert guess.source == name and guess.why


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("labels.csv", "table"),
        ("train.jsonl", "jsonl"),
        ("export.json", "labelstudio"),
        ("0.json", "labelme"),
        ("data.yaml", "yolo"),
    ],
)
def test_a_file_alone_is_known(tmp_path, name, source):
    write(tmp_path, LAYOUTS[source])
    assert recognise(str(tmp_path / name)).source == source


@pytest.mark.parametrize("name", ["folder", "masks", "table", "labelme"])
def test_what_is_taken_is_said_and_read_as_by_name(tmp_path, name, capsys):
    path = write(tmp_path / "mine", LAYOUTS[name])
    splits = load(Config(path=path, validation=0, test=0))
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith(f"data: {path!r} is taken for source={name}: ") and f"data.source={name}" in said
    own, _ = chosen(Config(path=path, validation=0, test=0))
    again = plug.load("data", name).load(own)
    assert {split: rows["id"][:] for split, rows in again.items()} == {split: rows["id"][:] for split, rows in splits.items()}


def test_options_are_handed_over_and_those_that_the_source_lacks_are_refused(tmp_path):
    path = write(tmp_path / "mine", LAYOUTS["table"])
    own, _ = chosen(Config(path=path, seed=3, on_error="skip", test=0.5, images=path))
    assert (own.source, own.seed, own.on_error, own.test, own.validation) == ("table", 3, "skip", 0.5, 0.15)
    with pytest.raises(UserError, match=r"data.test_from: .* looks like data.source=table \(labels.csv has a column path\)"):
        chosen(Config(path=path, test_from="val"))


@pytest.mark.parametrize("name", ["masks", "folder", "table"])
def test_names_of_classes_are_handed_over(tmp_path, name):
    first = {"masks": "1", "folder": "a", "table": "a"}[name]
    splits = load(Config(path=write(tmp_path / "mine", LAYOUTS[name]), validation=0, test=0, classes={first: "new"}))
    features = splits["train"].features
    assert "new" in (features["objects"]["category"].feature if name == "masks" else features["label"]).names


def test_two_layouts_are_refused_with_both_named(tmp_path):
    path = write(tmp_path, LAYOUTS["table"] | LAYOUTS["labelme"])
    with pytest.raises(UserError) as error:
        load(Config(path=path))
    said = str(error.value)
    assert (
        "could be table (labels.csv has a column path); labelme (0.json is of that form). Say which: data.source=table" in said
    )
    assert "\n" not in said


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"notes.txt": "hello", "a.bin": ""}, "has no pictures, and no annotations that are known. Have: .bin, .txt."),
        ({}, "has no pictures, and no annotations that are known. Have: nothing."),
    ],
)
def test_what_is_not_known_is_one_line_with_what_was_seen(tmp_path, files, said):
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError) as error:
        load(Config(path=write(tmp_path / "mine", files)))
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "said"), [("nowhere", "data.path: no folder 'nowhere'"), (__file__, "is no file that is known")]
)
def test_a_path_that_is_not_there_or_no_data_is_one_line(path, said):
    with pytest.raises(UserError) as error:
        load(Config(path=path))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_source_that_is_not_installed_is_the_ordinary_error(tmp_path, monkeypatch):
    monkeypatch.setattr(plug, "files", lambda folder: {"folder": plug.ROOT / "data" / "folder.py"})
    with pytest.raises(UserError, match="There is no source of data 'voc'"):
        load(Config(path=write(tmp_path, LAYOUTS["voc"])))
