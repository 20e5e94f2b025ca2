"""How the cost grows with pictures, classes and processes: a table, and a plot of it as `growth.png`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.speed import clock, lora, made, zeroshot
from benchmarks.speed.table import Rows, interleaved

PLOT = "growth.png"


def measure(task: made.Task) -> list[Rows]:
    """Three tables of one axis each."""
    zeroshot.ours(made.pictures(Path("other"), made.few(20)), made.tiny(), "other")  # imports
    places = torch.cuda.device_count() if task.device == "cuda" else os.cpu_count()
    found = {
        "pictures of an evaluation, the second time": {str(count): pictures(count) for count in task.sizes.grows},
        "classes of a LoRA step": {str(count): classes(count, task) for count in task.sizes.classes},
        "processes of a LoRA step": {str(count): processes(count, task) for count in task.sizes.processes if count <= places},
    }
    rows = [interleaved(axis, list(works.values()), task.turns) for axis, works in found.items()]
    plot(rows)
    return rows


def pictures(count: int):
    """Seconds of an evaluation, the second time; `startup` has the first."""
    data = made.pictures(Path(f"grow-{count}"), made.few(count))

    def work(turn: int) -> dict[str, float]:
        return {f"{count:,}": zeroshot.ours(data, made.tiny(), f"{count}-{turn}")["ours, second time"]}

    return work


def classes(count: int, task: made.Task):
    """Seconds a step with both towers learning."""
    each = {"train": max(count, task.sizes.batch * task.sizes.steps), "val": 2 * count, "test": 2 * count}
    data = made.pictures(Path(f"classes-{count}"), each, count)
    epoch = each["train"] // task.sizes.batch
    return lambda turn: {f"{count:,}": step(data, f"classes-{count}-{turn}", epoch, task.sizes.batch)}


def step(data: Path, name: str, epoch: int, batch: int) -> float:
    """Seconds a step of `adapt finetune`, from the second epoch on."""
    method = {"name": "lora", "targets": [lora.BOTH]} | lora.ADAPTERS
    with clock.steps(epoch) as ends:
        from adapt import pipeline

        pipeline.finetune(made.recipe(name, data, method=method, train={"epochs": 2, "batch": batch}))
    return clock.later(ends) / epoch


def processes(count: int, task: made.Task):
    """Seconds a step of the same batch, shared by so many processes of this machine."""
    each = {"train": task.sizes.batch * task.sizes.steps, "val": 20, "test": 20}
    data = made.pictures(Path(f"processes-{count}"), each)

    def work(turn: int) -> dict[str, float]:
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}", "-m"]
        name = f"processes-{count}-{turn}"
        given = [str(data), name, str(task.sizes.steps), str(task.sizes.batch)]
        subprocess.run([*launch, "benchmarks.speed.growth", *given], stdout=subprocess.DEVNULL, check=True)
        return {f"{count:,}": max(json.loads(Path(f"{name}.{rank}.json").read_text()) for rank in range(count))}

    return work


def plot(parts: list[Rows]) -> None:
    """Medians with the least and the largest, both axes logarithmic; the dashed line grows as the data do."""
    import statistics

    from matplotlib.figure import Figure

    from adapt.report.charts import COLOURS, style

    with style():
        figure = Figure(figsize=(11, 3.4), layout="constrained")
        for axes, rows in zip(figure.subplots(1, len(parts)), parts, strict=True):
            at = [int(who.replace(",", "")) for who in rows.values]
            middle = [statistics.median(values) for values in rows.values.values()]
            least, most = ([kind(values) for values in rows.values.values()] for kind in (min, max))
            reach = [[m - low for m, low in zip(middle, least)], [high - m for m, high in zip(middle, most)]]
            axes.errorbar(at, middle, reach, marker="o", color=COLOURS[1])
            axes.plot(at, [middle[0] * x / at[0] for x in at], "--", color=COLOURS[0], linewidth=1)
            axes.set(xscale="log", yscale="log", xlabel=rows.what, ylabel="seconds")
            axes.set_xticks(at, list(rows.values))
            axes.set_yticks(middle, [f"{value:.3g}" for value in middle])
            axes.minorticks_off()
        figure.savefig(PLOT, dpi=150)


if __name__ == "__main__":
    from adapt import hardware

    hardware.guard()
    seconds = step(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    Path(f"{sys.argv[2]}.{os.environ['RANK']}.json").write_text(json.dumps(seconds))
