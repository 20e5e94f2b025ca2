"""How long a road will take: a training's first steps, and what is known before of what follows them, in one line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping

from adapt.progress import duration

FIRST = 5
"""Steps, after one that warms up, by which the time of all is told."""


def foretold(tick: Callable[..., None], title: str, steps: int, later: Mapping[str, float] | None) -> Callable[..., None]:
    """A `tick` of a progress that also says, once, how long these steps and what follows them take.

    Args:
        steps: of this training, those that are left.
        later: what follows → about how many seconds it takes; without any, the `tick` stays as it is.
    """
    if not later:
        return tick
    seen, began = 0, 0.0

    def both(loss: float | None = None, rate: float | None = None) -> None:
        nonlocal seen, began
        seen += 1
        if seen == 1:
            began = time.monotonic()
        if seen == 1 + FIRST:
            parts = {title: (time.monotonic() - began) / FIRST * steps} | dict(later)
            told = ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts.items())
            whole = duration(sum(parts.values()))
            print(f"road: about {whole}: {told}; evaluation and export besides", file=sys.stderr, flush=True)
        tick(loss, rate)

    return both
