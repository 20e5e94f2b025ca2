"""What only a GPU can show; left out where there is none."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from adapt import pipeline
from adapt.methods.qlora import quantise
from adapt.recipe import load_recipe
from adapt.verbs import measuring
from adapt.verbs.session import Session

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
SMALL = ["data.shots=4", "train.epochs=2", "tracker=none"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_logits_are_those_of_the_cpu():
    session = Session(load_recipe("clip_lora", ["train.precision=fp32", "tracker=none"]))
    rows = session.data["test"].select(range(64))
    there = measuring.predictor(session, session.family)(rows)
    family = session.family.cpu()
    images = torch.stack([family.preprocess(row, False)["image"] for row in rows]).float()
    with torch.inference_mode():
        ours = family.predictors()["class_logits"](images).numpy()
    assert session.accelerator.device.type == "cuda"
    np.testing.assert_allclose(there, ours, atol=2e-2)
    assert (there.argmax(1) == ours.argmax(1)).mean() > 0.98


@pytest.mark.parametrize("name", ["clip_qlora", "dinov2_qlora", "sam_qlora", "paligemma_qlora"])
def test_four_bits_in_bf16_learn(name):
    """nf4, bf16, the paged 8-bit optimiser and gradient checkpointing, as a GPU has them by default."""
    few = ["data.train=32", "data.validation=8", "data.test=8"] if name.startswith(("sam", "pali")) else ["data.shots=4"]
    outcome = pipeline.finetune(load_recipe(name, [*few, "train.epochs=2", "tracker=none"]))
    assert [entry["name"] for entry in outcome.entries] == ["zero-shot", "adapted"]
    rows = map(json.loads, (outcome.path / "history.jsonl").read_text().splitlines())
    losses = [row["loss"] for row in rows if "loss" in row]
    half = len(losses) // 2
    assert np.mean(losses[half:]) < np.mean(losses[:half])


def test_qlora_loads_what_does_not_fit_in_full_precision():
    """At most the rounded weights, what is not rounded and one layer are ever on the GPU."""
    session = Session(load_recipe("paligemma_qlora", ["tracker=none"]))
    whole = quantise.size(session.loaded().backbone)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    backbone = session.family.backbone
    rest = quantise.size(backbone)
    layer = max(p.in_features * p.out_features * 4 for p in backbone.modules() if isinstance(p, torch.nn.Linear))
    assert rest < whole
    assert torch.cuda.max_memory_allocated() - before < rest + 2 * layer + 2**22


def test_the_road_in_bf16():
    outcome = pipeline.road(
        load_recipe("clip_lora", [*SMALL, "data.unlabelled=[]", "distill.train.epochs=2", "distill.views=1"])
    )
    assert [entry["name"] for entry in outcome.entries][-1] == "onnx int8"
