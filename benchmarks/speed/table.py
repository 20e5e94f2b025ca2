"""What is measured in turns, and the Markdown table of it."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

BARE, OURS = "bare", "ours"


@dataclass
class Rows:
    """One thing that several do: who → its values, one a turn; the others are divided by the first's of the same turn."""

    what: str
    """What is done, with its sizes."""
    unit: str = "s"
    """s, or MB."""
    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, found: dict[str, float]) -> None:
        for who, value in found.items():
            self.values.setdefault(who, []).append(value)


def interleaved(what: str, works: list[Callable[[int], dict[str, float]]], turns: int, unit: str = "s") -> Rows:
    """Do each work once a turn: whatever else the machine does meanwhile, it does to all of them.

    Args:
        works: the turn's number → who, and its seconds (or MB).
    """
    rows = Rows(what, unit)
    for turn in range(turns):
        for work in works:
            rows.add(work(turn))
    return rows


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def markdown(parts: list[Rows]) -> str:
    """A line for each who: the median, with the least and the largest, and the same of its ratio to the first."""
    lines = ["| what | who | median (least–largest) | ÷ the first (least–largest) | turns |", "|---|---|---|---|---|"]
    for rows in parts:
        first = next(iter(rows.values.values()))
        for number, (who, values) in enumerate(rows.values.items()):
            what = rows.what if number == 0 else ""
            middle, least, most = map(_number, _summary(values))
            ratio = "{:.2f} × ({:.2f}–{:.2f})".format(*_summary([a / b for a, b in zip(values, first, strict=True)]))
            ratio = ratio if number else ""
            lines.append(f"| {what} | {who} | {middle} {rows.unit} ({least}–{most}) | {ratio} | {len(values)} |")
    return "\n".join(lines) + "\n"


def _summary(values: list[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def header(device: str) -> str:
    """Device, threads, load and versions, in a line above a table."""
    import torch

    from adapt import hardware

    facts = hardware.describe()
    where = facts["GPU"] if device == "cuda" else facts["processor"] or "CPU"
    names = ("torch", "transformers", "peft", "accelerate", "datasets")
    versions = ", ".join(f"{name} {facts[name]}" for name in names)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{where}, {facts['cores']} cores, {torch.get_num_threads()} threads, load {load}; {versions}."
