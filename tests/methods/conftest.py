"""Tiny models of each kind that a method of few labels may meet, and a few labels."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer, SiglipConfig, SiglipImageProcessor, SiglipModel

from adapt.models.checkpoint import resolve
from adapt.models.clip import Config, load

CLASSES = ["cat", "fire engine", "apple", "house"]


@pytest.fixture(scope="session")
def siglip_tiny(tmp_path_factory) -> str:
    """Random weights, whose texts and pictures are not all alike."""
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = tower | {"vocab_size": 4000, "max_position_embeddings": 16, "projection_size": 32}
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=tower | {"image_size": 32, "patch_size": 16}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim:
                parameter.normal_(std=0.3)
        model.logit_scale.fill_(2.0)
        model.logit_bias.fill_(-3.0)
    folder = tmp_path_factory.mktemp("siglip")
    model.save_pretrained(folder)
    SiglipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    AutoTokenizer.from_pretrained(resolve("clip-tiny")).save_pretrained(folder)
    return str(folder)


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
