"""Kill a training with SIGKILL at ten random moments, start it again with the same command, and compare it bit for bit.

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
from pathlib import Path

ROAD = ["recipe=clip_lora", "train.epochs=6", "train.checkpoint_every=2", "tracker=none", "distill=null", "export=[]"]


def main(kills: int) -> None:
    command = [sys.executable, str(Path(__file__).parents[1] / "adapt" / "finetune.py"), *ROAD]
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as broken:
        began = time.monotonic()
        subprocess.run(command, cwd=whole, check=True, capture_output=True)
        life = time.monotonic() - began
        moments, done = random.Random(0), 0
        steps = []
        while done < kills:
            child = subprocess.Popen(command, cwd=broken, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                child.wait(moments.uniform(0.1, 0.9) * life)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)
                child.wait()
                done += 1
                steps.append(len(_losses(broken)))
                continue
            break  # it has finished between two kills
        subprocess.run(command, cwd=broken, check=True, capture_output=True)
        same = _losses(whole) == _losses(broken) and _weights(whole) == _weights(broken)
        print(f"{done} kills, at steps {steps} of {len(_losses(whole))}: {'the same bits' if same else 'DIFFERENT'}")
        sys.exit(not same)


def _losses(folder: str) -> list[float]:
    rows = [line for path in Path(folder, "runs").glob("*/history.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(row)["loss"] for row in rows if row.endswith("}") and "loss" in row]


def _weights(folder: str) -> str:
    path = next(Path(folder, "runs").glob("*/adapter/adapter_model.safetensors"))
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
