from __future__ import annotations

import numpy as np

from adapt.vision.masks import box, rle, singles, unrle


def test_run_lengths_are_cocos():
    mask = np.zeros((3, 4), bool)
    mask[1:, 2:] = True
    # by hand, down the columns: 7 zeros, 2 ones, 1 zero, 2 ones; the fourth count is written as its difference to the second
    assert rle(mask) == {"size": [3, 4], "counts": "7210"}
    assert np.array_equal(unrle(rle(mask)), mask)
    assert box(mask) == [2, 1, 4, 3]
    assert box(np.zeros((3, 4), bool)) == [0, 0, 0, 0]


def test_crowds_are_no_single_things():
    objects = {"bbox": [[0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 3, 3]], "category": [4, 5, 6], "iscrowd": [0, 1, 0], "mask": None}
    assert singles(objects) == {"bbox": [[0, 0, 1, 1], [2, 2, 3, 3]], "category": [4, 6], "iscrowd": [0, 0], "mask": None}
    for plain in ({"bbox": [], "category": []}, {"category": [1], "iscrowd": [0]}, {"category": [1], "iscrowd": None}):
        assert singles(plain) == plain
