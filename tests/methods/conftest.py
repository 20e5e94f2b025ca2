"""Tiny models of each kind that a method of few labels may meet, and a few labels."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch
from datasets import Dataset

from adapt.models.clip import Config, load

CLASSES = ["cat", "fire engine", "apple", "house"]


@pytest.fixture(scope="session")
def open_clip_tiny(tmp_path_factory) -> str:
    """Random weights of an architecture of our own."""
    folder = tmp_path_factory.mktemp("open_clip")
    vision = {"image_size": 32, "patch_size": 16, "layers": 2, "width": 64, "head_width": 32}
    text = {"context_length": 77, "vocab_size": 49408, "layers": 2, "width": 32, "heads": 2}
    (folder / "ViT-few-labels.json").write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": text}))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    torch.save(open_clip.create_model("ViT-few-labels").state_dict(), folder / "weights.pt")
    return f"open_clip:ViT-few-labels/{folder / 'weights.pt'}"


@pytest.fixture
def made(request):
    """A function: the name of a checkpoint → its family, told four classes, with nothing put into it."""

    def make(name: str = "clip-tiny"):
        checkpoint = name if name == "clip-tiny" else request.getfixturevalue(name)
        family = load(Config(name="clip", checkpoint=checkpoint, loss="classification"))
        family.set_classes(CLASSES, ["{}", "a photo of a {}"])
        return family.eval()

    return make


@pytest.fixture
def rows() -> Dataset:
    """Labels of nine rows; the last class has none, the first the most."""
    return Dataset.from_dict({"label": [0, 1, 2, 0, 1, 2, 0, 1, 0]})


@pytest.fixture
def images():
    """A function: a family and a number → so many random pictures, float32[N, 3, H, W] 0–255."""

    def make(family, count: int = 9):
        height, width = family.input["size"]
        generator = torch.Generator().manual_seed(1)
        coarse = torch.rand(count, 3, 4, 4, generator=generator) * 255
        return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")

    return make
