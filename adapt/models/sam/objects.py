"""Objects of a picture → what SAM learns from, checked on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from adapt.plug import UserError
from adapt.vision.masks import unrle


def check_boxes(boxes: Sequence, width: int, height: int, where: str) -> np.ndarray:
    """Boxes XYXY in pixels of a picture → float32[N, 4].

    Raises:
        UserError: a box is no four numbers, reversed, or leaves the picture by more than half a pixel.
    """
    try:
        values = np.asarray(boxes, np.float32).reshape(-1, 4)
    except (ValueError, TypeError):
        raise UserError(
            f"{where}: boxes are four numbers each: left, top, right, bottom in pixels; got {boxes!r:.80}."
        ) from None
    for number, (left, top, right, bottom) in enumerate(values.tolist()):
        text = f"{where}: box {number} ({left:g}, {top:g}, {right:g}, {bottom:g})"
        if not (left < right and top < bottom):
            raise UserError(f"{text} is reversed or empty. Write left, top, right, bottom with left < right and top < bottom.")
        if not (left >= -0.5 and top >= -0.5 and right <= width + 0.5 and bottom <= height + 0.5):
            raise UserError(f"{text} leaves its picture of {width} × {height} pixels. Clip it to the picture.")
    return values


def check_points(points: Any, width: int, height: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """(coordinates [N, K, 2] XY in pixels of a picture, labels [N, K]: 1 inside, 0 outside) → float32 and int64 of these shapes.

    Raises:
        UserError: the shapes do not fit, a label is another, or a point is off the picture.
    """
    try:
        coordinates, labels = np.asarray(points[0], np.float32), np.asarray(points[1], np.int64)
    except (ValueError, TypeError, IndexError):
        coordinates, labels = np.zeros(0), np.zeros(0)
    if coordinates.ndim != 3 or coordinates.shape[2] != 2 or labels.shape != coordinates.shape[:2]:
        raise UserError(
            f"{where}: points are a pair: float[N, K, 2] (X, Y in pixels) and int[N, K] (1 inside, 0 outside) for N masks."
        )
    if not np.isin(labels, (0, 1)).all():
        raise UserError(f"{where}: a point's label is 1 (inside) or 0 (outside); got {sorted(set(labels.flat))}.")
    if not ((coordinates >= -0.5) & (coordinates <= np.array([width, height]) + 0.5)).all():
        raise UserError(f"{where}: a point leaves its picture of {width} × {height} pixels.")
    return coordinates, labels


def check_objects(objects: dict[str, Any], width: int, height: int, where: str) -> dict[str, list]:
    """The objects of a training sample: as many boxes as masks, on the picture, none of them empty.

    Returns:
        `bbox` [N][4], XYXY in pixels of the picture, and `mask` [N], COCO RLE.

    Raises:
        UserError: with the object's number and what is wrong with it.
    """
    masks, boxes = objects.get("mask") or [], objects.get("bbox") or []
    if len(masks) != len(boxes):
        raise UserError(f"{where}: {len(boxes)} boxes and {len(masks)} masks. SAM learns from objects that have both.")
    for number, code in enumerate(masks):
        if tuple(code["size"]) != (height, width):
            have = f"{code['size'][1]} × {code['size'][0]}"
            raise UserError(f"{where}: mask {number} has {have} pixels, its picture {width} × {height}. They must be the same.")
        if _empty(code):
            raise UserError(f"{where}: mask {number} is empty. Give it at least one pixel, or leave the object out.")
    return {"bbox": check_boxes(boxes, width, height, where).tolist(), "mask": masks}


def _empty(code: dict) -> bool:
    """Has a mask no pixel? So also when its run lengths cannot be read."""
    try:
        return not unrle(code).any()
    except ValueError:
        return True
