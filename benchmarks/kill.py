"""Kill a road with SIGKILL, run the same command again, and compare all that it leaves, bit for bit.

    python -m benchmarks.kill              # four kills at random moments of each phase, and eight between two renames
    python -m benchmarks.kill 1 2          # one a phase, two between renames
    python -m benchmarks.kill 2 3 1        # two and three, at the moments of seed 1

Phases are those of the whole road: finetune, distill, export, report. A kill between renames falls just before or just after a
file or folder takes its name. Times of day, seconds and latencies are left out of the comparison.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

ROAD = ["recipe=clip_lora", "tracker=none", "data.shots=2", "data.unlabelled=[]", "model.train_templates=1"]
ROAD += ["train.epochs=3", "train.batch=32", "train.checkpoint_every=2", "export.0.calibration=16", "export.0.bench=0.2"]
ROAD += [f"distill.{given}" for given in ("views=1", "train.epochs=3", "train.batch=32", "train.checkpoint_every=2")]
PHASES = {
    "finetune": "adapter",
    "distill": "student/logits-resnet10t",
    "export": "export/logits-resnet10t/onnx",
    "report": "report.md",
}
"""Phase → the folder or file of the run by whose appearance it ends."""
TIMES = {"created", "seconds", "latency", "latency_torch", "calls", "code"}
"""What a clock has written."""
TIMED = "faster than"
"""Guards that speak of latencies."""


def main(kills: int, between: int, seed: int) -> None:
    moments, failed = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as whole:
        ends, renames = _whole(whole)
        expected = _left(whole)
        begin = 0.0
        plan: list[tuple[str, dict]] = []
        for phase, end in ends.items():
            plan += [(f"{phase}, {at:.1f} s", {"after": at}) for at in (moments.uniform(begin, end) for _ in range(kills))]
            begin = end
        numbers = sorted(moments.sample(range(renames), between))
        plan += [(f"rename {number + 1} of {renames}, {side}", {"rename": number, "side": side})
                 for number, side in zip(numbers, ("before", "after") * between, strict=False)]  # fmt: skip
        print(
            f"a whole road: {ends['report']:.1f} s, {renames} renames; phases end at { ({k: round(v, 1) for k, v in ends.items()}) }"
        )
        for name, how in plan:
            with tempfile.TemporaryDirectory() as broken:
                killed = _killed(broken, **how)
                _run(broken)
                differing = _differing(expected, _left(broken))
                failed += bool(differing) or not killed
                print(f"{name}: {'not killed' if not killed else ', '.join(differing) or 'the same bits'}", flush=True)
    print(f"{len(plan)} kills: {len(plan) - failed} times the same bits")
    sys.exit(bool(failed))


def _command(*more: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks.kill", "road", *more]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])}


def _run(folder: str) -> None:
    subprocess.run(_command(), cwd=folder, check=True, capture_output=True, env=_environment())


def _whole(folder: str) -> tuple[dict[str, float], int]:
    """The seconds after which each phase of a whole road ends, and how many renames it makes."""
    began, ends = time.monotonic(), {}
    child = subprocess.Popen(
        _command("count"), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_environment()
    )
    while child.poll() is None:
        for phase, name in PHASES.items():
            if phase not in ends and phase != "report" and list(Path(folder, "runs").glob(f"*/{name}")):
                ends[phase] = time.monotonic() - began
        time.sleep(0.02)
    error = child.stderr.read().decode()
    if child.returncode:
        sys.exit(error)
    ends["report"] = time.monotonic() - began
    return ends, int(Path(folder, "renames").read_text())


def _killed(folder: str, after: float | None = None, rename: int = 0, side: str = "") -> bool:
    """Was the road killed, after so many seconds or at that rename?"""
    more = [] if after is not None else [str(rename), side]
    child = subprocess.Popen(
        _command(*more), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment()
    )
    try:
        child.wait(after)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGKILL)
    return child.wait() == -signal.SIGKILL


def _road(rename: str = "", side: str = "") -> int:
    """In the child: the road; `rename`: a number at which it kills itself, or `count`."""
    from adapt.cli import main as adapt

    whole, count = os.replace, 0

    def replace(*given: Any) -> None:
        nonlocal count
        here = rename == str(count)
        count += 1
        if here and side == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        whole(*given)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace
    status = adapt(["road", *ROAD])
    if rename == "count":
        Path("renames").write_text(str(count))
    return status


def _left(folder: str) -> dict[str, Any]:
    """What a road leaves: file → its digest, or its content without what a clock has written."""
    (run,) = Path(folder, "runs").glob("*")
    shutil.rmtree(run / "cache", ignore_errors=True)  # shards: what is learnt of them is compared
    found: dict[str, Any] = {}
    for file in sorted(file for file in run.rglob("*") if file.is_file() and file.name not in ("report.html", "report.md")):
        name = file.relative_to(run).as_posix()
        if file.suffix == ".json":
            found[name] = _timeless(json.loads(file.read_text()))
        elif file.suffix == ".pt":
            found[name] = _state(torch.load(file, weights_only=True))
        else:
            found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def _state(value: Any) -> Any:
    """A training state by its content: a resumed one may hold the same values in another order of its file."""
    if isinstance(value, dict):
        return {str(key): _state(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_state(item) for item in value]
    return hashlib.sha256(value.numpy().tobytes()).hexdigest() if isinstance(value, torch.Tensor) else value


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [_timeless(item) for item in value if not (isinstance(item, dict) and TIMED in str(item.get("name")))]
    return value


def _differing(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


if __name__ == "__main__":
    if sys.argv[1:2] == ["road"]:
        raise SystemExit(_road(*sys.argv[2:]))
    numbers = [int(number) for number in sys.argv[1:]]
    main(*numbers, *[4, 8, 0][len(numbers) :])
