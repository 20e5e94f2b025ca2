"""What the script makes for itself: sizes, pictures, checkpoints of random weights, recipes."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    pictures: int = 10_000
    """Small ones, of a zero-shot evaluation."""
    large: int = 256
    """Pictures for large networks."""
    side: int = 224
    """Their pixels, a multiple of 16 and of 14."""
    layers: int = 12
    """Of large networks."""
    steps: int = 10
    """Of a training's epoch, of `batch` pictures each."""
    batch: int = 64
    many: int = 100
    """Classes, where there are many."""
    files: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Of a start-up."""
    rows: int = 50_000
    """Of the metrics."""
    columns: int = 1_000
    """Classes of the metrics."""
    road: tuple[int, ...] = (1_000, 10_000, 100_000)
    """Pictures of the roads whose peaks of memory are compared."""
    grows: tuple[int, ...] = (1_000, 3_000, 10_000)
    """Pictures of the plot."""
    classes: tuple[int, ...] = (10, 100, 1_000)
    """Of the plot."""
    processes: tuple[int, ...] = (1, 2)
    """Of the plot."""


SIZES = {
    "full": Sizes(),
    "tiny": Sizes(
        pictures=60,
        large=16,
        side=112,
        layers=1,
        steps=2,
        batch=8,
        many=12,
        files=(50, 100),
        rows=300,
        columns=20,
        road=(120, 240),
        grows=(40, 80),
        classes=(4, 8),
        processes=(1,),
    ),
}


@dataclass(frozen=True)
class Task:
    """One part's work: how much, how often, and where the peers are."""

    sizes: Sizes
    turns: int = 5
    device: str = "cpu"
    """cpu or cuda."""
    clip_benchmark: str = ""
    """A Python that has CLIP_benchmark and transformers; empty: it is left out."""
    lightly: str = ""
    """A Python that has LightlyTrain; empty: it is left out."""


def pictures(folder: Path, splits: dict[str, int], classes: int = 10, side: int = 32) -> Path:
    """JPEGs of noise over coarse colours, all unlike: FOLDER/SPLIT/class 000/000000.jpg; a split '' has none of its own folder.

    Args:
        splits: their names, and how many pictures each has.
        side: pixels.
    """
    draw = np.random.default_rng(0)
    for split, count in splits.items():
        homes = [folder / split / f"class {number:03d}" for number in range(classes)]
        for home in homes:
            home.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            coarse = Image.fromarray(draw.integers(0, 256, (4, 4, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
            pixels = np.asarray(coarse, np.int16) + draw.integers(-16, 17, (side, side, 1), np.int16)
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                homes[number % classes] / f"{number:06d}.jpg", quality=85
            )
    return folder.resolve()


def few(count: int, classes: int = 10) -> dict[str, int]:
    """Splits of which the test has all but a few pictures."""
    return {"train": 4 * classes, "val": 2 * classes, "test": count}


def tiny() -> Path:
    """The folder of `clip-tiny`."""
    from adapt.models.checkpoint import resolve

    return Path(resolve("clip-tiny"))


def base_clip(folder: Path, side: int, layers: int, patch: int = 16, words: bool = False) -> Path:
    """A checkpoint's folder without weights: CLIP with a ViT-B of this patch, at `side` pixels.

    Args:
        words: its tower of words is that of the public ViT-B/16 and ViT-B/32, with clip-tiny's tokens, and not clip-tiny's own.
    """
    shutil.copytree(tiny(), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    size = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "patch_size": patch}
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"] |= size | {"image_size": side, "num_hidden_layers": layers}
    if words:
        size = {"hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "max_position_embeddings": 77}
        config["text_config"] |= size | {"num_hidden_layers": layers}
    (folder / "config.json").write_text(json.dumps(config))
    return _sees(folder, side)


def small_dino(folder: Path, side: int, layers: int) -> Path:
    """A checkpoint's folder without weights: DINOv2's ViT-S/14, at `side` pixels."""
    from adapt.models.checkpoint import resolve

    shutil.copytree(resolve("dinov2-tiny"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    config |= {"image_size": side, "patch_size": 14, "hidden_size": 384, "num_attention_heads": 6}
    stages = ["stem", *(f"stage{number + 1}" for number in range(layers))]
    config |= {"num_hidden_layers": layers, "stage_names": stages, "out_features": stages[-1:], "out_indices": [layers]}
    (folder / "config.json").write_text(json.dumps(config))
    return _sees(folder, side)


def _sees(folder: Path, side: int) -> Path:
    """A checkpoint's folder whose processor scales the shorter side to `side` pixels; returns its whole path."""
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    processor |= {"crop_size": {"height": side, "width": side}, "size": {"shortest_edge": side}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder.resolve()


def model(checkpoint: Path) -> dict[str, str]:
    """The model of a recipe; a checkpoint's folder without weights has random ones."""
    weights = "pretrained" if list(checkpoint.glob("*.safetensors")) else "random"
    return {"name": "clip", "checkpoint": str(checkpoint), "weights": weights}


def network(checkpoint: Path):
    """The same network as plain transformers build it, in fp32."""
    import torch
    from transformers import AutoConfig, AutoModel

    if model(checkpoint)["weights"] == "random":
        return AutoModel.from_config(AutoConfig.from_pretrained(str(checkpoint)), dtype=torch.float32)
    return AutoModel.from_pretrained(str(checkpoint), dtype=torch.float32)


def recipe(name: str, data: Path, unlabelled: Path | None = None, **sections: Any):
    """A recipe for folders of pictures: clip-tiny with LoRA, unless `sections` say otherwise."""
    from adapt.recipe import validate

    source = {"source": "folder", "path": str(data), "unlabelled_path": str(unlabelled) if unlabelled else None}
    usual = {"model": {"name": "clip", "checkpoint": "clip-tiny"}, "method": {"name": "lora"}}
    return validate({"name": name, "data": source} | usual | sections)


def forget() -> None:
    """Begin as on a machine that has never seen these pictures: an empty cache of what can be made again."""
    shutil.rmtree(os.environ["ADAPT_CACHE"], ignore_errors=True)
