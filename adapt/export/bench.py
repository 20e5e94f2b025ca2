"""Latency: one thread, one image, runners measured in turn, so that noise falls on all alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

WARM = 10
"""Calls before any is timed."""


def compare(runners: dict[str, Callable], example: Any, seconds: float = 2.0, least: int = 50) -> dict[str, dict[str, float]]:
    """p50 and p99 of each runner, within a budget of time: `seconds` for each, and a call more.

    A runner that cannot make `least` calls in its seconds leaves when they are spent; the others go on without it, and are called
    equally often. Of one whose first calls take that long, the last of them is all that is measured.

    Args:
        runners: name → function of the example; each is to use one thread by itself.
        example: what they take, such as float32[1, 3, H, W].
        seconds: for each runner, its warm-up and its calls together.
        least: calls from which a median is worth keeping a runner in.

    Returns:
        name → p50_ms, p99_ms, calls, threads.
    """
    warm = {name: _warm(runner, example, seconds) for name, runner in runners.items()}
    times = {name: [calls[-1]] if sum(calls) > seconds else [] for name, calls in warm.items()}
    spent = {name: sum(calls) for name, calls in warm.items()}
    active = [name for name in runners if not times[name]]
    while active and sum(spent[name] for name in active) < seconds * len(active):
        for name in active:
            times[name].append(_timed(runners[name], example))
            spent[name] += times[name][-1]
        active = [name for name in active if spent[name] < seconds or len(times[name]) >= least]
    return {
        name: {
            "p50_ms": float(np.percentile(values, 50) * 1e3),
            "p99_ms": float(np.percentile(values, 99) * 1e3),
            "calls": len(values),
            "threads": 1,
        }
        for name, values in times.items()
    }


def _warm(runner: Callable, example: Any, seconds: float) -> list[float]:
    """Up to `WARM` calls, none after a quarter of the seconds; what each took, seconds."""
    took: list[float] = []
    while len(took) < WARM and sum(took) < seconds / 4:
        took.append(_timed(runner, example))
    return took


def _timed(runner: Callable, example: Any) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    runner(example)
    return time.perf_counter() - began
