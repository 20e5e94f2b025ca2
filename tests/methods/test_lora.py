"""LoRA, full and head: what learns, and that others can load it."""

from __future__ import annotations

import open_clip
import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import CLIPModel

from adapt.methods import adapter, full, head, lora, qlora
from adapt.models.checkpoint import resolve
from adapt.models.clip import Config, load
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


def test_an_adapter_of_another_method_is_refused(tmp_path):
    ours, other = family(), family()
    head.apply(ours, head.Config(name="head"))
    adapter.save(ours, tmp_path / "adapter")
    lora.apply(other, lora.Config(name="lora"))
    with pytest.raises(UserError, match="do not fit"):
        adapter.load(other, tmp_path / "adapter")
