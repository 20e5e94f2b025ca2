"""What is there, in numbers and in words: classes, objects, sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adapt.plug import counted

FAR = 4
"""How many times larger or smaller than the median picture's a longer side is odd, and how many times the shorter side it is."""
SHOWN = 3


@dataclass(frozen=True)
class Balance:
    """How often each class is there."""

    what: str
    """Of what the classes are: `picture` or `object`."""
    names: list[str]
    counts: dict[str, np.ndarray]
    """Split → int64[C]."""

    def sentences(self) -> list[str]:
        """A line a split."""
        return [f"classes in {split}: {self._said(counts)}" for split, counts in self.counts.items() if counts.sum()]

    def _said(self, counts: np.ndarray) -> str:
        least, most = int(counts.min()), int(counts.max())
        if least == most:
            return f"{len(counts)}, with {counted(most, self.what)} each"
        rare = [self.names[i] for i in np.flatnonzero(counts == least)]
        others = f" and {len(rare) - 1} more have" if len(rare) > 1 else ", has"
        few = counted(least, self.what) if least else f"no {self.what}"
        common = self.names[int(counts.argmax())]
        return f"{len(counts)}; the rarest, {rare[0]!r}{others} {few}, the commonest, {common!r}, {most:,}"


def of_numbers(numbers: Sequence[int | None], classes: int) -> np.ndarray:
    """How often each class is there, int64[C]; what is none (-1, missing) is not counted."""
    known = np.array([-1 if number is None else number for number in numbers], int)
    return np.bincount(known[(known >= 0) & (known < classes)], minlength=classes)


def spread(values: np.ndarray) -> dict[str, float]:
    """The least, the median and the most of int[N], N > 0."""
    return {"least": int(values.min()), "median": float(np.median(values)), "most": int(values.max())}


def objects_said(split: str, each: np.ndarray, crowds: int) -> str:
    """The objects of a split in a line."""
    found, none = spread(each), int((each == 0).sum())
    line = f"objects in {split}: {each.sum():,}; "
    if found["least"] == found["most"]:
        line += f"{found['least']} a picture"
    else:
        line += f"{found['least']} to {found['most']} a picture, median {found['median']:g}"
    line += f"; {counted(none, 'picture')} without any" if none else ""
    return line + (f"; and {counted(crowds, 'region')} of crowds" if crowds else "")


@dataclass(frozen=True)
class Sizes:
    """The sizes of pictures."""

    smallest: tuple[int, int]
    """Width and height in pixels, of the picture with the smallest area."""
    median: tuple[int, int]
    """The median width, and the median height."""
    largest: tuple[int, int]

    def __str__(self) -> str:
        if self.smallest == self.largest == self.median:
            return f"pictures: {_shown(self.median)} pixels each"
        return f"pictures: {_shown(self.smallest)} to {_shown(self.largest)} pixels, median {_shown(self.median)}"

    def odd(self, sizes: np.ndarray) -> list[tuple[int, str]]:
        """Of int[N, 2], the rows that are far from the median or very long, and why."""
        longer, shorter, usual = sizes.max(1), sizes.min(1), max(self.median)
        there = shorter > 0
        large, small, long = longer > FAR * usual, FAR * longer < usual, longer > FAR * shorter
        return [
            (int(i), f"{_shown(sizes[i])}; the median is {_shown(self.median)}")
            for i in np.flatnonzero(there & (large | small | long))
        ]


def measured(sizes: Mapping[str, np.ndarray]) -> Sizes | None:
    """Of the pictures' sizes by split, int[N, 2]; none when no picture can be opened."""
    together = np.concatenate([np.zeros((0, 2), int), *sizes.values()])
    together = together[together.min(1, initial=1) > 0]
    if not len(together):
        return None
    area = together.prod(1, dtype=np.int64)
    small, large = together[area.argmin()], together[area.argmax()]
    return Sizes(*(tuple(int(side) for side in one) for one in (small, np.median(together, 0), large)))


def _shown(size: Sequence[int]) -> str:
    return f"{size[0]} × {size[1]}"


def few(names: Sequence[Any]) -> str:
    """Some of these, on one line."""
    return ", ".join(map(repr, names[:SHOWN])) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
