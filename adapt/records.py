"""What `metrics.json` is made of: entries, guards, and how long a picture takes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, model_validator


class Part(BaseModel):
    """Base of what `metrics.json` is made of: what is unknown is left out, and no type is guessed."""

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


class Confused(Part):
    """The counts of a confusion that are not zero, in three lists of one length: of many classes nearly all are zero."""

    label: list[int]
    prediction: list[int]
    count: list[int]
    """How many rows of `label` were taken for `prediction`."""


class Corrupted(Part):
    """Top-1 on corrupted pictures."""

    corruptions: list[str]
    severities: list[int]
    accuracy: list[list[float]]
    """Of each corruption (a row) at each severity."""
    clean: float
    """Of the same pictures as they are."""
    pictures: int


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
    confusion: list[list[int]] | Confused | None = None
    """Counts [C, C]: rows are labels, columns predictions; of many classes those that are not zero."""
    reliability: dict[str, list[float]] | None = None
    """confidence, accuracy and count of each bin."""
    robustness: Corrupted | None = None

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

    @property
    def ok(self) -> bool:
        """It is not broken."""
        return self.state != "broken"
