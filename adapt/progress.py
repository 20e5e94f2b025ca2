"""How far a work is: a bar with loss, rate and time left for who watches, in a terminal or a notebook; a line now and then for a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

QUIET = 10.0
"""Seconds before the first line of a log: what is done sooner needs none."""
EVERY = 30.0
"""Seconds between two lines; later ones are further apart, so that a training of a day leaves some hundred."""
SLOWER = 1.05
"""Each pause is as many times as long as the one before it."""
SOON = 2.0
"""Seconds before a notebook's bar is shown: a cell may do many things that take less."""
DRAWN = 0.5
"""Seconds between two drawings of it."""


@contextmanager
def progress(title: str, total: int, done: int = 0, shown: bool = True) -> Iterator[Callable[..., None]]:
    """Yields `tick(loss=None, rate=None)`, to be called once a step; `rate` in images a second."""
    console = Console(stderr=True)
    if console.is_jupyter and shown:
        with _in_notebook(title, total, done) as tick:
            yield tick
        return
    if not console.is_terminal:
        yield _logged(title, total, done) if shown else _nothing
        return
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}")]
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not shown) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def tick(loss: float | None = None, rate: float | None = None) -> None:
            bar.update(task, advance=1, note=_note(loss, rate))

        yield tick


@contextmanager
def _in_notebook(title: str, total: int, done: int) -> Iterator[Callable[..., None]]:
    """A `tick` that draws a bar below the cell, once the work has taken `SOON`; it goes when the work is done, and stays when stopped."""
    from IPython.display import HTML, display

    began, first, note, drawn, handle = time.monotonic(), done, "", 0.0, None

    def draw(now: float) -> None:
        nonlocal drawn, handle
        said = [f"{done:,} of {total:,}", note, duration(now - began)]
        if first < done < total:
            said.append(f"about {duration((now - began) / (done - first) * (total - done))} left")
        words = escape(f"{title}: {', '.join(filter(None, said))}")
        page, drawn = HTML(f'<progress value="{done}" max="{max(total, 1)}"></progress> {words}'), now
        if handle:
            handle.update(page)
        else:
            handle = display(page, display_id=True)

    def tick(loss: float | None = None, rate: float | None = None) -> None:
        nonlocal done, note
        done, note, now = done + 1, _note(loss, rate), time.monotonic()
        if now - began >= SOON and now - drawn >= DRAWN:
            draw(now)

    try:
        yield tick
    finally:
        if handle and done >= total:
            handle.update(HTML(""))
        elif handle:
            draw(time.monotonic())


def _logged(title: str, total: int, done: int) -> Callable[..., None]:
    """A `tick` that writes a line to the standard error output now and then."""
    began, first, wait = time.monotonic(), done, EVERY
    due = began + QUIET

    def tick(loss: float | None = None, rate: float | None = None) -> None:
        nonlocal done, due, wait
        done += 1
        now = time.monotonic()
        if now < due or done >= total:
            return
        due, wait = now + wait, wait * SLOWER
        left = (now - began) / (done - first) * (total - done)
        parts = [f"{done:,} of {total:,}", _note(loss, rate), f"{duration(now - began)} so far, about {duration(left)} left"]
        print(f"{title}: {'  '.join(filter(None, parts))}", file=sys.stderr, flush=True)

    return tick


def _nothing(loss: float | None = None, rate: float | None = None) -> None:
    """A `tick` of a process that does not speak."""


def _note(loss: float | None, rate: float | None) -> str:
    said = [] if loss is None else [f"loss {loss:.3f}"]
    return "  ".join(said + ([] if rate is None else [f"{rate:,.0f} images/s"]))


def duration(seconds: float) -> str:
    """42 → '42 s', 200 → '3 min', 8000 → '2 h 13 min'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
