"""`adapt predict` with an int8 student against what it cannot do without: decoding the pictures, and the runner on ready batches.

    python -m benchmarks.predict                # a ResNet-18 at 224 pixels with classes; boxes at 128 pixels: the bar is 0.9
    python -m benchmarks.predict classes        # one of them
    python -m benchmarks.predict kill           # killed three times by SIGKILL: each picture is there once

2,000 JPEGs of 500 × 375 pixels. The three are measured in turn, five times, and the medians compared: decoding alone (open, RGB) in one
thread, the runner alone in batches of 32, and the whole of predict: decoding, scaling to the input, running, the shards, the table or
COCO's JSON, drawings of the least sure. Weights are random: times do not depend on their values.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from adapt import hardware
from adapt.export import gate
from adapt.export import onnx as target
from adapt.students import classifier, detector
from adapt.verbs import predict
from adapt.verbs.predicting.pictures import found
from adapt.verbs.predicting.request import Request
from adapt.vision.pictures import open_picture, rgb

PICTURES, TURNS, BATCH = 2000, 5, 32
SPEC = {"interpolation": "bilinear", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
NAMES = [f"class {number}" for number in range(20)]


def classes() -> classifier.Student:
    spec = SPEC | {"size": (224, 224), "resize": 256, "crop": "floor"}
    return classifier.Student("resnet18", spec, NAMES).eval()


def boxes() -> detector.Student:
    """Its untrained head tells two thousand boxes a picture, all less sure than 0.3: the runner and what is thrown away."""
    spec = SPEC | {"size": (128, 128), "resize": (128, 128), "crop": None}
    return detector.Student("resnet18", spec, NAMES).eval()


STUDENTS = {"classes": (classes, "csv"), "boxes": (boxes, "coco")}


def photos(folder: Path) -> None:
    """Pictures with coarse and fine structure, so that a JPEG of them is as large as a photograph's."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    for number in range(PICTURES):
        coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8)).resize((500, 375), Image.Resampling.BICUBIC)
        fine = np.clip(np.asarray(coarse) + draw.normal(0, 8, (375, 500, 1)), 0, 255)
        Image.fromarray(fine.astype(np.uint8)).save(folder / f"{number:04d}.jpg", quality=85)


def int8(name: str, folder: Path) -> Path:
    """A student's int8 file."""
    torch.manual_seed(0)
    student = STUDENTS[name][0]()
    height, width = student.input["size"]
    samples = (np.random.default_rng(0).random((8, 3, height, width)) * 255).astype(np.float32)
    artifacts = gate.export(
        target, target.Config(name="onnx", calibration=8), student.deployed(), samples, folder, student.about()
    )
    return next(artifact.path for artifact in artifacts if artifact.precision == "int8")


def rate(name: str, place: Path) -> None:
    """Seconds of each in turn, and the share of predict's rate."""
    file, pictures = int8(name, place / name), found(str(place / "photos"))
    runner = target.Runner(file)
    height, width = STUDENTS[name][0]().input["size"]
    batch = (np.random.default_rng(0).random((BATCH, 3, height, width)) * 255).astype(np.float32)

    def decode() -> None:
        for path in pictures.ids:
            rgb(open_picture({"path": str(pictures.root / path), "bytes": None}))

    def run() -> None:
        for _ in range(0, PICTURES, BATCH):
            runner(batch)

    def whole(turn: int) -> None:
        out = place / f"{name}-{turn}"
        asked = Request(images=str(pictures.root), file=str(file), to=STUDENTS[name][1], out=str(out), batch=BATCH)
        assert predict.of_file(asked).pictures == PICTURES

    seconds: dict[str, list[float]] = {"decode": [], "run": [], "predict": []}
    whole(-1)  # imports, and the file's digest
    for turn in range(TURNS):
        for part, work in (("decode", decode), ("run", run), ("predict", lambda turn=turn: whole(turn))):
            began = time.perf_counter()
            work()
            seconds[part].append(time.perf_counter() - began)
    decoding, running, predicting = (statistics.median(values) for values in seconds.values())
    shares = [(a + b) / c for a, b, c in zip(*seconds.values(), strict=True)]
    print(
        f"{name}, int8, {PICTURES:,} pictures, medians of {TURNS}: decoding {decoding:.2f} s, runner {running:.2f} s, predict "
        f"{predicting:.2f} s ({PICTURES / predicting:.0f} pictures a second): {(decoding + running) / predicting:.2f} × of both "
        f"({min(shares):.2f} to {max(shares):.2f}); load {os.getloadavg()[0]:.1f}"
    )


def kill(place: Path) -> None:
    """Kill it three times at moments of chance, then let it end: each picture has one row."""
    file, moments = int8("classes", place / "kill"), random.Random(0)
    command = [sys.executable, "-m", "adapt", "predict", f"file={file}", f"images={place / 'photos'}", "to=csv", "out=killed"]
    shards = place / "killed" / ".shards"
    for _ in range(3):
        before = len(list(shards.glob("0*.jsonl")))
        process = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(list(shards.glob("0*.jsonl"))) < before + moments.randint(1, 4) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it was killed"
        print(f"killed with {len(list(shards.glob('0*.jsonl')))} shards of {-(-PICTURES // 128)}")
    began = time.perf_counter()
    done = subprocess.run([*command, "--json"], cwd=place, capture_output=True, text=True, check=True)
    rows = (place / "killed" / "predictions.csv").read_text().splitlines()[1:]
    names = [row.split(",")[0] for row in rows]
    assert names == [f"{number:04d}.jpg" for number in range(PICTURES)]
    count = json.loads(done.stdout)["pictures"]
    print(f"then whole in {time.perf_counter() - began:.1f} s: {count:,} pictures, each in one row, in their order")


if __name__ == "__main__":
    hardware.guard()
    with tempfile.TemporaryDirectory() as folder:
        photos(Path(folder) / "photos")
        for name in sys.argv[1:] or [*STUDENTS, "kill"]:
            kill(Path(folder)) if name == "kill" else rate(name, Path(folder))
