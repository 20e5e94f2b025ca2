"""Boxes that are moved, masks that agree, and what is found twice, against the definitions written out."""

from __future__ import annotations

import numpy as np
import pytest

from adapt.prompting.agreed import MOST, distinct, jittered, medoid, shared


def masks(*spans: tuple[int, int]) -> np.ndarray:
    """Rows of a strip of 20 pixels."""
    out = np.zeros((len(spans), 1, 20), bool)
    for mask, (start, stop) in zip(out, spans, strict=True):
        mask[0, start:stop] = True
    return out


def test_moved_boxes_are_the_box_and_others_with_errors_of_a_share_of_its_sides():
    box = (100.0, 200.0, 200.0, 240.0)
    found = jittered(box, 4000, 0.1, (1000, 1000))
    assert found[0].tolist() == list(box)
    errors = found[1:] - np.array(box)
    assert np.allclose(errors.std(0), [10, 4, 10, 4], rtol=0.1) and np.abs(errors.mean(0)).max() < 1
    assert np.abs(errors).max() <= MOST
    assert (jittered(box, 9, 0.1, (1000, 1000)) == jittered(box, 9, 0.1, (1000, 1000))).all(), "the same each time"
    assert (jittered(box, 9, 0.1, (1000, 1000), seed=1)[1:] != jittered(box, 9, 0.1, (1000, 1000))[1:]).any()


@pytest.mark.parametrize("box", [(0, 0, 3, 2), (95, 0, 100, 50), (0, 0, 100, 50)])
def test_moved_boxes_stay_boxes_on_the_picture(box):
    found = jittered(box, 500, 0.8, (100, 50))
    assert (found[:, :2] < found[:, 2:]).all() and (found >= 0).all() and (found <= [100, 50, 100, 50]).all()


def test_the_mask_that_most_agree_on_has_the_largest_mean_iou_with_the_others():
    found = masks((0, 10), (0, 9), (1, 10), (12, 20))
    iou, _ = shared(found)
    assert iou[0, 1] == 9 / 10 and iou[1, 2] == 8 / 10 and iou[0, 3] == 0
    assert medoid(found) == (0, pytest.approx((0.9 + 0.9 + 0) / 3))
    assert medoid(found[:1]) == (0, 1.0)


def test_masks_that_overlap_or_lie_in_a_better_one_are_found_twice():
    found = masks((0, 10), (0, 9), (2, 5), (9, 19), (12, 13))
    scores = [0.5, 0.9, 0.8, 0.7, 0.6]
    assert distinct(found, scores, same=0.8, inside=0.9) == [1, 3]
    assert distinct(found, scores, same=0.8, inside=None) == [1, 2, 3, 4], "parts stay"
    assert distinct(found, scores, same=0.95, inside=None) == [1, 2, 3, 4, 0]
    assert distinct(found[:0], [], 0.8, 0.9) == []


def test_boxes_decide_nothing():
    """Two L-shaped masks fill one box and share no pixel."""
    pair = np.zeros((2, 8, 8), bool)
    pair[0, :, 0] = pair[0, 0] = True
    pair[1, :, 7] = pair[1, 7] = True
    pair[1] &= ~pair[0]
    assert distinct(pair, [0.5, 0.6], 0.5, 0.5) == [1, 0]
