"""Classification by class logits: of a zero-shot classifier, an adapted model, a student, an exported file — all the same way.

Where the label's logit ties with another's, the answer is wrong: a model whose logits are all alike knows nothing.

Source of the protocol: CLIP §3.1, arXiv:2103.00020 (top-1, mean per class); calibration: Guo et al. 2017, arXiv:1706.04599.

    >>> evaluate(Config(name="zeroshot"), predict, dataset, {}).metrics
    {'top1': 0.42, 'top5': 0.81, 'mean_per_class': 0.40, 'ece': 0.06, 'nll': 1.9}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adapt.contracts import EvalConfig

if TYPE_CHECKING:
    from adapt.evals.result import Result


class Config(EvalConfig):
    """Top-1, top-k, mean per class, ECE, NLL, confusion."""

    version = 2
    main = "top1"
    predictor = "class_logits"

    top: int = Field(5, ge=2)
    """k of top-k."""
    bins: int = Field(15, ge=2, le=1000)
    """Equal-width confidence bins of the ECE."""


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: a data set → logits float32[N, C], scaled as the softmax takes them.
        dataset: rows with `id` and `label`.
        protocol: what the caller knows: data, class names, templates, input.
    """
    import numpy as np

    from adapt.evals.bootstrap import interval, mean
    from adapt.evals.metrics import Classification, confusion
    from adapt.evals.result import Result

    labels = np.asarray(dataset["label"][:])
    metric = Classification(keep_in_memory=True)
    metrics = metric.compute(predictions=predict(dataset), references=labels, top=config.top, bins=config.bins)
    rows = metric.rows
    names = dataset.features["label"].names
    return Result(
        metrics=metrics,
        protocol=protocol | {"eval": "zeroshot", "split": config.split, "activation": "softmax", "bins": config.bins},
        intervals={f"top{k}": interval(mean(rows.rank < k), config.bootstrap) for k in (1, config.top)},
        floor=float(np.bincount(labels).max() / len(labels)),
        table={
            "id": dataset["id"][:],
            "label": [names[i] for i in labels],
            "prediction": [names[i] for i in rows.answer],
            "confidence": rows.confidence.tolist(),
            "correct": (rows.rank < 1).tolist(),
        },
        figures={
            "classes": names,
            "confusion": confusion(labels, rows.answer, len(names)),
            "reliability": rows.reliability(config.bins),
        },
    )


def statistic(table: dict[str, list]):
    """Top-1 of a table, as a function of how often each picture was drawn."""
    from adapt.evals.bootstrap import mean

    return mean(table["correct"])
