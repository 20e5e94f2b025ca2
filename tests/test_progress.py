"""A log shows that a work lives, and not more."""

from __future__ import annotations

import pytest

from adapt import progress


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 0.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def told(clock, capsys, steps: int, seconds: float, shown: bool = True, done: int = 0) -> list[str]:
    with progress.progress("finetune", steps, done, shown) as tick:
        for _ in range(done, steps):
            clock.now += seconds
            tick(1.25, 210.4)
    return capsys.readouterr().err.splitlines()


def test_a_log_gets_a_line_now_and_then(clock, capsys):
    lines = told(clock, capsys, 100, 1.0)
    assert lines[0] == "finetune: 10 of 100  loss 1.250  210 images/s  10 s so far, about 2 min left"
    assert len(lines) == 3 and lines[1].startswith("finetune: 40 of 100")


def test_what_is_done_soon_and_what_does_not_speak_is_silent(clock, capsys):
    assert told(clock, capsys, 9, 1.0) == []
    assert told(clock, capsys, 100, 1.0, shown=False) == []


def test_a_training_of_a_day_leaves_some_hundred_lines(clock, capsys):
    assert 50 < len(told(clock, capsys, 86400, 1.0)) < 200


def test_what_was_done_before_does_not_count_for_the_rate(clock, capsys):
    (line,) = told(clock, capsys, 110, 1.0, done=90)
    assert line.startswith("finetune: 100 of 110") and line.endswith("10 s so far, about 10 s left")


@pytest.mark.parametrize(("seconds", "words"), [(42, "42 s"), (89, "89 s"), (200, "3 min"), (8000, "2 h 13 min")])
def test_durations_in_words(seconds, words):
    assert progress.duration(seconds) == words
