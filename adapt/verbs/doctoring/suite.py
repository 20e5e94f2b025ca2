"""Which sets of a suite are there, and whether they have what the suite expects: `adapt doctor suite=NAME data.path=TREE`.

Headers and labels are read, and no picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapt import plug
from adapt.contracts import SourceConfig
from adapt.overrides import taken
from adapt.plug import UserError, counted, nearest
from adapt.suite import Set, Suite, load_suite
from adapt.verbs.suiting.sets import OF_HUB, missing, source

OWN = ("suite", "data.path")
THERE, MISSING, DIFFER, NAMES, BROKEN, RECIPE = "there", "missing", "counts differ", "other names", "broken", "the recipe's"
"""What a set can be: all as the suite says; not there; of other counts; its class names do not go with the suite's words; it cannot be used;
measured on the recipe's own data."""
FINE = (THERE, RECIPE)
COUNTS = ("pictures", "classes", "captions")


@dataclass(frozen=True)
class State:
    """What was found of a set."""

    set: str
    state: str
    found: Mapping[str, int] = field(default_factory=dict)
    """Pictures, and classes or captions."""
    expected: Mapping[str, int] = field(default_factory=dict)
    """What the suite says of these."""
    why: str = ""
    """What is wrong, in one line."""

    def line(self, width: int) -> str:
        """It in a row of the table."""
        counts = [self._count(name) for name in COUNTS if name in self.found]
        return f"{self.set:<{width}}  {self.state:<13}  {', '.join(counts)}".rstrip() + (
            f"\n    {self.why}" if self.why else ""
        )

    def _count(self, name: str) -> str:
        one, expected = name.removesuffix("es" if name == "classes" else "s"), self.expected.get(name)
        other = f" (the suite: {expected:,})" if expected not in (None, self.found[name]) else ""
        return f"{counted(self.found[name], one)}{other}"

    def document(self) -> dict[str, Any]:
        """It for JSON."""
        return {
            "set": self.set,
            "state": self.state,
            "found": dict(self.found),
            "expected": dict(self.expected),
            "why": self.why,
        }


def asked(arguments: Sequence[str]) -> bool:
    """Is a suite asked about?"""
    return any(argument.startswith("suite=") for argument in arguments)


def look(arguments: Sequence[str]) -> tuple[int, dict[str, Any]]:
    """Print what there is of each set.

    Args:
        arguments: suite=NAME|PATH and data.path=TREE.

    Returns:
        2 when a set is missing, cannot be used, or is not what the suite expects; else 0. And the same for JSON: suite, tree, sets, states.

    Raises:
        UserError: there is no such suite or folder, or something else is said.
    """
    rest = list(arguments)
    given = taken(rest, OWN)
    if rest:
        raise UserError(f"doctor: {rest[0]!r} is unknown with suite=.{nearest(rest[0].partition('=')[0], OWN)}")
    suite = load_suite(given["suite"])
    tree = _tree(suite, given.get("data.path"))
    width = max(len(one.name) for one in suite.sets)
    states = []
    for one in suite.sets:
        states.append(state(one, tree))
        print(states[-1].line(width), flush=True)
    numbers = Counter(each.state for each in states)
    print(f"{suite.name}: {counted(len(states), 'set')}; {', '.join(f'{number} {word}' for word, number in numbers.items())}")
    document = {"suite": suite.name, "tree": given.get("data.path"), "sets": [each.document() for each in states]}
    return 0 if set(numbers) <= set(FINE) else 2, document | {"states": dict(numbers)}


def _tree(suite: Suite, path: str | None) -> Path | None:
    """The folder of the sets.

    Raises:
        UserError: it is not there, or not said of a suite that needs it.
    """
    first = next((one.place for one in suite.sets if one.place), None)
    if not path:
        if first:
            raise UserError(f"data.path: missing. Write data.path=TREE, the folder that has {first}, with test/ and its texts.")
        return None
    tree = Path(path).expanduser()
    if not tree.is_dir():
        raise UserError(
            f"data.path: no folder {path!r}, looked in {Path.cwd()}. It has a folder for each set, such as {first or 'photos'}."
        )
    return tree


def state(one: Set, tree: Path | None) -> State:
    """What there is of a set below the tree."""
    expected = {name: number for name in COUNTS if (number := one.values()[name])}
    try:
        config = source(one, tree)
        if config is None:
            return State(one.name, RECIPE, expected=expected)
        if why := missing(one, tree) or _elsewhere(config, tree):
            return State(one.name, MISSING, expected=expected, why=why)
        config.check_paths()
        found, names, why = _published(config) if config.source == "clip_benchmark" else _loaded(one, config)
    except UserError as error:
        return State(one.name, BROKEN, expected=expected, why=" ".join(str(error).split()))
    if why:
        return State(one.name, BROKEN, found, expected, why)
    if any(found.get(name) not in (None, number) for name, number in expected.items()):
        return State(one.name, DIFFER, found, expected)
    if why := _other_words(one, names):
        return State(one.name, NAMES, found, expected, why)
    return State(one.name, THERE, found, expected)


def _elsewhere(config: SourceConfig, tree: Path | None) -> str:
    """Why a set of the hub's own sources is not here; empty: it is. The doctor fetches nothing."""
    path = Path(config.values()["path"]).expanduser() if config.source in OF_HUB else None
    if path is None or path.exists():
        return ""
    beside = f", and no {str(tree / path.name)!r}" if tree else ""
    return f"data.path: there is no folder {str(path)!r}{beside}; adapt evaluate would fetch it from the hub."


def _published(config: SourceConfig) -> tuple[dict[str, int], list[str], str]:
    """Counts of a set in the published layout, its classes' names, and why it cannot be used."""
    from adapt.data.clip_benchmark import look as read

    seen = read(config)
    counts = {"pictures": seen.pictures} | ({"classes": len(seen.names)} if seen.names else {"captions": seen.captions})
    return counts, seen.names, seen.why


def _loaded(one: Set, config: SourceConfig) -> tuple[dict[str, int], list[str], str]:
    """The same of a set of another source."""
    from adapt.vision.classes import class_names

    splits = plug.load("data", config.source).load(config)
    if one.split not in splits:
        return {}, [], f"split: there is no {one.split!r} in the data. Have: {', '.join(splits)}."
    rows = splits[one.split]
    names = class_names(rows.features) if one.labels == "class" else []
    return {"pictures": len(rows)} | ({"classes": len(names)} if names else {}), names, ""


def _other_words(one: Set, names: Sequence[str]) -> str:
    """Why the suite's words do not go with the classes; empty: they do."""
    from adapt.prompting.text import words

    if not names or one.prompts is None:
        return ""
    try:
        words(one.told(names), names)
    except UserError as error:
        return " ".join(str(error).split())
    return ""
