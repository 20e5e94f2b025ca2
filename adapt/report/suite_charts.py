"""A suite's plots: what each set gained, and accuracy against what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from adapt.report.charts import COLOURS, WHISKER, _legend, _looks, short, style, svg


@dataclass(frozen=True)
class Gain:
    """By how much a set's score is above that of the first model."""

    title: str
    value: float
    """Points."""
    interval: tuple[float, float] | None
    """95 %, paired, points; none: the two have left no answers to pair."""


@dataclass(frozen=True)
class Point:
    """A model among others."""

    title: str
    accuracy: float
    """0–1."""
    cost: float
    """Parameters, or time."""


def gains(rows: Sequence[Gain], against: str) -> str:
    """A bar a set, the largest gain first, with 95 % intervals; pale where the interval has zero in it.

    Args:
        against: the title of the first model.
    """
    rows = sorted(rows, key=lambda row: row.value)
    names = [short(row.title) for row in rows]
    with style(against, *names):
        height = 0.7 + 0.26 * len(rows)
        figure = Figure((6.2, height))
        figure.subplots_adjust(bottom=0.5 / height, top=1 - 0.1 / height)
        axis = figure.add_subplot()
        for place, row in enumerate(rows):
            low, high = row.interval or (row.value, row.value)
            sure = row.interval is None or low > 0 or high < 0
            ends = [[max(0, row.value - low)], [max(0, high - row.value)]] if row.interval else None
            axis.barh(
                place,
                row.value,
                0.72,
                color=COLOURS[1 if row.value >= 0 else 2],
                alpha=0.9 if sure else 0.4,
                xerr=ends,
                error_kw=WHISKER,
            )
        axis.axvline(0, color=COLOURS[0], lw=1)
        axis.set_yticks(range(len(rows)), names, fontsize=8.5)
        axis.set(xlabel=f"change against {short(against)}, points", ylim=(-0.6, len(rows) - 0.4))
        axis.grid(False, axis="y")
        return svg(figure)


def trade_off(points: Sequence[Point], accuracy: str, cost: str) -> str:
    """Accuracy against what it costs, on a logarithmic axis; `accuracy` and `cost` are the axes' names."""
    names = [short(point.title) for point in points]
    with style(accuracy, *names):
        figure = Figure((3.6, 3.2))
        axis = figure.add_subplot()
        looks = zip(points, _looks(len(points)), cycle("oDs^vP"), strict=False)
        dots = [
            axis.scatter(point.cost, 100 * point.accuracy, s=60, color=colour, marker=mark, alpha=0.85)
            for point, (colour, _), mark in looks
        ]
        axis.set(xscale="log", xlabel=cost, ylabel=short(accuracy))
        axis.margins(0.2, 0.2)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        _legend(figure, dots, names)
        return svg(figure)
