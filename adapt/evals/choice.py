"""The right caption among wrong ones that are almost alike: does a model read words in their order, and every one of them?

The first caption of a row is the right one. What scores as high as it is against it: embeddings that are all alike choose nothing.

Source: SugarCrepe, arXiv:2306.14610: a caption of COCO, and one with an object, attribute or relation replaced, swapped or added.

    >>> evaluate(Config(name="choice"), predict, dataset, {}).metrics
    {'choice': 0.78}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adapt.contracts import EvalConfig
from adapt.plug import UserError, counted

if TYPE_CHECKING:
    from adapt.evals.result import Result


class Config(EvalConfig):
    """The share of rows whose first caption scores above all their others."""

    main = "choice"
    predictor = "class_logits"
    asks_texts = True


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set, texts=…) → similarities float32[N, len(texts)].
        dataset: rows with `id` and `caption`, two texts or more, the right one first.
        protocol: what the caller knows.

    Raises:
        UserError: there are no captions, a row has fewer than two, or the right one among the wrong ones.
    """
    import numpy as np

    from adapt.evals.bootstrap import interval, mean
    from adapt.evals.captions import scored
    from adapt.evals.result import Result

    captions = _captions(dataset)
    scores = scored(predict, dataset, captions)
    best = np.array([0 if (own[0] > own[1:]).all() else 1 + own[1:].argmax() for own in scores], np.int64)
    correct = best == 0
    return Result(
        metrics={"choice": float(correct.mean())},
        protocol=protocol | {"eval": "choice", "split": config.split, "captions": sum(map(len, captions))},
        intervals={"choice": interval(mean(correct), config.bootstrap)},
        floor=float(np.mean([1 / len(each) for each in captions])),  # by chance
        table={
            "id": dataset["id"][:],
            "label": [each[0] for each in captions],
            "prediction": [each[number] for each, number in zip(captions, best, strict=True)],
            "correct": correct.tolist(),
        },
    )


def statistic(table: dict[str, list]):
    """The share of right choices of a table, as a function of how often each picture was drawn."""
    from adapt.evals.bootstrap import mean

    return mean(table["correct"])


def _captions(dataset) -> list[list[str]]:
    """The captions of each row, the right one first."""
    if "caption" not in dataset.column_names:
        raise UserError(f"evals: choice needs a column 'caption'. Have: {', '.join(dataset.column_names)}.")
    found = [[value] if isinstance(value, str) else list(value or []) for value in dataset["caption"]]
    for name, texts in zip(dataset["id"], found, strict=True):
        if len(texts) < 2:
            raise UserError(
                f"evals: row {name!r} has {counted(len(texts), 'caption')}, and choice needs the right one and a wrong one."
            )
        if texts[0] in texts[1:]:
            raise UserError(f"evals: row {name!r} has its right caption {texts[0]!r} among the wrong ones.")
    return found
