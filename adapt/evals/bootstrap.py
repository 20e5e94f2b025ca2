"""Intervals and changes of any metric: pictures are drawn again, and all that is on a picture goes with it.

    interval(mean([1, 0, 1, 1]), 1000)       # the 95 % interval of a mean over four pictures
    change(zeroshot, before, after)          # of two tables: (0.10, 0.02, 0.18), the difference and its interval

A metric is a `Statistic`: it knows how many pictures it was measured on, and what it would be, had each been drawn so often. The
`statistic(table)` of an eval makes it from the table of its `Result`.

Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, §13.3 (percentiles); Field and Welsh 2007 (whole clusters).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np

BLOCK = 2**21
"""Numbers of one array in memory: resamples are drawn in blocks, whatever their number."""
FEW = 16
"""Pictures to a kind, on average, from which on drawing kinds is faster than drawing pictures."""


class Statistic(Protocol):
    """A metric as a function of how often each picture was drawn."""

    pictures: int
    """N, how many were measured."""
    width: int
    """Numbers that one resample needs at once."""

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """How often each picture was drawn, float[B, N] → the metric, float[B]; NaN where it is not defined."""
        ...


@dataclass
class Sums:
    """A metric that depends on sums over pictures alone, as a mean does."""

    parts: np.ndarray
    """What each picture brings, float[N, P]; also as a sparse array of scipy, which has rows."""
    value: Callable[[np.ndarray], np.ndarray]
    """The sums float[B, P] → the metric float[B]."""
    kinds: np.ndarray | None = None
    """int[N]: pictures with the same number bring the same; none: it is found out, column by column."""

    @property
    def pictures(self) -> int:
        return self.parts.shape[0]

    @property
    def width(self) -> int:
        return self.parts.shape[0] + 2 * self.parts.shape[1]

    @property
    def columns(self) -> Iterable[np.ndarray]:
        """Numbers of pictures, [N] each, which are the same for two pictures only if these bring the same."""
        return self.parts.T if self.kinds is None else [self.kinds]

    def only(self, rows: np.ndarray) -> Sums:
        """The same of some pictures, int[M]."""
        return Sums(self.parts[rows], self.value, None if self.kinds is None else self.kinds[rows])

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return self.value(weights @ self.parts)


def mean(values: Sequence[float], pictures: Sequence[str] | None = None) -> Sums:
    """The mean of float[N]; `pictures` names the picture that each value is of, none: each is of its own."""
    values = np.asarray(values, float)
    if pictures is None:
        return Sums(np.stack([values, np.ones(len(values))], 1), _ratio)
    places = numbered(pictures)
    return Sums(np.stack([np.bincount(places, values), np.bincount(places)], 1), _ratio)


def _ratio(sums: np.ndarray) -> np.ndarray:
    return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)


def numbered(names: Sequence[Hashable]) -> np.ndarray:
    """Names, or numbers, → 0, 1, … in the order of their first mention, int64[N]."""
    places: dict[Hashable, int] = {}
    return np.fromiter((places.setdefault(name, len(places)) for name in names), np.int64, len(names))


def pictures(rows) -> list[str]:
    """For each row of a data set the id of the first row with the same picture (its path, or its bytes); its own without pictures."""
    import hashlib

    if "image" not in rows.column_names:
        return rows["id"][:]
    first: dict[str | bytes, str] = {}
    out: list[str] = []
    for part in rows.select_columns(["id", "image"]).with_format("arrow").iter(256):
        for name, image in zip(part["id"].to_pylist(), part["image"].to_pylist(), strict=True):
            stored = image["bytes"]
            key = image["path"] if stored is None else hashlib.blake2b(stored, digest_size=16).digest()
            out.append(first.setdefault(key, name))
    return out


# ------------------------------------------------------------------------------------------------------------------ resamples


def interval(statistic: Statistic, samples: int, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of a metric over `samples` resamples of its pictures."""
    return _ends(draws([statistic], samples, seed)[:, 0])


def change(
    definition: ModuleType, before: dict[str, list], after: dict[str, list], samples: int = 1000, seed: int = 0
) -> tuple[float, float, float] | None:
    """What an eval's main metric gained on the same rows: (difference, low, high), with the paired 95 % interval.

    Args:
        definition: the eval, for its `statistic`.
        before, after: tables of its `Result`, also as a Parquet file gives them back.

    Returns:
        none when the tables are of other rows, or lack what the metric is computed from.
    """
    same = all(before.get(name) == after.get(name) for name in ("id", "picture"))
    if not before.get("id") or not same:
        return None
    try:
        pair = [definition.statistic(table) for table in (before, after)]
    except KeyError:  # a table that an older version of the eval has left
        return None
    return gain(*pair, samples, seed)


def gain(before: Statistic, after: Statistic, samples: int, seed: int = 0) -> tuple[float, float, float]:
    """What one metric is above another of the same pictures: (difference, low, high), with the paired 95 % interval."""
    every = np.ones((1, before.pictures))
    values = draws([before, after], samples, seed)
    return float(after(every)[0]) - float(before(every)[0]), *_ends(values[:, 1] - values[:, 0])


def draws(statistics: Sequence[Statistic], samples: int, seed: int = 0) -> np.ndarray:
    """Metrics of the same resamples, float[samples, S]; all of the S are of the same pictures."""
    sizes = np.ones(statistics[0].pictures, np.int64)
    if all(isinstance(each, Sums) for each in statistics):
        statistics, sizes = _kinds(statistics)
    rows = max(1, BLOCK // max(each.width for each in statistics))
    random = np.random.default_rng(seed)
    out = []
    for start in range(0, samples, rows):
        weights = _weights(random, sizes, min(rows, samples - start))
        out.append(np.stack([each(weights) for each in statistics], 1))
    return np.concatenate(out)


def _kinds(statistics: Sequence[Sums]) -> tuple[Sequence[Sums], np.ndarray]:
    """Pictures that bring the same are of one kind: the metrics over kinds, and how many pictures each has, int64[K].

    To draw N pictures is to draw from the multinomial distribution over their kinds: the same numbers, of which there are few when
    an answer is right or wrong. Where pictures are not alike, each stays a kind of its own.
    """
    count = statistics[0].pictures
    code = first = np.zeros(count, np.int64)
    for column in (column for each in statistics for column in each.columns):
        values, place = np.unique(column, return_inverse=True)
        _, first, code = np.unique(code * len(values) + place, return_index=True, return_inverse=True)
        if FEW * len(first) > count:
            return statistics, np.ones(count, np.int64)
    return [each.only(first) for each in statistics], np.bincount(code)


def _weights(random: np.random.Generator, sizes: np.ndarray, samples: int) -> np.ndarray:
    """How often each kind is among as many pictures as there are, float64[samples, K]."""
    total = int(sizes.sum())
    if len(sizes) < total:
        return random.multinomial(total, sizes / total, samples).astype(float)
    out = np.empty((samples, total))
    for row in out:
        drawn = random.integers(0, total, total, dtype=np.int32)  # a quarter of the time that 64 bits take
        row[:] = np.bincount(drawn.astype(np.int64), minlength=total)
    return out


def _ends(values: np.ndarray) -> tuple[float, float]:
    """The 2.5th and the 97.5th percentile of those that are defined; NaN if there are none."""
    values = values[~np.isnan(values)]
    low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
    return float(low), float(high)
