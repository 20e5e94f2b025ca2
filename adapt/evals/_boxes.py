"""Boxes against boxes: COCO's average precision by its own library, and drawings of both."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

TRUTH, FOUND = (0, 140, 80), (215, 30, 110)


def coco(truth: Sequence[dict], found: Sequence[dict]) -> dict[str, float]:
    """Average precision and recall over all images, as COCO defines them.

    Args:
        truth: an image's `bbox` float[N, 4] XYXY in pixels and `category` int[N].
        found: the same with `score` float[N]; of an image the 100 surest count.

    Returns:
        `map` (IoU .50 to .95), `map50`, `map75`, `recall` (at most 100 boxes an image); 0 where there is no object at all.
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
        return dict.fromkeys(("map", "map50", "map75", "recall"), 0.0)
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
    return {"map": float(values[0]), "map50": float(values[1]), "map75": float(values[2]), "recall": float(values[8])}


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
