"""What a run folder's `metrics.json` holds, as the terminal and the report read it; a row of it is `contracts.Entry`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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


class Numbers(Part):
    """All of it."""

    entries: list[Entry]
    guards: list[Guard]
    splits: list[Split] = []


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
