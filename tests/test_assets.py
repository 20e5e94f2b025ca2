"""What makes the embedded checkpoints, where it is more than a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import SiglipVisionConfig, SiglipVisionModel

from adapt.assets import _patches, build_paligemma_tiny
from adapt.plug import UserError
from adapt.vision.masks import unrle

ROOT = Path(__file__).parents[1]

SPEC = {"size": (64, 64), "resize": (64, 64), "interpolation": "bicubic", "crop": None, "mean": [0.5] * 3, "std": [0.5] * 3}


def tower():
    torch.manual_seed(0)
    sides = {"image_size": 64, "patch_size": 16, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    return SiglipVisionModel(SiglipVisionConfig(num_attention_heads=2, vision_use_head=False, **sides))


def test_a_patch_is_named_after_the_thing_that_covers_it():
    scenes = _patches.Scenes(["noto"], 8, 64, 20)
    learner = _patches.PatchNamer(tower(), SPEC, 8)
    for index in range(20):
        row = {name: values[0] for name, values in scenes[[index]].items()}
        item = learner.preprocess(row, True)
        masks = [unrle(code) for code in row["objects"]["mask"]]
        for patch in range(16):
            y, x = divmod(patch, 4)
            shares = [mask[16 * y : 16 * y + 16, 16 * x : 16 * x + 16].mean() for mask in masks]
            best = int(np.argmax(shares))
            if shares[best] >= _patches.COVERED:
                assert item["name"][patch] == row["objects"]["category"][best] + 1
                assert torch.allclose(64 * item["box"][patch], torch.tensor(row["objects"]["bbox"][best]))
            else:
                assert item["name"][patch] == 0


def test_a_tower_learns_the_names_of_its_patches(tmp_path):
    model = tower()
    history = _patches.teach(model, SPEC, ["noto"], 8, 1600, tmp_path)
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert history[-1]["off"] < history[0]["off"]


def test_neighbouring_locations_have_embeddings_alike():
    torch.manual_seed(0)
    rows = build_paligemma_tiny.smooth(1024, 192)
    near = torch.cosine_similarity(rows[:-8], rows[8:]).mean()
    far = torch.cosine_similarity(rows[:512], rows[512:]).abs().mean()
    assert near > 0.9
    assert far < 0.3
    assert abs(rows.std() - 1) < 0.1


def test_dinov2s_weights_in_clips_format_and_back():
    """On pictures that the fit in place of the first norm has not seen."""
    from transformers import BitImageProcessor, CLIPConfig, CLIPImageProcessor, Dinov2Model

    from adapt import plug
    from adapt.assets import _towers, build_clip_tiny
    from adapt.data import world
    from adapt.models.checkpoint import EMBEDDED
    from adapt.recipe import load_recipe

    pictures = [picture.convert("RGB") for picture in world.read("noto")[:96]["image"]]
    images = CLIPImageProcessor.from_pretrained(EMBEDDED / "clip-tiny")
    model = build_clip_tiny.first_weights(
        CLIPConfig.from_pretrained(EMBEDDED / "clip-tiny", dtype=torch.float32), images, pictures[:64]
    )
    theirs = Dinov2Model.from_pretrained(EMBEDDED / "dinov2-tiny", dtype=torch.float32).eval()
    before = BitImageProcessor.from_pretrained(EMBEDDED / "dinov2-tiny")
    back = plug.load("models", "dinov2").load(load_recipe("dinov2_distill").model).eval()
    views = torch.stack([back.preprocess({"image": picture}, False)["image"] for picture in pictures]).float()
    pixels = {"mean": images.image_mean, "std": images.image_std}
    back.backbone.load_state_dict({name: torch.full_like(value, 9) for name, value in back.backbone.state_dict().items()})
    _towers.to_dinov2(back.backbone, model.vision_model, views[:64], back.input, pixels)
    with torch.no_grad():
        pixels = before(pictures[64:], return_tensors="pt")["pixel_values"]
        expected = theirs(pixel_values=pixels).last_hidden_state[:, 0]
        seen = images(pictures[64:], return_tensors="pt")["pixel_values"]
        there = model.eval().vision_model(pixel_values=seen).pooler_output
        again = back.tokens(views[64:])[0]
    assert torch.cosine_similarity(there, expected).mean() > 0.85
    assert torch.cosine_similarity(again, there).mean() > 0.85


def test_dinov2_tiny_learns_from_clip_tiny(tmp_path):
    from adapt.assets.teach_dinov2_tiny import teach
    from adapt.data import world

    rows = world.read("noto").select(range(128))
    family, history = teach(2, rows.select_columns(["image", "label"]), tmp_path)
    assert history[-1]["off"] < 0.95 * history[0]["off"]
    assert history[-1]["loss"] < history[0]["loss"]
    assert family.head is None  # the heads were the lesson's alone


def test_a_published_student_is_what_was_learnt_in_timms_format(tmp_path, monkeypatch):
    from adapt.assets.publish import publish
    from adapt.students import cnn

    monkeypatch.setattr(cnn, "EMBEDDED", tmp_path / "students")
    run = tmp_path / "run"
    (run / "student" / "logits-resnet10t").mkdir(parents=True)
    (run / "recipe.yaml").write_text((ROOT / "recipes" / "zoo" / "cnn_tiny.yaml").read_text())
    with pytest.raises(UserError, match=r"missing\. First: adapt distill"):
        publish(run)
    learnt = cnn.create("resnet10t", 7, False).half().float().eval()
    save_file(learnt.state_dict(), run / "student" / "logits-resnet10t" / "model.safetensors")
    (run / "student" / "logits-resnet10t" / "config.json").write_text(json.dumps({"input": SPEC}))
    folder = publish(run)
    assert folder == tmp_path / "students" / "cnn-tiny"
    assert cnn.embedded() == ["cnn-tiny"]
    found = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    images = torch.randn(2, 3, *SPEC["size"])
    with torch.no_grad():
        torch.testing.assert_close(found(images), learnt.forward_head(learnt.forward_features(images), pre_logits=True))
    assert list(found.pretrained_cfg["mean"]) == SPEC["mean"]
    assert list(found.pretrained_cfg["input_size"]) == [3, 64, 64]
