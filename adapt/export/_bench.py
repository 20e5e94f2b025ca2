"""Latency: one thread, one image, runners measured in turn, so that noise falls on all alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np


def compare(runners: dict[str, Callable], example: Any, seconds: float = 2.0, least: int = 50) -> dict[str, dict[str, float]]:
    """p50 and p99 of each runner.

    Args:
        runners: name → function of the example; each is to use one thread by itself.
        example: what they take, such as float32[1, 3, H, W].
        seconds: time spent on each runner, at least.
        least: calls of each runner, at least.

    Returns:
        name → p50_ms, p99_ms, calls, threads.
    """
    for runner in runners.values():
        for _ in range(10):
            runner(example)
    times: dict[str, list[int]] = {name: [] for name in runners}
    end = time.perf_counter() + seconds * len(runners)
    while time.perf_counter() < end or len(next(iter(times.values()))) < least:
        for name, runner in runners.items():
            began = time.perf_counter_ns()
            runner(example)
            times[name].append(time.perf_counter_ns() - began)
    return {
        name: {
            "p50_ms": float(np.percentile(values, 50) / 1e6),
            "p99_ms": float(np.percentile(values, 99) / 1e6),
            "calls": len(values),
            "threads": 1,
        }
        for name, values in times.items()
    }
