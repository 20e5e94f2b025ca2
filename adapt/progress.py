"""A progress bar with loss, rate and time left; silent when nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress(title: str, total: int, done: int = 0, shown: bool = True) -> Iterator[Callable[..., None]]:
    """Yields `tick(loss=None, rate=None)`, to be called once a step; `rate` in images a second."""
    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}")]
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task(title, total=total, completed=done, note="")

        def tick(loss: float | None = None, rate: float | None = None) -> None:
            note = "" if loss is None else f"loss {loss:.3f}"
            bar.update(task, advance=1, note=note if rate is None else f"{note}  {rate:.0f} images/s")

        yield tick
