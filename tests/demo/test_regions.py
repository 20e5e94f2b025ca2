"""What is marked: steps that can be taken back, the drawing, and the three files."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from adapt.demo.parts import Upload, shown
from adapt.demo.regions import PALETTE, Marks, Region, coco, cut_out, drawn, numbered
from adapt.plug import UserError
from adapt.vision.draw import TRUE
from adapt.vision.masks import unrle

SIZE = (90, 60)


def block(left: int, top: int, right: int, bottom: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size[::-1], bool)
    mask[top:bottom, left:right] = True
    return mask


@pytest.fixture
def marks() -> Marks:
    """Two cats and a dog, and something that SAM found nothing of."""
    upload = Upload("photo.jpg", SIZE)
    masks = (
        ("cat", block(5, 5, 25, 20)),
        ("dog", block(20, 15, 50, 40)),
        ("cat", block(70, 30, 90, 60)),
        ("bus", block(0, 0, 0, 0)),
    )
    return Marks(upload).add(*(Region.of(upload, name, mask, 0.5) for name, mask in masks))


def test_each_step_can_be_taken_back(marks):
    with_point = marks.at(1).put(Region.of(marks.upload, "fox", block(0, 0, 9, 9), 0.4, points=((3, 4, True),)))
    assert [one.name for one in with_point.regions] == ["cat", "fox", "cat", "bus"]
    without = with_point.put(None)
    assert [one.name for one in without.regions] == ["cat", "cat", "bus"] and without.active is None
    cornered = without.step(corner=(1, 2))
    assert cornered.undone().corner is None and cornered.undone().undone().regions == with_point.regions
    assert without.undone().undone().undone().regions == ()
    renamed = marks.called(0, "lynx")
    assert [one.name for one in renamed.regions] == ["lynx", "dog", "cat", "bus"] and renamed.undone().regions == marks.regions
    assert marks.called(0, "cat") is marks and marks.called(None, "lynx") is marks
    with pytest.raises(UserError, match="nothing to take back"):
        Marks(marks.upload).undone()


def test_no_more_regions_than_a_png_can_number(marks):
    with pytest.raises(UserError, match="room for 255 regions"):
        marks.add(*marks.regions * 64)


def test_the_png_has_a_number_a_region_and_their_names(marks):
    picture = Image.open(io.BytesIO(numbered(marks)))
    numbers = np.asarray(picture)
    assert (picture.mode, picture.size) == ("P", SIZE)
    assert json.loads(picture.text["regions"]) == ["cat", "dog", "cat", "bus"]
    for number, region in enumerate(marks.regions, 1):
        assert (numbers[unrle(region.mask)] >= number).all(), "the later one is above"
    assert set(np.unique(numbers)) == {0, 1, 2, 3}
    assert picture.convert("RGB").getpixel((30, 30)) == PALETTE[1], "as on the page"


def test_the_json_is_read_by_pycocotools_and_is_lossless(marks, tmp_path, capsys):
    (tmp_path / "coco.json").write_bytes(coco(marks, "photo.jpg"))
    data = COCO(tmp_path / "coco.json")
    assert [data.cats[one["category_id"]]["name"] for one in data.anns.values()] == ["cat", "dog", "cat"]
    for one, region in zip(data.anns.values(), marks.regions, strict=False):
        assert (data.annToMask(one).astype(bool) == unrle(region.mask)).all()
        assert one["area"] == region.pixels
    assert data.anns[1]["bbox"] == [5, 5, 20, 15]
    assert data.imgs[1] == {"id": 1, "file_name": "photo.jpg", "width": 90, "height": 60}


def test_where_nothing_was_found_the_json_has_empty_lists(marks):
    for empty in (Marks(marks.upload), Marks(marks.upload).add(marks.regions[3])):
        found = json.loads(coco(empty, "photo.jpg"))
        assert (found["annotations"], found["categories"], len(found["images"])) == ([], [], 1)


def test_the_cut_out_is_clear_outside_and_has_no_colour_there(marks):
    photo = Image.fromarray(np.random.default_rng(0).integers(1, 255, (60, 90, 3), np.uint8))
    found = np.asarray(Image.open(io.BytesIO(cut_out(marks, photo))))
    inside = np.logical_or.reduce([unrle(one.mask) for one in marks.regions])[5:60, 5:90]
    assert (found[..., 3] == 255 * inside).all()
    assert (found[inside][:, :3] == np.asarray(photo)[5:60, 5:90][inside]).all() and not found[~inside].any()
    with pytest.raises(UserError, match="Nothing is marked"):
        cut_out(Marks(marks.upload), photo)


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (2000, 1500), (1500, 2000)])
def test_masks_and_clicks_are_drawn_where_they_are(size):
    wide, high = size
    upload = Upload("photo.jpg", size)
    mask = block(wide // 4, high // 4, wide // 2, 3 * high // 4, size)
    region = Region.of(upload, "cat", mask, 1, points=((0.375 * wide, high / 2, True), (0.75 * wide, high / 2, False)))
    picture = shown(Image.new("RGB", size, "white"))
    found = np.asarray(drawn(picture, Marks(upload).add(region))).astype(int)
    height, width = found.shape[:2]
    at = lambda x, y: tuple(found[int(y * height), int(x * width)])  # noqa: E731
    assert at(0.1, 0.5) == at(0.6, 0.3) == (255, 255, 255)
    assert at(0.375, 0.5) == TRUE and at(0.75, 0.5) == PALETTE[1], "the clicks"
    assert at(0.375, 0.35) not in ((255, 255, 255), PALETTE[0]), "a veil"
    changed = np.abs(found - 255).sum(-1) > 0
    rows, columns = changed[:, : int(0.6 * width)].nonzero()
    ends = np.array([columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height])
    assert ends == pytest.approx([0.25, 0.25, 0.5, 0.75], abs=0.03)
    assert at(0.252, 0.5) == PALETTE[0], "the contour"
