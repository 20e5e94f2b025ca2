"""Kill a training with SIGKILL at a random moment, start it again with the same command, compare it bit for bit; ten times.

    python -m benchmarks.kill              # or another number of kills: python -m benchmarks.kill 3

The moments are drawn over the whole life of the process: imports, the first evaluation, training, checkpoints, the last one.
"""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROAD = [
    "recipe=clip_lora",
    "data.shots=6",
    "train.epochs=6",
    "train.checkpoint_every=2",
    "tracker=none",
    "distill=null",
    "export=[]",
]


def main(kills: int) -> None:
    command = [sys.executable, str(Path(__file__).parents[1] / "adapt" / "finetune.py"), *ROAD]
    moments, steps, same = random.Random(0), [], 0
    with tempfile.TemporaryDirectory() as whole:
        began = time.monotonic()
        subprocess.run(command, cwd=whole, check=True, capture_output=True)
        life = time.monotonic() - began
        for _ in range(kills):
            with tempfile.TemporaryDirectory() as broken:
                child = subprocess.Popen(command, cwd=broken, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                with suppress(subprocess.TimeoutExpired):
                    child.wait(moments.uniform(0.1, 0.95) * life)
                child.send_signal(signal.SIGKILL)
                child.wait()
                steps.append(len(_losses(broken)))
                subprocess.run(command, cwd=broken, check=True, capture_output=True)
                same += _losses(whole) == _losses(broken) and _weights(whole) == _weights(broken)
        print(f"{kills} kills, at steps {steps} of {len(_losses(whole))}: {same} times the same bits")
    sys.exit(same != kills)


def _losses(folder: str) -> list[float]:
    rows = [line for path in Path(folder, "runs").glob("*/history.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(row)["loss"] for row in rows if row.endswith("}") and "loss" in row]


def _weights(folder: str) -> str:
    path = next(Path(folder, "runs").glob("*/adapter/adapter_model.safetensors"))
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
