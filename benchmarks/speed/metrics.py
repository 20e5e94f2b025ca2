"""Metrics of many answers over many classes: ours (top-k, mean per class, ECE, NLL, confusion, intervals, the table of predictions),
and what a script of torch and scikit-learn takes for top-1, top-5 and mean per class."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import numpy as np

from benchmarks.speed import made
from benchmarks.speed.table import BARE, OURS, Rows, interleaved


def measure(task: made.Task) -> list[Rows]:
    """Seconds, and the peak of memory above the logits; each in a process of its own."""
    rows, columns = task.sizes.rows, task.sizes.columns
    what = f"metrics of {rows:,} × {columns:,}"
    both = interleaved(
        what, [lambda turn: _process(BARE, rows, columns), lambda turn: _process(OURS, rows, columns)], task.turns
    )
    peaks = {who.removesuffix(" MB"): values for who, values in both.values.items() if who.endswith(" MB")}
    times = {who: values for who, values in both.values.items() if not who.endswith(" MB")}
    return [Rows(what, "s", times), Rows(f"{what}: memory above the logits", "MB", peaks)]


def _process(who: str, rows: int, columns: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.speed.metrics", who, str(rows), str(columns)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def here(who: str, rows: int, columns: int) -> dict[str, float]:
    """One of the two, in this process."""
    from benchmarks.memory import peak, reset_peak, resident

    draw = np.random.default_rng(0)
    logits = draw.standard_normal((rows, columns), np.float32)
    labels = draw.integers(0, columns, rows)
    work = {BARE: bare, OURS: ours}[who](labels, columns)
    work(logits[:100], 100)  # imports
    reset_peak()
    before, began = resident(), time.perf_counter()
    work(logits, rows)
    return {who: time.perf_counter() - began, f"{who} MB": (peak() - before) / 1e6}


def bare(labels: np.ndarray, columns: int):
    import torch
    from sklearn.metrics import balanced_accuracy_score

    def work(logits: np.ndarray, count: int) -> None:
        best = torch.from_numpy(logits).topk(5, 1).indices.numpy()
        hits = best == labels[:count, None]
        assert hits[:, 0].mean() <= hits.any(1).mean()
        balanced_accuracy_score(labels[:count], best[:, 0])

    return work


def ours(labels: np.ndarray, columns: int):
    from datasets import ClassLabel, Dataset, Features, Value

    from adapt.evals import zeroshot

    features = Features(id=Value("string"), label=ClassLabel(num_classes=columns))
    rows = Dataset.from_dict({"id": [str(number) for number in range(len(labels))], "label": labels}, features)

    def work(logits: np.ndarray, count: int) -> None:
        zeroshot.evaluate(zeroshot.Config(name="zeroshot"), lambda _: logits, rows.select(range(count)), {})

    return work


if __name__ == "__main__":
    print(json.dumps(here(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
