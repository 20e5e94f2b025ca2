"""Boxes against boxes: COCO's average precision by its own library, and drawings of both."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw

from adapt.evals.bootstrap import numbered
from adapt.prompting.tokens import overlap
from adapt.vision.masks import singles

TRUTH, FOUND = (0, 140, 80), (215, 30, 110)
MATCHES = ("objects", "found", "scores", "right")
"""Columns of a table, lists for each image; see `coco`."""


def coco(truth: Sequence[dict], found: Sequence[dict]) -> tuple[dict[str, float], dict[str, list]]:
    """Average precision and recall over all images, as COCO defines them.

    Args:
        truth: an image's `bbox` float[N, 4] XYXY in pixels, `category` int[N], and perhaps `iscrowd` int[N]: regions of crowds are
            ignored, and so is what is found in them.
        found: the same with `score` float[N]; of an image and category the 100 surest count.

    Returns:
        `map` (IoU .50 to .95), `map50`, `map75`, `recall` (at most 100 boxes an image); 0 where there is no object at all.
        The matches at an IoU of .5, from which `Precision` computes `map50` of any images: for each image the categories of its
        `objects`, and of the boxes that count the categories `found`, their `scores`, and whether each is `right`.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    regions = [_annotation(i, one) for i, one in _each(truth)]
    right = [entry | {"id": number} for number, entry in enumerate(regions, 1)]
    said = [_annotation(i, one) | {"score": float(one["score"])} for i, one in _each(found)]
    labels = sorted({annotation["category_id"] for annotation in right + said})
    judge = None
    if right and said:
        with contextlib.redirect_stdout(io.StringIO()):  # the library talks
            data = COCO()
            data.dataset = {
                "info": {},
                "images": [{"id": i} for i in range(len(truth))],
                "categories": [{"id": label} for label in labels],
                "annotations": right,
            }
            data.createIndex()
            judge = COCOeval(data, data.loadRes(said), "bbox")
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
    values = np.zeros(12) if judge is None else np.maximum(judge.stats, 0)
    metrics = {"map": float(values[0]), "map50": float(values[1]), "map75": float(values[2]), "recall": float(values[8])}
    return metrics, _matches(truth, found) if judge is None else _judged(judge, len(truth), labels)


def _judged(judge, images: int, labels: list[int]) -> dict[str, list]:
    """The library's matches at an IoU of .5; what it ignores is left out, since it counts neither way."""
    table: dict[str, list] = {name: [[] for _ in range(images)] for name in MATCHES}
    areas = len(judge.params.areaRng)
    for place, label in enumerate(labels):
        parts = judge.evalImgs[place * areas * images : place * areas * images + images]  # the first range: all areas
        for i, part in enumerate(parts):
            if part is not None:
                counts = ~part["dtIgnore"][0].astype(bool)
                table["objects"][i] += [label] * int((np.asarray(part["gtIgnore"]) == 0).sum())
                table["found"][i] += [label] * int(counts.sum())
                table["scores"][i] += np.array(part["dtScores"], float)[counts].tolist()
                table["right"][i] += (part["dtMatches"][0] > 0)[counts].tolist()
    return table


def _matches(truth: Sequence[dict], found: Sequence[dict]) -> dict[str, list]:
    """The same where there is nothing to match: no object at all, or nothing found."""
    return {
        "objects": [[int(label) for label in singles(row)["category"]] for row in truth],
        "found": [[int(label) for label in row["category"]] for row in found],
        "scores": [[float(score) for score in row["score"]] for row in found],
        "right": [[False] * len(row["category"]) for row in found],
    }


class Precision:
    """COCO's mean average precision at an IoU of .5, as a function of how often each picture was drawn; see `bootstrap.Statistic`.

    Args:
        table: the columns `MATCHES`, and perhaps `picture`, for each image.
    """

    def __init__(self, table: dict[str, list]):
        shown = numbered(table["picture"]) if "picture" in table else np.arange(len(table["objects"]))
        self.pictures = int(shown.max(initial=-1)) + 1
        objects, found, scores, right = (np.array([v for row in table[name] for v in row], float) for name in MATCHES)
        places, owners = (np.repeat(shown, [len(row) for row in table[name]]) for name in ("objects", "found"))
        self.classes = []
        for label in np.unique(objects):
            mine = np.flatnonzero(found == label)
            mine = mine[np.argsort(-scores[mine], kind="stable")]
            count = np.bincount(places[objects == label], minlength=self.pictures).astype(float)
            self.classes.append((count, owners[mine], np.flatnonzero(right[mine])))
        self.width = max([self.pictures, *(len(owner) for _, owner, _ in self.classes)])

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """float[B, N] → mAP float[B]: the mean over the classes that occur; NaN without any."""
        values = np.array([_precision(hits, weights[:, owner], weights @ count) for count, owner, hits in self.classes])
        values = values.reshape(-1, len(weights))
        there = ~np.isnan(values)
        return np.divide(np.nansum(values, 0), there.sum(0), out=np.full(len(weights), np.nan), where=there.any(0))


def _precision(hits: np.ndarray, weights: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Average precision at COCO's 101 points of recall, float[B]; NaN without objects.

    Args:
        hits: int[H], which of the boxes, by falling score, are right.
        weights: float[B, D], how often each box's picture was drawn.
        total: float[B], objects that there are.
    """
    said = weights.cumsum(1)[:, hits]
    right = weights[:, hits].cumsum(1)
    precision = np.maximum.accumulate((right / np.maximum(said, 1))[:, ::-1], 1)[:, ::-1]  # the best at this recall or more
    recall = right / np.maximum(total, 1)[:, None]
    reached = np.diff(np.searchsorted(np.linspace(0, 1, 101), recall, side="right"), axis=1, prepend=0)
    return np.where(total > 0, (precision * reached).sum(1) / 101, np.nan)


def f1(truth: dict, found: dict, least: float = 0.5) -> float:
    """How well the boxes of one picture are those that are there; 1 when both are none.

    Each found box, the surest first, takes the free true box of its category that it overlaps most, if their IoU is `least`. One that
    takes none, and lies by that share in a crowd of its category, counts neither way.

    Args:
        truth: `bbox` float[N, 4] XYXY in pixels, `category` int[N], and perhaps `iscrowd` int[N].
        found: the same, the surest first.
    """
    crowds = [i for i, crowd in enumerate(truth.get("iscrowd") or []) if crowd]
    free, hits, ignored = [i for i in range(len(truth["bbox"])) if i not in crowds], 0, 0
    objects = len(free)
    for box, label in zip(found["bbox"], found["category"], strict=True):
        alike = [i for i in free if truth["category"][i] == label]
        shared = overlap(np.array([box]), np.array([truth["bbox"][i] for i in alike]).reshape(-1, 4))[0]
        if shared.max(initial=0) >= least:
            hits += 1
            free.remove(alike[int(shared.argmax())])
        else:
            ignored += any(truth["category"][i] == label and _inside(box, truth["bbox"][i]) >= least for i in crowds)
    total = objects + len(found["bbox"]) - ignored
    return 2 * hits / total if total else 1.0


def _inside(box: Sequence[float], region: Sequence[float]) -> float:
    """The share of a box XYXY that lies in a region XYXY."""
    box, region = np.asarray(box, float), np.asarray(region, float)
    shared = np.clip(np.minimum(box[2:], region[2:]) - np.maximum(box[:2], region[:2]), 0, None).prod()
    return float(shared / max(np.clip(box[2:] - box[:2], 0, None).prod(), 1e-12))


def _each(rows: Sequence[dict]) -> Iterator[tuple[int, dict]]:
    """(number of the image, one of its boxes with what is said of it)."""
    for i, row in enumerate(rows):
        names = [name for name in ("bbox", "category", "score", "iscrowd") if row.get(name) is not None]
        for values in zip(*(row[name] for name in names), strict=True):
            yield i, dict(zip(names, values, strict=True))


def _annotation(image: int, one: dict) -> dict:
    left, top, right, bottom = (float(value) for value in one["bbox"])
    width, height = right - left, bottom - top
    place = {"bbox": [left, top, width, height], "area": width * height}
    return place | {"image_id": image, "category_id": int(one["category"]), "iscrowd": int(one.get("iscrowd", 0))}


def draw(image: Image.Image, truth: dict, found: dict, names: Sequence[str], side: int = 256) -> Image.Image:
    """A picture, `side` pixels at its longer side, with the true boxes in green and the found ones in red with names and scores."""
    scale = side / max(image.size)
    picture = image.convert("RGB").resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for box in singles(truth)["bbox"]:
        pen.rectangle([value * scale for value in box], outline=TRUTH, width=2)
    for box, label, score in zip(found["bbox"], found["category"], found["score"], strict=True):
        left, top, right, bottom = (float(value) * scale for value in box)
        pen.rectangle([left, top, max(right, left), max(bottom, top)], outline=FOUND, width=2)
        name = names[label] if 0 <= label < len(names) else "?"
        pen.text((left + 3, top + 2), f"{name} {score:.2f}", fill=FOUND)
    return picture
