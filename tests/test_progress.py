"""A log shows that a work lives, and not more."""

from __future__ import annotations

from contextlib import suppress

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


def in_notebook(clock, monkeypatch, steps: int, seconds: float, stop: int | None = None) -> list[str]:
    """What a notebook shows below the cell, one drawing after the other."""
    drawn: list[str] = []

    class Handle:
        def update(self, page) -> None:
            drawn.append(page.data)

    def display(page, display_id) -> Handle:
        drawn.append(page.data)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(progress, "Console", lambda stderr: type("Console", (), {"is_jupyter": True, "is_terminal": False}))
    with suppress(KeyboardInterrupt), progress.progress("<finetune>", steps) as tick:
        for step in range(steps):
            if step == stop:
                raise KeyboardInterrupt
            clock.now += seconds
            tick(1.25)
    return drawn


def test_a_notebook_has_a_bar_of_its_own(clock, monkeypatch):
    drawn = in_notebook(clock, monkeypatch, 100, 0.25)
    assert drawn[0].startswith(
        '<progress value="8" max="100"></progress> &lt;finetune&gt;: 8 of 100, loss 1.250, 2 s, about 23 s left'
    )
    assert drawn[-2].endswith("100 of 100, loss 1.250, 25 s")
    assert drawn[-1] == "", "what was made says more than a full bar"
    assert len(drawn) == pytest.approx(48, abs=2), "two drawings a second"


def test_a_notebook_is_spared_the_bars_of_what_is_done_soon(clock, monkeypatch):
    assert in_notebook(clock, monkeypatch, 7, 0.25) == []


def test_a_stopped_cell_keeps_its_bar_as_it_was(clock, monkeypatch):
    assert "50 of 100" in in_notebook(clock, monkeypatch, 100, 0.25, stop=50)[-1]
