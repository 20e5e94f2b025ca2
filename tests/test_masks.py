from __future__ import annotations

import numpy as np

from adapt.masks import box, rle, unrle


def test_run_lengths_are_cocos():
    mask = np.zeros((3, 4), bool)
    mask[1:, 2:] = True
    # by hand, down the columns: 7 zeros, 2 ones, 1 zero, 2 ones; the fourth count is written as its difference to the second
    assert rle(mask) == {"size": [3, 4], "counts": "7210"}
    assert np.array_equal(unrle(rle(mask)), mask)
    assert box(mask) == [2, 1, 4, 3]
    assert box(np.zeros((3, 4), bool)) == [0, 0, 0, 0]
