"""What an eval returns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Result:
    """Numbers with the protocol that they were measured under."""

    metrics: dict[str, float]
    """Fractions in 0–1 (nll in nats)."""
    protocol: dict[str, Any]
    """Everything that two numbers must share to be compared."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """95 % bootstrap intervals."""
    table: dict[str, list] = field(default_factory=dict)
    """Columns of a row a sample, of what Arrow can store: words, numbers, lists of numbers.

    `id` names the row; where there are several answers to a row, `id` names the answer, and `row` the row. `picture` names the picture that it is of, where several rows may be of one: they are resampled together.
    `label`, `prediction`, `confidence` (0–1) and `correct` are for people. All that the main metric is computed from stands there
    too: the eval's function `statistic(table)` computes it, so that two tables of the same rows can be compared (`bootstrap.change`).
    """
    floor: float = 0.0
    """What one and the same answer for every picture would reach in the main metric; 0 where there is no such answer."""
    remark: str = ""
    """A sentence for the user, shown under the table, such as what the number is made of."""
    pictures: list[tuple[str, Any]] = field(default_factory=list)
    """At most 24 pictures for the report: caption, PIL image."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What the report draws."""


def counts(confusion: list[list[int]] | dict[str, list[int]]) -> Iterator[tuple[int, int, int]]:
    """(label, prediction, count) of all counts of a confusion that are not zero, however it is stored."""
    if isinstance(confusion, dict):
        yield from zip(confusion["label"], confusion["prediction"], confusion["count"], strict=True)
        return
    for label, row in enumerate(confusion):
        yield from ((label, prediction, count) for prediction, count in enumerate(row) if count)


def differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """The keys in which two protocols differ, `eval` alone if it is another; numbers may be compared when there are none."""
    keys = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
    return ["eval"] if "eval" in keys else keys
