"""Maps of classes: the truth of a row, and what one confusion matrix tells."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from adapt.masks import unrle_many
from adapt.plug import UserError


def names(dataset) -> list[str]:
    """The names of the classes, the background first."""
    if "objects" not in dataset.features:
        raise UserError(
            "evals: semantic segmentation needs the columns `objects` or `segmentation` with `objects`. Have: none."
        )
    category = dataset.features["objects"]["category"]
    category = category[0] if isinstance(category, list) else getattr(category, "feature", category)
    known = getattr(category, "names", None)
    if known is None:
        known = [str(c) for c in range(1 + max((max(row["category"], default=-1) for row in dataset["objects"]), default=-1))]
    return ["background", *known]


def truth(row: dict) -> np.ndarray:
    """The classes of a row, int64[H, W]: its `segmentation`, or its objects' masks painted in their order."""
    if row.get("segmentation") is not None:
        return np.asarray(row["segmentation"]).astype(np.int64)
    codes = row["objects"]["mask"]
    if not codes:
        raise UserError(f"evals: {row['id']!r} has neither masks nor a `segmentation`, so its size is not known. Leave it out.")
    masks = unrle_many(codes)
    classes = np.zeros(masks.shape[1:], np.int64)
    for mask, category in zip(masks, row["objects"]["category"], strict=True):
        classes[mask] = category + 1
    return classes


def classes(output: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Logits float[C, h, w] or classes [h, w] → classes int64[H, W] of `size`, and the mean probability of the chosen class."""
    values = torch.as_tensor(np.asarray(output))
    if values.ndim == 2:
        return F.interpolate(values[None, None].float(), size, mode="nearest-exact")[0, 0].long().numpy(), 1.0
    probabilities = F.interpolate(values[None].float(), size, mode="bilinear", align_corners=False)[0].softmax(0)
    best = probabilities.max(0)
    return best.indices.numpy(), float(best.values.mean())


def confusion(truth: np.ndarray, found: np.ndarray, count: int, ignore: int) -> np.ndarray:
    """Pixels, int64[C, C]: rows are the truth, columns what was found."""
    judged = truth != ignore
    return np.bincount(truth[judged] * count + found[judged], minlength=count**2).reshape(count, count)


def class_iou(matrix: np.ndarray) -> np.ndarray:
    """IoU of each class, float64[…, C], of confusion matrices […, C, C]; NaN for one that neither occurs nor is found."""
    right = matrix.diagonal(axis1=-2, axis2=-1)
    union = matrix.sum(-1) + matrix.sum(-2) - right
    return np.where(union > 0, right / np.maximum(union, 1), np.nan)


def scores(matrix: np.ndarray) -> dict[str, float]:
    """The metrics of a split's confusion matrix (Long et al. 2015, §5)."""
    total, share = max(1, matrix.sum()), matrix.sum(1) / max(1, matrix.sum())
    recall = matrix.diagonal()[share > 0] / matrix.sum(1)[share > 0]
    return {
        "miou": agreement(matrix),
        "pixel_accuracy": float(matrix.trace() / total),
        "mean_accuracy": float(recall.mean()) if len(recall) else 0.0,
        "weighted_iou": float(np.nansum(share * class_iou(matrix))),
    }


def agreement(matrix: np.ndarray) -> float:
    """Mean IoU over the classes that occur or are found; 1 when nothing is judged."""
    values = class_iou(matrix)
    return float(np.nanmean(values)) if not np.isnan(values).all() else 1.0


def interval(matrices: np.ndarray, samples: int, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mIoU, images resampled; matrices int[N, C, C]."""
    random, count = np.random.default_rng(seed), len(matrices)
    right, truth, found = matrices.diagonal(axis1=1, axis2=2), matrices.sum(2), matrices.sum(1)
    weights = random.multinomial(count, np.full(count, 1 / count), samples).astype(float)  # how often an image was drawn
    right, union = weights @ right, weights @ (truth + found - right)
    values = np.nanmean(np.where(union > 0, right / np.maximum(union, 1), np.nan), 1)
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
