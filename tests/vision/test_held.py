"""Boxes and masks held against their pictures: what a source and `doctor` find are the same, by one check."""

from __future__ import annotations

import numpy as np
from pycocotools import mask as coco

from adapt.vision.held import standing, wrong_boxes, wrong_masks
from adapt.vision.masks import rle

SIZE = (24, 16)


def sizes(count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.tile(size, (count, 1))


def test_boxes_are_reversed_or_off_by_more_than_half_a_pixel():
    boxes = np.array([[0, 0, 24.5, 16], [5, 5, 4, 9], [np.nan, 5, 9, 9], [0, 0, 24.6, 16], [-0.6, 0, 9, 9], [3, 3, 3, 9]])
    assert [(i, kind) for i, kind, _ in wrong_boxes(boxes, sizes(6), range(6))] == [
        (1, "box reversed"),
        (2, "box reversed"),
        (3, "box off the image"),
        (4, "box off the image"),
        (5, "box reversed"),
    ]
    (one,) = wrong_boxes(boxes[3:4], sizes(1), [7])
    assert one[2] == "object 7: 0, 0, 24.6, 16; the image is 24 × 16"
    assert standing(boxes[3:4], sizes(1, (0, 0)))[1].all(), "on a picture of unknown size every box lies"


def test_masks_are_of_their_pictures_size_have_pixels_and_all_of_their_run_lengths():
    good = np.zeros(SIZE[::-1], bool)
    good[2:5, 3:9] = True
    large = rle(np.ones((99, 99), bool))["counts"]
    # of the last four pycocotools makes a mask with whatever lay in the memory, or raises
    texts = [large, rle(np.ones((3, 3), bool))["counts"], "", "zzz"]
    codes = [rle(good), None, rle(good.T), rle(~good & good), *({"size": [16, 24], "counts": text} for text in texts)]
    found = [(i, detail) for i, _, detail in wrong_masks(codes, sizes(8), range(8))]
    nothing = "no pixel, or no run lengths"
    assert found == [(2, "object 2: 16 × 24; the image is 24 × 16"), *((i, f"object {i}: {nothing}") for i in range(3, 8))]
    assert list(wrong_masks([rle(good.T)], sizes(1, (0, 0)), [0])) == []
    assert list(wrong_masks([], sizes(0), [])) == []
    assert coco.area({"size": [16, 24], "counts": large.encode()}) == 99 * 99, "its own area does not look at the size"
