"""What the workbench found, from `workbench/workbench.json` of a run folder: the same table in the terminal and on the page, and the plot."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.plug import counted
from adapt.report import html, terminal
from adapt.report.part import Part

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE = "workbench/workbench.json"
FINALISTS = 5
"""Candidates that the second half confirms, at most, beside the plain one and the recipe's own."""
ROLES = {"chosen": "the choice", "plain": "plain", "recipe": "the recipe's", "": ""}
ASKED = {"region": "which thing is in the box", "whole": "which class is it"}
WIDTH = 170
"""Columns of the table where there is no terminal."""
MOST = 400
"""Candidates that are drawn."""


def _body(read: Mapping[str, Any], drawing: str) -> str:
    head, *rows = grid(read)
    told = "".join(f"<p class=note>{escape(line)}</p>" for line in notes(read))
    return f"<figure>{drawing}</figure>{html.grid(head, rows)}{told}"


# ------------------------------------------------------------------------------------------------------------------ words


def _row(read: Mapping[str, Any], role: str) -> Mapping[str, Any]:
    return next(row for row in read["finalists"] if role == row["role"])


def _named(read: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """A finalist in a few words: its role, or its place with the drawing, or with the words where there is no drawing."""
    what = row["look"].partition(",")[0] if read["question"] == "region" else row["words"]
    return ROLES[row["role"]] or f"{row['place']}: {what}"


def sentence(read: Mapping[str, Any]) -> str:
    """The search in a sentence."""
    best, gain = _row(read, "chosen"), read["gain"]
    return (
        f"{ASKED[read['question']].capitalize()}: {best['look']}; {best['words']}; {best['subtract']:g} subtracted: "
        f"{_share(best['confirmed'])} on the half that confirms ({100 * best['chosen']['value']:.1f} % on the half that chose), "
        f"{_change(gain)} points against plain."
    )


def grid(read: Mapping[str, Any]) -> list[list[str]]:
    """The table as text, its head first: the choice, the others of the last round, the recipe's own, the plain one."""
    head = ["", "shown", "words", "subtracted", "half that chose, %", "half that confirms, %", "change"]
    order = {"chosen": 0, "": 1, "recipe": 2, "plain": 3}
    rows = sorted(read["finalists"], key=lambda row: (order[row["role"]], -row["chosen"]["value"]))
    out = [head]
    for row in rows:
        drop = 100 * (row["confirmed"]["value"] - row["chosen"]["value"])
        cells = [ROLES[row["role"]] or str(row["place"]), row["look"], row["words"], f"{row['subtract']:g}"]
        out.append([*cells, _share(row["chosen"], ""), _share(row["confirmed"], ""), f"{drop:+.1f}"])
    return out


def notes(read: Mapping[str, Any]) -> list[str]:
    """What must be said beside the table, a sentence or two each."""
    chosen, confirmed = read["pictures"]
    things = " with {:,} and {:,} things".format(*read["things"]) if read["question"] == "region" else ""
    steps = ", ".join(f"{step['candidates']:,} on {counted(step['pictures'], 'picture')}" for step in read["rounds"])
    found = [
        f"Chosen on {counted(chosen, 'picture')} and confirmed on {confirmed} others{things}, of {read['split']}; {read['classes']} classes, of which the most "
        f"frequent has {100 * read['floor']:.1f} %. 95 % bootstrap intervals over pictures.",
        f"Against plain: {_change(read['gain'])} points on the half that confirms, paired; against the recipe's own: "
        f"{_change(read['gain_recipe'])}.",
        "Change: how far a candidate falls from the half that chose to the half that confirms. The best of many was also lucky: believe the second.",
        f"Candidates judged: {steps}. {read['encoded']['pictures']:,} drawings and {counted(read['encoded']['texts'], 'text')} were encoded, each "
        f"once, in {read['encoder_seconds']:.1f} of {read['seconds']:.1f} s.",
    ]
    if len(read["rounds"]) > 1 and read["question"] == "region":
        found.append("In the rounds before the last, what is subtracted is the mean over the round's own boxes.")
    return found


def _share(figure: Mapping[str, Any], unit: str = " %") -> str:
    low, high = figure["interval"]
    return f"{100 * figure['value']:.1f}{unit} ({100 * low:.1f}–{100 * high:.1f})"


def _change(gain: list[float]) -> str:
    return "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * value for value in gain))


# ------------------------------------------------------------------------------------------------------------------- plot


def plot(read: Mapping[str, Any]) -> tuple[str, bytes]:
    """All candidates of the last round with their intervals, and the finalists on both halves: SVG, and PNG on white."""
    from matplotlib.figure import Figure

    from adapt.report.charts import short, style, svg

    rows = sorted(read["finalists"], key=lambda row: row["chosen"]["value"])
    names = [short(_named(read, row)) for row in rows]
    with style(*names):
        figure = Figure((10.4, max(3.4, 0.9 + 0.42 * len(rows))))
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        _ranked(left, read)
        _both(right, rows, names)
        figure.tight_layout()
        handles = right.get_legend_handles_labels()
        looks = {"frameon": False, "fontsize": 8, "ncols": 2, "labelcolor": "#6b7078"}
        figure.legend(*handles, **looks, loc="upper center", bbox_to_anchor=(0.75, 0.02))
        out = io.BytesIO()
        figure.savefig(out, format="png", dpi=150, facecolor="white", bbox_inches="tight", metadata={"Software": None})
        return svg(figure), out.getvalue()


def _ranked(axis: Axes, read: Mapping[str, Any]) -> None:
    """The candidates of the last round, best first, on the half that chose."""
    from adapt.report.charts import COLOURS

    last = max(row["round"] for row in read["candidates"])
    every = [row for row in read["candidates"] if row["round"] == last][:MOST]
    x = range(1, len(every) + 1)
    low, high = zip(*([100 * end for end in row["interval"]] for row in every), strict=True)
    axis.vlines(x, low, high, color=COLOURS[0], lw=0.8, alpha=0.5)
    axis.plot(x, [100 * row["value"] for row in every], color=COLOURS[1], lw=0, marker="o", ms=2.5)
    plain = next((100 * row["chosen"]["value"] for row in read["finalists"] if row["role"] == "plain"), None)
    if plain is not None:
        axis.axhline(plain, color=COLOURS[0], lw=1.4, ls=(0, (1, 1.5)))
        axis.annotate("plain", (1, plain), fontsize=8, ha="left", va="bottom", color="#6b7078")
    axis.set(xlabel="candidates of the last round, best first", ylabel="right on the half that chose, %")
    axis.margins(0.02, 0.08)


def _both(axis: Axes, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """The finalists on both halves."""
    from adapt.report.charts import COLOURS

    for half, label, colour, shift in (
        ("chosen", "the half that chose", COLOURS[1], 0.13),
        ("confirmed", "the half that confirms", COLOURS[2], -0.13),
    ):
        values = [100 * row[half]["value"] for row in rows]
        ends = [[100 * abs(row[half]["value"] - row[half]["interval"][side]) for row in rows] for side in (0, 1)]
        places = [place + shift for place in range(len(rows))]
        axis.errorbar(values, places, xerr=ends, color=colour, lw=0, elinewidth=1.2, marker="o", ms=4.5, label=label)
    axis.set_yticks(range(len(rows)), names, fontsize=8)
    axis.set(xlabel="right, %", ylim=(-0.6, len(rows) - 0.4))
    axis.grid(False, axis="y")


PART = Part(FILE, "Workbench", sentence, plot, _body)
build, panel, shown = PART.build, PART.panel, PART.shown


# --------------------------------------------------------------------------------------------------------------- terminal


def tell(folder: Path, read: Mapping[str, Any]) -> None:
    """Print the table, its notes, and where the recipe and the page lie."""
    lines = [*notes(read), f"Recipe: {read['recipe']}", f"Report: {folder / 'workbench' / 'report.html'}"]
    terminal.tell(grid(read), [(line, "") for line in lines], left=3, width=WIDTH)
