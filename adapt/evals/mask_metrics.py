"""Masks compared with masks: IoU, boundary F, the clicks of an annotator, average precision by pycocotools."""

from __future__ import annotations

import contextlib
import io

import numpy as np
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.ndimage import distance_transform_edt

TOLERANCE = 0.008
"""How far two boundaries may lie apart, as a share of the image's diagonal: DAVIS' `bound_th`."""


def iou(truth: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Intersection over union of each pair of bool[…, H, W] → float64[…]; 1 where both are empty."""
    union = (truth | masks).sum((-2, -1))
    return np.where(union == 0, 1.0, (truth & masks).sum((-2, -1)) / np.maximum(union, 1))


def window(*masks: np.ndarray) -> tuple[slice, slice]:
    """The part of a picture that holds all true pixels of bool[H, W] each, and one more on every side where there is one.

    What is far from an object costs nothing then: many objects of a picture take as long as one that is as large as they are together.
    """
    parts = []
    for axis, size in ((1, masks[0].shape[0]), (0, masks[0].shape[1])):
        there = np.flatnonzero(np.logical_or.reduce([mask.any(axis) for mask in masks]))
        parts.append(slice(max(0, there[0] - 1), min(size, there[-1] + 2)) if len(there) else slice(0, 1))
    return parts[0], parts[1]


def boundary(mask: np.ndarray) -> np.ndarray:
    """The mask's one-pixel boundary, bool[H, W] → bool[H, W]: a pixel that differs from its right, lower or lower right neighbour.

    Source: `seg2bmap` of Martin et al.'s segmentation benchmark, as DAVIS uses it; the image's edge is no boundary.
    """
    wider = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    return (mask != wider[:-1, 1:]) | (mask != wider[1:, :-1]) | (mask != wider[1:, 1:])


def boundary_f(truth: np.ndarray, mask: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """F measure of two masks' boundaries, bool[H, W] each.

    A boundary pixel is right when the other boundary comes within ⌈tolerance × diagonal⌉ pixels of it.
    Source: Perazzi et al. 2016 (DAVIS), §3: F = 2PR / (P + R).
    """
    reach = np.ceil(tolerance * np.hypot(*mask.shape))
    part = window(mask, truth)
    ours, theirs = boundary(mask[part]), boundary(truth[part])
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    precision = (distance_transform_edt(~theirs)[ours] <= reach).mean()
    recall = (distance_transform_edt(~ours)[theirs] <= reach).mean()
    return float(2 * precision * recall / max(precision + recall, 1e-12))


# ------------------------------------------------------------------------------------------------------------------ clicks


def click(truth: np.ndarray, mask: np.ndarray) -> tuple[int, int, int]:
    """Where an annotator clicks next: the point of the error farthest from the error's boundary.

    Missing and superfluous pixels are looked at apart; beyond the image's edge there is no error. A mask without error gets
    the centre of the object once more.
    Source: Kirillov et al. 2023 (SAM, arXiv:2304.02643), appendix D.1; Sofiiuk et al. 2021 (RITM, arXiv:2102.06583).

    Args:
        truth, mask: bool[H, W]; an empty mask gives the first click, the centre of the object.

    Returns:
        x, y in pixels (of the pixel, not of its corner), and 1 for "more here" or 0 for "less here".
    """
    rows, columns = window(truth, mask)
    truth, mask = truth[rows, columns], mask[rows, columns]
    if (truth == mask).all():
        mask = np.zeros_like(mask)
    missing, wrong = depth(truth & ~mask), depth(mask & ~truth)
    label = int(missing.max() >= wrong.max())
    place = missing if label else wrong
    y, x = np.unravel_index(place.argmax(), place.shape)
    return int(x) + columns.start, int(y) + rows.start, label


def depth(region: np.ndarray) -> np.ndarray:
    """Euclidean distance of each pixel of bool[H, W] to the next one outside the region, beyond the image's edge included."""
    return distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]


class Clicks:
    """The clicks on the N objects of one image so far."""

    def __init__(self, truth: np.ndarray):
        self.truth = truth
        self.points = np.zeros((len(truth), 0, 2), np.float32)
        self.labels = np.zeros((len(truth), 0), np.int64)
        self.add(np.zeros_like(truth))

    def add(self, masks: np.ndarray) -> None:
        """One more click on each object, after seeing bool[N, H, W]."""
        new = np.array([click(*pair) for pair in zip(self.truth, masks, strict=True)]).reshape(-1, 1, 3)
        self.points = np.concatenate([self.points, new[..., :2].astype(np.float32)], 1)
        self.labels = np.concatenate([self.labels, new[..., 2]], 1)

    def only(self, kept: np.ndarray) -> None:
        """Go on with these objects alone: bool[N]."""
        self.truth, self.points, self.labels = self.truth[kept], self.points[kept], self.labels[kept]

    def prompt(self) -> tuple[np.ndarray, np.ndarray]:
        """float32[N, K, 2] XY pixels, int64[N, K]."""
        return self.points, self.labels


# ------------------------------------------------------------------------------------------------------------ average precision


def xywh(boxes: np.ndarray) -> np.ndarray:
    """float[N, 4] XYXY → left, top, width, height."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def encode(masks: np.ndarray) -> list[dict]:
    """bool[N, H, W] → COCO run lengths."""
    return run_lengths.encode(np.asfortranarray(masks.transpose(1, 2, 0), dtype=np.uint8))


def average_precision(truth: list[dict], found: list[dict], kind: str, categories: int) -> dict[str, float]:
    """COCO's mean average precision over IoU .5 … .95, and at .5, by pycocotools.

    Args:
        truth: an entry an image: size (H, W), category int[N], codes (COCO run lengths), boxes float[N, 4] XYXY, perhaps iscrowd int[N].
        found: the same with score float[N], in the same order.
        kind: `segm` compares the masks, `bbox` the boxes.
        categories: how many there are.
    """
    gold = COCO()
    gold.dataset = {
        "images": [{"id": i, "height": row["size"][0], "width": row["size"][1]} for i, row in enumerate(truth)],
        "categories": [{"id": i} for i in range(categories)],
        "annotations": _entries(truth),
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        gold.createIndex()
        entries = _entries(found, kind)
        if not entries or not gold.anns:
            return {"ap": 0.0, "ap50": 0.0}
        judge = COCOeval(gold, gold.loadRes(entries), kind)
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return {name: float(value) for name, value in zip(("ap", "ap50"), judge.stats)}


def _entries(rows: list[dict], kind: str | None = None) -> list[dict]:
    """COCO annotations; results, when `kind` says what is compared."""
    entries = []
    for image, row in enumerate(rows):
        for i, box in enumerate(xywh(np.asarray(row["boxes"], float).reshape(-1, 4)).tolist()):
            entry = {"image_id": image, "category_id": int(row["category"][i]), "id": len(entries) + 1}
            if kind:
                entry["score"] = float(row["score"][i])
                entry |= {"bbox": box} if kind == "bbox" else {"segmentation": row["codes"][i]}
            else:
                area = float(run_lengths.area(row["codes"][i]))
                crowd = int(row["iscrowd"][i]) if row.get("iscrowd") else 0
                entry |= {"bbox": box, "segmentation": row["codes"][i], "area": area, "iscrowd": crowd}
            entries.append(entry)
    return entries
