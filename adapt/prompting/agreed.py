"""Masks that agree: of a box that is moved a little many times, and of several words that mean one thing.

    boxes = jittered(box, 8, 0.1, size, seed=0)          # the box and seven like it
    best, agreement = medoid(masks)                      # the mask most like all others, and how like
    kept = distinct(masks, scores, same=0.8, inside=0.9) # without what is found twice, by pixels and not by boxes

Sources: noise of boxes as SAM is trained with, Kirillov et al. 2023, arXiv:2304.02643, §A: a standard deviation of a tenth of the side, at most 20
pixels. Duplicates by overlap and by containment: intersection over union, and intersection over the smaller mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NOISE, MOST = 0.1, 20.0
"""Of an edge: the errors' standard deviation, as a share of the box's side, and the largest, pixels."""


def jittered(box: Sequence[float], count: int, noise: float, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A box XYXY in pixels, and others whose edges are moved by normal errors: float32[count, 4]; the first is the box itself.

    Args:
        noise: standard deviation, as a share of the box's side; errors are cut at `MOST` pixels.
        size: width and height of the picture, which boxes do not leave.
    """
    sides = np.tile([box[2] - box[0], box[3] - box[1]], 2)
    errors = np.random.default_rng(seed).normal(0, noise, (count, 4)) * sides
    errors[0] = 0
    moved = np.asarray(box, float) + errors.clip(-MOST, MOST)
    corners = np.sort(moved.reshape(-1, 2, 2), 1)  # an edge that has passed the other
    corners = np.clip(corners, 0, size).reshape(-1, 4)
    empty = (corners[:, 2:] - corners[:, :2]).min(1) <= 0
    corners[empty] = box
    return corners.astype(np.float32)


def shared(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of masks bool[N, H, W]: intersection over union, and intersection over the smaller one, float64[N, N]; 0 where there are no pixels."""
    flat = masks.reshape(len(masks), masks.shape[1] * masks.shape[2]).astype(np.float32)
    both = (flat @ flat.T).astype(float)
    area = np.diag(both)
    either, smaller = area[:, None] + area[None] - both, np.minimum(area[:, None], area[None])
    return both / np.maximum(either, 1), both / np.maximum(smaller, 1)


def medoid(masks: np.ndarray) -> tuple[int, float]:
    """Of masks bool[N, H, W] the one with the largest mean IoU with all others, and that mean; 1 where it is alone."""
    iou, _ = shared(masks)
    if len(masks) == 1:
        return 0, 1.0
    means = (iou.sum(1) - np.diag(iou)) / (len(masks) - 1)
    return int(means.argmax()), float(means.max())


def distinct(masks: np.ndarray, scores: Sequence[float], same: float, inside: float | None) -> list[int]:
    """Numbers of the masks that stay, the best first: of two that are one thing the better stays.

    Args:
        masks: bool[N, H, W].
        scores: float[N].
        same: two masks of at least this IoU are one thing.
        inside: so are two of which this share of the smaller lies in the larger; none: parts of things stay.
    """
    iou, part = shared(masks)
    kept: list[int] = []
    for i in np.argsort(-np.asarray(scores, float), kind="stable").tolist():
        twice = any(iou[i, j] >= same or (inside is not None and part[i, j] >= inside) for j in kept)
        if not twice:
            kept.append(i)
    return kept
