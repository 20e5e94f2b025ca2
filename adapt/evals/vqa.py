"""Questions with short answers; where the data has a column `count`, how many things there are.

    evals: [{name: vqa}]
    evals: [{name: vqa, column: label, prefix: answer en what is this?}]

    >>> evaluate(Config(name="vqa"), predict, dataset, {}).metrics
    {'accuracy': 0.71, 'match': 0.71, 'within_one': 0.96}

Source: the VQA rule, Antol et al. 2015, arXiv:1505.00468; counts as TallyQA scores them, arXiv:1810.12440.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adapt.contracts import EvalConfig
from adapt.prompting.tasks import COUNT

if TYPE_CHECKING:
    from adapt.evals.result import Result


class Config(EvalConfig):
    """VQA accuracy; exact match; numbers that are off by one at most, among the answers that are numbers."""

    version = 2
    main = "accuracy"
    predictor = "text"
    quick = {"pictures": 0}

    prefix: str = COUNT
    """What is asked, where the data has the column; else rows ask it themselves, by a prefix that begins with `answer` or `question`."""
    column: str = "count"
    """The column of right answers."""
    pictures: int = Field(12, ge=0, le=24)
    """Pictures for the report."""


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set with `image` and `prefix`, name="text") → N texts.
        dataset: rows with `id` and the column of answers, or with `prefix` and `answers` or `suffix`.
        protocol: what the caller knows.
    """
    import numpy as np

    from adapt.evals.bootstrap import interval, mean, pictures
    from adapt.evals.metrics import floor
    from adapt.evals.result import Result
    from adapt.evals.text import normal, rows, vqa_accuracy

    asked, answers = rows(dataset, ("answer", "question"), config.column, config.prefix, protocol.get("classes", ()))
    texts = predict(asked, name=config.predictor)
    pairs = list(zip(texts, answers, strict=True))
    scores = np.array([vqa_accuracy(text, right) for text, right in pairs])
    match = np.array([normal(text) in {normal(each) for each in right} for text, right in pairs], float)
    metrics = {"accuracy": float(scores.mean()), "match": float(match.mean())}
    numbers = [(normal(text), normal(right[0])) for text, right in pairs if normal(right[0]).isdecimal()]
    if numbers:
        close = [text.isdecimal() and abs(int(text) - int(right)) <= 1 for text, right in numbers]
        metrics["within_one"] = float(np.mean(close))
    shown = pictures(asked)
    return Result(
        metrics=metrics,
        protocol=protocol | {"eval": "vqa", "split": config.split, "prefix": config.prefix, "column": config.column},
        intervals={
            name: interval(mean(each, shown), config.bootstrap) for name, each in (("accuracy", scores), ("match", match))
        },
        floor=floor({normal(each): vqa_accuracy(each, right) for each in right} for right in answers),
        table={
            "id": list(asked["id"]),
            "picture": shown,
            "label": [right[0] for right in answers],
            "prediction": list(texts),
            "accuracy": scores.tolist(),
            "correct": (match > 0).tolist(),
        },
        pictures=[
            (f"{asked[i]['prefix']} {texts[i]} — {answers[i][0]}", asked[i]["image"])
            for i in range(min(config.pictures, len(texts)))
        ],
    )


def statistic(table: dict[str, list]):
    """The VQA accuracy of a table, as a function of how often each picture was drawn."""
    from adapt.evals.bootstrap import mean

    return mean(table["accuracy"], table["picture"])
