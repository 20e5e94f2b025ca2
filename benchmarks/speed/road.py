"""Peak resident memory of a road with the same few steps, on few pictures and on many; each in a process of its own.

From the data to the student: what the exporter takes, which sees no pictures but a few hundred, would hide what grows with them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from benchmarks.speed import made
from benchmarks.speed.table import Rows, interleaved

STEPS = 20


def measure(task: made.Task) -> list[Rows]:
    """The peak of each road, and by how much it is above the smallest one's."""
    folders = {count: made.pictures(Path(f"road-{count}"), {"": count}) for count in task.sizes.road}
    batch = min(32, min(folders) // 8)

    def peaks(turn: int) -> dict[str, float]:
        return {f"{count:,} pictures": _process(folder, batch, f"road-{turn}") for count, folder in folders.items()}

    return [interleaved(f"peak memory of a road of {STEPS} steps", [peaks], task.turns, "MB")]


def _process(data: Path, batch: int, name: str) -> float:
    command = [sys.executable, "-m", "benchmarks.speed.road", str(data), str(batch), name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak(data: Path, batch: int, name: str) -> float:
    """MB at most in this process, of a road from the data to the student."""
    from adapt import pipeline
    from benchmarks import memory

    train = {"steps": STEPS, "batch": batch, "validate_every": 1000}
    recipe = made.recipe(
        f"{name}-{data.name}",
        data,
        train=train,
        evals=[{"name": "zeroshot", "split": "test"}],
        distill={"name": "logits", "student": "resnet10t", "pretrained": "cnn-tiny", "views": 1, "train": train},
    )
    pipeline.road(recipe)
    return memory.peak() / 1e6


if __name__ == "__main__":
    from adapt import hardware

    hardware.guard()
    print(json.dumps(peak(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])))
