"""A suite's numbers, from `suites/SUITE/summary.json` of a run folder, as a table of words: the same in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapt.measures import METRICS
from adapt.plug import counted
from adapt.records import Entry
from adapt.report import table
from adapt.report.entries import parse
from adapt.report.protocol import difference
from adapt.run import Run

FILE = "summary.json"
BELOW = "▼"
NONE = "–"
ASIDE = "*"
EVERY = "all models"
Key = tuple[str, str]
"""The names of a set and of a model."""


def suites(folder: Path) -> list[str]:
    """The names of the suites that a run folder has numbers of, sorted."""
    return sorted(path.parent.name for path in folder.glob(f"suites/*/{FILE}"))


def read(folder: Path, suite: str) -> dict[str, Any]:
    """The numbers of a suite.

    Raises:
        UserError: they cannot be read.
    """
    return Run(folder).read_json(f"suites/{suite}/{FILE}")


def entries(found: Mapping[str, Any], place: Path) -> tuple[Entry, ...]:
    """The numbers of a suite as entries `SUITE/SET MODEL`, to stand beside those of other runs.

    Raises:
        UserError: they are of another version.
    """
    rows = [
        {"name": f"{found['suite']}/{one['set']} {one['model']}", "title": one["set"], "main": one["metric"]}
        | {name: one[name] for name in ("metrics", "intervals", "protocol", "notes")}
        | {"split": one["protocol"].get("split", "test")}
        for one in found["results"]
    ]
    return tuple(parse({"entries": rows, "guards": []}, place).entries)


# ------------------------------------------------------------------------------------------------------------------- words


def results(found: Mapping[str, Any]) -> dict[Key, Mapping[str, Any]]:
    """(set, model) → what was measured."""
    return {(one["set"], one["model"]): one for one in found["results"]}


def titles(found: Mapping[str, Any]) -> dict[str, str]:
    """A model's name → how tables call it; with its name where another has the same title."""
    every = [model["title"] for model in found["models"]]
    return {
        model["name"]: model["title"] if every.count(model["title"]) == 1 else f"{model['title']} ({model['name']})"
        for model in found["models"]
    }


def averaged(found: Mapping[str, Any], *models: str) -> list[str]:
    """The sets that make a mean: what all these models were measured on, by a metric in 0–1 that is better when it is higher."""
    have = results(found)
    return [
        one["name"]
        for one in found["sets"]
        if one["fraction"] and one["higher_is_better"] and all((one["name"], model) in have for model in models)
    ]


def mean(found: Mapping[str, Any], model: str, sets: Sequence[str]) -> float:
    """Of the main metrics of these sets, one at least."""
    have = results(found)
    return sum(_main(have[name, model]) for name in sets) / len(sets)


def headline(found: Mapping[str, Any]) -> str:
    """The suite in a sentence."""
    first, *others = [model["name"] for model in found["models"]] or [""]
    sets, named = averaged(found, first), titles(found)
    done = f"{len({one['set'] for one in found['results']})} of {counted(len(found['sets']), 'set')} measured"
    if not sets:
        return f"Suite {found['suite']}: {done}."
    said = [f"{named[first]} has {100 * mean(found, first, sets):.1f} % in the mean over {counted(len(sets), 'set')}"]
    for model in others:
        if shared := averaged(found, first, model):
            gain = 100 * (mean(found, model, shared) - mean(found, first, shared))
            over = "" if len(shared) == len(sets) else f" over {len(shared)} of them"
            said.append(f"{named[model]} {gain:+.1f} points{over}")
    return f"Suite {found['suite']}: {'; '.join(said)}; {done}."


def grid(found: Mapping[str, Any]) -> list[list[str]]:
    """The table as text, its head first: a row a set, a column a model; a cell has the value with its interval, and below it the change."""
    named, have = titles(found), results(found)
    floors = any(one["floor"] for one in have.values())
    rows = [["", *(["floor"] if floors else []), *(title.replace(" (", "\n(", 1) for title in named.values())]]
    for one in found["sets"]:
        measured = [have[one["name"], model] for model in named if (one["name"], model) in have]
        floor = [_figure(one, measured[0]["floor"]) if measured and measured[0]["floor"] else ""] if floors else []
        rows.append([_set(one, measured), *floor, *(_cell(found, one, model) for model in named)])
    sets = averaged(found)
    if len(sets) > 1 and any(averaged(found, model) for model in named):
        rows.append(["mean", *([""] if floors else []), *(_mean(found, model, len(sets)) for model in named)])
    return rows


def called(one: Mapping[str, Any]) -> str:
    """A set's title, or else its name."""
    return one["title"] or one["name"]


def metric(name: str) -> str:
    """A metric's name in tables."""
    return METRICS[name].title if name in METRICS else table.label(name)


def _set(one: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> str:
    """A set's title, its metric, and how much was measured."""
    facts = [metric(one["metric"])]
    if measured:
        facts.append(counted(measured[0]["pictures"], "picture"))
        facts += [counted(measured[0]["classes"], "class")] if measured[0]["classes"] else []
    return f"{called(one)}\n{', '.join(facts)}"


def _cell(found: Mapping[str, Any], one: Mapping[str, Any], model: str) -> str:
    have, key = results(found), (one["name"], model)
    for name, word in (("failed", "failed"), ("left_out", "left out")):
        if key not in have and any(each["set"] == key[0] and each["model"] in (model, "") for each in found[name]):
            return word
    if key not in have:
        return NONE
    low, high = have[key]["intervals"].get(one["metric"], (None, None))
    lines = [_figure(one, _main(have[key])) + ("" if low is None else f" ({_figure(one, low)}–{_figure(one, high)})")]
    if change := change_of(found, one, model):
        lines.append(_changed(one, change))
    if known := _published(found, *key).get(one["metric"]):
        lines.append(f"published {_figure(one, known['value'])}{ASIDE if aside(known) else ''}")
    return "\n".join(lines)


def _mean(found: Mapping[str, Any], model: str, most: int) -> str:
    sets, first = averaged(found, model), found["models"][0]["name"]
    if not sets:
        return NONE
    lines = [f"{100 * mean(found, model, sets):.1f}" + ("" if len(sets) == most else f", {counted(len(sets), 'set')}")]
    if model != first and (shared := averaged(found, first, model)):
        lines.append(f"{100 * (mean(found, model, shared) - mean(found, first, shared)):+.1f}")
    return "\n".join(lines)


def _main(one: Mapping[str, Any]) -> float:
    return one["metrics"][one["metric"]]


def change_of(found: Mapping[str, Any], one: Mapping[str, Any], model: str) -> list[float]:
    """Difference from the first model, with its paired interval where there is one; empty for the first, and where one of both lacks."""
    have, first = results(found), found["models"][0]["name"]
    mine, theirs = have.get((one["name"], model)), have.get((one["name"], first))
    if model == first or not mine or not theirs:
        return []
    return list(mine["change"] or [_main(mine) - _main(theirs)])


def _figure(one: Mapping[str, Any], value: float, sign: str = "") -> str:
    """A value of a set's main metric: of a fraction its percent."""
    scale, places = (100, 1) if one["fraction"] else (1, 2)
    return f"{round(scale * value, places) + 0.0:{sign}.{places}f}"  # there is no -0.0


def _changed(one: Mapping[str, Any], change: Sequence[float]) -> str:
    value, *ends = (_figure(one, each, "+") for each in change)
    worse = len(change) == 3 and (change[2] < 0 if one["higher_is_better"] else change[1] > 0)
    return value + (f" ({ends[0]} to {ends[1]})" if ends else "") + (f" {BELOW}" if worse else "")


def _published(found: Mapping[str, Any], name: str, model: str) -> Mapping[str, Any]:
    """Metric → the literature's figure, of a set and a model."""
    return found["published"].get(name, {}).get(model, {})


def aside(known: Mapping[str, Any]) -> str:
    """How the literature measured otherwise, as `literature.remark` says it; empty: as we do."""
    _, _, said = known["remark"].partition(" (")
    return said.removesuffix(")")


def literature(found: Mapping[str, Any]) -> list[list[str]]:
    """Ours beside what is published, its head first; a difference stands only between what was measured alike."""
    have, named = results(found), titles(found)
    rows = [["", "model", "metric", "ours", "published", "difference", "how the protocols differ", "published in"]]
    share = {"fraction": True}  # as all that is published here
    for one in found["sets"]:
        for model in named:
            metrics = have.get((one["name"], model), {}).get("metrics", {})
            for name, known in _published(found, one["name"], model).items():
                if name in metrics:
                    said, gap = aside(known), _figure(share, metrics[name] - known["value"], "+")
                    cells = [_figure(share, metrics[name]), _figure(share, known["value"]), NONE if said else gap]
                    rows.append([called(one), named[model], metric(name), *cells, said or "alike", known["where"]])
    return rows


def unmeasured(found: Mapping[str, Any]) -> list[list[str]]:
    """Model, what became of it, on which sets, and why: a row a failure, then a row for the sets that were left out for one reason."""
    named, rows = titles(found), {}
    for name, word in (("failed", "failed"), ("left_out", "left out")):
        for one in found[name]:
            alone = one["set"] if name == "failed" else ""
            whose = named.get(one["model"], one["model"] or EVERY)  # without a model: the set itself cannot be measured
            rows.setdefault((alone, whose, word, one["why"]), []).append(one["set"])
    return [[model, word, ", ".join(sets), why] for (_, model, word, why), sets in rows.items()]


def notes(found: Mapping[str, Any]) -> list[str]:
    """What must be said beside the table, a sentence or two each."""
    from adapt.progress import duration

    named, lines = titles(found), ["Shares in percent; in brackets: 95 % bootstrap intervals over pictures."]
    first = next(iter(named.values()), "")
    if len(named) > 1:
        lines.append(
            f"The second line is the change against {first} on the same pictures, paired; {BELOW}: all of its interval is worse."
        )
    if any(one["floor"] for one in found["results"]):
        lines.append("Floor: what one and the same answer for every picture would reach.")
    if len(averaged(found)) > 1:
        lines.append(
            "Mean: of the sets whose metric is a share that is better when higher; changes of it are over the sets that both models have."
        )
    if any(aside(known) for models in found["published"].values() for metrics in models.values() for known in metrics.values()):
        lines.append(
            f"{ASIDE} published under another protocol, or under one that is not said: the report says how they differ."
        )
    lines += _unlike(found)
    if found["seconds"]:
        lines.append(
            f"All of these numbers took {duration(found['seconds'])}, {100 * found['seconds_encoding'] / found['seconds']:.0f} % of it encoding."
        )
    return lines


def _unlike(found: Mapping[str, Any]) -> list[str]:
    """Models that were not measured as the first was, with the sets."""
    have, named = results(found), titles(found)
    first, *others = list(named) or [""]
    said: dict[Key, list[str]] = {}
    for one in found["sets"]:
        for model in others:
            pair = [have.get((one["name"], each)) for each in (first, model)]
            if all(pair) and (words := difference(*(each["protocol"] for each in pair))):
                said.setdefault((model, words), []).append(one["name"])
    return [
        f"Not measured alike: {named[first]} and {named[model]} ({words})"
        + (f", on {', '.join(sets)}." if len(sets) < len(found["sets"]) else ".")
        for (model, words), sets in said.items()
    ]


def remarks(found: Mapping[str, Any]) -> Iterator[str]:
    """What a reader should know of single sets and numbers."""
    named = titles(found)
    for one in found["sets"]:
        if one["notes"]:
            yield f"{one['title'] or one['name']}: {one['notes']}"
    for one in found["results"]:
        yield from (f"{one['set']}, {named[one['model']]}: {note}" for note in one["notes"])
