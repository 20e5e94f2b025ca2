"""The parts of automatic mask generation: crops, grids, stability, non-maximum suppression, small regions.

Boxes are int64[N, 4] XYXY with inclusive right and bottom edges, as in segment-anything, so that suppression decides alike.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from pycocotools.mask import frPyObjects
from scipy.ndimage import label
from torch import Tensor
from torchvision.ops import batched_nms

from adapt.vision.masks import unrle_many

NEAR = 20.0
"""Pixels: a mask that comes so near to a crop's edge inside the image is taken for cut."""


def grid(side: int) -> np.ndarray:
    """Points in the middle of side × side cells of the unit square, row by row: float64[side², 2] XY."""
    line = np.linspace(1 / (2 * side), 1 - 1 / (2 * side), side) if side else np.zeros(0)
    return np.stack([np.tile(line, side), np.repeat(line, side)], 1)


def crops(size: tuple[int, int], layers: int, overlap_ratio: float) -> list[tuple[list[int], int]]:
    """The image and its crops: (XYXY in pixels, layer); layer 0 is the image of `size` (H, W), layer i has 4^i overlapping crops."""
    height, width = size
    found = [([0, 0, width, height], 0)]
    for layer in range(1, layers + 1):
        count = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / count))
        wide, high = (math.ceil((overlap * (count - 1) + side) / count) for side in (width, height))
        starts = product([(wide - overlap) * i for i in range(count)], [(high - overlap) * i for i in range(count)])
        found += [([x, y, min(x + wide, width), min(y + high, height)], layer) for x, y in starts]
    return found


def stability(logits: Tensor, threshold: float, offset: float) -> Tensor:
    """IoU between the masks of logits float[N, H, W] at a higher and at a lower threshold; NaN where the wider one is empty."""
    return (logits > threshold + offset).sum((1, 2)) / (logits > threshold - offset).sum((1, 2))


def boxes(masks: Tensor) -> Tensor:
    """Boxes around bool[N, H, W]; zeros for an empty mask."""
    ends = []
    for axis in (1, 2):
        line = masks.any(axis).int()  # columns, then rows
        first, last = line.argmax(1), line.shape[1] - 1 - line.flip(1).argmax(1)
        ends.append((first, last))
    (left, right), (top, bottom) = ends
    return torch.stack([left, top, right, bottom], 1) * masks.any((1, 2))[:, None]


def cut(found: Tensor, crop: list[int], size: tuple[int, int]) -> Tensor:
    """Do boxes of a crop come near to its edge, where that is no edge of the image of `size` (H, W)? bool[N]."""
    whole = found.new_tensor([0, 0, size[1], size[0]])
    edge = found.new_tensor(crop)
    placed = found + edge[:2].repeat(2)
    return (((placed - edge).abs() <= NEAR) & ((placed - whole).abs() > NEAR)).any(1)


def runs(masks: Tensor, crop: list[int], size: tuple[int, int]) -> list[np.ndarray]:
    """Masks bool[N, h, w] of a crop, on any device → where each changes in the image, down its columns: int32[R] of each, ascending.

    The first is where it begins; a mask that reaches the last pixel has an odd number.
    """
    height, width = size
    left, top, right, bottom = crop
    masks = (
        F.pad(masks, (left, width - right, top, height - bottom)) if (right - left, bottom - top) != (width, height) else masks
    )
    down = masks.transpose(1, 2).flatten(1)
    changes = F.pad(down, (1, 0))
    changes = changes[:, 1:] ^ changes[:, :-1]
    number, place = changes.nonzero().int().cpu().numpy().T.copy()
    return np.split(place, np.searchsorted(number, np.arange(1, len(masks)))) if len(masks) else []


def written(found: list[np.ndarray], size: tuple[int, int]) -> list[dict]:
    """Masks as `runs` has them → COCO run lengths, {size: [H, W], counts: str}."""
    height, width = size
    plain = [{"size": [height, width], "counts": np.diff(part, prepend=0, append=height * width).tolist()} for part in found]
    codes = frPyObjects(plain, height, width) if plain else []
    return [{"size": [height, width], "counts": code["counts"].decode("ascii")} for code in codes]


def join(parts: list[dict]) -> dict:
    """Candidates of several batches or crops, one after the other."""
    joined = {name: torch.cat([part[name] for part in parts]) for name in parts[0] if name != "mask"}
    return joined | {"mask": [code for part in parts for code in part["mask"]]}


def thin(found: dict, scores: Tensor, threshold: float) -> dict:
    """Non-maximum suppression by boxes: candidates in the order of their scores, without those that overlap a better one."""
    keep = batched_nms(found["bbox"].float(), scores.float(), torch.zeros(len(scores)), threshold)
    return {name: [value[i] for i in keep] if name == "mask" else value[keep] for name, value in found.items()}


def tidy(found: dict, area: int, threshold: float) -> dict:
    """Candidates without holes and islands of fewer than `area` pixels; of two that become alike, the untouched one stays."""
    untouched, masks = [], []
    for mask in unrle_many(found["mask"]):
        filled = without_holes(mask, area)
        masks.append(without_islands(filled, area))
        untouched.append(float((masks[-1] == mask).all()))
    if not masks:
        return found
    new = torch.from_numpy(np.stack(masks))
    height, width = new.shape[1:]
    codes = written(runs(new, [0, 0, width, height], (height, width)), (height, width))
    return thin(found | {"mask": codes, "bbox": boxes(new)}, torch.tensor(untouched), threshold)


def without_holes(mask: np.ndarray, area: int) -> np.ndarray:
    """bool[H, W] with holes (8-connected) of fewer than `area` pixels filled."""
    regions, sizes = _regions(~mask)
    return mask | (sizes < area)[regions] & (regions > 0)


def without_islands(mask: np.ndarray, area: int) -> np.ndarray:
    """bool[H, W] without parts (8-connected) of fewer than `area` pixels; when all are smaller, the largest stays."""
    regions, sizes = _regions(mask)
    large = sizes >= area
    large[0] = False
    if not large.any() and len(sizes) > 1:
        large[1 + sizes[1:].argmax()] = True
    return large[regions]


def _regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A number for each connected part, int[H, W] (0 outside), and the parts' sizes in pixels."""
    regions, count = label(mask, np.ones((3, 3)))
    return regions, np.bincount(regions.ravel(), minlength=count + 1)
