"""Objects of a picture → what SAM learns from, checked on the way, and as a random view shows them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.contracts import Augment
from adapt.models.sam import prompts
from adapt.plug import UserError
from adapt.prompting.prompted import check_boxes
from adapt.vision.augment import augment_map
from adapt.vision.masks import corners, lengths, rle, window

LEAST = 16
"""Pixels of the input that a random view must leave of an object."""


def check_objects(objects: dict[str, Any], width: int, height: int, where: str) -> dict[str, list]:
    """The objects of a training sample: as many boxes as masks, on the picture, none of them empty. No mask is drawn for it.

    Returns:
        `bbox` [N][4], XYXY in pixels of the picture, and `mask` [N], COCO RLE.

    Raises:
        UserError: with the object's number and what is wrong with it.
    """
    masks, boxes = objects.get("mask") or [], objects.get("bbox") or []
    if len(masks) != len(boxes):
        raise UserError(f"{where}: {len(boxes)} boxes and {len(masks)} masks. SAM learns from objects that have both.")
    areas, wholes = lengths([code["counts"] for code in masks])
    for number, (code, area, whole) in enumerate(zip(masks, areas, wholes, strict=True)):
        if tuple(code["size"]) != (height, width):
            have = f"{code['size'][1]} × {code['size'][0]}"
            raise UserError(f"{where}: mask {number} has {have} pixels, its picture {width} × {height}. They must be the same.")
        if area <= 0 or whole != width * height:  # so also when its run lengths cannot be read
            raise UserError(f"{where}: mask {number} is empty. Give it at least one pixel, or leave the object out.")
    return {"bbox": check_boxes(boxes, width, height, where).tolist(), "mask": masks}


def drawn(
    objects: dict[str, list], size: tuple[int, int], side: int, seed: Tensor, config: Augment, most: int
) -> dict[str, list]:
    """The objects that are prompted of those that a random view shows, as it shows them: no others are warped.

    Those of which the view leaves less than `LEAST` pixels are none; which of the others are prompted, `prompts.pick` says.

    Args:
        objects: N of a picture, of which `mask` is looked at.
        size: height and width of the picture in the input, pixels.
        side: S, of the input, pixels.
        seed: int64[], of the view.
        most: objects that are prompted.

    Returns:
        `bbox` [M][4] XYXY in pixels of the input, edges exclusive, and `mask` [M], COCO RLE [S, S]; M ≤ `most`.
    """
    if not objects["mask"]:
        return objects
    # where the view shows which pixel of the input: exact in float32 up to 4096 × 4096
    source = augment_map(torch.arange(side * side).view(1, side, side), seed[None], config).flatten()
    times = torch.bincount(source, minlength=side * side).view(side, side)
    parts = [in_input(code, size) for code in objects["mask"]]
    shown = [(part, left) for part, left in parts if times[: len(part), left : left + part.shape[1]][part].sum() >= LEAST]
    masks = []
    for number in prompts.pick(seed[None], [len(shown)], most)[0]:
        part, left = shown[number]
        whole = torch.zeros(side, side, dtype=torch.bool)
        whole[: len(part), left : left + part.shape[1]] = part
        masks.append(rle(whole.flatten()[source].view(side, side).numpy()))
    return {"bbox": corners(masks).tolist(), "mask": masks}


def in_input(code: dict, size: tuple[int, int]) -> tuple[Tensor, int]:
    """A mask of the picture → the columns of the input that it covers: what `prompts.on_grid` has there, cell for pixel.

    Args:
        code: COCO RLE [H, W], not empty.
        size: height and width of the picture in the input, pixels.

    Returns:
        bool[size[0], w], and where it begins, pixels from the left.
    """
    part, top, left = window(code)
    values, (height, width) = torch.from_numpy(part).float(), code["size"]
    if width != size[1]:  # one axis after the other, as interpolate does both: the same bits, without the empty columns
        values = F.pad(values, (left, width - left - values.shape[1], 0, 0))
        values = F.interpolate(values[None, None], (len(values), size[1]), mode="bilinear", antialias=True)[0, 0]
        covered = values.any(0).nonzero()[:, 0]
        left = int(covered[0])
        values = values[:, left : int(covered[-1]) + 1]
    values = F.pad(values, (0, 0, top, height - top - len(values)))
    if height != size[0]:
        values = F.interpolate(values[None, None], (size[0], values.shape[1]), mode="bilinear", antialias=True)[0, 0]
    return values >= values.max().clamp(max=0.5), left
