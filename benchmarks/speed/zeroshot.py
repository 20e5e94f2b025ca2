"""Zero-shot evaluation: ours as a user calls it, against the bare encoder and decoding, and CLIP_benchmark's own loop.

Bare is what nobody can do without: the pictures decoded and scaled by a thread pool of all cores, then the image tower in batches on
all cores, one after the other. Ours is the whole of `adapt evaluate`: it looks at the data, loads the model, encodes words and pictures,
measures, and writes its report; what it takes until the first batch, and for the pictures, is told apart.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from adapt import pipeline
from benchmarks.speed import clock, made, peers
from benchmarks.speed.table import BARE, Rows, interleaved

PREDICT = "adapt.train.predict.predict"
"""What asks a predictor about all pictures."""
EVALS = [{"name": "zeroshot", "split": "test"}]


def small(task: made.Task) -> list[Rows]:
    """Many pictures of 32 pixels, clip-tiny."""
    count = task.sizes.pictures
    data = made.pictures(Path("photos"), made.few(count))
    return [compared(task, data, made.tiny(), f"zero-shot, {count:,} × 32 px, clip-tiny")]


def large(task: made.Task) -> list[Rows]:
    """Fewer pictures of 224 pixels, a ViT-B/16 of random weights."""
    count, side = task.sizes.large, task.sizes.side
    data = made.pictures(Path("photos"), made.few(count), side=side)
    checkpoint = made.base_clip(Path("vit-b-16"), side, task.sizes.layers)
    return [compared(task, data, checkpoint, f"zero-shot, {count:,} × {side} px, ViT-B/16")]


def compared(task: made.Task, data: Path, checkpoint: Path, what: str) -> Rows:
    """All of them on one folder of pictures."""
    bare = Bare(checkpoint, task.device)
    files = sorted((data / "test").rglob("*.jpg"))
    works = [lambda turn: bare(files), lambda turn: ours(data, checkpoint, f"turn-{turn}")]
    if task.clip_benchmark:
        given = {"data": str(data / "test"), "checkpoint": str(checkpoint), "device": task.device}
        works += [
            lambda turn, workers=workers: peers.asked(task.clip_benchmark, "clip_benchmark", given | {"workers": workers})
            for workers in (0, os.cpu_count())
        ]
    bare(files[:64])  # imports, and the libraries' own first time; ours, on other pictures
    ours(made.pictures(Path("other"), made.few(20)), checkpoint, "other")
    return interleaved(what, works, task.turns)


def ours(data: Path, checkpoint: Path, name: str) -> dict[str, float]:
    """Seconds of the first evaluation of these pictures and of the second, in new run folders."""
    made.forget()
    found = {}
    for time in ("first", "second"):
        recipe = made.recipe(f"{name}-{time}", data, model=made.model(checkpoint), evals=EVALS)
        began = clock.now()
        with clock.watched(PREDICT) as asked:
            pipeline.evaluate(recipe)
        found[f"ours, {time} time"] = clock.now() - began
        found[f"ours, {time} time: set-up"] = asked[0][0] - began
        found[f"ours, {time} time: pictures"] = sum(end - start for start, end in asked)
    return found


class Bare:
    """Decoding and the image tower, without a data set, metrics or report."""

    def __init__(self, checkpoint: Path, device: str, batch: int = 64):
        config = json.loads((checkpoint / "preprocessor_config.json").read_text())
        self.net = made.network(checkpoint)
        self.net.eval().to(device)
        self.size, self.crop = config["size"]["shortest_edge"], config["crop_size"]["height"]
        self.mean, self.std = (torch.tensor(config[name], device=device)[:, None, None] for name in ("image_mean", "image_std"))
        self.device, self.batch = device, batch

    def __call__(self, files: list[Path]) -> dict[str, float]:
        began = clock.now()
        pixels = self.decoded(files)
        between = clock.now()
        self.encoded(pixels)
        end = clock.now()
        return {BARE: end - began, "bare: decoding": between - began, "bare: encoder": end - between}

    def decoded(self, files: list[Path]) -> torch.Tensor:
        """uint8[N, 3, H, W], as the checkpoint's own processor scales and crops."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return torch.stack(list(pool.map(self._view, files)))

    def _view(self, file: Path) -> torch.Tensor:
        pixels = F.pil_to_tensor(Image.open(file).convert("RGB"))
        pixels = F.resize(pixels, self.size, interpolation=F.InterpolationMode.BICUBIC, antialias=True)
        return F.center_crop(pixels, [self.crop, self.crop])

    @torch.inference_mode()
    def encoded(self, pixels: torch.Tensor) -> np.ndarray:
        """float32[N, D]."""
        out = []
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device == "cuda"):
            for batch in pixels.split(self.batch):
                images = (batch.to(self.device).float() / 255 - self.mean) / self.std
                out.append(self.net.get_image_features(pixel_values=images).pooler_output.float().cpu())
        return torch.cat(out).numpy()
