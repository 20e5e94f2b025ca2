"""Bad pictures, boxes, masks and classes are found, each by its name."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as Stored
from PIL import Image

from adapt.data import emoji, scan
from adapt.data.check import check, check_rows
from adapt.data.problems import ANNOTATED, KINDS, LOOKED, Problem, Report
from adapt.plug import UserError
from adapt.vision.masks import rle
from adapt.vision.pictures import BOXES, MASKS, RGB


@pytest.fixture
def broken(photos, make, tmp_path):
    """One of everything in class folders cat and dog; the problem is the file's name."""
    cat = photos / "cat"
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [make.picture(i) for i in (60, 61)]
    files = {
        "truncated.jpg": make.encode(make.picture(50, (64, 64)))[:-500],
        "truncated.png": make.encode(make.picture(51, (64, 64)), "PNG")[:3000],
        "unreadable.png": b"no picture at all",
        "unreadable.heic": b"\0\0\0\x18ftypheic",
        "zero-size.jpg": b"",
        "decompression bomb.png": make.bomb(),
        "decompression bomb of the smaller kind.png": make.bomb(10_000, 10_000),
        "wrong mode, cmyk.jpg": make.encode(make.picture(52, mode="CMYK")),
        "16 bit.png": make.encode(Image.fromarray(np.full((4, 4), 9000, np.uint16)), "PNG"),
        "wrong mode, alpha.png": make.encode(make.picture(53, mode="RGBA"), "PNG"),
        "too thin.png": make.encode(make.picture(57, (1, 101)), "PNG"),
        "turned.jpg": make.encode(make.picture(54), exif=exif),
        "many frames.gif": make.encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "duplicate.jpg": (cat / "0.jpg").read_bytes(),
    }
    for name, data in files.items():
        (cat / name).write_bytes(data)
    (photos / "dog" / "two classes.jpg").write_bytes((cat / "1.jpg").read_bytes())
    (photos / "empty class").mkdir()
    (photos / "no class.jpg").write_bytes(make.encode(make.picture(55)))
    (tmp_path / "secret.jpg").write_bytes(make.encode(make.picture(56)))
    (cat / "leads outside.jpg").symlink_to(tmp_path / "secret.jpg")
    (cat / "link").symlink_to(tmp_path)
    (cat / "link in a circle").symlink_to(photos)
    (photos / "linked class or split").symlink_to(tmp_path)
    (cat / ".hidden.jpg").write_bytes(b"")
    (cat / "notes.txt").write_text("no picture")
    return photos


def test_each_problem_is_found_and_nothing_else(broken):
    report = check(broken)
    found = {(problem.id.split("/")[-1], problem.problem) for problem in report.problems}
    named = {(name, kind) for name, kind in found if kind in name}
    assert {kind for _, kind in named} == set(KINDS) - set(ANNOTATED) - set(LOOKED) - {
        "no fixed range",  # what files of other depths are: see tests/vision/test_depth.py
        "many channels",
        "fourth channel",
        "unseen class",
        "unused class",
        "leak",
        "box unreadable",  # what the source `hub` finds: see test_hub.py
        "bad line",  # what the source `jsonl` finds: see test_jsonl.py
        "no picture",
        "wrong locations",
        "box reversed",
        "box off the image",
        "mask off the image",
        "no mask",  # what the source `masks` finds: see test_masks.py
        "unreadable mask",
        "grey mask",
        "mask of another size",
        "unknown class",
        "empty mask",
        "mask alone",
    }
    assert found - named == {("many frames.gif", "wrong mode")}  # its palette
    assert len(named) == 21
    assert report.pictures == 20 + 14 + 1 + 1


def test_a_small_jpeg_is_a_picture(photos, make):
    (photos / "cat" / "small.jpg").write_bytes(make.encode(make.picture(70, (7, 5))))
    assert check(photos).problems == []


def test_the_list_can_be_written_and_read(broken, tmp_path):
    report = check(broken)
    with open(report.write(tmp_path / "list.csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [problem.id for problem in report.problems]
    assert all(row["todo"] for row in rows)
    assert json.loads(report.write(tmp_path / "list.json").read_text())["pictures"] == report.pictures


def test_a_picture_is_opened_again_only_when_it_has_changed(photos, monkeypatch):
    check(photos)
    opened = []
    inspect = scan.inspect
    monkeypatch.setattr(scan, "inspect", lambda value: opened.append(value["path"]) or inspect(value))
    (photos / "cat" / "0.jpg").write_bytes(b"cut")
    report = check(photos)
    assert [path[-9:] for path in opened] == ["cat/0.jpg"]
    assert report.counts() == {"unreadable": 1}


def test_a_picture_of_the_same_size_and_time_is_opened_again(photos):
    """`cp -p` keeps the time, and other content may have the same length."""
    check(photos)
    spoil(photos / "cat" / "0.jpg")
    assert check(photos).counts() == {"unreadable": 1}


def test_rows_of_pictures_are_looked_at_again_as_well(photos):
    rows = Dataset.from_dict({"image": [str(photos / "cat" / "0.jpg")]}, Features(image=RGB()))
    assert check_rows(DatasetDict(train=rows)).counts() == {}
    spoil(photos / "cat" / "0.jpg")
    assert check_rows(DatasetDict(train=rows)).counts() == {"unreadable": 1}


def spoil(path):
    """Other bytes, as many as before, with the time of before."""
    before = path.stat()
    path.write_bytes(b"\0" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("rows", [False, True])
def test_an_error_of_the_disk_is_not_remembered_and_an_empty_file_is(photos, monkeypatch, rows):
    (photos / "cat" / "3.jpg").write_bytes(b"")
    files = [str(path) for path in sorted(photos.rglob("*.jpg"))]
    read, opened, broken = Path.read_bytes, [], [str(photos / "cat" / "5.jpg")]

    def read_bytes(path: Path) -> bytes:
        opened.append(str(path))
        if str(path) in broken:
            raise OSError(5, "Input/output error")
        return read(path)

    def found() -> dict[str, int]:
        data = Dataset.from_dict({"id": files, "image": files}, Features(id=Value("string"), image=Stored()))
        return (check_rows(DatasetDict(train=data)) if rows else check(photos)).counts()

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert found() == {"unreadable": 1, "zero-size": 1}
    broken.clear()
    assert found() == {"zero-size": 1}
    opened.clear()
    assert found() == {"zero-size": 1} and not opened


def test_a_look_that_cannot_be_remembered_is_still_a_look(photos, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert check(photos).problems == []


def test_the_embedded_world_is_clean():
    report = check(emoji.load(emoji.Config()))
    assert report.pictures == 849
    assert report.severe == []


def test_problems_print_as_one_line_with_what_to_do():
    problem = Problem("cat/0.jpg", "train", "truncated", "image file is truncated")
    assert (
        str(problem) == "train: 'cat/0.jpg': truncated (image file is truncated); copy or download the file again, or delete it"
    )


def test_a_long_list_of_errors_is_cut_and_says_so():
    report = Report(50, [Problem(str(i), "", "zero-size") for i in range(50)])
    lines = str(report.error("data.path")).splitlines()
    assert len(lines) == 12
    assert "40 more" in lines[10]


def rows(make, boxes, masks, label=0, seed=0, names=("a", "b")):
    features = Features(
        id=Value("string"),
        image=RGB(),
        label=ClassLabel(names=list(names)),
        objects={"bbox": BOXES, "category": [Value("int32")], "mask": MASKS},
    )
    image = {"bytes": make.encode(make.picture(seed, (24, 16)), "PNG"), "path": None}
    objects = {"bbox": boxes, "category": [0] * len(boxes), "mask": masks}
    return Dataset.from_dict({"id": ["x"], "image": [image], "label": [label], "objects": [objects]}, features)


GOOD = np.ones((16, 24), bool)


@pytest.mark.parametrize(
    ("box", "mask", "problems"),
    [
        ([0, 0, 24, 16], rle(GOOD), []),
        ([0, 0, 24.4, 16], rle(GOOD), []),
        ([5, 5, 4, 9], rle(GOOD), ["box reversed"]),
        ([5, 5, 5, 9], rle(GOOD), ["box reversed"]),
        ([float("nan"), 5, 9, 9], rle(GOOD), ["box reversed"]),
        ([0, 0, 30, 16], rle(GOOD), ["box off the image"]),
        ([-3, 0, 9, 16], rle(GOOD), ["box off the image"]),
        ([0, 0, 9, 9], rle(GOOD.T), ["mask off the image"]),
        ([0, 0, 9, 9], rle(~GOOD), ["mask off the image"]),
        ([0, 0, 9, 9], {"size": [16, 24], "counts": rle(np.ones((99, 99), bool))["counts"]}, ["mask off the image"]),
    ],
)
def test_boxes_and_masks_are_held_against_the_image(make, box, mask, problems):
    report = check(rows(make, [box], [mask], names=["a"]))
    assert [problem.problem for problem in report.problems] == problems


def test_boxes_of_a_turned_picture_are_in_the_pixels_that_are_seen(make):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = {"bytes": make.encode(make.picture(size=(24, 16)), exif=exif), "path": None}
    features = Features(image=RGB(), objects={"bbox": BOXES})
    dataset = Dataset.from_dict({"image": [data], "objects": [{"bbox": [[0, 0, 16, 24]]}]}, features)
    assert check(dataset).counts() == {"turned": 1}


def test_leaks_and_classes_across_splits(make):
    parts = {
        "train": rows(make, [], [], label=0, names="abc"),
        "validation": rows(make, [], [], label=1, seed=1, names="abc"),
        "test": rows(make, [], [], label=0, names="abc"),
    }
    found = {(problem.split, problem.id, problem.problem) for problem in check(DatasetDict(parts)).problems}
    assert found == {("test", "x", "leak"), ("validation", "b", "unseen class"), ("train", "c", "unused class")}


def test_a_missing_and_an_empty_folder_are_user_errors(tmp_path, photos):
    with pytest.raises(UserError, match=r"Did you mean '.*photos'"):
        check(tmp_path / "photo")
    with pytest.raises(UserError, match="source=hub"):
        check(photos / "cat" / "0.jpg")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="no pictures"):
        check(tmp_path / "nothing")
