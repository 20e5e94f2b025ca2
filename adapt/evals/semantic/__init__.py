"""Semantic segmentation: a class for each pixel, from one confusion matrix over all pixels of the split.

The truth is the column `segmentation` (a PNG: 0 background, k + 1 the category k, 255 not judged) or, without it, `objects`, whose
masks are painted in their order. Source: Everingham et al. 2010 (Pascal VOC: IoU of a class = true positives over the union, over
the whole split); Long et al. 2015, arXiv:1411.4038 (pixel accuracy, mean accuracy, mIoU, frequency-weighted IoU).

    >>> evaluate(Config(name="semantic"), predict, dataset, {}).metrics
    {'miou': 0.52, 'pixel_accuracy': 0.91, 'mean_accuracy': 0.63, 'weighted_iou': 0.84}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adapt.contracts import EvalConfig
from adapt.plug import UserError
from adapt.vision.classes import IGNORE

if TYPE_CHECKING:
    import numpy as np

    from adapt.evals.result import Result

CHUNK = 64
"""Rows that are predicted at once: maps are not gathered in memory."""


class Config(EvalConfig):
    """mIoU over the classes that occur, pixel accuracy."""

    version = 2
    main = "miou"
    predictor = "semantic_logits"
    quick = {"pictures": 0}

    pictures: int = Field(12, ge=0, le=24)
    """The worst images that are drawn."""


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set, "semantic_logits") → logits float[N, C, h, w], or classes [N, h, w], of views that show whole images;
            class 0 is the background, k + 1 the category k. They are resized to the truth: logits bilinear, classes nearest.
        dataset: rows with `id`, `image`, and `segmentation` or `objects`.
        protocol: what the caller knows.

    Raises:
        UserError: the data set has neither column.
    """
    from adapt.evals.bootstrap import interval
    from adapt.evals.metrics import stored
    from adapt.evals.result import Result
    from adapt.evals.semantic import class_maps

    names = class_maps.names(dataset)
    table: dict[str, list] = {"id": dataset["id"][:]}
    total, maps = 0, []
    for i, (truth, found, sure) in enumerate(_pairs(predict, dataset)):
        if found.max(initial=0) >= len(names):
            raise UserError(f"evals: the model has class {found.max()}; the data has {len(names)}, with the background.")
        matrix = class_maps.confusion(truth, found, len(names), IGNORE)
        total = total + matrix
        for column, value in ({"confidence": sure} | class_maps.row(matrix, names)).items():
            table.setdefault(column, []).append(value)
        if config.pictures:
            maps = sorted([*maps, (table["mean_iou"][i], i, found)], key=lambda item: item[:2])[: config.pictures]
    ids, there, said = (table[name] for name in ("id", "label", "prediction"))
    return Result(
        metrics=class_maps.scores(total),
        protocol=protocol | {"eval": "semantic", "split": config.split, "classes": names, "ignore": IGNORE},
        intervals={"miou": interval(statistic(table), config.bootstrap)},
        floor=class_maps.floor(total),
        table=table,
        figures={"classes": names, "confusion": stored(total)},
        pictures=[
            _picture(dataset[i], found, f"{said[i] or 'nothing'} for {there[i] or 'nothing'}: mean IoU {value:.2f} ({ids[i]})")
            for value, i, found in maps
        ],
    )


def statistic(table: dict[str, list]):
    """The mIoU of a table, as a function of how often each picture was drawn."""
    import numpy as np

    from adapt.evals.bootstrap import Sums
    from adapt.evals.semantic import class_maps

    return Sums(np.hstack([np.array(table["intersection"], float), np.array(table["union"], float)]), class_maps.miou)


def _pairs(predict: Callable, dataset) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """For each row the true and the found classes, int[H, W], and the mean probability of what was found."""
    from adapt.evals.semantic import class_maps

    for start in range(0, len(dataset), CHUNK):
        part = dataset.select(range(start, min(start + CHUNK, len(dataset))))
        truths = (class_maps.truth(row) for row in part.remove_columns("image"))
        for truth, output in zip(truths, predict(part, Config.predictor), strict=True):
            yield truth, *class_maps.classes(output, truth.shape)


def _picture(row: dict, found: np.ndarray, caption: str) -> tuple[str, Any]:
    from adapt.vision.draw import PALETTE, overlay

    present = [c for c in range(1, int(found.max(initial=0)) + 1) if (found == c).any()]
    colours = [PALETTE[c % len(PALETTE)] for c in present]
    picture = overlay(row["image"].resize(found.shape[::-1]), [found == c for c in present], colours)
    return caption, picture
