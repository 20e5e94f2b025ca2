"""What a run folder's `metrics.json` holds, as the terminal and the report read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from adapt.plug import UserError
from adapt.run import Run


class Part(BaseModel):
    """Base of its parts: what is unknown is left out, and no type is guessed."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", use_attribute_docstrings=True)


class Latency(Part):
    """How long one image takes."""

    p50_ms: float
    p99_ms: float
    calls: int | None = None
    """Of which these are the percentiles."""
    threads: int = 1
    runtime: str = ""
    """`onnxruntime` or `torch`; empty in older runs."""
    what: str = ""
    """The part that was timed, such as `image tower`; empty: all of it."""


class Entry(Part):
    """One measured model: a row of the table."""

    name: str
    """zero-shot, adapted, merged; of a student labels NAME, student NAME, or TARGET PRECISION NAME of a file."""
    student: str = ""
    """NAME, of a student's entries."""
    title: str
    main: str
    """The metric that tables show, a key of `metrics`."""
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] = {}
    """95 % intervals of some of the metrics."""
    change: tuple[float, float, float] | None = None
    """Difference of the main metric from that of the entry `against`, and its 95 % interval."""
    against: str | None = None
    split: str = "test"
    protocol: dict[str, Any] = {}
    notes: list[str] = []
    """What a reader must know of these numbers, a sentence each."""
    size_bytes: float | None = None
    latency: Latency | None = None
    latency_torch: Latency | None = None
    """The same model in eager PyTorch, where `latency` is of another runtime."""
    left_out: int = 0
    """Pictures of the data that could not be used."""
    classes: list[str] = []
    confusion: list[list[int]] | None = None
    """Counts [C, C]: rows are labels, columns predictions."""
    reliability: dict[str, list[float]] | None = None
    """confidence, accuracy and count of each bin."""

    @property
    def role(self) -> str:
        """Its name without that of its student."""
        return self.name.removesuffix(f" {self.student}")

    @model_validator(mode="after")
    def _has_its_main_metric(self) -> Entry:
        if self.main not in self.metrics:
            raise ValueError(f"main: {self.main!r} is not one of its metrics")
        return self


class Guard(Part):
    """A promise, and what became of it."""

    name: str
    state: Literal["kept", "not shown", "broken"]
    """not shown: the data are too few to tell."""
    message: str = ""
    """Why, and what to do."""


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
