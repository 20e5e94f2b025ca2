"""Classification by class logits: of a zero-shot classifier, an adapted model, a student, an exported file — all the same way.

Where the label's logit ties with another's, the answer is wrong: a model whose logits are all alike knows nothing.

Source of the protocol: CLIP §3.1, arXiv:2103.00020 (top-1, mean per class); calibration: Guo et al. 2017, arXiv:1706.04599; F1: as
WILDS reports iWildCam, arXiv:2012.07421.

    >>> evaluate(Config(name="zeroshot", fitted_on="validation"), predict, dataset, {}, validation).metrics
    {'top1': 0.42, 'top5': 0.81, 'mean_per_class': 0.40, 'f1_macro': 0.38, 'ece': 0.16, 'nll': 2.1, 'ece_fitted': 0.04, 'temperature': 1.7}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from adapt.contracts import EvalConfig

if TYPE_CHECKING:
    from adapt.evals.result import Result


class Config(EvalConfig):
    """Top-1, top-k, mean per class, macro F1, ECE, NLL, confusion."""

    version = 2
    main = "top1"
    predictor = "class_logits"
    quick = {"fitted_on": None}

    top: int = Field(5, ge=2)
    """k of top-k."""
    bins: int = Field(15, ge=2, le=1000)
    """Equal-width confidence bins of the ECE."""
    fitted_on: str | None = None
    """A split with labels, such as validation, on which a temperature is fitted: the ECE with it is told too. None: none is fitted."""

    @property
    def bank(self) -> str | None:
        return self.fitted_on

    @model_validator(mode="after")
    def _not_on_what_is_measured(self) -> Config:
        if self.fitted_on == self.split:
            raise ValueError(f"fitted_on: {self.fitted_on!r} is the split that is measured; name another, such as validation")
        return self


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: a data set → logits float32[N, C], scaled as the softmax takes them.
        dataset: rows with `id` and `label`.
        protocol: what the caller knows: data, class names, templates, input.
        bank: rows of `config.fitted_on`.
    """
    import numpy as np

    from adapt.evals.bootstrap import interval, mean
    from adapt.evals.metrics import Classification, confusion
    from adapt.evals.resampled import f1, recall
    from adapt.evals.result import Result

    labels, logits = np.asarray(dataset["label"][:]), predict(dataset)
    metric = Classification(keep_in_memory=True)
    metrics = metric.compute(predictions=logits, references=labels, top=config.top, bins=config.bins)
    rows = metric.rows
    names = dataset.features["label"].names
    resampled = {f"top{k}": mean(rows.rank < k) for k in (1, config.top)}
    resampled |= {"mean_per_class": recall(labels, rows.rank < 1), "f1_macro": f1(labels, rows.answer)}
    fitted = _fitted(config, predict(bank), bank, logits, labels) if config.fitted_on else {}
    return Result(
        metrics=metrics | fitted,
        protocol=protocol | {"eval": "zeroshot", "split": config.split, "activation": "softmax", "bins": config.bins},
        intervals={name: interval(each, config.bootstrap) for name, each in resampled.items()},
        floor=float(np.bincount(labels).max() / len(labels)),
        remark=_remark(config, **fitted) if fitted else "",
        table=rows.table(dataset["id"][:], labels, names),
        figures={
            "classes": names,
            "confusion": confusion(labels, rows.answer, len(names)),
            "reliability": rows.reliability(config.bins),
        },
    )


def _fitted(config: Config, seen, bank, logits, labels) -> dict[str, float]:
    """The temperature that fits the logits `seen`, float32[M, C], of the rows of another split best, and the ECE of these logits with it."""
    import numpy as np

    from adapt.evals.calibration import temperature
    from adapt.evals.metrics import Judged, calibration_error

    found = temperature(seen, np.asarray(bank["label"][:]))
    rows = Judged.of(logits / found, labels)
    return {"ece_fitted": calibration_error(rows.reliability(config.bins)), "temperature": found}


def _remark(config: Config, ece_fitted: float, temperature: float) -> str:
    return f"with its logits divided by {temperature:.2f}, the temperature that fits {config.fitted_on} best, its ECE is {ece_fitted:.3f}."


def statistic(table: dict[str, list]):
    """Top-1 of a table, as a function of how often each picture was drawn."""
    from adapt.evals.bootstrap import mean

    return mean(table["correct"])
