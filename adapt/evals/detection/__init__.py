"""Detection: COCO's mean average precision of boxes, by pycocotools.

    >>> evaluate(Config(name="detection"), predict, dataset, {}).metrics
    {'map': 0.33, 'map50': 0.58, 'map75': 0.35, 'recall': 0.47, 'unread': 0.01}

Source: Lin et al. 2014, arXiv:1405.0312, and cocodataset.org/#detection-eval.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from adapt.contracts import EvalConfig
from adapt.plug import UserError
from adapt.vision.masks import singles

if TYPE_CHECKING:
    from adapt.evals.result import Result

SHOWN = 10
"""Most boxes that are drawn on a picture, and listed."""


class Config(EvalConfig):
    """mAP, mAP at an IoU of .5 and of .75, recall; the share of generated objects that could not be read."""

    version = 2
    main = "map50"
    predictor = "detections"
    quick = {"pictures": 0}

    ask: Literal["all", "present"] = "all"
    """A model that is asked for categories by name: all, every one, so that it is told as little of the picture as a detector is; or
    present, those on the picture, which someone has to know. The protocol says what a module was told."""
    class_agnostic: bool = False
    """Count a box as right whatever its category."""
    bootstrap: int = Field(300, ge=100, le=100_000)
    """Resamples of the images for the 95 % interval."""
    pictures: int = Field(12, ge=0, le=24)
    """Pictures for the report: those of the lowest F1 between the boxes drawn and those that are there, at an IoU of .5."""


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set, name="detections") → a row's `bbox` float[N, 4] XYXY in pixels, `category` int[N] (−1: none of the
            classes), `score` float[N], and of generated ones `unread`. Where the rows bring `objects`, their categories may be asked for.
        dataset: rows with `id`, `image` and `objects`; those whose `objects` are none, such as captions beside them, are not asked.
        protocol: what the caller knows; `asked_by_name`: the module is asked for categories by name.

    Raises:
        UserError: the data has no objects.
    """
    from adapt.evals.bootstrap import interval, pictures
    from adapt.evals.detection.boxes import coco
    from adapt.evals.result import Result

    if "objects" not in dataset.column_names:
        raise UserError(f"evals: detection needs a column 'objects'. Have: {', '.join(dataset.column_names)}.")
    dataset = dataset.select([i for i, row in enumerate(dataset["objects"][:]) if row is not None])
    if not len(dataset):
        raise UserError(f"evals: no row of the split {config.split!r} has objects. Name another split with evals.0.split.")
    truth = dataset["objects"][:]
    found = predict(dataset if config.ask == "present" else dataset.remove_columns("objects"), name=config.predictor)
    judged = [_one_class(row) for row in found] if config.class_agnostic else [_known(row) for row in found]
    right = [_one_class(row) for row in truth] if config.class_agnostic else truth
    metrics, matches = coco(right, judged)
    if any("unread" in row for row in found):
        unread, read = sum(row["unread"] for row in found), sum(len(row["bbox"]) for row in found)
        metrics["unread"] = unread / max(1, unread + read)
    names = list(protocol.get("classes") or [])
    surest = [_surest(row) for row in found]
    told = protocol.get("asked_by_name") and config.ask == "present"
    known = {name: value for name, value in protocol.items() if name != "asked_by_name"}
    rules = {"eval": "detection", "split": config.split, "ask": config.ask, "class_agnostic": config.class_agnostic}
    table = {
        "id": dataset["id"][:],
        "picture": pictures(dataset),
        "label": [_listing(singles(row), names) for row in truth],
        "prediction": [_listing(row, names) for row in surest],
        "confidence": [float(max(row["score"], default=0.0)) for row in found],
    }
    table |= matches
    return Result(
        metrics=metrics,
        protocol=known | rules | {"told": "the categories on each picture" if told else "nothing"},
        intervals={"map50": interval(statistic(table), config.bootstrap)},
        table=table,
        pictures=_worst(config, dataset, truth, surest, names),
    )


def statistic(table: dict[str, list]):
    """The mAP at an IoU of .5 of a table, as a function of how often each picture was drawn."""
    from adapt.evals.detection.boxes import Precision

    return Precision(table)


def _worst(config: Config, dataset, truth: list[dict], found: list[dict], names: list[str]) -> list[tuple[str, Any]]:
    """The pictures of the lowest F1, what is there in green and what was found in red."""
    from adapt.evals.detection.boxes import draw, f1

    alike = _one_class if config.class_agnostic else dict
    values = [f1(alike(right), alike(said)) for right, said in zip(truth, found, strict=True)]
    pictures = []
    for i in sorted(range(len(found)), key=values.__getitem__)[: config.pictures]:
        row, said = dataset[i], _listing(found[i], names) or "nothing"
        pictures.append((f"{said}: F1 {values[i]:.2f} ({row['id']})", draw(row["image"], truth[i], found[i], names)))
    return pictures


def _one_class(row: dict) -> dict:
    return dict(row) | {"category": [0] * len(row["bbox"])}


def _known(row: dict) -> dict:
    """Without boxes of no known category, which no object could match."""
    return _only(row, [i for i, label in enumerate(row["category"]) if label >= 0])


def _surest(row: dict) -> dict:
    """What a person wants to see of hundreds of boxes: at most `SHOWN`, the surest first, none half as sure as that one."""
    order = sorted(range(len(row["score"])), key=lambda i: -row["score"][i])[:SHOWN]
    return _only(row, [i for i in order if row["score"][i] >= 0.5 * row["score"][order[0]]])


def _only(row: dict, kept: list[int]) -> dict:
    return {name: [row[name][i] for i in kept] for name in ("bbox", "category", "score")}


def _listing(row: dict, names: list[str]) -> str:
    """Category names of the boxes, in their order."""
    return ", ".join(names[label] if 0 <= label < len(names) else str(int(label)) for label in row["category"])
