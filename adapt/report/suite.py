"""A suite's page, `suites/SUITE/report.html` of a run folder, its part of the run's own report, and its table in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from adapt.plug import counted
from adapt.report import html, robustness, table, terminal
from adapt.report.entries import parse
from adapt.report.html import document as whole
from adapt.report.html import section
from adapt.report.suite_table import (
    FILE,
    averaged,
    called,
    change_of,
    grid,
    headline,
    literature,
    mean,
    notes,
    read,
    remarks,
    results,
    suites,
    titles,
    unmeasured,
)
from adapt.run import atomic

WIDTH = 170
"""Columns of the table where there is no terminal."""


def build(folder: Path, suite: str) -> Path:
    """Write `suites/SUITE/report.html` from what the run folder holds; returns the page's path.

    Raises:
        UserError: the numbers cannot be read, or the page cannot be written.
    """
    found, place = read(folder, suite), folder / "suites" / suite / "report.html"
    name = f"{folder.resolve().name}: suite {suite}"
    lead = f"<p class=lead>{escape(headline(found))}</p><p class=note>{escape(found['about'])}</p>"
    with atomic(place) as path:
        text = whole(name, [f"<header><h1>{escape(name)}</h1>{lead}</header>", *_parts(found)])
        path.write_text(text, encoding="utf-8", errors="replace")
    return place


def panel(folder: Path) -> str:
    """The section of the run's own report: each suite's table, and where its page lies; empty without one."""
    parts = ""
    for suite in suites(folder):
        found = read(folder, suite)
        link = f"<p class=note><a href='suites/{escape(suite)}/report.html'>Plots, and figures of the literature</a></p>"
        parts += f"<section><h2>Suite {escape(suite)}</h2><p>{escape(headline(found))}</p>{_table(found)}{link}</section>"
    return parts


def _parts(found: Mapping[str, Any]) -> Iterator[str]:
    for title, draw in (
        ("Table", _table),
        ("Not measured", _unmeasured),
        ("Change", _gains),
        ("Robustness", _corrupted),
        ("Accuracy against parameters and time", _trade_offs),
        ("Beside the literature", _literature),
        ("All metrics", _metrics),
    ):
        yield section(title, f"The numbers are in {FILE}.", draw, found)


def _table(found: Mapping[str, Any]) -> str:
    head, *rows = grid(found)
    told = "".join(f"<p class=note>{escape(line)}</p>" for line in notes(found))
    more = "".join(f"<li>{escape(line)}</li>" for line in remarks(found))
    return (
        html.grid(head, rows)
        + told
        + (f"<details><summary>Notes on single sets</summary><ul class=note>{more}</ul></details>" if more else "")
    )


def _unmeasured(found: Mapping[str, Any]) -> str:
    rows = unmeasured(found)
    return (
        f"<section><h2>Not measured</h2>{html.grid(['', '', 'sets', 'why'], rows, words=(1, 2, 3))}</section>" if rows else ""
    )


def _gains(found: Mapping[str, Any]) -> str:
    """Of each model after the first: a bar a set."""
    from adapt.report.suite_charts import Gain, gains

    named, parts = titles(found), ""
    first, *others = list(named) or [""]
    for model in others:
        rows = []
        for one in found["sets"]:
            if one["name"] in averaged(found, first, model):
                value, *ends = (100 * each for each in change_of(found, one, model))
                rows.append(Gain(called(one), value, (ends[0], ends[1]) if ends else None))
        if rows:
            parts += f"<h3>{escape(named[model])}</h3><div class=wide>{gains(rows, named[first])}</div>"
    note = "<p class=note>Lines are paired 95 % intervals; a pale bar's interval has zero in it.</p>"
    return f"<section><h2>Change against {escape(named[first])}</h2>{parts}{note}</section>" if parts else ""


def _corrupted(found: Mapping[str, Any]) -> str:
    """Of each set that was measured under corruptions: what is retained, and every number."""
    named, parts = titles(found), ""
    for one in found["sets"]:
        measured = [each for each in found["results"] if each["set"] == one["name"] and each["figures"].get("corruptions")]
        rows = [_robust(each, named[each["model"]]) for each in measured]
        title = f"Robustness: {one['title'] or one['name']}"
        parts += robustness.section(parse({"entries": rows, "guards": []}, Path(FILE)).entries, title) if rows else ""
    return parts


def _robust(one: Mapping[str, Any], title: str) -> dict[str, Any]:
    """A result as the entry that `robustness.section` draws: the suite keeps what is retained in the mean, and not of each corruption."""
    figures, metrics = one["figures"], one["metrics"]
    under, clean = figures["corruptions"], figures["clean"]
    severities = list(dict.fromkeys(level for levels in under.values() for level in levels))
    accuracy = [[levels[level] for level in severities] for levels in under.values()]
    means = dict(zip((f"retained_{name}" for name in under), (sum(row) / len(row) for row in accuracy), strict=True))
    mean = sum(means.values()) / len(means)
    shares = {name: value / clean for name, value in (means | {"retained": mean}).items()} if clean else {}
    about = {"corruptions": list(under), "severities": list(map(int, severities)), "accuracy": accuracy}
    return {
        "name": one["model"],
        "title": title,
        "main": one["metric"],
        "metrics": shares | metrics,
        "intervals": one["intervals"],
        "robustness": about | {"clean": clean, "pictures": figures["pictures"]},
    }


def _trade_offs(found: Mapping[str, Any]) -> str:
    from adapt.report.suite_charts import Point, trade_off

    have, named = results(found), titles(found)
    models = [one for one in found["models"] if any(model == one["name"] for _, model in have)]
    sets = averaged(found, *(one["name"] for one in models))
    if not sets or len(models) < 2:
        return ""
    only = next(called(one) for one in found["sets"] if one["name"] == sets[0])
    drawings = []
    for fact, unit, scale in (("parameters", "parameters, millions", 1e6), ("milliseconds", "milliseconds a picture", 1)):
        points = [Point(named[one["name"]], mean(found, one["name"], sets), one[fact] / scale) for one in models if one[fact]]
        drawings += [trade_off(points, f"mean over {len(sets)} sets, %" if len(sets) > 1 else f"{only}, %", unit)] * (
            len(points) > 1
        )
    caption = (
        f"Of the {counted(len(sets), 'set')} that all of these models were measured on."
        if len(sets) > 1
        else f"{only} is the one set that all of these models were measured on."
    )
    figures = "".join(f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>" for drawing in drawings)
    return (
        f"<section><h2>Accuracy against parameters and time</h2><div class=figures>{figures}</div></section>" if figures else ""
    )


def _literature(found: Mapping[str, Any]) -> str:
    head, *rows = literature(found)
    note = "<p class=note>A difference stands only where the source says that it measured as we did.</p>"
    return f"<section><h2>Beside the literature</h2>{html.grid(head, rows, words=(1, 2, 6, 7))}{note}</section>" if rows else ""


def _metrics(found: Mapping[str, Any]) -> str:
    """Every metric of every result."""
    named = titles(found)
    names = list(dict.fromkeys(name for one in found["results"] for name in one["metrics"] if not name.startswith("retained_")))
    head = ["", "model", *map(table.label, names)]
    rows = [
        [one["set"], named[one["model"]], *(f"{one['metrics'][name]:.3f}" if name in one["metrics"] else "" for name in names)]
        for one in found["results"]
    ]
    return (
        f"<section><details><summary>All metrics</summary>{html.grid(head, rows, words=(1,))}</details></section>"
        if rows
        else ""
    )


# ---------------------------------------------------------------------------------------------------------------- terminal


def tell(folder: Path, found: Mapping[str, Any]) -> None:
    """Print the table, its notes, what was not measured, and where the page lies.

    Args:
        folder: the run folder.
    """
    lines = [(line, "") for line in notes(found)]
    looks = {"failed": ("✗", "bold red"), "left out": ("–", "yellow")}
    for model, word, sets, why in unmeasured(found):
        mark, look = looks[word]
        lines.append((f"{mark} {word}: {model}, {sets}: {why}", look))
    lines.append((f"Report: {folder / 'suites' / found['suite'] / 'report.html'}", ""))
    terminal.tell(grid(found), lines, left=2, width=WIDTH)
