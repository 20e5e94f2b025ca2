"""Clocks that need no change of what they measure; nothing of ours is imported, so that peers' environments can use them."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock


def now() -> float:
    """Seconds, when all that a GPU was asked for is done."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def watched(name: str) -> Iterator[list[tuple[float, float]]]:
    """When the function `module.function` began and ended, each time that it is called within."""
    place, _, function = name.rpartition(".")
    module = importlib.import_module(place)
    original, times = getattr(module, function), []

    def timed(*given, **options):
        began = now()
        try:
            return original(*given, **options)
        finally:
            times.append((began, now()))

    with mock.patch.object(module, function, timed):
        yield times


@contextmanager
def steps(epoch: int) -> Iterator[list[float]]:
    """The moments at which each epoch ended, of whatever trains within, by the optimiser's own steps.

    Args:
        epoch: optimiser steps of an epoch.
    """
    from torch.optim.optimizer import register_optimizer_step_post_hook

    count, ends = 0, []

    def after(*_) -> None:
        nonlocal count
        count += 1
        if count % epoch == 0:
            ends.append(now())

    handle = register_optimizer_step_post_hook(after)
    try:
        yield ends
    finally:
        handle.remove()


def later(ends: list[float]) -> float:
    """Seconds of an epoch, from the second on: with loading, and with what is done between two of them."""
    return (ends[-1] - ends[0]) / (len(ends) - 1)
