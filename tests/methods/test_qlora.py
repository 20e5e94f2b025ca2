"""QLoRA: 4-bit weights that stay, adapters that learn and load in plain PEFT, for every family."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch
import transformers
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import PeftModel
from torch import nn

from adapt.methods import adapter, low_rank, qlora
from adapt.methods.qlora import quantise
from adapt.models.base import Family
from adapt.models.clip import Config as ClipConfig
from adapt.models.clip import load
from adapt.models.dinov2.family import Dino
from adapt.models.paligemma.family import PaliGemma
from adapt.models.sam.family import Sam
from adapt.plug import ROOT, UserError
from adapt.recipe import load_recipe
from adapt.verbs import scores
from adapt.verbs.session import Session


class Tiny(Family):
    """A backbone with the smallest loss that reaches all of it."""

    columns = ("image",)
    input = {}
    adapter_targets = {}

    def __init__(self, backbone: nn.Module, quantised: str, loss):
        super().__init__()
        self.backbone, self.quantised, self.loss = backbone, quantised, loss

    def forward(self, batch):
        return self.loss(self.backbone, batch), {}

    def preprocess(self, sample, train):
        return sample

    def predictors(self, texts=None):
        return {}


def dinov2():
    settings = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = transformers.Dinov2Config(**settings)

    def loss(net, batch):
        return nn.functional.cross_entropy(net(batch["image"]).pooler_output[:, :4], batch["label"])

    return transformers.Dinov2Model(config), Dino.quantised, loss, (3, 28, 28)


def sam():
    vision = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_dim": 128, "output_channels": 32}
    vision |= {
        "image_size": 64,
        "patch_size": 16,
        "window_size": 2,
        "global_attn_indexes": [1],
        "num_pos_feats": 16,
        "initializer_range": 0.1,
    }
    prompts = {"hidden_size": 32, "image_size": 64, "patch_size": 16, "image_embedding_size": 4, "mask_input_channels": 4}
    masks = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
    config = transformers.SamConfig(
        vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=masks, initializer_range=0.1
    )

    def loss(net, batch):
        points = torch.full((len(batch["image"]), 1, 1, 2), 30.0)
        out = net(image_embeddings=(found := net.vision_encoder(batch["image"]).last_hidden_state), input_points=points)
        return (out.pred_masks - 1).square().mean() + (found[:, :4] - 1).square().mean()

    return transformers.SamModel(config), Sam.quantised, loss, (3, 64, 64)


def paligemma():
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    text |= {"num_key_value_heads": 1, "head_dim": 32, "vocab_size": 99, "pad_token_id": 0}
    config = transformers.PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", "image_size": 28, "patch_size": 14, "projection_dim": 64} | vision,
        text_config={"model_type": "gemma"} | text,
        projection_dim=64,
        image_token_index=98,
    )

    def loss(net, batch):
        ids = torch.tensor([[98] * 4 + [2, 5, 7, 9, 1]]).repeat(len(batch["image"]), 1)
        kinds = torch.tensor([[0] * 6 + [1] * 3]).repeat(len(ids), 1)
        labels = ids.masked_fill(kinds == 0, -100)
        return net(pixel_values=batch["image"], input_ids=ids, token_type_ids=kinds, labels=labels).loss

    return transformers.PaliGemmaForConditionalGeneration(config), PaliGemma.quantised, loss, (3, 28, 28)


def convnext():
    config = transformers.DINOv3ConvNextConfig(hidden_sizes=[32, 32, 64, 64], depths=[1, 1, 2, 1], image_size=64)

    def loss(net, batch):
        return nn.functional.cross_entropy(net(batch["image"]).pooler_output[:, :4], batch["label"])

    return transformers.DINOv3ConvNextModel(config), Dino.quantised, loss, (3, 64, 64)


BACKBONES = {"dinov2": dinov2, "sam": sam, "paligemma": paligemma, "convnext": convnext}


def tiny(name: str):
    torch.manual_seed(0)
    backbone, quantised, loss, shape = BACKBONES[name]()
    torch.manual_seed(1)
    return Tiny(backbone, quantised, loss), {"image": torch.randn(4, *shape), "label": torch.arange(4)}


def clip(checkpoint: str = "clip-tiny", size: int = 48):
    torch.manual_seed(0)
    family = load(ClipConfig(name="clip", checkpoint=checkpoint, loss="classification"))
    family.set_classes(["cat", "fire engine", "apple", "house"], ["{}"])
    torch.manual_seed(1)
    return family, {"image": torch.rand(8, 3, size, size) * 255, "label": torch.arange(8) % 4}


def adapt(family, **options):
    torch.manual_seed(2)
    qlora.apply(family, qlora.Config(name="qlora", **{"dropout": 0} | options))


def steps(family, batch, count: int = 4, lr: float = 5e-3) -> list[float]:
    family.train()
    optimizer = torch.optim.AdamW([p for p in family.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(count):
        loss, _ = family(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def frozen(family) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in family.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize("name", ["clip", "dinov2", "sam", "paligemma"])
@pytest.mark.parametrize("options", [{}, {"bits": 8}, {"checkpointing": True}], ids=["nf4", "int8", "checkpointing"])
def test_the_loss_falls_the_rounded_weights_stay_the_adapters_learn(name, options, tmp_path):
    family, batch = clip() if name == "clip" else tiny(name)
    plain = (clip() if name == "clip" else tiny(name))[0].backbone
    adapt(family, **options)
    kind = Linear8bitLt if options.get("bits") == 8 else Linear4bit
    layers = [part for part in family.backbone.modules() if isinstance(part, kind)]
    assert len(layers) >= 8
    assert all(not part.weight.is_floating_point() for part in layers)
    assert {n.split(".")[-3] for n, p in family.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}
    before = frozen(family)
    losses = steps(family, batch)
    assert losses[-1] < losses[0]
    after = frozen(family)
    assert all(torch.equal(before[n], after[n]) for n in before)
    learned = [p for n, p in family.named_parameters() if "lora_B" in n]
    assert len(learned) == len(layers)
    assert all(p.abs().max() > 0 for p in learned), "every adapter has had a gradient"

    adapter.save(family, tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(plain, tmp_path / "adapter")
    theirs = [p for n, p in loaded.named_parameters() if "lora_B" in n]
    assert all(torch.equal(a, b) for a, b in zip(learned, theirs, strict=True))
    assert not [part for part in loaded.modules() if isinstance(part, kind)], "the base is in full precision"


@pytest.mark.parametrize("name", BACKBONES)
def test_int8_predicts_what_it_has_learnt(name):
    """SAM's encoder and ConvNeXt pass [B, H, W, D], of which bitsandbytes' own layer makes nothing."""
    family, batch = tiny(name)
    adapt(family, bits=8)
    losses = steps(family, batch)
    with torch.inference_mode():
        assert family.eval()(batch)[0] < losses[0]
    assert steps(family, batch, 1)[0] < losses[0]


def test_weights_are_those_of_the_checkpoint_rounded():
    family, _ = clip()
    name = "vision_model.encoder.layers.0.mlp.fc1"
    exact = family.backbone.get_submodule(name).weight.detach().clone()
    twice, _ = clip()
    errors = []
    for each, double in ((family, False), (twice, True)):
        adapt(each, double=double)
        weight = each.net.get_submodule(name).base_layer.weight
        errors.append(dequantize_4bit(weight.data, weight.quant_state) - exact)
    # nf4's widest gap is .3038 of a block's largest weight (QLoRA, appendix E), so no error is above half of it
    largest = exact.abs().reshape(-1, 64).amax(1, keepdim=True)
    assert (errors[0].reshape(-1, 64).abs() <= largest * (0.3038 / 2 + 1e-4)).all()
    assert all(error.norm() / exact.norm() < 0.12 for error in errors)
    assert 0 < (errors[0] - errors[1]).norm() < 0.2 * errors[0].norm(), "the blocks' constants, rounded to 8 bits, add little"


def test_a_prediction_between_two_steps_changes_nothing():
    """On AVX512-BF16 bitsandbytes would repack the weights for prediction and stop the gradient there."""
    (one, batch), (two, _) = clip(), clip()
    for family in (one, two):
        adapt(family)
    expected = steps(one, batch, 2)
    with torch.inference_mode():
        two.eval()
        two.predictors()["class_logits"](batch["image"])
    assert steps(two, batch, 2) == expected
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_checkpointing_gives_the_same_gradients():
    (one, batch), (two, _) = clip(), clip()
    adapt(one)
    adapt(two, checkpointing=True)
    assert not any(getattr(part, "gradient_checkpointing", False) for part in one.backbone.modules())
    assert any(getattr(part, "gradient_checkpointing", False) for part in two.backbone.modules())
    assert steps(one, batch, 2) == pytest.approx(steps(two, batch, 2), abs=1e-6)


def test_quantising_draws_no_random_number():
    family, _ = clip()
    names = quantise.linears(family.backbone, r".*encoder.*")
    state = torch.get_rng_state()
    quantise.quantise(family.backbone, names, 4, True, torch.float32)
    assert torch.equal(torch.get_rng_state(), state)


def test_what_was_done_is_said_in_one_line(capsys):
    family, _ = clip()
    adapt(family)
    line = capsys.readouterr().out
    assert len(line.splitlines()) == 1
    assert line.startswith("QLoRA: 60 layers in 4 bits (nf4, double quantisation): ")
    before, after = (float(word) for word in line.split("): ")[1].split(" MB")[0].split(" → "))
    assert before > after
    learning = sum(p.numel() for p in family.parameters() if p.requires_grad)
    assert f"{learning:,} weights learn" in line


def test_open_clip_quantises_its_mlp_and_says_what_stays(tmp_path, capsys):
    import open_clip

    torch.manual_seed(0)
    torch.save(open_clip.create_model("ViT-S-32-alt").state_dict(), tmp_path / "w.pt")
    family, batch = clip(f"open_clip:ViT-S-32-alt/{tmp_path}/w.pt", 224)
    adapt(family, checkpointing=True)
    assert "attention layers keep their precision" in capsys.readouterr().out
    names = [name for name, part in family.net.named_modules() if isinstance(part, Linear4bit)]
    assert names
    assert all(".mlp.c_" in name for name in names)
    losses = steps(family, batch, 2, lr=1e-4)
    assert losses[1] < losses[0]


def test_a_timm_tower_of_open_clip_is_quantised_and_learns(vits):
    family = vits["open_clip timm"]()
    adapt(family)
    names = [name for name, part in family.net.named_modules() if isinstance(part, Linear4bit)]
    ends = {name.rpartition("blocks.")[2].partition(".")[2] for name in names if name.startswith("visual.trunk.blocks.")}
    assert ends == {f"{part}.base_layer" for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    assert [name for name in names if name.startswith("text.")]
    torch.manual_seed(1)
    batch = {"image": torch.rand(4, 3, 160, 160) * 255, "label": torch.arange(4) % 2}
    losses = steps(family, batch, 3, lr=1e-3)
    assert losses[-1] < losses[0]


def test_a_checkpoint_that_is_in_4_bits_already_learns_as_one_quantised_here(tmp_path):
    from adapt.models.checkpoint import resolve

    (one, batch), place = clip(), resolve("clip-tiny")
    chosen = set(quantise.linears(one.backbone, low_rank.ending(one.quantised)))
    others = [name for name, part in one.backbone.named_modules() if type(part) is nn.Linear and name not in chosen]
    wanted = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, llm_int8_skip_modules=others
    )
    shutil.copytree(place, tmp_path / "small")
    small = transformers.AutoModel.from_pretrained(place, dtype=torch.float32, quantization_config=wanted)
    small.save_pretrained(tmp_path / "small")
    two, _ = clip(str(tmp_path / "small"))
    for family in (one, two):
        adapt(family)
    assert steps(two, batch, 2) == steps(one, batch, 2)


def test_only_rounded_weights_go_to_the_device(monkeypatch):
    """In full precision they may not fit there; the session puts the family on the device before any method is applied."""
    moved = []
    real = nn.Module.to

    def to(self, *where, **options):
        if isinstance(self, Family):
            names = quantise.linears(self.backbone, low_rank.ending(self.quantised))
            moved.append(len([name for name in names if "lora_" not in name]))
        return real(self, *where, **options)

    monkeypatch.setattr(nn.Module, "to", to)
    session = Session(load_recipe("clip_qlora", ["tracker=none"]))
    assert isinstance(session.family.backbone.get_submodule("vision_model.encoder.layers.0.mlp.fc1"), Linear4bit)
    session.apply_method()
    assert scores.title(session, "zero-shot") == "zero-shot CLIP, 4 bits", "as it comes, it would not have been measured"
    assert moved
    assert set(moved) == {0}, "linear layers in full precision, at each move"
    assert len(quantise.linears(session.loaded().backbone, low_rank.ending(session.family.quantised))) == 60


def test_placed_first_it_learns_the_same(capsys):
    (one, batch), (two, _) = clip(), clip()
    adapt(one)
    qlora.place(two, qlora.Config(name="qlora", dropout=0), torch.device("cpu"))
    adapt(two)
    assert steps(one, batch, 2) == steps(two, batch, 2)
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_nothing_to_quantise_is_said():
    family, _ = tiny("dinov2")
    family.quantised = "nowhere"
    with pytest.raises(UserError, match="finds no linear layer to quantise"):
        adapt(family)


def test_without_bitsandbytes_the_error_has_the_next_step(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    family, _ = tiny("dinov2")
    with pytest.raises(UserError, match=r"needs bitsandbytes.*use method.name=lora"):
        adapt(family)


def test_bitsandbytes_does_not_talk():
    code = (
        "from adapt.verbs.session import _quiet; _quiet(); import torch; from torch import nn; from adapt.methods.qlora import quantise;"
        "import peft.tuners.lora.bnb; net = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64));"
        "quantise.quantise(net, ['0'], 4, True, torch.float32); quantise.quantise(net, ['1'], 8, True, torch.float32);"
        "net(torch.randn(2, 64)); net.eval()(torch.randn(2, 64))"
    )
    here = dict(os.environ, PYTHONPATH=str(ROOT.parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=here)
    assert done.stdout + done.stderr == ""


def test_the_8_bit_optimizer_is_plain_adamw_on_cpu():
    from adapt.contracts import Train
    from adapt.train.loop import _optimizer

    assert type(_optimizer(nn.Linear(2, 2), Train(optimizer="paged_adamw_8bit"))) is torch.optim.AdamW


def test_the_recipe_names_the_method():
    assert load_recipe("clip_qlora").method.name == "qlora"
