"""How long the evals take for many pictures and classes, once the network has answered, and what memory they need above its answers.

    python -m benchmarks.metrics                       # 50,000 pictures, 1,000 classes, 10,000 labelled rows; seven runs of each
    python -m benchmarks.metrics rows=10000 runs=3
    python -m benchmarks.metrics only=zeroshot classes=10000

Answers and embeddings are random. Each run is a process of its own, in turn, so that what else the machine does falls on all; the
median is told with the least and the most. Peak memory is that of the process above what it held with its input made.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from statistics import median

from benchmarks.memory import peak, reset_peak, resident

OPTIONS = {"rows": "50000", "classes": "1000", "bank": "10000", "width": "384", "runs": "7", "only": ""}
NAMES = ("zeroshot", "knn", "linear")


def measure(name: str, rows: int, classes: int, bank: int, width: int) -> dict[str, float]:
    """One eval of random answers, in this process: seconds, and bytes of peak memory above its input."""
    import numpy as np
    from datasets import ClassLabel, Dataset

    from adapt import plug

    random = np.random.default_rng(0)
    bank = 0 if name == "zeroshot" else bank
    labels = random.integers(0, classes, rows + bank)
    size = width if bank else classes
    answers = random.standard_normal((rows + bank, size), np.float32)
    if bank:
        answers += 0.3 * random.standard_normal((classes, size), np.float32)[labels]
    else:
        answers[np.arange(rows), labels] += 3

    def data(start: int, end: int) -> Dataset:
        columns = {"id": [str(i) for i in range(start, end)], "label": labels[start:end]}
        return Dataset.from_dict(columns).cast_column("label", ClassLabel(names=[f"class {i}" for i in range(classes)]))

    measured, stored = data(0, rows), data(rows, rows + bank)
    target = plug.load("evals", name)
    config = target.Config(name=name, **({"steps": 200} if name == "linear" else {}))

    def predict(part: Dataset, _: str = "") -> np.ndarray:
        return answers[int(part[0]["id"]) :][: len(part)]

    few = data(0, min(rows, 64))  # what is imported, and built once, is no part of it
    target.evaluate(config.model_copy(update={"steps": 1}), predict, few, {}, few)
    reset_peak()
    held, began = resident(), time.perf_counter()
    result = target.evaluate(config, predict, measured, {}, stored)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "bytes": peak() - held, "value": result.metrics[config.main]}


def main(arguments: list[str]) -> None:
    """Run each eval several times, each in a child process, and print the table."""
    if arguments[:1] == ["child"]:
        print(json.dumps(measure(arguments[1], *map(int, arguments[2:]))))
        return
    given = OPTIONS | dict(argument.split("=", 1) for argument in arguments)
    if unknown := set(given) - set(OPTIONS):
        raise SystemExit(f"{sorted(unknown)[0]!r} is unknown. Have: {', '.join(OPTIONS)}.")
    names = given["only"].split(",") if given["only"] else NAMES
    sizes = [given[name] for name in ("rows", "classes", "bank", "width")]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(int(given["runs"])):
        for name in names:
            command = [sys.executable, "-m", "benchmarks.metrics", "child", name, *sizes]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{name}: {(done.stderr.strip() or 'killed').splitlines()[-1]}")
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(name, json.dumps(found[name][-1]), file=sys.stderr)
    print(f"{os.cpu_count()} cores of a {platform.machine()}; {given['rows']} rows, {given['classes']} classes.\n")
    print("| eval | seconds, median (least to most) | peak above its input, MB |\n|---|---|---|")
    for name, runs in found.items():
        times = sorted(run["seconds"] for run in runs)
        most = max(run["bytes"] for run in runs) / 1e6
        print(f"| {name} | {median(times):.2f} ({times[0]:.2f} to {times[-1]:.2f}) | {most:,.0f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
