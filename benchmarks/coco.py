"""Reading a COCO file of the size of train2017: 118,287 pictures with 860,001 annotations, the first time and the second.

    python -m benchmarks.coco                       # 118,287 pictures; the bars: 180 s, 2 GB, and 3 s the second time
    python -m benchmarks.coco pictures=10000        # fewer of both
    python -m benchmarks.coco convert=true          # COCO to COCO as well, word by word

The file is made by the script: polygons of 25 corners on average, every seventh thing of two parts, every hundredth a crowd in run
lengths; JPEGs of 640 × 480 pixels, each with other bytes. A process of its own reads it, as a verb does; memory is the most that the
process ever held, above what it held after its imports.
"""

from __future__ import annotations

import io
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

PICTURES, EACH, CLASSES = 118_287, 860_001 / 118_287, 80
WIDTH, HEIGHT = 640, 480
READ = """
import resource, sys, time
from adapt.data import coco
import adapt.data.annotated, adapt.data.coco.annotations
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
start, began = peak(), time.perf_counter()
rows = coco.load(coco.Config(path=sys.argv[1], validation=0, test=0))["train"]
seconds = time.perf_counter() - began
print(len(rows), seconds, peak() - start)
"""
CONVERT = """
import resource, sys, time
from adapt.cli import main
began = time.perf_counter()
assert main(["convert", f"data.path={sys.argv[1]}", "data.validation=0", "data.test=0", "to=coco", f"out={sys.argv[2]}"]) == 0
print(0, time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def photos(folder: Path, count: int) -> None:
    """JPEGs of a few patterns; a comment behind the end makes each another file."""
    patterns = []
    for number in range(16):
        coarse = np.random.default_rng(number).integers(0, 256, (9, 12, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=75)
        patterns.append(buffer.getvalue())
    folder.mkdir()
    for number in range(count):
        folder.joinpath(f"{number:012d}.jpg").write_bytes(patterns[number % 16] + number.to_bytes(8, "big"))


def outline(draw: random.Random) -> tuple[list[float], list[float]]:
    """A polygon, and its box XYWH."""
    corners, radius = draw.randint(8, 42), draw.uniform(6, 120)
    x, y = draw.uniform(0, WIDTH), draw.uniform(0, HEIGHT)
    points = []
    for corner in range(corners):
        angle, far = 2 * math.pi * corner / corners, radius * draw.uniform(0.6, 1)
        points.append(round(min(max(x + far * math.cos(angle), 0), WIDTH), 2))
        points.append(round(min(max(y + far * math.sin(angle), 0), HEIGHT), 2))
    left, top = min(points[::2]), min(points[1::2])
    return points, [left, top, max(max(points[::2]) - left, 1), max(max(points[1::2]) - top, 1)]


def annotation(number: int, pictures: int, draw: random.Random) -> dict:
    points, box = outline(draw)
    shape = [points, outline(draw)[0]] if number % 7 == 0 else [points]
    one = {"segmentation": shape, "area": round(box[2] * box[3] / 2, 4), "iscrowd": 0, "image_id": draw.randrange(pictures)}
    if number % 100 == 0:
        start = draw.randrange(WIDTH * HEIGHT // 2)
        one |= {"segmentation": {"counts": [start, 9000, WIDTH * HEIGHT - start - 9000], "size": [HEIGHT, WIDTH]}, "iscrowd": 1}
    return one | {"bbox": box, "category_id": draw.randint(1, CLASSES), "id": number}


def write(root: Path, pictures: int, annotations: int) -> int:
    """Write the data set; returns the size of its JSON in bytes."""
    photos(root / "train2017", pictures)
    draw = random.Random(0)
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "width": WIDTH, "height": HEIGHT, "license": 1} for n in range(pictures)]
    categories = [{"id": n, "name": f"class {n}", "supercategory": "thing"} for n in range(1, CLASSES + 1)]
    (root / "annotations").mkdir()
    file = root / "annotations" / "instances_train2017.json"
    with open(file, "w") as out:
        out.write(
            json.dumps({"info": {}, "licenses": [], "images": images, "categories": categories})[:-1] + ', "annotations": ['
        )
        for number in range(annotations):
            out.write((", " if number else "") + json.dumps(annotation(number, pictures, draw)))
        out.write("]}")
    return file.stat().st_size


def measured(code: str, *arguments: str) -> tuple[int, float, float]:
    """Rows, seconds, and GiB of a process of its own."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    rows, seconds, memory = done.stdout.split()[-3:]
    return int(rows), float(seconds), float(memory)


if __name__ == "__main__":
    given = dict(argument.split("=") for argument in sys.argv[1:])
    pictures = int(given.get("pictures", PICTURES))
    with tempfile.TemporaryDirectory() as place:
        os.environ["ADAPT_CACHE"] = f"{place}/cache"
        began = time.perf_counter()
        Path(place, "COCO").mkdir()
        size = write(Path(place, "COCO"), pictures, round(pictures * EACH))
        print(
            f"made in {time.perf_counter() - began:.0f} s: {pictures:,} pictures, {size / 2**20:,.0f} MiB of JSON", flush=True
        )
        for turn in ("first", "second", "third"):
            rows, seconds, memory = measured(READ, f"{place}/COCO")
            print(
                f"{turn}: {rows:,} rows in {seconds:.1f} s, {memory:.2f} GiB above the start; load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        if given.get("convert") == "true":
            _, seconds, memory = measured(CONVERT, f"{place}/COCO", f"{place}/out")
            print(f"COCO to COCO: {seconds:.1f} s, at most {memory:.2f} GiB; load {os.getloadavg()[0]:.1f}")
