"""Maps of classes: the truth of a row, and what one confusion matrix tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from adapt.plug import UserError
from adapt.vision.classes import IGNORE, category_names
from adapt.vision.masks import singles, unrle


def names(dataset) -> list[str]:
    """The names of the classes, the background first."""
    if "objects" not in dataset.features:
        raise UserError(
            "evals: semantic segmentation needs the columns `objects` or `segmentation` with `objects`. Have: none."
        )
    known = category_names(dataset.features)
    if not known:
        known = [str(c) for c in range(1 + max((max(row["category"], default=-1) for row in dataset["objects"]), default=-1))]
    return ["background", *known]


def truth(row: dict) -> np.ndarray:
    """The classes of a row, int64[H, W]: its `segmentation`, or its objects' masks painted in their order, over regions of crowds, which
    are `IGNORE`."""
    if row.get("segmentation") is not None:
        return np.asarray(row["segmentation"]).astype(np.int64)
    objects = row["objects"]
    if not objects["mask"]:
        raise UserError(f"evals: {row['id']!r} has neither masks nor a `segmentation`, so its size is not known. Leave it out.")
    classes = np.zeros(objects["mask"][0]["size"], np.int64)
    for code, crowd in zip(objects["mask"], objects.get("iscrowd") or [], strict=False):
        if crowd:
            classes[unrle(code)] = IGNORE
    things = singles(objects)
    for code, category in zip(things["mask"], things["category"], strict=True):
        classes[unrle(code)] = category + 1
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
    judged = truth != IGNORE
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


def row(matrix: np.ndarray, names: list[str]) -> dict[str, Any]:
    """A picture's row of the table, of its confusion matrix int[C, C]: what is there and what was found, without the background, the
    mean IoU, and for each class the pixels of `intersection` and `union`, from which the mIoU of any pictures is computed."""
    right = matrix.diagonal()
    there, said = (", ".join(names[c] for c in np.flatnonzero(matrix.sum(axis)) if c) for axis in (1, 0))
    union = matrix.sum(1) + matrix.sum(0) - right
    words = {"label": there, "prediction": said, "mean_iou": agreement(matrix)}
    return words | {"intersection": right.tolist(), "union": union.tolist()}


def miou(sums: np.ndarray) -> np.ndarray:
    """Intersections and unions, summed over pictures, float[B, 2 C] → mIoU float[B]; NaN where nothing is judged."""
    right, union = np.split(sums, 2, axis=1)
    there = union > 0
    ious = np.divide(right, union, out=np.zeros_like(right), where=there)
    return np.divide(ious.sum(1), there.sum(1), out=np.full(len(sums), np.nan), where=there.any(1))


def floor(matrix: np.ndarray) -> float:
    """The mIoU of the same class for every pixel, the best of them."""
    share, there = matrix.sum(1) / max(1, matrix.sum()), (matrix.sum(1) > 0).sum()
    return float(share.max() / max(1, there))
