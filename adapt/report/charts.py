"""The report's figures: each a function from numbers to one SVG, without ground, in colours that the colour-blind can tell apart."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import cycle, islice
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from adapt.run import atomic

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from adapt.report.entries import Entry, Sweep

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "adapt",
    "text.parse_math": False,  # names are data: "$5_bill_$" is no formula
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#6b7078",
    "xtick.color": "#6b7078",
    "ytick.color": "#6b7078",
    "grid.color": "#8a8f9833",
    "axes.grid": True,
    "axes.axisbelow": True,
}
COLOURS = ["#8a8f98", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"]  # Okabe and Ito 2008, the first a neutral grey
WHISKER = {"ecolor": "#5a606a", "elinewidth": 1.1}
LOOKED_AT = 300
"""Installed fonts that are asked for a glyph, at most."""
LONGEST = 36
"""Characters of a name on an axis or in a legend."""


@contextmanager
def style(*names: str) -> Iterator[None]:
    """Our settings, and fonts that have the characters of `names`, for what is made and saved within."""
    fonts = ["sans-serif", *_fonts(frozenset("".join(names)))]
    with matplotlib.rc_context(STYLE | {"font.family": fonts}), warnings.catch_warnings():
        # the browser draws the letters: a glyph that is missing here costs no more than a label's exact width
        warnings.filterwarnings("ignore", r"Glyph \d+ |Matplotlib currently does not support")
        yield


@cache
def _fonts(characters: frozenset[str]) -> tuple[str, ...]:
    """Families of installed fonts that have what the usual font has not; none of what no font has."""
    lacking = {ord(character) for character in characters if character.isprintable()}
    lacking -= (
        font_manager.get_font(font_manager.findfont(font_manager.FontProperties(family=["sans-serif"]))).get_charmap().keys()
    )
    found = []
    plain = [font for font in font_manager.fontManager.ttflist if font.style == "normal"]
    for font in sorted(plain, key=lambda font: ("Sans" not in font.name, abs(int(font.weight) - 400)))[:LOOKED_AT]:
        if not lacking:
            break
        try:
            face = font_manager.get_font(font.fname)
            has = lacking & face.get_charmap().keys() if face.scalable else set()
        except (OSError, RuntimeError):
            continue
        if has:
            found.append(font.name)
            lacking -= has
    return tuple(dict.fromkeys(found))


def short(name: str) -> str:
    """A name on one line, cut in its middle when it is long."""
    name = " ".join(name.split())
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 13]}…{name[-12:]}"


def svg(figure: Figure) -> str:
    """The figure as an inline `<svg>` that scales to its column."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def curves(rows: Sequence[Mapping[str, float]]) -> str:
    """Loss and validation over steps, from `history.jsonl`."""
    loss = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    score = [(row["step"], row["validation"]) for row in rows if "validation" in row]
    with style():
        figure = Figure((6.2, 2.6))
        left = figure.add_subplot()
        steps, values = np.array(loss, float).reshape(-1, 2).T
        width = max(1, len(values) // 50)
        smooth = np.convolve(values, np.ones(width) / width, "valid") if len(values) else values
        left.plot(steps, values, color=COLOURS[0], alpha=0.25, lw=0.8)
        left.plot(steps[width - 1 :], smooth, color=COLOURS[1], lw=1.6)
        left.set(xlabel="step", ylabel="loss")
        left.yaxis.label.set_color(COLOURS[1])
        if score:
            right = left.twinx()
            right.grid(False)
            right.plot(*np.array(score).T, color=COLOURS[2], lw=1.6, marker="o", ms=3)
            right.set_ylabel("validation", color=COLOURS[2])
        return svg(figure)


def reliability(entries: Sequence[Entry]) -> str:
    """Accuracy against confidence; the diagonal is perfect calibration; a point's area is its share of the samples."""
    names = [short(entry.title) for entry in entries]
    with style(*names):
        figure = Figure((3.6, 3.4))
        axis = figure.add_subplot()
        axis.plot([0, 1], [0, 1], color=COLOURS[0], lw=1, ls="--")
        lines = []
        for entry, (colour, dash) in zip(entries, _looks(len(entries)), strict=True):
            bins = {name: np.array(values) for name, values in entry.reliability.items()}
            seen = bins["count"] > 0
            area = 200 * bins["count"][seen] / bins["count"].sum()
            lines += axis.plot(bins["confidence"][seen], bins["accuracy"][seen], color=colour, lw=1.2, ls=dash)
            axis.scatter(bins["confidence"][seen], bins["accuracy"][seen], s=area, color=colour)
        axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
        _legend(figure, lines, names)
        return svg(figure)


def trade_off(entries: Sequence[Entry], main: str, metric: str, runtimes: Mapping[str, str]) -> str:
    """A metric against latency; a point's area is the size on disk.

    Args:
        entries: with latency, size and the metric `main`, which is called `metric`.
        runtimes: an entry's name → what it was timed on, where that is not the same for all.
    """
    names = [short(entry.title) + (f" ({runtimes[entry.name]})" if runtimes.get(entry.name) else "") for entry in entries]
    kinds = list(dict.fromkeys(runtimes.values()))
    with style(metric, *names):
        figure = Figure((3.6, 3.4))
        axis = figure.add_subplot()
        points = []
        for entry, (colour, _) in zip(entries, _looks(len(entries)), strict=True):
            x, y = entry.latency.p50_ms, 100 * entry.metrics[main]
            mark = "oDs^"[kinds.index(runtimes[entry.name]) % 4] if kinds else "o"
            points.append(axis.scatter(x, y, s=20 + entry.size_bytes / 1e5, color=colour, alpha=0.75, marker=mark))
        threads = {entry.latency.threads for entry in entries}
        many = "one thread" if threads == {1} else f"{', '.join(map(str, sorted(threads)))} threads"
        axis.set(xscale="log", xlabel=f"latency, ms (p50, {many})", ylabel=f"{short(metric)}, %")
        axis.margins(0.25, 0.25)
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.xaxis.set_minor_locator(NullLocator())
        for handle in _legend(figure, points, names).legend_handles:
            handle.set_sizes([30])
        return svg(figure)


def forgetting(sweep: Sweep, metric: str, png: Path | None = None) -> str:
    """The target's metric and what is kept against the scale, one above the other, with 95 % intervals as bands.

    Dots are of the split that chooses, rings of the one that is reported; the least that is enough is dashed, the chosen scale marked.

    Args:
        metric: what the target's metric is called.
        png: where it is drawn too, on white.
    """
    of_canary = sweep.by == "canary"
    below = [100 * (row.canary if of_canary else row.kept) for row in sweep.rows]
    names = f"target {short(metric)}, %", "canary, %" if of_canary else "right answers kept, %"
    with style(*names):
        figure = Figure((6.2, 4.6))
        axes = figure.subplots(2, sharex=True)
        _curve(
            axes[0], sweep, [100 * row.value for row in sweep.rows], [row.interval for row in sweep.rows], sweep.held.target, 1
        )
        bands = [row.canary_interval for row in sweep.rows]
        _curve(axes[1], sweep, below, bands, sweep.held.canary if of_canary else {}, 2)
        axes[1].axhline(100 * sweep.budget, color=COLOURS[2], lw=1, ls="--")
        least = f"{100 * sweep.keep:g} % of zero-shot" if of_canary else f"{100 * sweep.keep:g} %"
        axes[1].annotate(
            least, (0, 100 * sweep.budget), (0, -3), textcoords="offset points", va="top", fontsize=8, color=COLOURS[2]
        )
        for axis, name in zip(axes, names, strict=True):
            axis.set_ylabel(name)
            axis.axvline(sweep.chosen, color=COLOURS[3], lw=1)
        right = sweep.chosen > 0.8  # words go to the side where there is room
        axes[0].annotate(
            f"chosen: {sweep.chosen:g}",
            (sweep.chosen, 1),
            (-4 if right else 4, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if right else "left",
            fontsize=8,
            color=COLOURS[3],
        )
        axes[1].margins(y=0.15)
        axes[1].set(xlabel="scale α: 0 as it came, 1 as it was trained")
        figure.align_ylabels(axes)
        _legend(figure, *_kinds(bool(sweep.held.target or sweep.held.canary)))
        if png is not None:
            with atomic(png) as place:
                figure.savefig(place, format="png", dpi=150, bbox_inches="tight", facecolor="white")
        return svg(figure)


def _curve(
    axis: Axes, sweep: Sweep, values: list[float], bands: list[tuple[float, float] | None], held: dict[str, float], look: int
):
    """One panel: a line with its band, and rings where the scores are reported."""
    scales = [row.scale for row in sweep.rows]
    axis.plot(scales, values, color=COLOURS[look], lw=1.6, marker="o", ms=3)
    if all(bands):
        axis.fill_between(scales, *(100 * np.array(bands).T), color=COLOURS[look], alpha=0.15, lw=0)
    at = {"0": 0.0, "chosen": sweep.chosen, "1": 1.0}
    points = [(at[name], 100 * value) for name, value in held.items() if name in at]
    if points:
        axis.plot(*zip(*points, strict=True), color=COLOURS[look], lw=0, marker="o", ms=7, mfc="none", mew=1.4)


def _kinds(held: bool) -> tuple[list, list[str]]:
    """Handles of the legend, and what they mean."""
    line = Line2D([], [], color=COLOURS[0], lw=1.6, marker="o", ms=3)
    ring = Line2D([], [], color=COLOURS[0], lw=0, marker="o", ms=7, mfc="none", mew=1.4)
    names = ["the split that chooses, with its 95 % interval", "the split that is reported"]
    return ([line, ring], names) if held else ([line], names[:1])


def over_shots(
    panels: Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]], start: Mapping[str, float], names: Mapping[str, str]
) -> tuple[str, bytes]:
    """Accuracy against labelled pictures a class, on a logarithmic axis: the mean over seeds, and all that lies between them.

    Args:
        panels: score → method → shots → the seeds' values, 0–1.
        start: score → zero-shot's value, 0–1.
        names: score → what its panel is called.

    Returns:
        SVG, and PNG on white.
    """
    titles = list(dict.fromkeys(title for panel in panels.values() for title in panel))
    looks = dict(
        zip(titles, islice(cycle([(c, dash) for dash in ("-", "--", ":") for c in COLOURS[1:]]), len(titles)), strict=True)
    )
    with style(*titles, *names.values()):
        figure = Figure((1.4 + 4.2 * len(panels), 3.6))
        handles = {}
        for axis, (score, panel) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            for title, points in panel.items():
                colour, dash = looks[title]
                x = sorted(points)
                y = [100 * np.asarray(points[shots]) for shots in x]
                axis.fill_between(x, [v.min() for v in y], [v.max() for v in y], color=colour, alpha=0.13, lw=0)
                means = [v.mean() for v in y]
                handles[short(title)] = axis.plot(x, means, color=colour, ls=dash, lw=1.6, marker="o", ms=3.5)[0]
            if score in start:
                handles["zero-shot"] = axis.axhline(100 * start[score], color=COLOURS[0], lw=1.4, ls=(0, (1, 1.5)))
            shots = sorted({shots for points in panel.values() for shots in points})
            axis.set_xscale("log", base=2)
            axis.set_xticks(shots, list(map(str, shots)))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.set(xlabel="labelled pictures a class", ylabel=f"{names[score]}, %")
            axis.margins(0.06, 0.12)
        figure.tight_layout()
        _legend(figure, list(handles.values()), list(handles)).set_in_layout(True)
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=150, facecolor="white", bbox_inches="tight", metadata={"Software": None})
        return svg(figure), out.getvalue()


def retained(entries: Sequence[Entry], metrics: Mapping[str, str]) -> str:
    """What share of its accuracy each entry retains: a bar an entry for each of `metrics`, with 95 % intervals, the highest first.

    Args:
        entries: with at least one of the metrics.
        metrics: metric → what it is called; the first stays above the others.
    """
    values = np.array([[entry.metrics.get(name, np.nan) for name in metrics] for entry in entries])
    ends = np.array([[entry.intervals.get(name, (np.nan, np.nan)) for name in metrics] for entry in entries])
    mean = np.nanmean(np.where(np.isnan(values).all(0), 0, values), 0)
    order = np.array([0, *(1 + np.argsort(-mean[1:], kind="stable"))])
    names, words = [short(entry.title) for entry in entries], [short(name) for name in metrics.values()]
    with style(*names, *words):
        thick = 0.8 / len(entries)
        height = 0.7 + len(order) * (0.16 + 0.09 * len(entries))
        figure = Figure((6.2, height))
        figure.subplots_adjust(bottom=0.5 / height, top=1 - 0.1 / height)
        axis = figure.add_subplot()
        rows = np.arange(len(order)) + 0.4 * (np.arange(len(order)) > 0)
        bars = []
        for i, (colour, _) in enumerate(_looks(len(entries))):
            places = rows + (i - (len(entries) - 1) / 2) * thick
            length, (low, high) = 100 * values[i, order], 100 * ends[i, order].T
            reach = np.maximum([length - low, high - length], 0)
            bars.append(axis.barh(places, length, 0.9 * thick, color=colour, alpha=0.85, xerr=reach, error_kw=WHISKER))
        axis.set_yticks(rows, [words[i] for i in order], fontsize=8.5)
        axis.axvline(100, color=COLOURS[0], lw=1, ls="--")
        axis.set(xlabel="retained accuracy, %", xlim=(0, None), ylim=(rows[-1] + 0.5, -0.5))
        axis.grid(False, axis="y")
        _legend(figure, bars, names)
        return svg(figure)


def _looks(count: int) -> Iterator[tuple[str, str]]:
    """A colour and a kind of line for each of `count` rows: colours, then the same colours dashed, and so on."""
    return islice(cycle([(colour, dash) for dash in ("-", "--", ":") for colour in COLOURS]), count)


def _legend(figure: Figure, handles: list, names: list[str]):
    """Below the figure, a name a line: titles are long, and must not hide what is drawn."""
    # matplotlib leaves out names that begin with an underscore
    shown = [f"\u200b{name}" if name.startswith("_") else name for name in names]
    return figure.legend(
        handles, shown, frameon=False, fontsize=8, labelcolor="#6b7078", loc="upper center", bbox_to_anchor=(0.5, 0.0)
    )


def confusion(counts: Sequence[Sequence[int]], names: Sequence[str]) -> str:
    """Rows are labels, columns predictions; each row is scaled to one."""
    matrix = np.array(counts, float)
    matrix /= np.maximum(matrix.sum(1, keepdims=True), 1)
    names = [short(name) for name in names]
    side = max(3.2, 0.15 * len(names))
    with style(*names):
        figure = Figure((side + 1, side))
        axis = figure.add_subplot()
        axis.grid(False)
        axis.imshow(np.ma.masked_equal(matrix, 0), cmap="Blues", vmin=0, vmax=1, aspect="equal")
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=6.5)
        axis.set_yticks(range(len(names)), names, fontsize=6.5)
        axis.set(xlabel="prediction", ylabel="label")
        return svg(figure)
