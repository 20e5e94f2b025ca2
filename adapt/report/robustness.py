"""What the page says of accuracy on corrupted pictures: a chart of what is retained, and a table for each model."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from adapt.plug import counted
from adapt.report.entries import Entry


def section(rows: Sequence[Entry], title: str = "Robustness") -> str:
    """The chart and the tables; empty where nothing of the kind was measured."""
    from adapt.report import charts

    measured = [entry for entry in rows if entry.robustness]
    if not measured:
        return ""
    names = dict.fromkeys(name for entry in measured for name in entry.robustness.corruptions)
    metrics = {"retained": "mean of all"} | {f"retained_{name}": name.replace("_", " ") for name in names}
    shown = [entry for entry in measured if "retained" in entry.metrics]
    chart = charts.retained(shown, metrics) if shown else ""
    pictures = counted(measured[-1].robustness.pictures, "picture")
    note = (
        f"Top-1 on {pictures} under corruption, divided by top-1 on the same pictures as they are; mean over the severities; lines are "
        "95 % intervals. This is not ImageNet-C's mCE, which divides by AlexNet's errors and is of pictures stored as JPEG."
    )
    tables = "".join(_table(entry, entry is rows[-1]) for entry in measured)
    return f"<section><h2>{escape(title)}</h2><div class=wide>{chart}</div><p class=note>{escape(note)}</p>{tables}</section>"


def _table(entry: Entry, shown: bool) -> str:
    """Top-1 for each corruption and severity."""
    found = entry.robustness
    head = "".join(f"<th>{escape(name)}</th>" for name in ["", *map(str, found.severities), "mean", "retained (95 % interval)"])
    body = ""
    for name, values in zip(found.corruptions, found.accuracy, strict=True):
        cells = [*(f"{100 * value:.1f}" for value in [*values, sum(values) / len(values)]), _kept(entry, f"retained_{name}")]
        body += f"<tr><th>{escape(name.replace('_', ' '))}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    columns = [sum(values) / len(values) for values in zip(*found.accuracy, strict=True)]
    cells = [*(f"{100 * value:.1f}" for value in [*columns, sum(columns) / len(columns)]), _kept(entry, "retained")]
    body += f"<tr><th>mean of all</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    inside = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    lead = f"{entry.title}: top-1, %, by severity; {100 * found.clean:.1f} % as they are"
    return f"<details{' open' if shown else ''}><summary>{escape(lead)}</summary><div class=wide>{inside}</div></details>"


def _kept(entry: Entry, metric: str) -> str:
    """A share with its interval, as text; empty where nothing was right to begin with."""
    if metric not in entry.metrics:
        return ""
    low, high = entry.intervals.get(metric, (None, None))
    return f"{100 * entry.metrics[metric]:.0f} %" + ("" if low is None else f" ({100 * low:.0f}–{100 * high:.0f})")
