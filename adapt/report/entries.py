"""What a run folder's `metrics.json` holds, as the terminal and the report read it; a row of it is `contracts.Entry`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from adapt.plug import UserError
from adapt.records import Entry, Guard, Part
from adapt.run import Run


class Split(Part):
    """A part of the data."""

    split: str
    pictures: int
    origin: str = ""
    """Where it came from, such as `15 % drawn from train/`."""


class Scale(Part):
    """What a model has at one scale between its start, 0, and what it has learnt, 1; on the split that chooses."""

    scale: float
    value: float
    """The target's metric."""
    interval: tuple[float, float] | None = None
    kept: float
    """The share of what must be kept."""
    canary: float | None = None
    """The canary's score."""
    canary_interval: tuple[float, float] | None = None


class Held(Part):
    """Scores on the splits that are reported, at scale `0`, the `chosen` one and `1`, as far as they were measured."""

    target: dict[str, float] = {}
    canary: dict[str, float] = {}


class Sweep(Part):
    """All scales, and the one that gains most of those that keep enough."""

    metric: str
    by: Literal["canary", "target"]
    """What must be kept: a share of the canary's score at scale 0, or of the target's pictures that were right there."""
    keep: float
    budget: float
    """The least canary score, or share of the target's pictures, that is enough."""
    chosen: float
    rows: list[Scale]
    held: Held = Held()


class Numbers(Part):
    """All of it."""

    entries: list[Entry]
    guards: list[Guard]
    splits: list[Split] = []
    sweep: Sweep | None = None
    """Of `adapt merge scale=sweep`."""


def read(folder: Path) -> Numbers:
    """The numbers of a run folder.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    place = folder / "metrics.json"
    value = Run(folder).read_json("metrics.json")
    if not (isinstance(value, dict) and value.get("entries") and "guards" in value):
        raise UserError(f"{place}: no entries and guards in it. Delete it, and run adapt evaluate with this recipe.")
    return parse(value, place)


def parse(value: dict[str, Any], place: Path) -> Numbers:
    """The content of `metrics.json`, checked; `place` is named in errors.

    Raises:
        UserError: with the first thing that is missing or of another type.
    """
    text = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    try:
        return Numbers.model_validate_json(text)
    except ValidationError as error:
        first, *more = error.errors()
        where = ".".join(map(str, first["loc"]))
        said = first["msg"].removeprefix("Value error, ")
        others = f" (and {len(more)} more)" if more else ""
        raise UserError(
            f"{place}: {where}: {said[0].lower()}{said[1:]}{others}. These were written by another version of Adapt: delete the file, "
            "and run adapt evaluate with this recipe."
        ) from None
