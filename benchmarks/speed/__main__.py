"""How fast we are beside what a user would pick instead, in one run: python -m benchmarks.speed

    python -m benchmarks.speed                                       # everything, on the CPU and on a GPU where there is one
    python -m benchmarks.speed zeroshot lora                         # some parts
    python -m benchmarks.speed sizes=tiny turns=1                    # a try, in minutes
    python -m benchmarks.speed zeroshot clip_benchmark=/path/to/python   # beside CLIP_benchmark, where an environment has it
    python -m benchmarks.speed distill lightly=/path/to/python           # beside LightlyTrain
    python -m benchmarks.speed growth out=table.md plot=growth.png

Each part is a process of its own in an empty folder; those that are compared do their work in turn, five times, and medians and the
spread are told, and ratios to the first line of each (the bare work, where there is one): 1.10 × is a tenth slower. Threads are the
libraries' own choice: set OMP_NUM_THREADS to change it for all of them alike.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from benchmarks.speed import table
from benchmarks.speed.made import SIZES, Task
from benchmarks.speed.peers import ROOT

PARTS = {
    "zeroshot": "zeroshot.small",
    "vit": "zeroshot.large",
    "lora": "lora.both",
    "frozen": "lora.frozen",
    "frozen_large": "lora.frozen_large",
    "distill": "distilling.measure",
    "startup": "startup.measure",
    "metrics": "metrics.measure",
    "memory": "road.measure",
    "growth": "growth.measure",
}
"""Part → module and function: a `Task` → a list of `Rows`."""
OPTIONS = {"sizes": "full", "turns": "5", "device": "", "clip_benchmark": "", "lightly": "", "out": "", "plot": ""}


def parsed(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Parts and options; raises SystemExit for what there is not."""
    given = OPTIONS | dict(word.split("=", 1) for word in arguments if "=" in word)
    parts = [word for word in arguments if "=" not in word] or list(PARTS)
    for have, asked in ((PARTS, parts), (OPTIONS, given), (SIZES, [given["sizes"]]), (("", "cpu", "cuda"), [given["device"]])):
        if unknown := [name for name in asked if name not in have]:
            raise SystemExit(f"{unknown[0]!r} is unknown. Have: {', '.join(filter(None, have))}.")
    if not given["turns"].isdigit() or given["turns"] == "0":
        raise SystemExit(f"turns={given['turns']} is no count. Give 1 or more, such as turns=5.")
    for name in ("clip_benchmark", "lightly"):
        if given[name] and not shutil.which(given[name]):
            raise SystemExit(f"{name}={given[name]} is no program. Give the path of a Python that has it, or leave it out.")
    return parts, given


def measured(part: str, task: Task, plot: str = "") -> tuple[str, list[table.Rows]]:
    """One part in a process and a folder of its own: the line of what it ran on, and its rows."""
    with tempfile.TemporaryDirectory() as folder:
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if task.device == "cpu" else {}
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        own = {"ADAPT_CACHE": str(Path(folder) / "cache"), "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
        asked = json.dumps(asdict(task) | {"sizes": next(name for name, sizes in SIZES.items() if sizes == task.sizes)})
        command = [sys.executable, "-m", "benchmarks.speed", "child", part, asked]
        done = subprocess.run(command, cwd=folder, env=os.environ | own | hidden, check=False)
        if done.returncode:
            raise SystemExit(f"{part}: failed; its last lines are above.")
        found = json.loads((Path(folder) / "rows.json").read_text())
        if plot and (Path(folder) / "growth.png").exists():
            shutil.copy(Path(folder) / "growth.png", plot)
    return found["header"], [table.Rows(**rows) for rows in found["rows"]]


def child(part: str, asked: str) -> None:
    """Measure one part in this process; its rows go into a file, for much is printed on the way."""
    from adapt import hardware

    hardware.guard()
    given = json.loads(asked)
    task = Task(**given | {"sizes": SIZES[given["sizes"]]})
    module, _, function = PARTS[part].partition(".")
    rows = getattr(importlib.import_module(f"benchmarks.speed.{module}"), function)(task)
    Path("rows.json").write_text(json.dumps({"header": table.header(task.device), "rows": [asdict(each) for each in rows]}))


def devices(wanted: str) -> list[str]:
    """cpu, and cuda where there is one."""
    import torch

    have = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    if wanted and wanted not in have:
        raise SystemExit(f"device={wanted}: this machine has none. Have: {', '.join(have)}.")
    return [wanted] if wanted else have


def main(arguments: list[str]) -> None:
    """Measure the parts on each device, and print a table for each device."""
    if arguments[:1] == ["child"]:
        return child(*arguments[1:])
    parts, given = parsed(arguments)
    text = ""
    for device in devices(given["device"]):
        task = Task(SIZES[given["sizes"]], int(given["turns"]), device, given["clip_benchmark"], given["lightly"])
        rows: list[table.Rows] = []
        for part in parts:
            line, found = measured(part, task, given["plot"])
            print(f"{part}, {device}\n{table.markdown(found)}", file=sys.stderr, flush=True)
            rows += found
        text += f"{line}\n\n{table.markdown(rows)}\n"
    print(text)
    if given["out"]:
        Path(given["out"]).write_text(text)


if __name__ == "__main__":
    main(sys.argv[1:])
