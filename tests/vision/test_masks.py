from __future__ import annotations

import numpy as np
from pycocotools import mask as coco

from adapt.vision.masks import box, corners, lengths, rle, singles, unrle, window


def test_run_lengths_are_cocos():
    mask = np.zeros((3, 4), bool)
    mask[1:, 2:] = True
    # by hand, down the columns: 7 zeros, 2 ones, 1 zero, 2 ones; the fourth count is written as its difference to the second
    assert rle(mask) == {"size": [3, 4], "counts": "7210"}
    assert np.array_equal(unrle(rle(mask)), mask)
    assert box(mask) == [2, 1, 4, 3]
    assert box(np.zeros((3, 4), bool)) == [0, 0, 0, 0]


def test_run_lengths_are_counted_as_pycocotools_draws_them():
    random = np.random.default_rng(0)
    masks = [random.random(random.integers(1, 90, 2)) < random.choice([0, 0.02, 0.5, 1]) for _ in range(200)]
    masks.append(np.zeros((3000, 2000), bool))  # a number of five characters
    masks[-1][100:2900, 100:1900] = True
    area, whole = lengths([rle(mask)["counts"] for mask in masks])
    assert area.tolist() == [int(mask.sum()) for mask in masks] and whole.tolist() == [mask.size for mask in masks]


def test_a_window_is_what_the_box_of_the_whole_mask_encloses():
    random = np.random.default_rng(0)
    masks = [random.random(random.integers(1, 90, 2)) < random.choice([0.001, 0.02, 0.5, 1]) for _ in range(200)]
    masks = [mask for mask in masks if mask.any()]
    for mask, found in zip(masks, corners([rle(mask) for mask in masks]), strict=True):
        part, top, left = window(rle(mask))
        x, y, right, bottom = (int(value) for value in box(mask))
        assert (left, top, left + part.shape[1], top + part.shape[0]) == (x, y, right, bottom) == tuple(found)
        assert (part == mask[y:bottom, x:right]).all()
    assert corners([]).shape == (0, 4)


def test_texts_that_are_no_run_lengths_are_told_from_those_that_are():
    uneven = coco.frPyObjects({"size": [3, 4], "counts": [7, 2, 1, 2]}, 3, 4)["counts"].decode()
    minus = "720" + chr(48 + 0b11101)  # the fourth number is 2 - 3
    area, whole = lengths([uneven, "", None, "7Q", minus, "o" * 20 + "0", "\n", "72"])
    assert area.tolist() == [4, 0, 0, -1, -1, -1, -1, 2] and whole.tolist() == [12, 0, 0, -1, -1, -1, -1, 9]
    assert [len(values) for values in lengths([])] == [0, 0]


def test_crowds_are_no_single_things():
    objects = {"bbox": [[0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 3, 3]], "category": [4, 5, 6], "iscrowd": [0, 1, 0], "mask": None}
    assert singles(objects) == {"bbox": [[0, 0, 1, 1], [2, 2, 3, 3]], "category": [4, 6], "iscrowd": [0, 0], "mask": None}
    for plain in ({"bbox": [], "category": []}, {"category": [1], "iscrowd": [0]}, {"category": [1], "iscrowd": None}):
        assert singles(plain) == plain
