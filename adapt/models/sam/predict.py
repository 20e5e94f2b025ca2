"""Rows and prompts in pixels of their pictures → masks of the pictures' size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.models.sam.objects import check_boxes, check_points
from adapt.models.sam.prompts import CORNER, NOTHING
from adapt.plug import UserError

IMAGES, PROMPTS = 8, 64
"""What is computed at once."""


@torch.no_grad()
def predict(
    family: nn.Module,
    samples: Sequence[dict],
    boxes: Sequence | None = None,
    points: Sequence | None = None,
    multimask: bool | None = None,
    features: Sequence | None = None,
) -> list[dict[str, Any]]:
    """The best mask of each prompt.

    Args:
        family: a `Sam`.
        samples: rows with `image`, and `objects` where neither boxes nor points are given: then their boxes are the prompts.
        boxes: float[N, 4] XYXY in pixels of its picture, for each sample.
        points: (float[N, K, 2] XY in pixels of its picture, int[N, K]: 1 inside, 0 outside), for each sample.
        multimask: choose among three answers by their predicted IoU; none: for lone points alone, as segment-anything advises.
        features: float[C, h, w] for each sample, from the answers to earlier prompts; none for those that have none yet.

    Returns:
        a dictionary a sample: `masks` bool[N, H, W] in its picture's size, `scores` float32[N], the predicted IoU; and its
        `features`, if they are given: so that further prompts need not encode the picture again.

    Raises:
        UserError: a prompt is off its picture or reversed, or there is none.
    """
    family.eval()
    results = []
    for start in range(0, len(samples), IMAGES):
        part = [samples[i] for i in range(start, min(start + IMAGES, len(samples)))]
        items = [family.preprocess(sample, False) for sample in part]
        known = features[start : start + len(part)] if features is not None else [None]
        if any(one is None for one in known):
            images = torch.stack([item["image"] for item in items]).to(family.normalise.mean.device)
            known = family.image_features(images)
        for i, (sample, item) in enumerate(zip(part, items, strict=True)):
            box, point = (None if given is None else given[start + i] for given in (boxes, points))
            coordinates, labels = prompt(sample, item["size"], box, point)
            width, height = sample["image"].size
            place = (item["size"].tolist(), (height, width))
            results.append(
                _masks(family, known[i][None].to(family.normalise.mean.device), coordinates, labels, place, multimask)
            )
            if features is not None:
                results[-1]["features"] = known[i].cpu()
    return results


def prompt(sample: dict, size: Tensor, boxes, points) -> tuple[Tensor, Tensor]:
    """A sample's prompts, in pixels of its picture → those of `Sam.decode`: float[N, P, 2] in pixels of the input, int64[N, P].

    Args:
        size: int64[2], height and width of the picture in the input, pixels.
    """
    width, height = sample["image"].size
    where = f"masks: sample {sample.get('id', '?')!r}"
    if boxes is None and points is None:
        boxes = (sample.get("objects") or {}).get("bbox")
        if boxes is None:
            raise UserError(f"{where}: no prompt. Give boxes or points, or data with objects.")
    coordinates, labels = [], []
    if points is not None:
        xy, kinds = check_points(points, width, height, where)
        coordinates.append(torch.from_numpy(xy))
        labels.append(torch.from_numpy(kinds))
    if boxes is None:  # segment-anything ends points that come without a box
        coordinates.append(torch.zeros(len(xy), 1, 2))
        labels.append(torch.full((len(xy), 1), NOTHING))
    else:
        corners = torch.from_numpy(check_boxes(boxes, width, height, where)).view(-1, 2, 2)
        coordinates.append(corners)
        labels.append(torch.tensor([CORNER, CORNER + 1]).expand(len(corners), 2))
    if len(coordinates[0]) != len(coordinates[-1]):
        raise UserError(f"{where}: {len(coordinates[0])} groups of points and {len(coordinates[1])} boxes. Give each its own.")
    scale = size.flip(0).double() / torch.tensor([width, height])
    return (torch.cat(coordinates, 1) * scale).float(), torch.cat(labels, 1)


def _masks(family: nn.Module, features: Tensor, coordinates: Tensor, labels: Tensor, place, multimask: bool | None) -> dict:
    """One image's masks bool[N, H, W] and scores float32[N].

    Args:
        features: float[1, C, h, w].
        place: height and width of the picture in the input, and its own, pixels.
    """
    masks, scores = [torch.zeros(0, *place[1], dtype=torch.bool)], [torch.zeros(0)]
    several = bool(len(labels) and (labels[0] >= 0).sum() == 1) if multimask is None else multimask
    for xy, kinds in zip(coordinates.split(PROMPTS), labels.split(PROMPTS), strict=True):
        if not len(xy):
            continue
        repeated = features.expand(len(xy), -1, -1, -1)
        logits, predicted = family.decode(repeated, xy.to(features.device), kinds.to(features.device), multimask=several)
        value, best = predicted.float().max(1)
        logits = logits[torch.arange(len(best)), best][:, None].float()
        masks.append((unpad(logits, family.side, *place)[:, 0] > 0).cpu())
        scores.append(value.cpu())
    return {"masks": torch.cat(masks).numpy(), "scores": torch.cat(scores).numpy()}


def unpad(logits: Tensor, side: int, size: Sequence[int], original: Sequence[int]) -> Tensor:
    """Logits of the decoder → logits of the picture.

    Args:
        logits: float[N, M, 4h, 4w].
        side: of the padded input, pixels.
        size: height and width of the picture in the input, pixels.
        original: height and width of the picture, pixels.

    Returns:
        float[N, M, H, W].
    """
    logits = F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)
    return F.interpolate(logits[..., : size[0], : size[1]], tuple(original), mode="bilinear", align_corners=False)
