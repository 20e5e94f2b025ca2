"""Boxes against boxes: COCO's average precision by its own library, and drawings of both."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from adapt.prompting.tokens import overlap

TRUTH, FOUND = (0, 140, 80), (215, 30, 110)


def coco(truth: Sequence[dict], found: Sequence[dict], samples: int = 0) -> tuple[dict[str, float], tuple[float, float] | None]:
    """Average precision and recall over all images, as COCO defines them.

    Args:
        truth: an image's `bbox` float[N, 4] XYXY in pixels and `category` int[N].
        found: the same with `score` float[N]; of an image the 100 surest count.
        samples: bootstrap resamples of the images.

    Returns:
        `map` (IoU .50 to .95), `map50`, `map75`, `recall` (at most 100 boxes an image); 0 where there is no object at all.
        The 95 % interval of `map50`, if there are resamples.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    right = [
        _annotation(i, box, label) for i, image in enumerate(truth) for box, label in zip(image["bbox"], image["category"])
    ]
    said = [
        _annotation(i, box, label) | {"score": float(score)}
        for i, image in enumerate(found)
        for box, label, score in zip(image["bbox"], image["category"], image["score"], strict=True)
    ]
    if not right or not said:
        return dict.fromkeys(("map", "map50", "map75", "recall"), 0.0), (0.0, 0.0) if samples else None
    for number, annotation in enumerate(right, 1):
        annotation["id"] = number
    labels = sorted({annotation["category_id"] for annotation in right + said})
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
    values = np.maximum(judge.stats, 0)
    metrics = {"map": float(values[0]), "map50": float(values[1]), "map75": float(values[2]), "recall": float(values[8])}
    return metrics, _interval(judge, len(truth), len(labels), samples) if samples else None


def _interval(judge, images: int, labels: int, samples: int, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of mAP at an IoU of .5 over resampled images: the library's matches, weighed anew."""
    weights = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), samples)
    areas = len(judge.params.areaRng)
    values = []
    for label in range(labels):
        parts = judge.evalImgs[label * areas * images : label * areas * images + images]  # the first range: all areas
        matches = [(i, part) for i, part in enumerate(parts) if part is not None]
        total = sum(weights[:, i] * len(part["gtIds"]) for i, part in matches)
        owner = np.concatenate([np.full(len(part["dtScores"]), i) for i, part in matches]).astype(int)
        order = np.argsort(-np.concatenate([part["dtScores"] for _, part in matches]), kind="stable")
        hit = np.concatenate([part["dtMatches"][0] > 0 for _, part in matches])[order]
        values.append([_precision(hit, row[owner][order], each) for row, each in zip(weights, np.broadcast_to(total, samples))])
    table = np.array(values)
    low, high = np.percentile(np.nanmean(table[:, ~np.isnan(table).all(0)], 0), [2.5, 97.5])
    return float(low), float(high)


def _precision(hit: np.ndarray, weight: np.ndarray, total: float) -> float:
    """Average precision at COCO's 101 points of recall; `hit` bool[D] and `weight` int[D] by falling score; NaN without objects."""
    if not total:
        return float("nan")
    right, said = np.cumsum(hit * weight), np.cumsum(weight)
    envelope = np.maximum.accumulate((right / np.maximum(said, 1))[::-1])[::-1]
    places = np.searchsorted(right / total, np.linspace(0, 1, 101), side="left")
    return float(np.append(envelope, 0.0)[places].mean())


def f1(truth: dict, found: dict, least: float = 0.5) -> float:
    """How well the boxes of one picture are those that are there; 1 when both are none.

    Each found box, the surest first, takes the free true box of its category that it overlaps most, if their IoU is `least`.

    Args:
        truth: `bbox` float[N, 4] XYXY in pixels and `category` int[N].
        found: the same, the surest first.
    """
    free, hits = list(range(len(truth["bbox"]))), 0
    for box, label in zip(found["bbox"], found["category"], strict=True):
        alike = [i for i in free if truth["category"][i] == label]
        if not alike:
            continue
        shared = overlap(np.array([box]), np.array([truth["bbox"][i] for i in alike]))[0]
        if shared.max() >= least:
            hits += 1
            free.remove(alike[int(shared.argmax())])
    total = len(truth["bbox"]) + len(found["bbox"])
    return 2 * hits / total if total else 1.0


def _annotation(image: int, box: Sequence[float], label: int) -> dict:
    left, top, right, bottom = (float(value) for value in box)
    width, height = right - left, bottom - top
    place = {"bbox": [left, top, width, height], "area": width * height}
    return place | {"image_id": image, "category_id": int(label), "iscrowd": 0}


def draw(image: Image.Image, truth: dict, found: dict, names: Sequence[str], side: int = 256) -> Image.Image:
    """A picture, `side` pixels at its longer side, with the true boxes in green and the found ones in red with names and scores."""
    scale = side / max(image.size)
    picture = image.convert("RGB").resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    for box in truth["bbox"]:
        pen.rectangle([value * scale for value in box], outline=TRUTH, width=2)
    for box, label, score in zip(found["bbox"], found["category"], found["score"], strict=True):
        left, top, right, bottom = (float(value) * scale for value in box)
        pen.rectangle([left, top, max(right, left), max(bottom, top)], outline=FOUND, width=2)
        name = names[label] if 0 <= label < len(names) else "?"
        pen.text((left + 3, top + 2), f"{name} {score:.2f}", fill=FOUND)
    return picture
