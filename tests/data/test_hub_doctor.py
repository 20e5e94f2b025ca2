"""`adapt doctor data` of hub data sets: what is there and what is wrong, for each kind of annotation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from PIL import Image as Picture

from adapt.data import auto, hub
from adapt.verbs.doctor import look
from adapt.verbs.doctoring.request import Request


@pytest.fixture
def examined(tmp_path, monkeypatch):
    """The exit status and what JSON has, of a config."""

    def run(config):
        monkeypatch.chdir(tmp_path)
        status, found = look(config, Request(sheet="sheet.html"))
        page = (tmp_path / "sheet.html").read_text()
        return status, found, page

    return run


def test_boxes_and_masks_of_an_imagefolder_are_counted_drawn_and_doubted(tmp_path, make, examined, capsys):
    (tmp_path / "set").mkdir()
    lines = []
    for i in range(6):
        make.picture(i, (64, 48)).save(tmp_path / "set" / f"{i}.png")
        boxes = [[30.0, 20, 20, 20], [30.5, 20, 20, 20], [1, 1, 2, 2]] if i == 1 else [[40.0, 30, 20, 10]]
        if i == 2:
            boxes = [[50.0, 30, 40, 10]]
        shapes = [[[x, y, x + w, y, x + w, y + h]] for x, y, w, h in boxes]
        objects = {
            "bbox": boxes,
            "categories": ["cat"] * len(boxes),
            "segmentation": shapes if i != 2 else [[[1, 1, 9, 1, 9, 9]]],
        }
        lines.append(json.dumps({"file_name": f"{i}.png", "objects": objects}))
    (tmp_path / "set" / "metadata.jsonl").write_text("\n".join(lines))
    status, found, page = examined(hub.Config(path=str(tmp_path / "set"), boxes="xywh"))
    kinds = {(problem["id"], problem["problem"]) for problem in found["problems"]}
    assert kinds == {("train/1", "object twice"), ("train/1", "tiny box"), ("train/2", "box off the image")}
    assert status == 2 and page.count("<svg") >= 5 and page.count("<rect") >= 7
    (row,) = found["splits"]
    assert (row["pictures"], row["objects"], row["left_out"]) == (5, 7, 1)
    assert "objects in train: 7" in capsys.readouterr().out


def test_class_maps_of_a_saved_folder_are_counted_and_flat_ones_told(tmp_path, make, examined):
    maps = [np.zeros((16, 24), np.uint8) for _ in range(8)]
    for i, each in enumerate(maps[1:], 1):
        each[:8] = 1 + i % 2
    maps[7][:] = 2
    columns = {
        "image": [{"bytes": make.encode(make.picture(i), "PNG"), "path": None} for i in range(8)],
        "annotation": [{"bytes": make.encode(Picture.fromarray(each), "PNG"), "path": None} for each in maps],
        "video": [i // 2 for i in range(8)],
    }
    rows = Dataset.from_dict(columns, Features(image=Image(), annotation=Image(), video=Value("int64")))
    DatasetDict(train=rows.select(range(4)), validation=rows.select(range(3, 8))).save_to_disk(tmp_path / "set")
    status, found, _ = examined(hub.Config(path=str(tmp_path / "set"), group="video"))
    kinds = {(problem["id"], problem["problem"]) for problem in found["problems"]}
    assert ("train/0", "empty mask") in kinds and ("validation/4", "map of one value") in kinds
    assert ("validation/0", "leak") in kinds and ("1", "group in two splits") in kinds
    assert status == 0 and [row["objects"] for row in found["splits"]] == [3, 5]


def test_a_saved_folder_of_classes_is_examined_by_its_path_alone(tmp_path, make, examined, capsys):
    images = [{"bytes": make.encode(make.picture(i)), "path": None} for i in range(8)]
    label = ClassLabel(names=["cat", "dog", "owl"])
    rows = Dataset.from_dict({"image": images, "label": [0, 1] * 4}, Features(image=Image(), label=label))
    rows.save_to_disk(tmp_path / "set")
    status, found, _ = examined(auto.Config(path=str(tmp_path / "set"), validation=0, test=0, classes={"dog": "Dog"}))
    assert "is taken for source=hub" in capsys.readouterr().out
    assert status == 0 and found["splits"][0]["picture_classes"] == {"cat": 4, "Dog": 4, "owl": 0}
