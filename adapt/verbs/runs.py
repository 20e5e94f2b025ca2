"""The run folders in `runs/`: listed, compared, removed; what `adapt runs` prints."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from adapt.overrides import parse_yaml
from adapt.plug import SECTIONS, UserError, nearest
from adapt.recipe import read_text
from adapt.report.entries import Entry, parse
from adapt.run import NOTHING, Run

HOME = Path("runs")
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
KEYS = {key for _, key, _ in SECTIONS.values()}
VERBS = ("workbench", "shots", "finetune", "distill", "export", "merge")


@dataclass(frozen=True)
class Kept:
    """A run folder, as it lies there: recipes and numbers of other versions of Adapt are read as far as they go."""

    path: Path
    recipe: dict[str, Any]
    verbs: tuple[str, ...]
    """What was done."""
    entries: tuple[Entry, ...]
    problem: str
    """Why its numbers cannot be read; empty: they can."""
    size: int
    """Bytes on disk."""
    changed: float
    """When a verb last wrote into it, seconds since 1970."""

    @classmethod
    def of(cls, path: Path) -> Kept:
        recipe = parse_yaml(read_text(path / "recipe.yaml", "run"), str(path / "recipe.yaml"))
        entries, problem, run = [], "", Run(path)
        try:
            numbers = run.read_json("metrics.json")
            entries = parse(numbers, path / "metrics.json").entries if numbers else []
            stages = {name.partition(" ")[0] for name in run.read_json("manifest.json", {}).get("stages", {})}  # `distill NAME`
        except UserError as error:
            stages, problem = set(), str(error)
        done = ("evaluate",) if entries else ()
        times = [file.stat().st_mtime for file in path.iterdir() if file.is_file()]
        size = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
        return cls(path, recipe, (*done, *filter(stages.__contains__, VERBS)), tuple(entries), problem, size, max(times))

    @property
    def model(self) -> str:
        """Its family."""
        return (self.recipe.get("model") or {}).get("name", "?")

    @property
    def checkpoint(self) -> str:
        return (self.recipe.get("model") or {}).get("checkpoint", "?")

    @property
    def method(self) -> str:
        return (self.recipe.get("method") or {}).get("name", "?")

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        last = self.entries[-1] if self.entries else None
        return {
            "name": self.path.name,
            "path": str(self.path),
            "model": self.model,
            "checkpoint": self.checkpoint,
            "method": self.method,
            "verbs": list(self.verbs),
            "last": last and {"entry": last.name, "metric": last.main, "value": last.metrics[last.main], "split": last.split},
            "size_bytes": self.size,
            "changed": self.changed,
            "problem": self.problem,
        }


def found() -> list[Kept]:
    """All run folders, the latest first."""
    return sorted((Kept.of(file.parent) for file in HOME.glob("*/recipe.yaml")), key=lambda kept: -kept.changed)


def named(name: str) -> Path:
    """The run folder of a name, or of its path.

    Raises:
        UserError: there is none of this name in runs/; the message has the nearest.
    """
    have = sorted(file.parent.name for file in HOME.glob("*/recipe.yaml"))
    given = Path(name)
    if given.name not in have or given.parent.resolve() not in (HOME.resolve(), Path().resolve()):
        raise UserError(f"runs: there is no run {name!r} in {HOME}/.{nearest(given.name, have)}")
    return HOME / given.name


# ----------------------------------------------------------------------------------------------------------------- verbs


def table(runs: Sequence[Kept]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the list."""
    head = ["run", "model", "done", "last number", "size", "age"]
    return head, [
        [
            kept.path.name,
            f"{kept.checkpoint} + {kept.method}",
            ", ".join(kept.verbs) or "nothing yet",
            "unreadable" if kept.problem else _last(kept.entries[-1]) if kept.entries else "",
            size(kept.size),
            age(time.time() - kept.changed),
        ]
        for kept in runs
    ]


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    runs: list[str]
    options: dict[str, list[Any]]
    """Dotted path of an option that differs → its value in each run, `not set` where it is missing; of another plug-in, its name."""
    numbers: dict[str, list[Entry | None]]
    """Entry → what each run measured."""
    notes: list[str]
    """Which numbers were not measured alike, a sentence each."""


def compare(names: Sequence[str]) -> Comparison:
    """Runs side by side: the options in which they differ, their numbers, and which of these must not be compared.

    Raises:
        UserError: a name is unknown, or there are fewer than two.
    """
    from adapt.report.table import difference

    if len(set(names)) < 2:
        raise UserError("runs: compare which runs? Write adapt runs compare NAME NAME. adapt runs lists them.")
    runs = [Kept.of(named(name)) for name in dict.fromkeys(names)]
    if unreadable := next((kept for kept in runs if kept.problem), None):
        raise UserError(f"runs: {unreadable.problem}")
    resolved = [dict(_flat(kept.recipe)) for kept in runs]
    paths = list(dict.fromkeys(path for one in resolved for path in one))
    values = {path: [one.get(path, NOTHING) for one in resolved] for path in paths}
    entries = list(dict.fromkeys(entry.name for kept in runs for entry in kept.entries))
    numbers = {name: [next((e for e in kept.entries if e.name == name), None) for kept in runs] for name in entries}
    notes = []
    for name, row in numbers.items():
        measured = [(kept.path.name, entry) for kept, entry in zip(runs, row, strict=True) if entry]
        for (first, one), (second, other) in pairwise(measured):
            if said := difference(one.protocol | {"split": one.split}, other.protocol | {"split": other.split}):
                notes.append(f"Not measured alike: {name} of {first} and of {second}. They differ in {said}.")
    differing = {path: row for path, row in values.items() if any(value != row[0] for value in row)}
    others = [path for path in differing if path.rpartition(".")[2] in KEYS]
    for key in others:  # another plug-in has other options: they do not compare
        place = key.rpartition(".")[0] + "."
        differing = {path: row for path, row in differing.items() if path == key or not path.startswith(place)}
    return Comparison([kept.path.name for kept in runs], differing, numbers, notes)


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of each option of a recipe's mapping; an item of a list of plug-ins has its number in the path."""
    inside = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        inside = enumerate(value)
    for name, inner in inside:
        yield from _flat(inner, f"{place}.{name}".lstrip("."))
    if not inside and not (place in SECTIONS and not value):
        yield place, value


def remove(names: Sequence[str], agreed: bool, ask: Any = input) -> int:
    """Remove run folders; returns the bytes that are free now, 0 when the user says no.

    Raises:
        UserError: a name is unknown or a link; nothing is removed then.
    """
    if not names:
        raise UserError("runs: remove which run? Write adapt runs remove NAME. adapt runs lists them.")
    runs = [Kept.of(named(name)) for name in dict.fromkeys(names)]
    for kept in runs:
        if kept.path.is_symlink() or kept.path.resolve().parent != HOME.resolve():
            raise UserError(f"runs: {kept.path} is a link to {kept.path.resolve()}; nothing outside {HOME}/ is removed.")
    total = sum(kept.size for kept in runs)
    what = ", ".join(kept.path.name for kept in runs)
    if not agreed and ask(f"Remove {what} ({size(total)})? [y/N] ").strip().lower() not in ("y", "yes"):
        return 0
    for kept in runs:
        shutil.rmtree(kept.path)
    return total


# ----------------------------------------------------------------------------------------------------------------- words


def size(count: float) -> str:
    """Bytes in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def age(seconds: float) -> str:
    """Seconds in words, by the largest unit."""
    length, unit = next(((length, unit) for length, unit in UNITS if seconds >= length), (1, "s"))
    return f"{int(max(0, seconds) / length)} {unit}"


def cell(entry: Entry | None) -> str:
    """A main number with its interval, latency and size, as far as they are known."""
    from adapt.report.table import label

    if entry is None:
        return ""
    low, high = entry.intervals.get(entry.main, (None, None))
    interval = "" if low is None else f" ({100 * low:.1f}–{100 * high:.1f})"
    more = [f"{entry.latency.p50_ms:.2f} ms"] if entry.latency else []
    more += [size(entry.size_bytes)] if entry.size_bytes else []
    return ", ".join([f"{label(entry.main)} {100 * entry.metrics[entry.main]:.1f} %{interval}", *more])


def _last(entry: Entry) -> str:
    from adapt.report.table import label

    return f"{label(entry.main)} {100 * entry.metrics[entry.main]:.1f} % ({entry.name})"
