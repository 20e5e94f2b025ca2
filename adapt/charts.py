"""The report's figures: each a function from numbers to one SVG, without ground, in colours that the colour-blind can tell apart."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

matplotlib.rcParams.update(
    {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
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
        "svg.hashsalt": "adapt",
    }
)
COLOURS = ["#8a8f98", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"]  # Okabe and Ito 2008, the first a neutral grey


def svg(figure: Figure) -> str:
    """The figure as an inline `<svg>` that scales to its column."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def curves(rows: list[dict]) -> str:
    """Loss and validation over steps, from `history.jsonl`."""
    figure = Figure((6.2, 2.6))
    loss = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    score = [(row["step"], row["validation"]) for row in rows if "validation" in row]
    left = figure.add_subplot()
    steps, values = np.array(loss).T
    width = max(1, len(values) // 50)
    smooth = np.convolve(values, np.ones(width) / width, "valid")
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


def reliability(entries: list[dict]) -> str:
    """Accuracy against confidence; the diagonal is perfect calibration; a point's area is its share of the samples."""
    figure = Figure((3.6, 3.4))
    axis = figure.add_subplot()
    axis.plot([0, 1], [0, 1], color=COLOURS[0], lw=1, ls="--")
    for entry, colour in zip(entries, COLOURS, strict=False):
        bins = {name: np.array(values) for name, values in entry["reliability"].items()}
        seen = bins["count"] > 0
        area = 200 * bins["count"][seen] / bins["count"].sum()
        axis.plot(bins["confidence"][seen], bins["accuracy"][seen], color=colour, lw=1.2, label=entry["title"])
        axis.scatter(bins["confidence"][seen], bins["accuracy"][seen], s=area, color=colour)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    axis.legend(frameon=False, fontsize=8, labelcolor="#6b7078")
    return svg(figure)


def trade_off(entries: list[dict], metric: str) -> str:
    """The main metric against latency; a point's area is the size on disk."""
    figure = Figure((3.6, 3.4))
    axis = figure.add_subplot()
    for entry, colour in zip(entries, COLOURS, strict=False):
        x, y = entry["latency"]["p50_ms"], 100 * entry["metrics"][entry["main"]]
        axis.scatter(x, y, s=20 + entry["size_bytes"] / 1e5, color=colour, alpha=0.75, label=entry["title"])
    axis.set(xscale="log", xlabel="latency, ms (p50, one thread)", ylabel=f"{metric}, %")
    axis.margins(0.25, 0.25)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_locator(NullLocator())
    legend = figure.legend(
        *axis.get_legend_handles_labels(), frameon=False, fontsize=8, labelcolor="#6b7078", loc="lower center", ncols=2
    )
    for handle in legend.legend_handles:
        handle.set_sizes([30])
    figure.subplots_adjust(bottom=0.3)
    return svg(figure)


def confusion(counts: list[list[int]], names: list[str]) -> str:
    """Rows are labels, columns predictions; each row is scaled to one."""
    matrix = np.array(counts, float)
    matrix /= np.maximum(matrix.sum(1, keepdims=True), 1)
    side = max(3.2, 0.15 * len(names))
    figure = Figure((side + 1, side))
    axis = figure.add_subplot()
    axis.grid(False)
    axis.imshow(np.ma.masked_equal(matrix, 0), cmap="Blues", vmin=0, vmax=1, aspect="equal")
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=6.5)
    axis.set_yticks(range(len(names)), names, fontsize=6.5)
    axis.set(xlabel="prediction", ylabel="label")
    return svg(figure)
