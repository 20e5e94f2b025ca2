"""Merging: into the base in full precision, proven, loadable by plain transformers, at any scale."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, BitImageProcessor, CLIPModel, Dinov2Config, Dinov2Model

from adapt import pipeline
from adapt.cli import main
from adapt.models import checkpoint
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.verbs import measuring, sweep
from adapt.verbs import merge as joining

SMALL = ["data.shots=1", "train.epochs=1", "train.batch=16", "evals.0.bootstrap=100", "tracker=none"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The run folder of a QLoRA run, merged by the command line."""
    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("merge"))
    try:
        recipe = load_recipe("clip_qlora", SMALL)
        path = pipeline.finetune(recipe).path
        assert main(["merge", f"run={path}"]) == 0
        yield path.resolve()
    finally:
        os.chdir(here)


@pytest.fixture(autouse=True)
def beside_the_run(done, monkeypatch):
    monkeypatch.chdir(done.parents[1])


def test_plain_transformers_load_it_and_it_is_base_plus_adapter(done):
    merged = AutoModel.from_pretrained(done / "merged")
    base = CLIPModel.from_pretrained(checkpoint.resolve("clip-tiny"), dtype=torch.float32)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    adapted = PeftModel.from_pretrained(base, done / "adapter").eval()
    processor = AutoImageProcessor.from_pretrained(done / "merged")
    tokens = AutoTokenizer.from_pretrained(done / "merged")(["a cat", "a fire engine"], padding=True, return_tensors="pt")
    torch.manual_seed(0)
    pixels = processor(torch.rand(4, 3, 60, 70) * 255, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        ours = merged.eval()(pixel_values=pixels, input_ids=tokens["input_ids"]).logits_per_image
        theirs = adapted(pixel_values=pixels, input_ids=tokens["input_ids"]).logits_per_image
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)
    weights = load_file(done / "adapter" / "adapter_model.safetensors")
    name = "vision_model.encoder.layers.0.mlp.fc1"
    up, down = (weights[f"base_model.model.{name}.lora_{part}.weight"] for part in "BA")
    assert up.abs().max() > 0
    expected = before[f"{name}.weight"] + 32 / 16 * up @ down  # LoRA eq. 3, on the unquantised weight
    torch.testing.assert_close(merged.state_dict()[f"{name}.weight"], expected, atol=1e-6, rtol=0)


def test_the_manifest_says_what_was_merged_and_how_equal_it_is(done):
    facts = json.loads((done / "manifest.json").read_text())["stages"]["merge"]
    assert facts["scale"] == 1
    assert facts["proof"]["agreement"] == 1
    assert facts["proof"]["relative"] < 1e-4
    assert facts["base"]["checkpoint"] == "clip-tiny"
    assert "`clip-tiny` with a qlora adapter at scale 1" in (done / "merged" / "README.md").read_text()
    entries = [entry["name"] for entry in json.loads((done / "metrics.json").read_text())["entries"]]
    assert entries == ["zero-shot", "adapted", "merged"]
    assert not list(done.rglob(".*"))


def test_the_merged_folder_is_a_checkpoint_like_any_other(done):
    from adapt.models.clip import Config, load

    family = load(Config(name="clip", checkpoint=str(done / "merged")))
    assert family.input == load(Config(name="clip")).input
    assert not any("lora" in name for name in family.state_dict())


@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_a_scale_goes_part_of_the_way(done, scale, tmp_path, monkeypatch):
    shutil.copytree(done, tmp_path / "runs" / done.name)
    monkeypatch.chdir(tmp_path)
    path = pipeline.merge(load_recipe(done / "recipe.yaml", ["evals=[]"]), scale=scale).path
    merged = load_file(path / "merged" / "model.safetensors")
    base = load_file(Path(checkpoint.resolve("clip-tiny")) / "model.safetensors")
    weights = load_file(done / "adapter" / "adapter_model.safetensors")
    name = "text_model.encoder.layers.1.self_attn.v_proj"
    up, down = (weights[f"base_model.model.{name}.lora_{part}.weight"] for part in "BA")
    expected = base[f"{name}.weight"].float() + scale * 2 * up @ down
    torch.testing.assert_close(merged[f"{name}.weight"], expected, atol=1e-6, rtol=0)


def test_a_sweep_chooses_on_validation_what_keeps_enough(done, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "SCALES", [0.0, 0.5, 1.0])
    real, splits = measuring.evaluated, []
    monkeypatch.setattr(
        measuring,
        "evaluated",
        lambda session, config, predict, split, *rest: splits.append(split) or real(session, config, predict, split, *rest),
    )
    assert main(["merge", f"run={done}", "scale=sweep", "keep=1"]) == 0
    facts = json.loads((done / "manifest.json").read_text())["stages"]["merge"]
    assert [row["scale"] for row in facts["sweep"]] == [0, 0.5, 1]
    assert facts["sweep"][0]["kept"] == 1
    assert facts["scale"] == facts["budget"]["chosen"] == sweep.choose(facts["sweep"], 1)
    assert facts["budget"]["by"] == "target"
    assert "keep 100 % of the pictures that zero-shot had right there" in capsys.readouterr().out
    assert splits == ["validation"] * 3 + ["test"]


def test_what_nothing_measures_is_not_kept_silently(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"keep: at scale 0\.5 without a canary nothing shows what is kept\. Write scale=sweep"):
        pipeline.merge(load_recipe("clip_lora"), scale=0.5, keep=0.9)


def test_the_best_that_keeps_enough_is_chosen_and_of_equals_the_smallest():
    rows = [
        {"scale": 0.0, "value": 0.4, "kept": 1.0},
        {"scale": 0.3, "value": 0.6, "kept": 0.96},
        {"scale": 0.5, "value": 0.6, "kept": 0.95},
        {"scale": 1.0, "value": 0.7, "kept": 0.8},
    ]
    assert [sweep.choose(rows, keep) for keep in (1, 0.9, 0.8)] == [0.0, 0.3, 1.0]


def test_a_merged_model_that_answers_otherwise_is_not_written(done, monkeypatch):
    before = (done / "merged" / "model.safetensors").stat().st_mtime_ns

    def spoiled(net, folder):
        torch.nn.init.normal_(net.visual_projection.weight)
        return net

    monkeypatch.setattr(joining, "read", spoiled)
    with pytest.raises(UserError, match="does not answer as base"):
        pipeline.merge(load_recipe(done / "recipe.yaml"))
    assert (done / "merged" / "model.safetensors").stat().st_mtime_ns == before
    assert not list(done.glob(".merged*"))


@pytest.mark.parametrize("value", ["2", "-1", "much", "nan"])
def test_a_scale_that_is_none_is_refused(done, value, capsys):
    assert main(["merge", f"run={done}", f"scale={value}"]) == 2
    assert "is not a number from 0 to 1, or the word sweep" in capsys.readouterr().err


def test_without_an_adapter_it_says_what_comes_first():
    with pytest.raises(UserError, match="First: adapt finetune"):
        pipeline.merge(load_recipe("clip_qlora", [*SMALL, "seed=7"]))


def test_open_clips_weights_are_written_under_its_own_names(tmp_path):
    torch.manual_seed(0)
    net = open_clip.create_model("ViT-S-32-alt").eval()
    adapted = get_peft_model(net, LoraConfig(r=2, target_modules=["c_fc", "attn"], init_lora_weights=False)).eval()
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        expected = adapted.get_base_model().encode_image(images)
        joined = joining._joined(adapted)
        joining.write(joined, tmp_path, "open_clip:ViT-S-32-alt/x")
        fresh = open_clip.create_model("ViT-S-32-alt", pretrained=str(tmp_path / joining.OPEN_CLIP)).eval()
        torch.testing.assert_close(fresh.encode_image(images), expected, atol=1e-5, rtol=0)


def test_answers_are_compared_whatever_their_kind():
    one = {"values": np.ones(3), "choices": ["a", {"bbox": np.zeros((2, 4))}, np.ones((8, 8), bool)]}
    other = {"values": np.ones(3) + 1e-3, "choices": ["b", {"bbox": np.zeros((1, 4))}, np.ones((8, 8), bool)]}
    assert joining.compare(one, one) == {"error": 0, "relative": 0, "agreement": 1}
    found = joining.compare(one, other)
    assert found["error"] == pytest.approx(1e-3)
    assert found["agreement"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "model",
    ["{name: sam, clicks: 0, objects: 1, weights: random}", "{name: paligemma, max_tokens: 8, weights: random}"],
    ids=["sam", "paligemma"],
)
def test_other_families_train_in_4_bits_and_merge(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = "data={source: emoji_scenes, train: 4, validation: 2, test: 2}"
    small = ["distill=null", "evals=[]", "train.epochs=1", "train.batch=4", "tracker=none", "train.precision=fp32"]
    recipe = load_recipe("clip_qlora", [f"model={model}", data, *small])
    folder = pipeline.finetune(recipe).path
    out = pipeline.merge(recipe).path
    assert out == folder
    assert "QLoRA: " in capsys.readouterr().out
    proof = json.loads((folder / "manifest.json").read_text())["stages"]["merge"]["proof"]
    assert proof["agreement"] == 1
    again = load_recipe(
        "clip_qlora", [f"model={model}", f"model.checkpoint={folder / 'merged'}", "model.weights=pretrained", data, *small]
    )
    assert pipeline.Session(again).family.backbone.config.model_type == recipe.model.name


def test_a_head_that_learned_beside_the_adapter_goes_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    Dinov2Model(Dinov2Config(**size)).save_pretrained(tmp_path / "dino")
    BitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(tmp_path / "dino")
    model = f"model={{name: dinov2, checkpoint: {tmp_path / 'dino'}}}"
    recipe = load_recipe("clip_qlora", [model, *SMALL, "evals=[]"])
    folder = pipeline.finetune(recipe).path
    pipeline.merge(recipe)
    facts = json.loads((folder / "manifest.json").read_text())["stages"]["merge"]
    assert facts["proof"]["agreement"] == 1
    head = load_file(folder / "merged" / "head.safetensors")
    assert head["head.weight"].shape[1] == 64
    plain = Dinov2Model.from_pretrained(folder / "merged")
    base = Dinov2Model.from_pretrained(tmp_path / "dino")
    changed = [key for key, value in plain.state_dict().items() if not torch.equal(value, base.state_dict()[key])]
    assert len(changed) == 12, "six linear layers a block"
