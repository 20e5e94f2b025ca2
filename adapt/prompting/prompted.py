"""Points and boxes in pixels of their pictures → masks of the pictures' size, by SAM or what stands in its place."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.plug import UserError
from adapt.prompting.portions import fitting, portions
from adapt.vision.images import fitted, view

NOTHING, OUTSIDE, INSIDE, CORNER = -1, 0, 1, 2
"""Labels of a prompt's points, as segment-anything numbers them; 3 is a box's second corner."""
IMAGES, PROMPTS = 8, 64
"""What is computed at once, at most: less where the input or the picture is large, see `portions`."""
ENCODED = 64
"""Maps of float32 and of the input's size that encoding takes, about, for each picture: SAM's global attention has as many."""


class Promptable(Protocol):
    """What is asked here: SAM, or its student."""

    side: int
    """S, of the padded input, pixels."""
    normalise: torch.nn.Module
    """Its buffers tell the device."""

    def eval(self) -> Any: ...

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        """See `padded`."""

    def image_features(self, images: Tensor) -> Tensor:
        """float[B, 3, S, S] 0–255 → float[B, C, h, w]."""

    def decode(
        self, features: Tensor, coordinates: Tensor, labels: Tensor, masks: Tensor | None = None, *, multimask: bool
    ) -> tuple[Tensor, Tensor]:
        """features float[N, C, h, w], of each prompt's image; coordinates float[N, P, 2] XY in pixels of the input; labels int64[N, P];
        masks float[N, 1, 4h, 4w], logits of an earlier answer → logits float[N, M, 4h, 4w] of the input, and predicted IoU float[N, M]."""


def padded(sample: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """A row's picture as SAM sees it: `image` float32[3, S, S], padded with the mean; `size` int64[2], height and width of the picture in
    it, pixels.

    Raises:
        UserError: the picture is so thin that nothing is left of its shorter side.
    """
    size = scaled(sample, spec["size"][0])
    return {"image": view(sample["image"], spec), "size": size}


def scaled(sample: dict[str, Any], side: int) -> Tensor:
    """Height and width of a row's picture in an input of this side, pixels: int64[2].

    Raises:
        UserError: the picture is so thin that nothing is left of its shorter side.
    """
    image = sample["image"]
    width, height = fitted(*image.size, side)
    if not (width and height):
        raise UserError(
            f"data: sample {sample.get('id', '?')!r}: a picture of {image.width} × {image.height} pixels is too thin: scaled to a "
            f"longest side of {side} its shorter one is nothing. Crop it, or leave it out."
        )
    return torch.tensor([height, width])


@torch.no_grad()
def predict(
    family: Promptable,
    samples: Sequence[dict],
    boxes: Sequence | None = None,
    points: Sequence | None = None,
    multimask: bool | None = None,
    features: Sequence | None = None,
    logits: Sequence | None = None,
) -> list[dict[str, Any]]:
    """The best mask of each prompt.

    Args:
        samples: rows with `image`, and `objects` where neither boxes nor points are given: then their boxes are the prompts.
        boxes: float[N, 4] XYXY in pixels of its picture, for each sample.
        points: (float[N, K, 2] XY in pixels of its picture, int[N, K]: 1 inside, 0 outside), for each sample.
        multimask: choose among three answers by their predicted IoU; none: for lone points alone, as segment-anything advises.
        features: float[C, h, w] for each sample, from the answers to earlier prompts; none for those that have none yet.
        logits: float[N, 1, 4h, 4w] for each sample, of the answers to its prompts before these, which are prompts too; none: nothing.

    Returns:
        a dictionary a sample: `masks` bool[N, H, W] in its picture's size, `scores` float32[N], the predicted IoU; and its
        `features` and `logits`, where such are given: so that further prompts need not encode the picture again, and go on from here.

    Raises:
        UserError: a prompt is off its picture or reversed, or there is none.
    """
    family.eval()
    device, results = family.normalise.mean.device, []
    at_once = fitting(4 * ENCODED * family.side**2, IMAGES, device)
    for start in range(0, len(samples), IMAGES):
        part = [samples[i] for i in range(start, min(start + IMAGES, len(samples)))]
        known = features[start : start + len(part)] if features is not None else [None]
        if any(one is None for one in known):
            images = torch.stack([family.preprocess(sample, False)["image"] for sample in part])
            encoded = functools.partial(_encoded, family, images)
            known = torch.cat(list(portions(encoded, len(images), at_once)))
        for i, sample in enumerate(part):
            box, point, before = (None if given is None else given[start + i] for given in (boxes, points, logits))
            size, (width, height) = scaled(sample, family.side), sample["image"].size
            coordinates, labels = prompt(sample, size, box, point)
            place = (size.tolist(), (height, width))
            answer = _masks(
                family, known[i][None].to(device), coordinates, labels, place, multimask, before, logits is not None
            )
            results.append(answer | ({"features": known[i].cpu()} if features is not None else {}))
    return results


def _encoded(family: Promptable, images: Tensor, part: slice) -> Tensor:
    return family.image_features(images[part].to(family.normalise.mean.device))


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


def _masks(
    family: Promptable, features: Tensor, coordinates: Tensor, labels: Tensor, place, multimask: bool | None, before, keep: bool
) -> dict[str, Any]:
    """One image's masks bool[N, H, W] and scores float32[N].

    Args:
        features: float[1, C, h, w].
        place: height and width of the picture in the input, and its own, pixels.
        before: logits float[N, 1, 4h, 4w] of the answers before, or none.
        keep: are the `logits` float32[N, 1, 4h, 4w] of these masks wanted too?
    """
    several = bool(len(labels) and (labels[0] >= 0).sum() == 1) if multimask is None else multimask
    masks, scores = torch.zeros(len(labels), *place[1], dtype=torch.bool), torch.zeros(len(labels))

    def answer(part: slice) -> Tensor | None:
        xy, kinds = coordinates[part].to(features.device), labels[part].to(features.device)
        earlier = None if before is None else before[part].to(features.device)
        logits, predicted = family.decode(features.expand(len(xy), -1, -1, -1), xy, kinds, earlier, multimask=several)
        value, best = predicted.float().max(1)
        logits = logits[torch.arange(len(best)), best][:, None].float()
        masks[part], scores[part] = (unpad(logits, family.side, *place)[:, 0] > 0).cpu(), value.cpu()
        return logits.cpu() if keep else None

    each = 4 * (family.side**2 + math.prod(place[1]))  # bytes of the logits on the input and on the picture
    coarse = list(portions(answer, len(labels), fitting(each, PROMPTS, features.device)))
    answers = {"masks": masks.numpy(), "scores": scores.numpy()}
    return answers | ({"logits": torch.cat(coarse) if coarse else torch.zeros(0, 1, 1, 1)} if keep else {})


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
