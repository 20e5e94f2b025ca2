"""Run folder → one self-contained HTML page, and the same in Markdown; the words of both are in `table.py`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

from adapt.evals.result import counts
from adapt.report import robustness, shots, suite, table, workbench
from adapt.report.entries import Entry, Guard, Split, Sweep, read
from adapt.report.html import data_uri, document, section
from adapt.report.protocol import apart
from adapt.run import atomic

WORST = 12
FORGETTING = "Forgetting: what is gained on the target, and kept of what the model knew, at each scale of what it learnt"
CLASSES = {"kept": "kept", "not shown": "unshown", "broken": "broken"}
"""A guard's state → its CSS class."""


def build(folder: Path) -> Path:
    """Write `report.html` and `report.md` from what the run folder holds; returns the page's path.

    A section that cannot be drawn says so in one line; the others and the numbers stay.

    Raises:
        UserError: the numbers cannot be read, or the page cannot be written.
    """
    numbers = read(folder)
    rows = table.road(numbers.entries)
    parts = [
        _section("Headline", _head, folder, rows, numbers.splits),
        _section("Guards", _guards, numbers.guards),
        _section("Table", _table, rows),
        _section("Notes", _notes, rows),
        _section("All metrics", _metrics, rows),
        _section("Pictures", _pictures, folder, rows),
        _section("Figures", _figures, folder, rows, numbers.sweep),
        _section("Robustness", robustness.section, rows),
        _section("Mistakes", _mistakes, folder, rows),
        _section("Confusion", _confusion, rows),
        _section("Suites", suite.panel, folder),
        _section("Few labels", shots.panel, folder),
        _section("Workbench", workbench.panel, folder),
        _section("Lineage", _lineage, folder, rows),
    ]
    page = document(folder.resolve().name, parts)
    for name, text in (("report.md", markdown(folder, rows, numbers.guards, numbers.splits)), ("report.html", page)):
        with atomic(folder / name) as path:
            path.write_text(text, encoding="utf-8", errors="replace")
    return folder / "report.html"


def _section(title: str, draw: Callable[..., str], *parts: Any) -> str:
    return section(title, "The numbers are in metrics.json.", draw, *parts)


def markdown(folder: Path, rows: Sequence[Entry], guards: Sequence[Guard], splits: Sequence[Split]) -> str:
    """The road in Markdown."""
    head, *body = ([_plain(cell) for cell in row] for row in table.grid(rows))
    lines = [f"# {_plain(folder.resolve().name)}", "", _plain(headline(rows)), "", _plain(table.data(splits)), ""]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in body]
    lines += [f"\n{_plain(note)}" for note in table.notes(rows)]
    lines += ["", *(f"- {_plain(' '.join(table.verdict(guard)))}" for guard in guards)]
    return "\n".join(lines).rstrip() + "\n"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line; underscores within words need no backslash."""
    return re.sub(r"([\\`*{}\[\]<>|$~#])", r"\\\1", " ".join(text.split()))


# ---------------------------------------------------------------------------------------------------------------- sections


def headline(rows: Sequence[Entry]) -> str:
    """The whole road in a sentence."""
    last = rows[-1]
    first = next(row for row in rows if _question(row) == _question(last))  # only what was asked alike stands side by side
    name = table.label(first.main)
    a, b = (100 * entry.metrics[entry.main] for entry in (first, last))
    if first is last:
        return f"{name} is {a:.1f} % ({first.title}) on the {first.split} split."
    unlike = [each for each in apart(first.protocol, last.protocol) if not (each.own or each.key.startswith("input"))]
    alike = " The two were not measured alike: see below." if unlike else ""
    return f"{name} goes from {a:.1f} % ({first.title}) to {b:.1f} % ({last.title}) on the {first.split} split.{alike}"


def _question(entry: Entry) -> tuple:
    return entry.main, str(entry.protocol.get("eval"))


def _head(folder: Path, rows: Sequence[Entry], splits: Sequence[Split]) -> str:
    data = table.data(splits)
    note = f"<p class=note>{escape(data)}</p>" if data else ""
    return f"<header><h1>{escape(folder.resolve().name)}</h1><p class=lead>{escape(headline(rows))}</p>{note}</header>"


def _guards(guards: Sequence[Guard]) -> str:
    items = ""
    for guard in guards:
        told, why = map(escape, table.verdict(guard))
        items += f"<li class={CLASSES[guard.state]}><b>{told}</b>{f'<br>{why}' if why else ''}</li>"
    return f"<ul class=guards>{items}</ul>" if items else ""


def _table(rows: Sequence[Entry]) -> str:
    names, *lines = table.grid(rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = ""
    for first, *rest in lines:
        body += f"<tr><th>{escape(first)}</th>" + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>"
    return f"<div class=wide><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _notes(rows: Sequence[Entry]) -> str:
    """What must be said beside the table."""
    return "".join(f"<p class=note>{escape(note)}</p>" for note in table.notes(rows))


def _metrics(rows: Sequence[Entry]) -> str:
    """Every metric of every row."""
    names = list(dict.fromkeys(name for entry in rows for name in entry.metrics))
    head = "".join(f"<th>{escape(table.label(name))}</th>" for name in names)
    body = "".join(
        f"<tr><th>{escape(entry.title)}</th>"
        + "".join(f"<td>{entry.metrics[name]:.3f}</td>" if name in entry.metrics else "<td></td>" for name in names)
        + "</tr>"
        for entry in rows
    )
    inside = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<details><summary>All metrics</summary><div class=wide>{inside}</div></details>"


def _file(name: str) -> str:
    """How the files of an entry are called; a name never leads out of its folder."""
    return re.sub(r"[^\w.+-]", "_", name).lstrip(".")


def _pictures(folder: Path, rows: Sequence[Entry]) -> str:
    """What the evals drew."""
    parts = []
    for entry in rows:
        place = folder / "pictures" / _file(entry.name)
        if not place.is_dir():
            continue
        captions = map(str, json.loads(_text(place / "captions.json")))
        cards = "".join(
            f"<figure>{_image(path.read_bytes(), caption)}<figcaption>{escape(caption)}</figcaption></figure>"
            for path, caption in zip(sorted(place.glob("*.png")), captions, strict=True)
        )
        drawn = entry.protocol.get("eval") in ("segmentation", "detection")
        legend = "<p class=note>Green is what is there, red what was found, blue the prompt.</p>" if drawn else ""
        parts.append(_details(entry, entry is rows[-1], f"{legend}<div class=pictures>{cards}</div>"))
    return f"<section><h2>Pictures</h2>{''.join(parts)}</section>" if parts else ""


def _details(entry: Entry, shown: bool, inside: str) -> str:
    return f"<details{' open' if shown else ''}><summary>{escape(entry.title)}</summary>{inside}</details>"


def _image(png: bytes, text: str) -> str:
    return f'<img alt="{escape(text)}" src="{data_uri(png)}">'


def _text(path: Path) -> str:
    """A file's text; empty when there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _figures(folder: Path, rows: Sequence[Entry], sweep: Sweep | None) -> str:
    from adapt.report import charts

    def history(name: str) -> str:
        steps = [json.loads(line) for line in _text(folder / name).splitlines()]
        return charts.curves(steps) if len(steps) > 1 else ""

    main = rows[-1].main
    calibrated = [entry for entry in rows if entry.reliability]
    placed = [entry for entry in rows if entry.latency and entry.size_bytes and main in entry.metrics]
    several = len({table.runtime(entry) for entry in placed}) > 1
    drawings = {
        "Adaptation: loss and validation": lambda: history("history.jsonl"),
        **{
            f"Extension {path.parent.name}: loss and validation": partial(history, path.relative_to(folder).as_posix())
            for path in sorted(folder.glob("extensions/*/history.jsonl"))
        },
        **{
            f"Distillation of {path.parent.name}: loss and validation": partial(history, path.relative_to(folder).as_posix())
            for path in sorted(folder.glob("distill/*/history.jsonl"))
        },
        FORGETTING: lambda: charts.forgetting(sweep, table.label(sweep.metric)) if sweep else "",
        "Reliability: are answers with 80 % confidence right 80 % of the time?": lambda: (
            charts.reliability(calibrated) if calibrated else ""
        ),
        f"{table.label(main)} against latency; area is size": lambda: (
            charts.trade_off(placed, main, table.label(main), {e.name: table.runtime(e) for e in placed} if several else {})
            if len(placed) > 1
            else ""
        ),
    }
    figures = {title: _section(title, draw) for title, draw in drawings.items()}
    body = "".join(
        f"<figure>{drawing}<figcaption>{escape(title)}</figcaption></figure>" for title, drawing in figures.items() if drawing
    )
    return f"<section class=figures>{body}</section>" if body else ""


def _mistakes(folder: Path, rows: Sequence[Entry]) -> str:
    """Wrong answers, as pictures; the surest, where a model says how sure it is."""
    import pyarrow.parquet as pq

    parts = []
    for entry in rows:
        path = folder / "predictions" / f"{_file(entry.name)}.parquet"
        wrong = [row for row in pq.read_table(path).to_pylist() if not row.get("correct", True)] if path.exists() else []
        if wrong:
            worst = sorted(wrong, key=lambda row: -(row.get("confidence") or 0))[:WORST]
            parts.append(_details(entry, entry is rows[-1], f"<div class=cards>{''.join(map(_card, worst))}</div>"))
    return f"<section><h2>Mistakes</h2>{''.join(parts)}</section>" if parts else ""


def _card(row: dict[str, Any]) -> str:
    label, prediction, sure = str(row["label"]), str(row["prediction"]), row.get("confidence")
    picture = _image(row["thumbnail"], label) if row.get("thumbnail") else ""
    share = "" if sure is None else f"<br><small>{100 * sure:.0f} % sure</small>"
    return f"<div class=card>{picture}<span><b>{escape(label)}</b><br>taken for {escape(prediction)}{share}</span></div>"


def _confusion(rows: Sequence[Entry]) -> str:
    from adapt.report import charts

    entry = next((entry for entry in reversed(rows) if entry.confusion), None)
    if entry is None:
        return ""
    names = entry.classes
    found = entry.confusion if isinstance(entry.confusion, list) else entry.confusion.model_dump()
    pairs = [(count, names[i], names[j]) for i, j, count in counts(found) if i != j]
    worst = "".join(f"<li>{escape(a)} → {escape(b)}: {count}</li>" for count, a, b in sorted(pairs, reverse=True)[:10])
    drawing = charts.confusion(found, names) if isinstance(found, list) and len(names) <= 100 else ""
    return f"<section><h2>Confusion: {escape(entry.title)}</h2><ul class=pairs>{worst}</ul><div class=wide>{drawing}</div></section>"


def _lineage(folder: Path, rows: Sequence[Entry]) -> str:
    parts = []
    for title, text in (
        ("Lineage", _text(folder / "manifest.json")),
        ("Protocol", json.dumps(rows[0].protocol, indent=1)),
        ("Recipe", _text(folder / "recipe.yaml")),
    ):
        if text:
            parts.append(f"<details><summary>{title}</summary><pre>{escape(text)}</pre></details>")
    return f"<section><h2>Where the numbers come from</h2>{''.join(parts)}</section>"
