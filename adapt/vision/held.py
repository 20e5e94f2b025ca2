"""Boxes and masks held against the pictures that they are on, in numpy, many at a time: one check for sources and for `doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from adapt.vision.masks import lengths

HALF = 0.5
"""Pixels by which a box may leave its picture: rounding."""


def standing(boxes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which boxes are any, and which of these lie on their pictures: bool[M] twice.

    Args:
        boxes: float[M, 4] XYXY, pixels.
        sizes: width and height of each one's picture, int[M, 2]; 0 where unknown, and then a box lies on it.
    """
    left, top, right, bottom = boxes.T
    width, height = sizes.T
    good = (left < right) & (top < bottom)
    off = (left < -HALF) | (top < -HALF) | (right > width + HALF) | (bottom > height + HALF)
    return good, good & ~(off & (width > 0))


def wrong_boxes(boxes: np.ndarray, sizes: np.ndarray, numbers: Sequence[int]) -> Iterator[tuple[int, str, str]]:
    """Boxes that are none or that leave their pictures: place among the M, kind (a key of `data.problems.KINDS`), detail.

    Args:
        boxes, sizes: see `standing`.
        numbers: of each object on its picture, for the detail.
    """
    good, on = standing(boxes, sizes)
    for i in np.flatnonzero(~on):
        where = f"object {numbers[i]}: {', '.join(f'{value:g}' for value in boxes[i])}"
        if not good[i]:
            yield int(i), "box reversed", where
        else:
            yield int(i), "box off the image", f"{where}; the image is {sizes[i][0]} × {sizes[i][1]}"


def wrong_masks(masks: Sequence[dict | None], sizes: np.ndarray, numbers: Sequence[int]) -> Iterator[tuple[int, str, str]]:
    """Masks (COCO RLE) of another size than their pictures, without a pixel, or whose run lengths are not those of their size.

    Args:
        masks: none: an object without one.
        sizes, numbers: as of `wrong_boxes`.
    """
    there = [i for i, code in enumerate(masks) if code is not None]
    pixels, whole = lengths([masks[i]["counts"] for i in there])
    for i, area, length in zip(there, pixels.tolist(), whole.tolist(), strict=True):
        height, width = masks[i]["size"] or (0, 0)
        picture = tuple(int(side) for side in sizes[i])
        if picture[0] and (width, height) != picture:
            said = f"{width} × {height}" if width else "no size"
            yield i, "mask off the image", f"object {numbers[i]}: {said}; the image is {picture[0]} × {picture[1]}"
        elif area <= 0 or length != width * height:
            yield i, "mask off the image", f"object {numbers[i]}: no pixel, or no run lengths"
