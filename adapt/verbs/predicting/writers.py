"""Answers as files, a function a format: (folder, what was answered) → sentences on what the format could not hold."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from adapt.plug import UserError
from adapt.verbs.formats import boxes, labelstudio
from adapt.verbs.formats.plain import csv_, jsonl, png
from adapt.verbs.formats.told import Told, nameless, text_file, write_list

Writer = Callable[[Path, Told], list[str]]


def coco(place: Path, told: Told) -> list[str]:
    """`dataset.json`, all that a COCO data set has, and `results.json`, the list that pycocotools' `loadRes` takes."""
    boxes.coco(place / "dataset.json", told, told.lines)
    with text_file(place / "results.json") as file:
        write_list(file, (_result(one) for one in boxes.shapes(told, told.lines)))
    return nameless(told)


def _result(one: dict) -> dict:
    shape = "segmentation" if one["segmentation"] else "bbox"
    return {key: one[key] for key in ("image_id", "category_id", shape, "score")}


def yolo(place: Path, told: Told) -> list[str]:
    """A data set of YOLO's, see `boxes.yolo`; which pictures shall measure (`val`) is the user's to say."""
    boxes.yolo(place, told, {"train": "images", "val": None})
    return nameless(told)


def voc(place: Path, told: Told) -> list[str]:
    """Pascal VOC's XML, see `boxes.voc`; the lists of splits, `ImageSets/Main/train.txt` and the like, are the user's."""
    boxes.voc(place, told)
    return [*nameless(told), "Boxes are rounded to whole pixels, as VOC has them."]


def tasks(place: Path, told: Told, boxes: bool) -> list[str]:
    """Label Studio's tasks with pre-annotations."""
    return [*nameless(told), *labelstudio.labelstudio(place, told, boxes)]


WRITERS: dict[str, dict[str, Writer]] = {
    "class_logits": {"csv": partial(csv_, classes=True), "jsonl": jsonl, "labelstudio": partial(tasks, boxes=False)},
    "detections": {"coco": coco, "yolo": yolo, "voc": voc, "labelstudio": partial(tasks, boxes=True), "jsonl": jsonl},
    "semantic_logits": {"png": png, "coco": coco, "jsonl": jsonl},
    "text": {"jsonl": jsonl, "csv": partial(csv_, classes=False)},
    "image_embedding": {"jsonl": jsonl},
}
"""Predictor → the formats that hold its answers."""
CALLED = {
    "class_logits": "a class for a picture",
    "detections": "boxes",
    "semantic_logits": "a class for each pixel",
    "text": "words",
    "image_embedding": "an embedding",
}


def writer(predictor: str, to: str) -> Writer:
    """The function that writes a predictor's answers in a format.

    Raises:
        UserError: the format cannot hold them.
    """
    if to not in WRITERS[predictor]:
        raise UserError(
            f"to: {to!r} cannot hold {CALLED[predictor]}, which is what this model answers. Formats that can: "
            f"{', '.join(WRITERS[predictor])}."
        )
    return WRITERS[predictor][to]
