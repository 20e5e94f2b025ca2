"""Several classes a picture: are the pictures of a class the ones that score highest for it?

The average precision of a class is the mean of the precisions at the ranks of its own pictures, over all ranks; the main metric is its mean
over the classes. Of equal scores, pictures without the class stand first; a class without pictures counts with 0.

Source: CLIP_benchmark's mAP (metrics/zeroshot_classification.py). VOC 2007 itself took the mean at 11 recalls.

    >>> evaluate(Config(name="multilabel"), predict, dataset, {}).metrics
    {'map': 0.79}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adapt.contracts import EvalConfig
from adapt.plug import UserError

if TYPE_CHECKING:
    import numpy as np

    from adapt.evals.result import Result


class Config(EvalConfig):
    """Mean average precision over the classes of pictures with several."""

    version = 2
    main = "map"
    predictor = "class_logits"


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: a data set → logits float32[N, C].
        dataset: rows with `id` and `labels`, the numbers of a picture's classes, any number of them.
        protocol: what the caller knows.

    Raises:
        UserError: there are no labels, or no picture has any.
    """
    import numpy as np

    from adapt.evals.bootstrap import interval
    from adapt.evals.by_set import average_precision
    from adapt.evals.result import Result
    from adapt.vision.classes import class_names

    if "labels" not in dataset.column_names:
        raise UserError(f"evals: multilabel needs a column 'labels'. Have: {', '.join(dataset.column_names)}.")
    names = class_names(dataset.features)
    truth = _truth(dataset["labels"][:], len(names))
    scores = np.asarray(predict(dataset))
    each = average_precision(scores, truth)
    table = {
        "id": dataset["id"][:],
        "label": [", ".join(names[i] for i in np.flatnonzero(row)) for row in truth],
        "prediction": [names[i] for i in scores.argmax(1)],
        "scores": scores.tolist(),
        "truth": truth.tolist(),
    }
    there = truth.any(0)
    least = min(np.flatnonzero(there), key=each.__getitem__)
    return Result(
        metrics={"map": float(each.mean())},
        protocol=protocol | {"eval": "multilabel", "split": config.split, "precision_at": "all ranks"},
        intervals={"map": interval(statistic(table), config.bootstrap)},
        floor=float(average_precision(np.zeros_like(scores), truth).mean()),
        table=table,
        remark=f"the class that is found worst is {names[least]!r}, with an average precision of {100 * each[least]:.1f} %."
        + (f" {int((~there).sum())} of {len(names)} classes have no picture, and count with 0." if not there.all() else ""),
    )


def statistic(table: dict[str, list]):
    """The mean average precision of a table, as a function of how often each picture was drawn."""
    from adapt.evals.resampled import Precision

    return Precision(table["scores"], table["truth"])


def _truth(labels: list[list[int]], classes: int) -> np.ndarray:
    """Which classes each picture has, bool[N, C].

    Raises:
        UserError: no picture has any.
    """
    import numpy as np

    truth = np.zeros((len(labels), classes), bool)
    for row, several in zip(truth, labels, strict=True):
        row[several or []] = True
    if not truth.any():
        raise UserError("evals: multilabel ranks the pictures of each class, and no picture has any class in its labels.")
    return truth
