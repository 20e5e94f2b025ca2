"""LoRA, full and head: what learns, and that others can load it."""

from __future__ import annotations

import json
import re

import open_clip
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from timm.models.eva import EvaAttention
from transformers import CLIPModel

from adapt import plug
from adapt.methods import adapter, full, head, lora, low_rank, qlora
from adapt.models.checkpoint import resolve
from adapt.models.clip import Config, load
from adapt.models.clip import open_clip as clips
from adapt.plug import UserError
from adapt.recipe import available, load_recipe

CLASSES = ["cat", "fire engine", "apple", "house"]


def family(checkpoint: str = "clip-tiny"):
    torch.manual_seed(0)
    out = load(Config(name="clip", checkpoint=checkpoint, loss="classification"))
    out.set_classes(CLASSES, ["{}"])
    return out


def batch(size: int = 48):
    torch.manual_seed(1)
    return {"image": torch.rand(8, 3, size, size) * 255, "label": torch.arange(8) % 4}


def steps(model, items, count: int = 5, lr: float = 1e-2) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(count):
        loss, _ = model(items)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("options", [{}, {"dora": True}, {"rslora": True, "targets": ["q", "k", "v", "o", "mlp"]}])
def test_adapter_loads_in_plain_peft(tmp_path, options):
    ours = family()
    lora.apply(ours, lora.Config(name="lora", dropout=0, **options))
    losses = steps(ours, batch())
    assert losses[-1] < losses[0]
    adapter.save(ours, tmp_path / "adapter")
    plain = PeftModel.from_pretrained(
        CLIPModel.from_pretrained(resolve("clip-tiny"), dtype=torch.float32), tmp_path / "adapter"
    )
    images = batch()["image"]
    with torch.no_grad():
        expected = torch.nn.functional.normalize(
            plain.eval().get_image_features(pixel_values=ours.normalise(images)).pooler_output, dim=-1
        )
        torch.testing.assert_close(ours.eval().image_embedding(images), expected, atol=1e-6, rtol=0)


def test_adapter_comes_back_into_the_family(tmp_path):
    ours, other = family(), family()
    for one in (ours, other):
        lora.apply(one, lora.Config(name="lora", dropout=0))
    steps(ours, batch())
    adapter.save(ours, tmp_path / "adapter")
    adapter.load(other, tmp_path / "adapter")
    images = batch()["image"]
    with torch.no_grad():
        torch.testing.assert_close(other.eval().image_embedding(images), ours.eval().image_embedding(images))


def test_lora_on_open_clips_attention_reaches_q_k_and_v(tmp_path):
    torch.manual_seed(0)
    torch.save(open_clip.create_model("ViT-S-32-alt").state_dict(), tmp_path / "w.pt")
    ours = family(f"open_clip:ViT-S-32-alt/{tmp_path}/w.pt")
    before = {name: value.clone() for name, value in ours.backbone.named_parameters()}
    lora.apply(ours, lora.Config(name="lora", dropout=0))
    items = batch(224)
    losses = steps(ours, items, count=2)
    assert losses[1] != losses[0]
    found = 0
    for name, value in ours.backbone.named_parameters():
        if "lora_B" in name and name.endswith("attn.lora_B.default.weight"):
            for part in value.grad.chunk(3):  # rows of the fused matrix: q, k, v
                assert part.abs().max() > 0, name
            found += 1
    assert found >= 12, "both towers have adapters"
    # peft adds the update to the frozen matrix for each forward and takes it off again: equal but for rounding
    after = {
        name.replace("base_model.model.", "").replace("base_layer.", ""): v for name, v in ours.backbone.named_parameters()
    }
    for name in before.keys() & after.keys():
        torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)


def test_lora_on_a_timm_tower_of_open_clip_learns_comes_back_and_merges(vits, tmp_path):
    ours, other = vits["open_clip timm"](), vits["open_clip timm"]()
    for one in (ours, other):
        lora.apply(one, lora.Config(name="lora", dropout=0))
    items = batch(160) | {"label": torch.arange(8) % 2}
    losses = steps(ours.train(), items, count=3)
    assert losses[-1] < losses[0]
    learnt = {name: value for name, value in ours.net.named_parameters() if "lora_B" in name}
    assert all(value.grad.abs().max() > 0 for value in learnt.values())
    seen = [name for name in learnt if name.startswith("visual.trunk.blocks.")]
    assert seen and all(".attn.qkv." in name for name in seen), "q, k and v are one layer"
    assert [name for name in learnt if name.startswith("text.")], "both towers have adapters"
    adapter.save(ours, tmp_path / "adapter")
    adapter.load(other, tmp_path / "adapter")
    with torch.no_grad():
        expected = ours.eval().image_embedding(items["image"])
        torch.testing.assert_close(other.eval().image_embedding(items["image"]), expected)
        ours.backbone = ours.backbone.merge_and_unload()
        torch.testing.assert_close(ours.image_embedding(items["image"]), expected, atol=1e-5, rtol=0)
    assert ours.backbone.state_dict().keys() == vits["open_clip timm"]().backbone.state_dict().keys()


def test_every_name_of_open_clips_targets_means_something_in_both_towers(vits):
    """With `mlp` and `o` too nothing of a timm tower is left out."""
    for kind, ends in (("open_clip", {"attn", "c_fc", "c_proj"}), ("open_clip timm", {"qkv", "proj", "fc1", "fc2"})):
        ours = vits[kind]()
        lora.apply(ours, lora.Config(name="lora", dropout=0, targets=["q", "k", "v", "o", "mlp"]))
        adapted = [name for name, part in ours.net.named_modules() if isinstance(part, LoraLayer)]
        own = {name.rpartition(".")[2] for name in adapted if name.startswith("visual.") and not name.endswith("out_proj")}
        assert own == ends, "peft adapts an attention's out_proj with it"
        assert [name for name in adapted if not name.startswith("visual.")]


def test_adapters_of_evas_attention_are_called():
    """It reads the weight of its fused layer past the layer's forward, where an adapter would learn nothing."""
    torch.manual_seed(0)
    attention, seen = EvaAttention(64, num_heads=2, scale_norm=False, qk_norm=False), torch.rand(2, 5, 64)
    torch.nn.init.normal_(attention.q_bias)
    net = torch.nn.Sequential(attention)
    expected = net(seen)
    clips.call_layers(net)
    torch.testing.assert_close(net(seen), expected, atol=1e-5, rtol=1e-5)
    get_peft_model(net, LoraConfig(r=2, target_modules=["qkv"], init_lora_weights=False))(seen).sum().backward()
    assert net[0].qkv.lora_B["default"].weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    "vision", [{"layers": [1, 1, 1, 1], "width": 8, "image_size": 32}, {"timm_model_name": "test_convnext"}]
)
def test_an_image_tower_without_adapters_is_said(vision, tmp_path, capsys):
    words = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
    about = {"embed_dim": 32, "vision_cfg": {"image_size": 64, **vision}, "text_cfg": words}
    (tmp_path / "tiny-blind.json").write_text(json.dumps(about))
    open_clip.add_model_config(tmp_path)
    ours = load(Config(name="clip", checkpoint="open_clip:tiny-blind", weights="random"))
    ours.set_classes(CLASSES, ["{}"])
    lora.apply(ours, lora.Config(name="lora", dropout=0))
    assert "LoRA: none of these targets lies in the image tower of this checkpoint (visual)" in capsys.readouterr().out
    assert not [name for name, value in ours.backbone.named_parameters() if value.requires_grad and "visual" in name]


def test_of_adapters_in_both_towers_nothing_is_said(capsys):
    lora.apply(family(), lora.Config(name="lora"))
    assert not capsys.readouterr().out


def scale(model) -> set[float]:
    return {value for part in model.backbone.modules() if isinstance(part, LoraLayer) for value in part.scaling.values()}


def test_the_default_scales_as_clip_loras_code_does():
    """loralib/layers.py there: lora_alpha / sqrt(r), with r = 2 and lora_alpha = 1; the paper's own formula says α/r."""
    ours = family()
    lora.apply(ours, lora.Config(name="lora"))
    assert scale(ours) == {1 / 2**0.5}


def test_the_recipes_scale_as_they_were_tuned():
    """α/r of 2, which is also QLoRA's default; those for users' own photographs have CLIP-LoRA's."""
    for name in available("recipes"):
        recipe = load_recipe(name)
        if name == "yours/photos":
            assert (recipe.method.rank, recipe.method.alpha, recipe.method.rslora) == (2, 1, True)
        elif recipe.method.name == "lora":
            assert not recipe.method.rslora, name
            assert recipe.method.alpha / recipe.method.rank == 2, name
    ours = family()
    qlora.apply(ours, qlora.Config(name="qlora"))
    assert scale(ours) == {2.0}


@pytest.mark.parametrize("method", [full, lora])
def test_checkpointing_gives_the_same_gradients(method):
    gradients = []
    for checkpointing in (False, True):
        ours = family().train()
        options = {"dropout": 0} if method is lora else {}
        torch.manual_seed(0)
        method.apply(ours, method.Config(name=method.__name__.split(".")[-1], checkpointing=checkpointing, **options))
        loss, _ = ours(batch())
        loss.backward()
        gradients.append({name: p.grad for name, p in ours.named_parameters() if p.requires_grad})
        asked = [part for part in ours.backbone.modules() if getattr(part, "gradient_checkpointing", False)]
        assert bool(asked) == checkpointing
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-5)


def test_checkpointing_that_is_not_offered_is_said():
    ours = family()
    ours.backbone = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"method.checkpointing: true, but this checkpoint's library does not offer it"):
        full.apply(ours, full.Config(name="full", checkpointing=True))


def test_head_learns_a_linear_layer_only():
    ours = family()
    head.apply(ours, head.Config(name="head"))
    assert {name for name, p in ours.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
    losses = steps(ours, batch(), lr=0.1)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("options", [{"init": "text"}, {}], ids=["text", "default"])
def test_head_from_text_starts_as_the_zero_shot_classifier(options):
    ours = family()
    images = batch()["image"]
    with torch.no_grad():
        expected = ours.eval().predictors()["class_logits"](images)
        head.apply(ours, head.Config(name="head", **options))
        torch.testing.assert_close(ours.predictors()["class_logits"](images), expected, atol=1e-5, rtol=1e-5)


def test_full_comes_back_from_disk(tmp_path):
    ours, other = family(), family()
    for one in (ours, other):
        full.apply(one, full.Config(name="full"))
    steps(ours, batch(), lr=1e-4)
    adapter.save(ours, tmp_path / "adapter")
    adapter.load(other, tmp_path / "adapter")
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), other.state_dict().values(), strict=True))


def test_an_unknown_target_is_named():
    with pytest.raises(UserError, match=r"method.targets: \['qq'\] match no module"):
        lora.apply(family(), lora.Config(name="lora", targets=["qq"]))


@pytest.mark.parametrize(("method", "options"), [(lora, {}), (qlora, {})])
def test_a_target_that_matches_nothing_is_refused_beside_one_that_matches(method, options):
    name = method.__name__.rpartition(".")[2]
    with pytest.raises(UserError, match=r"method.targets: \['valeu'\] match no module of this checkpoint"):
        method.apply(family(), method.Config(name=name, targets=["q", "valeu", "v"], **options))
    with pytest.raises(UserError, match=r"\['mpl'\] match no module of this checkpoint. Did you mean 'mlp'"):
        method.apply(family(), method.Config(name=name, targets=["q", "mpl"], **options))
    ours = family()
    method.apply(ours, method.Config(name=name, targets=["q", r"vision_model\..*\.fc1"], **options))
    adapted = {name.rpartition(".")[2] for name, part in ours.net.named_modules() if isinstance(part, LoraLayer)}
    assert adapted == {"q_proj", "fc1"}


def test_a_name_of_the_familys_that_this_checkpoint_lacks_is_said(capsys):
    """`o` and `mlp` are what recipes ask of all checkpoints of a family."""
    ours = family()
    ours.adapter_targets = ours.adapter_targets | {"gate": "gate_proj"}
    lora.apply(ours, lora.Config(name="lora", targets=["q", "gate"]))
    assert "method.targets: this checkpoint has no gate; the others are adapted" in capsys.readouterr().out
    ours = family()
    ours.adapter_targets = ours.adapter_targets | {"gate": "gate_proj"}
    with pytest.raises(UserError, match=r"\['gate'\] match no module"):
        lora.apply(ours, lora.Config(name="lora", targets=["gate"]))


def families(vits):
    """Each of the tiny checkpoints, with the name of its family."""
    for kind, make in vits.items():
        yield {"registers": "dinov2", "dinov3": "dinov2"}.get(kind, kind if kind in ("dinov2", "paligemma") else "clip"), make()
    yield "sam", plug.load("models", "sam").load(plug.schema("models", "sam")(name="sam"))


def test_the_recipes_targets_and_the_default_fit_every_checkpoint_of_their_family(vits, capsys):
    recipes = [load_recipe(name) for name in available("recipes")]
    for name, ours in families(vits):
        asked = [one.method.targets for one in recipes if one.model.name == name and one.method.name in ("lora", "qlora")]
        modules = [module for module, _ in ours.backbone.named_modules()]
        for targets in [lora.Config(name="lora").targets, *filter(None, asked)]:
            assert any(re.fullmatch(low_rank.named(ours, targets), module) for module in modules)
    assert not capsys.readouterr().out, "nothing is left out"


def test_an_adapter_of_another_method_is_refused(tmp_path):
    ours, other = family(), family()
    head.apply(ours, head.Config(name="head"))
    adapter.save(ours, tmp_path / "adapter")
    lora.apply(other, lora.Config(name="lora"))
    with pytest.raises(UserError, match="do not fit"):
        adapter.load(other, tmp_path / "adapter")
