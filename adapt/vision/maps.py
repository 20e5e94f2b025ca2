"""Class maps: for each pixel the number of its class; `IGNORE` where there is none to be learnt or counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from adapt.plug import UserError
from adapt.vision.classes import IGNORE
from adapt.vision.images import centre
from adapt.vision.masks import singles, unrle


def class_map(sample: dict[str, Any]) -> np.ndarray:
    """The class of each pixel of a row, int64[H, W].

    From `segmentation`, a picture whose values are classes; else from `objects`: 0 is the background, category c
    is c + 1, painted in their order, over regions of crowds, which are not judged.
    """
    if sample.get("segmentation") is not None:
        return np.asarray(sample["segmentation"]).astype(np.int64)
    objects = sample["objects"] or {}
    if "mask" not in objects:
        raise UserError(
            f"data: sample {sample.get('id', '?')!r} has no masks to learn classes of pixels from. Give data with "
            "segmentation or objects.mask; dinov2 learns without them with model.task=features."
        )
    out = np.zeros((sample["image"].height, sample["image"].width), np.int64)
    for code in (code for code, crowd in zip(objects["mask"], objects.get("iscrowd") or [], strict=False) if crowd):
        out[unrle(code)] = IGNORE
    things = singles(objects)
    for category, code in zip(things["category"], things["mask"], strict=True):
        out[unrle(code)] = category + 1
    return out


def view_map(classes: np.ndarray, spec: dict[str, Any]) -> Tensor:
    """A class map int64[H, W] → int64[h, w], where `images.view` puts the picture's pixels; nearest, `IGNORE` outside."""
    values = torch.from_numpy(classes)[None] - IGNORE  # what `centre` adds outside is 0
    if spec["resize"] is not None:
        size = spec["resize"] if isinstance(spec["resize"], int) else list(spec["resize"])
        values = F.resize(values, size, interpolation=F.InterpolationMode.NEAREST_EXACT)
    return (centre(values, spec["size"], spec["crop"]) if spec["crop"] else values)[0] + IGNORE
