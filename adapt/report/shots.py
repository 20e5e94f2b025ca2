"""What few labels buy, from `shots/shots.json` of a run folder: the same table in the terminal, on the page and in Markdown, and the plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from adapt.plug import counted
from adapt.records import Guard
from adapt.report import html, table, terminal
from adapt.report.part import Part

FILE = "shots/shots.json"
NAMES = {"top1": "top-1", "base": "base classes", "new": "new classes", "harmonic": "harmonic mean"}
"""How scores are called."""
BELOW = "▼"
NONE = "–"
SHOWN = 3
"""Classes with too few pictures that are named."""
WIDTH = 160
"""Columns of the table where there is no terminal."""


def _body(read: Mapping[str, Any], drawing: str) -> str:
    head, *rows = grid(read)
    told = "".join(f"<p class=note>{escape(line)}</p>" for line in notes(read))
    promises = "".join(
        f"<li class={guard.state}><b>{escape(' '.join(table.verdict(guard)).strip())}</b></li>" for guard in _guards(read)
    )
    return f"<figure>{drawing}</figure><ul class=guards>{promises}</ul>{html.grid(head, rows)}{told}"


# ------------------------------------------------------------------------------------------------------------------ words


def main(row: Mapping[str, Any]) -> str:
    """The score by which a row is judged: top1; of both halves their harmonic mean; of the base classes alone theirs."""
    return next(name for name in ("top1", "harmonic", "base") if name in row["scores"])


def headline(read: Mapping[str, Any]) -> str:
    """The sweep in a sentence."""
    pictures = " and ".join(
        f"{counted(count, 'test picture')} of {counted(read['classes'][part], 'class')}"
        + ("" if part == "all" else f" ({part})")
        for part, count in read["pictures"].items()
    )
    learnt = [row for row in read["rows"] if row["shots"]]
    if not learnt:
        return f"Zero-shot alone, on {pictures}."
    best = max(learnt, key=lambda row: row["scores"][main(row)]["mean"])
    score = best["scores"][main(best)]
    start = next((row["scores"][main(best)]["mean"] for row in read["rows"] if not row["shots"]), None)
    against = "" if start is None else f", against {100 * start:.1f} % of zero-shot"
    return (
        f"{NAMES[main(best)]} of {100 * score['mean']:.1f} % by {best['title']} with {counted(best['shots'], 'labelled picture')} a "
        f"class{against}, on {pictures}."
    )


def grid(read: Mapping[str, Any]) -> list[list[str]]:
    """The table as text, its head first."""
    names = [name for name in NAMES if any(name in row["scores"] for row in read["rows"])]
    compared = any("change" in score for row in read["rows"] for score in row["scores"].values())
    head = ["", "shots", "pictures", *(f"{NAMES[name]}, %" for name in names)]
    head += [
        *(["against zero-shot"] if compared else []),
        *(["at start"] if read["stop"] else []),
        "seconds",
    ]
    return [head, *(_cells(row, names, compared, read) for row in read["rows"])]


def _cells(row: Mapping[str, Any], names: Sequence[str], compared: bool, read: Mapping[str, Any]) -> list[str]:
    cells = [row["title"], str(row["shots"] or NONE), f"{row['pictures']:g}" if row["shots"] else NONE]
    cells += [_score(row["scores"].get(name)) for name in names]
    if compared:
        found = row["scores"][main(row)].get("change")
        mark = f" {BELOW}" if found and found[2] < 0 else ""
        shown = [round(100 * value, 1) + 0.0 for value in found or ()]  # there is no -0.0
        cells.append("{:+.1f} ({:+.1f} to {:+.1f})".format(*shown) + mark if found else "")
    if read["stop"]:
        cells.append(f"{row['stopped']} of {len(row['seeds'])}" if row["shots"] else "")
    return [*cells, f"{row['seconds']:.1f}" if row["shots"] else ""]


def _score(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return NONE
    return f"{100 * score['mean']:.1f}" + (f" ± {100 * score['sd']:.1f}" if "sd" in score else "")


def notes(read: Mapping[str, Any]) -> list[str]:
    """What must be said beside the table, a sentence or two each."""
    rows = read["rows"]
    found = (
        [f"Mean ± standard deviation over {counted(read['seeds'], 'draw')} of the labelled pictures."]
        if read["seeds"] > 1
        else []
    )
    if any("change" in score for row in rows for score in row["scores"].values()):
        over = " and draws" if read["seeds"] > 1 else ""
        found.append(
            f"The change is of the mean, on the same test pictures, with its paired 95 % bootstrap interval over pictures{over}; "
            f"{BELOW}: all of it is below zero."
        )
    if read["stop"] and any(row["shots"] for row in rows):
        found.append(
            "At start: draws whose training was no better than zero-shot on their validation pictures; zero-shot's answers stand there."
        )
    if read["cap"]:
        found.append(f"Each training was capped at {counted(read['cap'], 'step')}.")
    for shots, classes in read["fewer"].items():
        if classes:
            few = sorted(classes, key=classes.get)
            named = ", ".join(f"{name} ({classes[name]})" for name in few[:SHOWN]) + (", …" if len(few) > SHOWN else "")
            found.append(
                f"{counted(len(few), 'class')} with fewer than {shots} training pictures, which give what they have: {named}."
            )
    if "new" in read["pictures"]:
        found.append("Learnt on the base classes alone; each half is asked about among its own classes.")
        why = {row["title"]: row["no_new"] for row in rows if row.get("no_new")}
        found += [f"{NONE}: {title} cannot be asked about new classes: {reason}." for title, reason in why.items()]
    return [*found, "Figures of the literature, of photographs and large models, are in published/few_labels.yaml."]


def _guards(read: Mapping[str, Any]) -> list[Guard]:
    return [Guard(**guard) for guard in read["guards"]]


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without nesting: of each score SCORE, SCORE_sd, SCORE_change, SCORE_low, SCORE_high."""
    found = {name: row[name] for name in ("method", "title", "shots", "pictures", "stopped", "seconds")}
    for name in NAMES:
        score = row["scores"].get(name, {})
        change = score.get("change", (None, None, None))
        found |= {name: score.get("mean"), f"{name}_sd": score.get("sd")}
        found |= {f"{name}_{end}": value for end, value in zip(("change", "low", "high"), change, strict=True)}
    return found


def markdown(name: str, read: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    head, *body = grid(read)
    lines = [f"# {name}", "", headline(read), "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in body]
    lines += [f"\n{note}" for note in notes(read)]
    return "\n".join([*lines, "", *(f"- {' '.join(table.verdict(guard))}" for guard in _guards(read))]).rstrip() + "\n"


def plot(read: Mapping[str, Any]) -> tuple[str, bytes]:
    """Accuracy against shots: SVG and PNG; empty without a learnt row."""
    from adapt.report import charts

    learnt = [row for row in read["rows"] if row["shots"]]
    scores = [name for name in NAMES if any(name in row["scores"] for row in learnt)]
    panels: dict[str, dict[str, dict[int, list[float]]]] = {name: {} for name in scores}
    for row in learnt:
        for name, score in row["scores"].items():
            panels[name].setdefault(row["title"], {})[row["shots"]] = score["values"]
    start = {name: score["mean"] for row in read["rows"] if not row["shots"] for name, score in row["scores"].items()}
    return charts.over_shots(panels, start, NAMES) if panels else ("", b"")


PART = Part(FILE, "Few labels", headline, plot, _body, markdown)
build, panel, shown = PART.build, PART.panel, PART.shown


# --------------------------------------------------------------------------------------------------------------- terminal


def tell(folder: Path, read: Mapping[str, Any]) -> None:
    """Print the table, its notes, the guards, and where the page lies."""
    head, *body = grid(read)
    pairs = zip([None, *body], body, strict=False)
    once = [["" if before and before[0] == row[0] else row[0], *row[1:]] for before, row in pairs]  # a method's name once
    lines = [(note, "") for note in notes(read)]
    lines += [(" ".join(table.verdict(guard)).strip(), table.STYLES[guard.state]) for guard in _guards(read)]
    lines.append((f"Report: {folder / 'shots' / 'report.html'}", ""))
    terminal.tell([head, *once], lines, left=1, width=WIDTH)
