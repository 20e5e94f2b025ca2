"""Objects of a picture → what SAM learns from, checked on the way."""

from __future__ import annotations

from typing import Any

from adapt.plug import UserError
from adapt.prompting.prompted import check_boxes
from adapt.vision.masks import unrle


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
