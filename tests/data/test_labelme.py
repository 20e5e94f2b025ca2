"""LabelMe's files: shapes become objects, and one clear line for each way to be wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from adapt.data.check import check
from adapt.data.labelme import Config, load
from adapt.plug import UserError
from adapt.vision.masks import unrle

WIDTH, HEIGHT = 80, 60


@pytest.fixture
def folder(tmp_path, make):
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(4):
        (root / f"{i}.jpg").write_bytes(make.encode(make.picture(i, (WIDTH, HEIGHT))))
    return root


def shape(kind: str, *points, label: str = "cat", **other) -> dict:
    return {
        "label": label,
        "points": [list(point) for point in points],
        "shape_type": kind,
        "group_id": None,
        "flags": {},
    } | other


def content(*shapes, picture: str = "0.jpg", **other) -> dict:
    """As LabelMe 5 writes it."""
    size = {"imageHeight": HEIGHT, "imageWidth": WIDTH}
    return {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": picture, "imageData": "AAAA", **size} | other


def write(root, *shapes, name: str = "0", **other):
    picture = f"{name.rpartition('/')[2]}.jpg"
    (root / f"{name}.json").write_text(json.dumps(content(*shapes, **{"picture": picture} | other)))


def objects(root, **options):
    return load(Config(path=str(root), validation=0, test=0, **options))["train"]["objects"][:]


def test_rectangles_alone_are_boxes_whatever_corner_was_first(folder):
    write(folder, shape("rectangle", (50, 40), (10.5, 20)), shape("rectangle", (0, 0), (80, 60), label="dog"))
    (found,) = objects(folder)
    assert found == {"bbox": [[10.5, 20, 50, 40], [0, 0, 80, 60]], "category": [0, 1], "iscrowd": [0, 0]}


def test_polygons_have_masks_as_pillow_draws_them(folder):
    corners = [(10, 10), (60, 15), (40, 50)]
    write(folder, shape("polygon", *corners))
    (found,) = objects(folder)
    drawn, edge = Image.new("1", (WIDTH, HEIGHT)), Image.new("1", (WIDTH, HEIGHT))
    ImageDraw.Draw(drawn).polygon(corners, fill=1)
    ImageDraw.Draw(edge).line([*corners, corners[0]], fill=1, width=3)
    theirs, ours = np.asarray(drawn), unrle(found["mask"][0])
    assert found["bbox"] == [[10, 10, 60, 50]]
    assert not ((theirs ^ ours) & ~np.asarray(edge)).any(), "they differ within a pixel of the outline alone"
    area = abs(sum(x * v - u * y for (x, y), (u, v) in zip(corners, corners[1:] + corners[:1], strict=True))) / 2
    assert ours.sum() == pytest.approx(area, rel=0.02), "the shoelace formula"


def test_a_circle_is_a_disc_around_its_first_point_and_is_cut_at_the_edge(folder):
    write(folder, shape("circle", (30, 30), (30, 20)), shape("circle", (75, 30), (75, 20)))
    (found,) = objects(folder)
    assert found["bbox"] == [[20, 20, 40, 40], [65, 20, 80, 40]]
    assert unrle(found["mask"][0]).sum() == pytest.approx(np.pi * 100, rel=0.02)


def test_among_outlines_a_box_is_its_own_mask_and_that_is_told(folder):
    write(folder, shape("polygon", (10, 10), (60, 15), (40, 50)), shape("rectangle", (5, 6), (10, 20)))
    splits = load(Config(path=str(folder), validation=0, test=0))
    mask = unrle(splits["train"][0]["objects"]["mask"][1])
    assert mask[6:20, 5:10].all() and mask.sum() == 14 * 5
    assert [(each.problem, each.detail) for each in splits.report.problems] == [("boxes as masks", "1 box among outlines")]
    assert check(splits["train"]).problems == []


def test_shapes_of_one_group_are_one_thing(folder):
    parts = [shape("polygon", (x, 10), (x + 10, 10), (x + 10, 20), (x, 20), group_id=1) for x in (10, 40)]
    write(folder, *parts, shape("rectangle", (0, 0), (5, 5), label="dog", group_id=1))
    (found,) = objects(folder)
    assert found["bbox"] == [[10, 10, 50, 20], [0, 0, 5, 5]] and unrle(found["mask"][0]).sum() == 200


def test_points_lines_and_flags_are_passed_over_with_a_count(folder):
    marks = [shape("point", (3, 3)), shape("line", (1, 1), (5, 5)), shape("linestrip", (1, 1), (5, 5), (7, 1))]
    write(folder, *marks, shape("rectangle", (0, 0), (9, 9), flags={"occluded": True}), flags={"blurred": True, "night": False})
    splits = load(Config(path=str(folder), validation=0, test=0))
    assert [each.detail for each in splits.report.problems] == ["flags: 2 times", "points: 1 time", "lines: 2 times"]
    assert len(splits["train"][0]["objects"]["bbox"]) == 1


def test_folders_are_splits_and_pictures_without_a_file_are_unlabelled(folder, make):
    for split in ("train", "val"):
        (folder / split).mkdir()
        (folder / split / "x.jpg").write_bytes(make.encode(make.picture(len(split), (WIDTH, HEIGHT))))
        write(folder, shape("rectangle", (0, 0), (9, 9)), name=f"{split}/x")
    splits = load(Config(path=str(folder), test=0))
    assert splits["train"]["id"][:] == ["train/x.jpg"] and splits["validation"]["id"][:] == ["val/x.jpg"]
    assert len(splits["unlabelled"]) == 4


def test_an_empty_file_says_that_nothing_is_there(folder):
    write(folder, shape("rectangle", (0, 0), (9, 9)))
    write(folder, name="1")
    assert [len(each["bbox"]) for each in objects(folder)] == [1, 0]


@pytest.mark.parametrize("path", ["../photos/0.jpg", "..\\photos\\0.jpg"])
def test_files_in_a_folder_of_their_own_find_their_pictures(folder, tmp_path, path):
    (tmp_path / "labels").mkdir()
    write(tmp_path / "labels", shape("rectangle", (0, 0), (9, 9)), picture=path)
    assert load(Config(path=str(tmp_path), validation=0, test=0))["train"]["id"][:] == ["photos/0.jpg"]
    splits = load(Config(path=str(tmp_path / "labels"), images=str(folder), validation=0, test=0))
    assert splits["train"]["id"][:] == ["0.jpg"]


TRIANGLE = [(10, 10), (60, 15), (40, 50)]
BAD = {
    "cut": ('{"shapes": [', "bad annotation (line 1: it is not JSON: Expecting value)"),
    "deep": ("[" * 100_000, "bad annotation (nested too deeply)"),
    "long number": ('{"shapes": [' + "1" * 5000 + "]}", "bad annotation (a number with thousands of digits)"),
    "not text": (b'{"shapes": "\xff"}', "bad annotation (it is not UTF-8 text)"),
    "no shapes": (content() | {"shapes": None}, "bad annotation (shapes must be a list, got 'None')"),
    "no picture's name": (content() | {"imagePath": 3}, "bad annotation (imagePath must be the picture's name, got '3')"),
    "no picture": (content(picture="9.jpg"), "no picture (no picture '9.jpg' in"),
    "outside": (content(picture="../../secret.jpg"), "leads outside ('../../secret.jpg' lies outside"),
    "absolute": (content(picture="/etc/passwd"), "leads outside ('/etc/passwd' lies outside"),
    "no label": (content(shape("polygon", *TRIANGLE, label="")), "(shape 0 (''): label must be a text)"),
    "no object": (content("shape"), "bad annotation (shape 0 must be an object, got 'shape')"),
    "two points": (content(shape("polygon", *TRIANGLE[:2])), "(shape 0 ('cat'): a polygon of 2 points; it needs 3)"),
    "one corner": (content(shape("rectangle", (1, 2))), "(shape 0 ('cat'): a rectangle of 1 points; it needs 2)"),
    "words": (content(shape("polygon", ("a", "b"), *TRIANGLE)), "(shape 0 ('cat'): points must be numbers"),
    "infinite": (content(shape("rectangle", (1, 1), (float("inf"), 2))), "(shape 0 ('cat'): points must be numbers"),
    "huge": (content(shape("rectangle", (1, 1), (10**400, 2))), "(shape 0 ('cat'): points must be numbers"),
    "odd kind": (
        content(shape("rectangle", (1, 1), (2, 2), shape_type=[1])),
        "(shape 0 ('cat'): shape_type '[1]' cannot be read",
    ),
    "half a character": (content(shape("polygon", *TRIANGLE, label="\ud800")), "bad annotation (half a character, '\\ud800')"),
    "no pairs": (content(shape("polygon", (1, 2, 3), *TRIANGLE)), "(shape 0 ('cat'): points must be a list of x and y"),
    "unknown shape": (content(shape("star", *TRIANGLE)), "shape_type 'star' cannot be read; draw a rectangle, circle, polygon"),
    "no area": (content(shape("rectangle", (5, 5), (5, 9))), "box reversed (0.json, shape 0 ('cat'): 5, 5, 5, 9)"),
    "off": (
        content(shape("rectangle", (5, 5), (99, 9))),
        "box off the image (0.json, shape 0 ('cat'): 5, 5, 99, 9; the image is 80 × 60)",
    ),
    "disc off": (content(shape("circle", (300, 5), (301, 5))), "mask without pixels (0.json, shape 0 ('cat'))"),
    "other size": (content(imageHeight=61), "picture of another size (0.json: 80 × 60; the annotations say 80 × 61)"),
}


@pytest.mark.parametrize("way", BAD)
def test_a_file_that_cannot_be_used_is_one_line_and_skip_goes_on(folder, way):
    bad, said = BAD[way]
    for name in "123":
        write(folder, shape("rectangle", (0, 0), (9, 9)), name=name)
    data = bad if isinstance(bad, bytes) else (bad if isinstance(bad, str) else json.dumps(bad)).encode()
    (folder / "0.json").write_bytes(data)
    with pytest.raises(UserError) as error:
        load(Config(path=str(folder)))
    text = str(error.value)
    assert text.startswith("data.path: '0.") and "0.json" in text and said in text and "\n" not in text, text
    splits = load(Config(path=str(folder), validation=0, test=0, on_error="skip"))
    assert splits["train"]["id"][:] == ["1.jpg", "2.jpg", "3.jpg"] and len(splits.report.severe) == 1


def test_two_files_of_one_picture_are_one_line(folder):
    for name in "ab":
        write(folder, shape("rectangle", (0, 0), (9, 9)), name=name, picture="0.jpg")
    with pytest.raises(UserError, match=r"'b.json': named twice \('0.jpg' is the picture of 'a.json' already\)"):
        load(Config(path=str(folder)))


def test_a_huge_file_is_not_read(folder):
    with open(folder / "0.json", "wb") as stream:
        stream.truncate(2 << 30)
    with pytest.raises(UserError, match=r"'0.json': bad annotation \(2.0 GB; files of up to 1 GB are read\)"):
        load(Config(path=str(folder)))


def test_a_folder_without_such_files_is_one_line(folder):
    with pytest.raises(UserError, match="no JSON file of LabelMe's in"):
        load(Config(path=str(folder)))
