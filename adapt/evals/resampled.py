"""Metrics of single sets as functions of how often each picture was drawn, of which `bootstrap` makes intervals and changes.

    interval(recall(labels, correct), 1000)                                                # of the mean per class
    gain(statistic("f1_macro", before), statistic("f1_macro", after), 1000)                # of two tables of the same rows

A class or group of which a resample has no picture counts in no mean of it. The ECE has no interval: it is a sum of absolute values, which
grows with every noise, so most resamples lie above the number itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import csr_array, hstack

from adapt.evals.bootstrap import Statistic, Sums, mean, numbered


def recall(labels: Sequence[Hashable], correct: Sequence[bool]) -> Sums:
    """The mean per class: of each class's pictures the share that is right, averaged over the classes.

    Args:
        labels: the class of each of N pictures, by name or number.
        correct: bool[N].
    """
    classes, right = numbered(labels), np.asarray(correct, float)
    parts = hstack([_one_hot(classes), _one_hot(classes, right)], format="csr")
    return Sums(parts, lambda sums: _mean(*np.split(sums, 2, axis=1)), 2 * classes + (right > 0))


def f1(labels: Sequence[Hashable], answers: Sequence[Hashable]) -> Sums:
    """F1, averaged over the classes that occur among the labels, as `by_set.macro_f1` has it.

    Args:
        labels, answers: of each of N pictures, by name or number.
    """
    both = numbered([*labels, *answers])
    classes, said = both[: len(labels)], both[len(labels) :]
    count = int(both.max()) + 1
    parts = [_one_hot(classes, width=count), _one_hot(said, width=count), _one_hot(classes, classes == said, count)]

    def value(sums: np.ndarray) -> np.ndarray:
        there, answered, hits = np.split(sums, 3, axis=1)
        return _mean(np.where(there > 0, there + answered, 0), 2 * hits)

    return Sums(hstack(parts, format="csr"), value, classes * count + said)


def worst(groups: Sequence[Hashable | None], correct: Sequence[bool]) -> Sums:
    """The share that is right of the group that fares worst, in each resample anew.

    Args:
        groups: of each of N pictures; none where it counts in no group.
        correct: bool[N].
    """
    counted, right = np.array([group is not None for group in groups], float), np.asarray(correct, float)
    places = numbered(groups)
    parts = hstack([_one_hot(places, counted), _one_hot(places, counted * right)], format="csr")
    return Sums(parts, _least, 2 * places + (right > 0))


def two_ways(found: Sequence[bool], texts: Sequence[int], texts_found: Sequence[int]) -> Sums:
    """R@1, the mean of both ways.

    Args:
        found: did a picture find a caption of its own? bool[N].
        texts: how many texts are drawn with it, int[N]; texts_found: how many of them found a picture of theirs.
    """
    parts = np.stack([np.asarray(each, float) for each in (found, np.ones(len(found)), texts_found, texts)], 1)
    return Sums(parts, lambda sums: (sums[:, 0] / sums[:, 1] + _ratio(sums[:, 3:], sums[:, 2:3])[:, 0]) / 2)


@dataclass
class Precision:
    """The mean average precision over classes; see `by_set.average_precision`.

    A picture that is drawn several times stands several times at one place; the precision there is that of the last of them, as
    scikit-learn's with weights. A class that has no picture in the data has 0; one that has none in a resample counts in no mean of it.
    """

    scores: np.ndarray
    """float[N, C]."""
    truth: np.ndarray
    """bool[N, C]."""
    orders: np.ndarray = field(init=False)
    """int[C, N], the best first, of equal scores those without the class."""

    def __post_init__(self):
        self.scores, self.truth = np.asarray(self.scores, np.float64), np.asarray(self.truth, bool)
        columns = zip(self.truth.T, self.scores.T, strict=True)
        self.orders = np.array([np.lexsort((own, -score)) for own, score in columns])

    @property
    def pictures(self) -> int:
        return len(self.scores)

    @property
    def width(self) -> int:
        return 4 * len(self.scores)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        found = np.zeros(len(weights))
        counted = np.full(len(weights), (~self.truth.any(0)).sum())
        for order, own in zip(self.orders, self.truth.T, strict=True):
            places = np.flatnonzero(own[order])
            drawn = weights[:, order]
            hits, ranks = drawn[:, places], np.cumsum(drawn, axis=1)[:, places]
            precision = np.divide(np.cumsum(hits, axis=1), ranks, out=np.zeros_like(hits), where=ranks > 0)
            found += (hits * precision).sum(1) / np.maximum(1, hits.sum(1))
            counted += hits.any(1)
        return _ratio(counted, found)


def _one_hot(places: np.ndarray, values: np.ndarray | float = 1.0, width: int | None = None) -> csr_array:
    """float[N, width], sparse, with a value a row, in the column int[N] that is its place."""
    shape = len(places), width or int(places.max(initial=0)) + 1
    return csr_array((np.broadcast_to(np.asarray(values, float), len(places)), (np.arange(len(places)), places)), shape)


def _ratio(there: np.ndarray, right: np.ndarray) -> np.ndarray:
    """float[B, C] each → their quotient; NaN where nothing is there."""
    return np.divide(right, there, out=np.full(there.shape, np.nan), where=there > 0)


def _mean(there: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The same, averaged over the columns where something is, float[B]."""
    shares = np.divide(right, there, out=np.zeros(there.shape), where=there > 0)
    return _ratio((there > 0).sum(1), shares.sum(1))


def _least(sums: np.ndarray) -> np.ndarray:
    """Of what is there and what is right of each group, float[B, 2 G]: the least share, float[B]; NaN where no group is."""
    there, right = np.split(sums, 2, axis=1)
    least = np.divide(right, there, out=np.full(there.shape, np.inf), where=there > 0).min(1)
    return np.where(np.isfinite(least), least, np.nan)


# ----------------------------------------------------------------------------------------------------------- metrics of tables


OF_TABLES: Mapping[str, Callable[[Mapping[str, list]], Statistic]] = {
    "top1": lambda table: mean(table["correct"]),
    "top5": lambda table: mean(np.asarray(table["rank"]) < 5),
    "mean_per_class": lambda table: recall(table["label"], table["correct"]),
    "f1_macro": lambda table: f1(table["label"], table["prediction"]),
    "worst_group": lambda table: worst(table["group"], table["correct"]),
    "top5_worst_group": lambda table: worst(table["group"], np.asarray(table["rank"]) < 5),
    "template_mean": lambda table: mean(np.asarray(table["hits"], float).mean(1)),
    "corrupted_top1": lambda table: mean(table["corrupted"]),
    "retained": lambda table: Sums(np.array([table["corrupted"], table["clean"]], float).T, _quotient),
    "map": lambda table: Precision(table["scores"], table["truth"]),
    "r1": lambda table: mean(table["correct"]),
    "text_r1": lambda table: Sums(np.array([table["texts_found"], table["texts"]], float).T, _quotient),
    "mean_r1": lambda table: two_ways(table["correct"], table["texts"], table["texts_found"]),
    "choice": lambda table: mean(table["correct"]),
    "text_score": lambda table: mean(table["text"]),
    "image_score": lambda table: mean(table["image"]),
    "group_score": lambda table: mean(table["correct"]),
    "jaccard": lambda table: mean(table["jaccard"]),
    "jaccard_10_12": lambda table: Sums(_many(table), _quotient),
}
"""Metric of `adapt.measures` → its function of the table that its eval leaves."""


def statistic(metric: str, table: Mapping[str, list]) -> Statistic | None:
    """A metric of the table of a `Result`, also as a Parquet file gives it back; none where a table does not say enough for it.

    Args:
        metric: of `adapt.measures.METRICS`, of the eval that has left the table.
    """
    try:
        return OF_TABLES[metric](table)
    except KeyError:  # another metric, or a table of an older version
        return None


def _quotient(sums: np.ndarray) -> np.ndarray:
    return _ratio(sums[:, 1:], sums[:, :1])[:, 0]


def _many(table: Mapping[str, list]) -> np.ndarray:
    """Of each cue its Jaccard index where it has ten candidates or more, and whether it has, float[N, 2]."""
    many = np.asarray(table["candidates"]) >= 10
    return np.stack([np.where(many, table["jaccard"], 0), many], 1).astype(float)
