"""Every mask in an image: a grid of points is asked, and what is poor, unstable or found twice is dropped.

Two functions of a model are all it takes, and a third where its logits are coarser than the image; so any promptable family can be given:

    embed(image uint8[H, W, 3] RGB) -> anything
    decode(embedding, points float64[N, 2] XY pixels of that image) -> (logits float[N, M, H, W], scores float[N, M])
    grow(embedding, logits float[K, h, w] of decode) -> float[K, H, W]

All is done on the model's device, and for as many points and masks at once as the memory holds; run lengths alone leave it. What the score
drops is never grown, and what is found twice is never written.

    >>> objects = generate(Automatic(points_per_side=16), image, *functions(family))
    >>> objects["bbox"][0], objects["score"][0]

Source: Kirillov et al. 2023 (SAM, arXiv:2304.02643), appendix B; `SamAutomaticMaskGenerator` of segment-anything, whose names and
defaults these are and with which the tests compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adapt.plug import Spec

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


BYTES = 12
"""What a grown mask takes for each pixel of the image: its logits twice, as they grow, and bits that are compared."""


class Automatic(Spec):
    """How densely to ask, and what to keep."""

    points_per_side: int = Field(32, ge=1, le=256)
    """Points along each side of the image."""
    points_per_batch: int = Field(64, ge=1)
    """Points that are decoded at once."""
    pred_iou_thresh: float = Field(0.88, ge=0, le=1)
    """Least IoU that the model itself predicts for a mask; 0 = any."""
    stability_score_thresh: float = Field(0.95, ge=0, le=1)
    """Least IoU between the masks at a higher and at a lower threshold; 0 = any."""
    stability_score_offset: float = Field(1.0, gt=0)
    """How much higher and lower, in logits."""
    mask_threshold: float = 0.0
    """A pixel belongs to a mask when its logit is above."""
    box_nms_thresh: float = Field(0.7, gt=0, le=1)
    """Of two masks of a crop whose boxes overlap more (IoU), the one with the higher predicted IoU stays."""
    crop_n_layers: int = Field(0, ge=0, le=4)
    """Layers of crops that are looked at as images of their own; layer i has 4^i."""
    crop_nms_thresh: float = Field(0.7, gt=0, le=1)
    """The same between crops; the mask of the smaller crop stays."""
    crop_overlap_ratio: float = Field(512 / 1500, ge=0, lt=1)
    """How far crops of the first layer overlap, as a share of the image's shorter side; half of it in the next layer, and so on."""
    crop_n_points_downscale_factor: int = Field(1, ge=1)
    """Layer i has fewer points a side by this factor to the power i."""
    min_mask_region_area: int = Field(0, ge=0)
    """Holes and islands of fewer pixels are removed; 0 = none."""


def generate(
    config: Automatic,
    image: np.ndarray,
    embed: Callable[[np.ndarray], Any],
    decode: Callable[[Any, np.ndarray], tuple[Tensor, Tensor]],
    grow: Callable[[Any, Tensor], Tensor] | None = None,
) -> dict[str, Any]:
    """All masks of an image.

    Args:
        image: uint8[H, W, 3], RGB.
        embed, decode, grow: see above. Logits are of the size of the image that was embedded: the whole one, or a crop of it; with
            `grow` those that it returns.

    Returns:
        Of N masks, those of an NMS in its order: mask (N COCO run lengths), bbox float32[N, 4] XYXY pixels (right and bottom edges
        exclusive), score float32[N] (predicted IoU), stability float32[N], point float64[N, 2] XY pixels, crop int64[N, 4] XYXY.
    """
    import torch

    from adapt.prompting import candidates as candidates
    from adapt.prompting.portions import portions

    height, width = image.shape[:2]
    parts = []
    for crop, layer in candidates.crops((height, width), config.crop_n_layers, config.crop_overlap_ratio):
        left, top, right, bottom = crop
        embedding = embed(image[top:bottom, left:right])
        side = max(1, int(config.points_per_side / config.crop_n_points_downscale_factor**layer))
        points = candidates.grid(side) * [right - left, bottom - top]
        ask = partial(_good, config, partial(decode, embedding), points)
        look = partial(_stable, config, partial(grow, embedding) if grow else None, crop, (height, width))
        with torch.no_grad():
            found = [part for good in portions(ask, len(points), config.points_per_batch) for part in look(good)]
        found = candidates.join(found)
        parts.append(candidates.thin(found, found["score"], config.box_nms_thresh))
    found = candidates.join(parts)
    if len(parts) > 1:  # what a smaller crop shows larger is preferred
        crop = found["crop"]
        area = (crop[:, 2] - crop[:, 0]) * (crop[:, 3] - crop[:, 1])
        found = candidates.thin(found, 1 / area, config.crop_nms_thresh)
    found["mask"] = candidates.written(found["mask"], (height, width))
    if config.min_mask_region_area:
        found = candidates.tidy(found, config.min_mask_region_area, max(config.box_nms_thresh, config.crop_nms_thresh))
    found["bbox"] = (found["bbox"] + torch.tensor([0, 0, 1, 1])).float()  # until here the edges were inclusive, as theirs
    return {name: value if name == "mask" else value.numpy() for name, value in found.items()}


def proposals(family, samples: Sequence[dict[str, Any]], automatic: Sequence[Automatic]) -> list[dict[str, Any]]:
    """All masks of each row's picture, as `generate` gives them.

    Args:
        family: see `functions`.
        samples: rows with `image`.
        automatic: how densely each is asked, and what is kept.
    """
    import numpy as np

    asked = functions(family)
    pictures = (np.array(sample["image"].convert("RGB")) for sample in samples)
    return [generate(config, picture, *asked) for config, picture in zip(automatic, pictures, strict=True)]


def functions(family) -> tuple[Callable, Callable, Callable]:
    """`embed`, `decode` and `grow` of a promptable family, such as `adapt/models/sam/`.

    Args:
        family: has `preprocess` (image float[3, S, S], size int64[2]: the height and width that the picture has in it),
            `image_features` (float[B, 3, S, S] 0–255 → float[B, C, h, w]), and `decode` (features, coordinates float[N, P, 2] XY pixels of
            the input, labels int64[N, P], multimask → logits float[N, M, g, g] of the whole input, scores float[N, M]).
    """
    import torch
    from PIL import Image as Picture

    from adapt.prompting.prompted import unpad

    device = next(family.parameters()).device

    def embed(image: np.ndarray):
        item = family.preprocess({"image": Picture.fromarray(image)}, False)
        with torch.no_grad():
            features = family.eval().image_features(item["image"][None].float().to(device))
        return features, item["size"].tolist(), image.shape[:2]

    def decode(embedding, points: np.ndarray) -> tuple[Tensor, Tensor]:
        features, (high, wide), (height, width) = embedding
        placed = torch.from_numpy(points * [wide / width, high / height]).float()[:, None]
        coordinates = torch.cat([placed, torch.zeros_like(placed)], 1).to(device)
        labels = torch.tensor([1, -1], device=device).expand(
            len(points), 2
        )  # a point, and nothing: what ends points without a box
        logits, scores = family.decode(features.expand(len(points), -1, -1, -1), coordinates, labels, multimask=True)
        return logits.float(), scores.float()

    def grow(embedding, logits: Tensor) -> Tensor:
        _, size, original = embedding
        return unpad(logits[:, None], family.input["size"][0], size, original)[:, 0]

    return embed, decode, grow


def _good(config: Automatic, decode: Callable, points: np.ndarray, part: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Of some of the points' masks those whose score is good: logits float[K, h, w], scores float[K], points float64[K, 2]."""
    import torch

    logits, scores = decode(points[part])
    place = torch.from_numpy(points[part]).repeat_interleave(logits.shape[1], 0)
    logits, scores = logits.flatten(0, 1), scores.flatten()
    if config.pred_iou_thresh > 0:
        keep = scores > config.pred_iou_thresh
        logits, scores, place = logits[keep], scores[keep], place[keep.cpu()]
    return logits, scores, place


def _stable(
    config: Automatic, grow: Callable | None, crop: list[int], size: tuple[int, int], good: tuple[Tensor, Tensor, Tensor]
) -> list[dict]:
    """Of good masks of a crop those that are stable and not cut by its edge, portion by portion; one at least, perhaps of nothing."""
    import torch

    from adapt.prompting import candidates as candidates
    from adapt.prompting.portions import fitting, portions

    logits, scores, place = good
    shift = torch.tensor([crop[0], crop[1]])

    def looked_at(part: slice) -> dict:
        grown = grow(logits[part]) if grow else logits[part]
        stable = candidates.stability(grown, config.mask_threshold, config.stability_score_offset)
        masks = grown > config.mask_threshold
        boxes = candidates.boxes(masks)
        keep = ~candidates.cut(boxes, crop, size) & masks.any((1, 2))
        if config.stability_score_thresh > 0:
            keep &= stable >= config.stability_score_thresh
        kept = keep.cpu()
        return {
            "mask": candidates.runs(masks[keep], crop, size),
            "bbox": boxes[keep].cpu() + shift.repeat(2),
            "score": scores[part][keep].cpu(),
            "stability": stable[keep].cpu(),
            "point": place[part][kept] + shift,
            "crop": torch.tensor(crop).expand(int(kept.sum()), 4),
        }

    if not len(logits):
        return [looked_at(slice(0, 0))]
    finest = max(size[0] * size[1], 16 * logits[0].numel() if grow else 0)  # SAM's logits have a fourth of its input's side
    at_once = fitting(BYTES * finest, len(logits), logits.device)
    return list(portions(looked_at, len(logits), at_once))
