"""Start-up: what passes before a first batch, for folders of many files, when they have never been seen and when they have.

Each time is a process of its own, as a user starts it, which has started with a few other pictures before, so that imports are not
counted. Rows are read, split and fingerprinted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.speed import made
from benchmarks.speed.table import Rows, interleaved

EVALS = [{"name": "zeroshot", "split": "test"}]


def measure(task: made.Task) -> list[Rows]:
    """A table's rows for each number of files."""
    other, found = made.pictures(Path("other"), {"": 40}), []
    for count in task.sizes.files:
        data = made.pictures(Path(f"files-{count}"), {"": count})
        found.append(interleaved(f"start-up, {count:,} files", [lambda turn, data=data: _both(other, data)], task.turns))
    return found


def _both(other: Path, data: Path) -> dict[str, float]:
    made.forget()
    return {f"ours, {when} time": _process(other, data) for when in ("first", "second")}


def _process(*folders: Path) -> float:
    command = [sys.executable, "-m", "benchmarks.speed.startup", *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def started(data: Path) -> float:
    """Seconds in this process until rows, splits and fingerprints are known."""
    from adapt.verbs.session import Session

    began = time.perf_counter()
    session = Session(made.recipe("start", data, evals=EVALS))
    assert session.data and session.fingerprints
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps([started(Path(folder)) for folder in sys.argv[1:]][-1]))
