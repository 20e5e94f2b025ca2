"""A road's time is told once, from the first steps of its first training."""

from __future__ import annotations

import pytest

from adapt.progress import duration
from adapt.train import foretold
from adapt.train.foretold import FIRST


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(foretold.time, "monotonic", lambda: Clock.now)
    return Clock


def ticked(clock, steps: int, later: dict[str, float] | None) -> list[tuple]:
    """Steps of a second each, of which the first takes ten, since it warms up."""
    seen: list[tuple] = []
    tick = foretold.foretold(lambda *given: seen.append(given), "finetune", steps, later)
    for step in range(steps):
        clock.now += 1 if step else 10
        tick(1.25, 210.4)
    return seen


def test_the_first_steps_and_what_follows_are_one_line(clock, capsys):
    assert ticked(clock, 40, {"teacher": 20.4, "distill": 180.0}) == [(1.25, 210.4)] * 40, "each step is passed on"
    said = capsys.readouterr().err.splitlines()
    assert said == [f"road: about {duration(240.4)}: finetune 40 s, teacher 20 s, distill 3 min; evaluation and export besides"]


def test_where_nothing_follows_or_all_is_done_at_once_nothing_is_said(clock, capsys):
    ticked(clock, 40, None)
    ticked(clock, 40, {})
    ticked(clock, FIRST, {"distill": 180.0})
    assert capsys.readouterr().err == ""
