"""The run folders in `runs/`: listed, compared, removed; what `adapt runs` prints."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt import plug
from adapt.measures import METRICS
from adapt.overrides import parse_yaml
from adapt.plug import SECTIONS, UserError, nearest
from adapt.recipe import read_text
from adapt.report.entries import Entry, parse
from adapt.report.protocol import difference, refused
from adapt.report.suite_table import entries as suite_entries
from adapt.report.suite_table import read, suites
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
    suites: tuple[Entry, ...]
    """What suites measured."""
    size: int
    """Bytes on disk."""
    changed: float
    """When a verb last wrote into it, seconds since 1970."""

    @classmethod
    def of(cls, path: Path) -> Kept:
        recipe = parse_yaml(read_text(path / "recipe.yaml", "run"), str(path / "recipe.yaml"))
        entries, of_suites, problem, run = [], [], "", Run(path)
        try:
            numbers = run.read_json("metrics.json")
            entries = parse(numbers, path / "metrics.json").entries if numbers else []
            of_suites = [one for name in suites(path) for one in suite_entries(read(path, name), path / "suites" / name)]
            stages = {name.partition(" ")[0] for name in run.read_json("manifest.json", {}).get("stages", {})}  # `distill NAME`
        except UserError as error:
            stages, problem = set(), str(error)
        done = ("evaluate",) if entries or of_suites else ()
        times = [file.stat().st_mtime for file in path.iterdir() if file.is_file()]
        size = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
        verbs = (*done, *filter(stages.__contains__, VERBS))
        return cls(path, recipe, verbs, tuple(entries), problem, tuple(of_suites), size, max(times))

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


def is_run(name: str) -> bool:
    """Is there a run folder of this name, or path?"""
    try:
        named(name)
    except UserError:
        return False
    return True


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
class Difference:
    """What one number has more than another, where the two may be compared."""

    value: float | None
    """Of the main metric; none: refused."""
    interval: tuple[float, float] | None = None
    """The paired 95 % interval, where both have left their answers for the same pictures."""
    refused: str = ""
    """Why there is none."""
    said: str = ""
    """In what else they differ, which forbids no comparison."""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    runs: list[str]
    options: dict[str, list[Any]]
    """Dotted path of an option that differs → its value in each run, `not set` where it is missing; of another plug-in, its name."""
    numbers: dict[str, list[Entry | None]]
    """Entry, or `SUITE/SET MODEL` of a suite → what each run measured."""
    differences: dict[str, list[Difference | None]]
    """The same → what each run after the first has more than it, where both have it."""
    notes: list[str]
    """Which numbers were not measured alike, a sentence each."""


def compare(names: Sequence[str]) -> Comparison:
    """Runs side by side: the options in which they differ, their numbers, and how far each is from the first run's, where that may be said.

    Raises:
        UserError: a name is unknown, or there are fewer than two.
    """
    if len(set(names)) < 2:
        raise UserError("runs: compare which runs? Write adapt runs compare NAME NAME. adapt runs lists them.")
    runs = [Kept.of(named(name)) for name in dict.fromkeys(names)]
    if unreadable := next((kept for kept in runs if kept.problem), None):
        raise UserError(f"runs: {unreadable.problem}")
    resolved = [dict(_flat(kept.recipe)) for kept in runs]
    paths = list(dict.fromkeys(path for one in resolved for path in one))
    values = {path: [one.get(path, NOTHING) for one in resolved] for path in paths}
    measured = [{entry.name: entry for entry in (*kept.entries, *kept.suites)} for kept in runs]
    numbers = {name: [one.get(name) for one in measured] for name in dict.fromkeys(name for one in measured for name in one)}
    differences = {
        name: [_difference(runs[0], row[0], *pair) for pair in zip(runs[1:], row[1:], strict=True)]
        for name, row in numbers.items()
    }
    differing = {path: row for path, row in values.items() if any(value != row[0] for value in row)}
    others = [path for path in differing if path.rpartition(".")[2] in KEYS]
    for key in others:  # another plug-in has other options: they do not compare
        place = key.rpartition(".")[0] + "."
        differing = {path: row for path, row in differing.items() if path == key or not path.startswith(place)}
    return Comparison([kept.path.name for kept in runs], differing, numbers, differences, _unlike(runs, differences))


def _unlike(runs: Sequence[Kept], differences: dict[str, list[Difference | None]]) -> list[str]:
    """What is refused, and what must be said of what is not: a line for each reason and pair of runs, with the numbers' names."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for name, row in differences.items():
        for kept, one in zip(runs[1:], row, strict=True):
            for start, reason in (
                ("Not compared", one and one.refused),
                ("Compared, but not measured alike", one and one.said),
            ):
                if reason:
                    found.setdefault((start, kept.path.name, reason), []).append(name)
    return [
        f"{start}: {', '.join(names)} of {runs[0].path.name} and of {other}: {reason}."
        for (start, other, reason), names in found.items()
    ]


def _difference(first: Kept, one: Entry | None, second: Kept, other: Entry | None) -> Difference | None:
    """What the second run's number has more than the first's; none where one of the two is missing."""
    if one is None or other is None:
        return None
    protocols = [entry.protocol | {"split": entry.split, "metric": entry.main} for entry in (one, other)]
    if why := refused(*protocols):
        return Difference(None, refused=why)
    found = _paired(first, second, one)
    value = found[0] if found else other.metrics[other.main] - one.metrics[one.main]
    return Difference(value, found and found[1:], said=difference(*protocols))


def _paired(first: Kept, second: Kept, entry: Entry) -> tuple[float, float, float] | None:
    """The change between the answers that two runs have left for an entry; none where they have left none for the same pictures."""
    import pyarrow.parquet as pq

    from adapt.evals.bootstrap import change

    files = [_answers(kept.path, entry.name) for kept in (first, second)]
    name, known = entry.protocol.get("eval"), METRICS.get(entry.main)
    if name not in plug.names("evals") or not all(file.is_file() for file in files):
        return None
    if plug.schema("evals", name).main != ((known and known.key) or entry.main):
        return None  # answers tell of the eval's main metric, and a suite's set has another
    return change(plug.load("evals", name), *(pq.read_table(file).to_pydict() for file in files))


def _answers(run: Path, name: str) -> Path:
    """Where the answers of an entry lie; of a suite's, its name is `SUITE/SET MODEL`."""
    suite, _, rest = name.partition("/")
    one, _, model = rest.rpartition(" ")
    if rest:
        return run / "suites" / suite / model / f"{one.replace('/', '--')}.parquet"
    return run / "predictions" / f"{name.replace(' ', '_')}.parquet"


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
    from adapt.report.table import label, shown

    if entry is None:
        return ""
    more = [f"{entry.latency.p50_ms:.2f} ms"] if entry.latency else []
    more += [size(entry.size_bytes)] if entry.size_bytes else []
    return ", ".join([f"{label(entry.main)} {shown(entry, entry.main)}", *more])


def gap(found: Difference | None, first: Entry | None) -> str:
    """A difference with its interval, in points of a share; that there is none; nothing where one of the two numbers is missing."""
    from adapt.report.table import is_share

    if found is None or first is None:
        return ""
    if found.value is None:
        return "not comparable"
    scale, places = (100, 1) if is_share(first.main) else (1, 2)
    value, *ends = (f"{round(scale * each, places) + 0.0:+.{places}f}" for each in (found.value, *(found.interval or ())))
    return value + (f" ({ends[0]} to {ends[1]})" if ends else "")


def _last(entry: Entry) -> str:
    from adapt.report.table import label

    return f"{label(entry.main)} {100 * entry.metrics[entry.main]:.1f} % ({entry.name})"
