"""A word and some pictures: are those that people associate with it the ones that score highest?

A cue is several rows, each a candidate picture with the cue's text. As many pictures are chosen as go with it; of equal scores the wrong one
is taken. The Jaccard index is what is both chosen and right, of what is either.

Source: WinoGAViL, Bitton et al. 2022, arXiv:2207.12576, §4; cues with 10 and 12 candidates: DataComp, eval_utils/wino_eval.py.

    >>> evaluate(Config(name="cues"), predict, dataset, {}).metrics
    {'jaccard': 0.46, 'jaccard_10_12': 0.39}
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb
from typing import TYPE_CHECKING, Any

from adapt.contracts import EvalConfig
from adapt.plug import UserError

if TYPE_CHECKING:
    from adapt.evals.result import Result


class Config(EvalConfig):
    """WinoGAViL's Jaccard index, over all cues and over those with ten candidates or more."""

    main = "jaccard"
    predictor = "class_logits"
    asks_texts = True


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set, texts=…) → similarities float32[N, len(texts)].
        dataset: rows with `id`, `caption`, the text of the cue, `cue`, its number or name, and `associated`: does the picture go with it?
        protocol: what the caller knows.

    Raises:
        UserError: a column is not there, a row has no caption, or a cue has two texts or no associated picture.
    """
    import numpy as np

    from adapt.evals.bootstrap import interval
    from adapt.evals.by_set import jaccard, jaccards
    from adapt.evals.captions import columns, scored
    from adapt.evals.resampled import statistic as of_table
    from adapt.evals.result import Result

    captions, names, associated = columns(dataset, "cues", ("caption", "cue", "associated"))
    cues = _cues(captions, names, associated)
    scores = np.concatenate(scored(predict, dataset, [[text] for text in captions]))
    truth, ids = np.array(associated, bool), dataset["id"][:]
    table = {
        "id": [ids[rows[0]] for rows in cues],
        "cue": [str(names[rows[0]]) for rows in cues],
        "caption": [captions[rows[0]] for rows in cues],
        "jaccard": [jaccard(scores[rows], truth[rows]) for rows in cues],
        "candidates": [len(rows) for rows in cues],
    }
    metrics = jaccards([scores[rows] for rows in cues], [truth[rows] for rows in cues])
    return Result(
        metrics=metrics,
        protocol=protocol | {"eval": "cues", "split": config.split, "cues": len(cues)},
        intervals={name: interval(of_table(name, table), config.bootstrap) for name in metrics},
        floor=float(np.mean([_chance(len(rows), int(truth[rows].sum())) for rows in cues])),
        table=table,
    )


def statistic(table: dict[str, list]):
    """The mean Jaccard index of a table, as a function of how often each cue was drawn."""
    from adapt.evals.bootstrap import mean

    return mean(table["jaccard"])


def _cues(captions: list[str], names: list, associated: list[bool]) -> list[list[int]]:
    """The rows of each cue."""
    cues: dict[Any, list[int]] = {}
    for row, name in enumerate(names):
        cues.setdefault(name, []).append(row)
    for name, rows in cues.items():
        if len(texts := {captions[row]: None for row in rows}) > 1:
            first, second, *_ = texts
            raise UserError(
                f"evals: cue {name!r} has two texts, {first!r} and {second!r}. Its rows share one: write it in each."
            )
        if not any(associated[row] for row in rows):
            raise UserError(f"evals: cue {name!r} has no associated picture, so nothing can be right. Leave its rows out.")
    return list(cues.values())


def _chance(candidates: int, right: int) -> float:
    """The Jaccard index of as many pictures drawn by chance, in the mean."""
    ways = comb(candidates, right)
    return sum(
        comb(right, hits) * comb(candidates - right, right - hits) / ways * hits / (2 * right - hits)
        for hits in range(right + 1)
    )
