"""Captions: what a model says of a picture against what people said.

    >>> evaluate(Config(name="caption"), predict, dataset, {}).metrics
    {'exact': 0.31, 'bleu4': 0.52, 'cider': 1.42}

Source: BLEU, Papineni et al. 2002, by sacrebleu (Post 2018, arXiv:1804.08771); CIDEr-D, Vedantam et al. 2015, arXiv:1411.5726.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adapt.contracts import EvalConfig

if TYPE_CHECKING:
    from adapt.evals.result import Result


class Config(EvalConfig):
    """Exact match, BLEU-4, CIDEr-D."""

    version = 2
    main = "exact"
    predictor = "text"
    quick = {"pictures": 0}

    prefix: str = "caption en"
    """What is asked, where the data has a column `caption`; else rows ask it themselves, by a prefix that begins with `caption`."""
    pictures: int = Field(12, ge=0, le=24)
    """Pictures for the report."""


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set with `image` and `prefix`, name="text") → N texts.
        dataset: rows with `id` and `caption` (a text or several), or with `prefix` and `suffix` or `answers`.
        protocol: what the caller knows.
    """
    import numpy as np
    import sacrebleu

    from adapt.evals.bootstrap import interval, mean, pictures
    from adapt.evals.metrics import floor
    from adapt.evals.result import Result
    from adapt.evals.text import cider, plain, rows

    asked, references = rows(dataset, ("caption", "cap "), "caption", config.prefix)
    texts = predict(asked, name=config.predictor)
    exact = np.array(
        [any(plain(text) == plain(right) for right in each) for text, each in zip(texts, references, strict=True)], float
    )
    similar, shown = cider(texts, references), pictures(asked)
    bleu = sacrebleu.corpus_bleu(texts, _streams(references), lowercase=True)
    return Result(
        metrics={"exact": float(exact.mean()), "bleu4": bleu.score / 100, "cider": float(similar.mean())},
        protocol=protocol | {"eval": "caption", "split": config.split, "prefix": config.prefix, "words": "lower case, \\w+"},
        intervals={
            name: interval(mean(each, shown), config.bootstrap) for name, each in (("exact", exact), ("cider", similar))
        },
        floor=floor({" ".join(plain(right)): 1.0 for right in each} for each in references),
        table={
            "id": list(asked["id"]),
            "picture": shown,
            "label": [each[0] for each in references],
            "prediction": list(texts),
            "cider": similar.tolist(),
            "correct": (exact > 0).tolist(),
        },
        pictures=[(f"{texts[i]} — {references[i][0]}", asked[i]["image"]) for i in range(min(config.pictures, len(texts)))],
    )


def statistic(table: dict[str, list]):
    """The exact matches of a table, as a function of how often each picture was drawn."""
    from adapt.evals.bootstrap import mean

    return mean(table["correct"], table["picture"])


def _streams(references: list[list[str]]) -> list[list[str | None]]:
    """References by row → by their number, as sacrebleu takes them."""
    most = max(len(each) for each in references)
    return [[each[i] if i < len(each) else None for each in references] for i in range(most)]
