"""The DINO family against plain transformers on the same random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from PIL import Image
from transformers import (
    AutoModel,
    BitImageProcessor,
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2WithRegistersConfig,
    DINOv3ConvNextConfig,
    DINOv3ViTConfig,
    DINOv3ViTImageProcessor,
)

from adapt.contracts import Augment
from adapt.methods import adapter, full, head, lora
from adapt.models.dinov2 import Config, load
from adapt.plug import UserError
from adapt.vision.classes import IGNORE

TINY = {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 2, "image_size": 24}
CONFIGS = {
    "dinov2": (Dinov2Config, TINY | {"mlp_ratio": 2, "patch_size": 8}),
    "swiglu": (Dinov2Config, TINY | {"mlp_ratio": 2, "patch_size": 8, "use_swiglu_ffn": True}),
    "registers": (Dinov2WithRegistersConfig, TINY | {"mlp_ratio": 2, "patch_size": 8, "num_register_tokens": 3}),
    "dinov3": (DINOv3ViTConfig, TINY | {"intermediate_size": 64, "patch_size": 8, "num_register_tokens": 2}),
    "convnext": (DINOv3ConvNextConfig, {"hidden_sizes": [8, 8, 16, 32], "depths": [1, 1, 2, 1], "image_size": 64}),
}
CLASSES = ["cat", "fire engine", "apple"]


@pytest.fixture(scope="session")
def places(tmp_path_factory):
    """A checkpoint of each architecture, random, on disk."""
    found = {}
    for name, (kind, values) in CONFIGS.items():
        torch.manual_seed(0)
        model = AutoModel.from_config(kind(**values))
        for key, parameter in model.named_parameters():  # layer scales and registers that matter
            if any(word in key for word in ("lambda1", "gamma", "register", "cls_token")):
                torch.nn.init.normal_(parameter, std=0.5)
        found[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(found[name])
        side = values["image_size"]
        if name in ("dinov3", "convnext"):
            DINOv3ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(found[name])
        else:
            BitImageProcessor(
                size={"shortest_edge": side * 8 // 7}, crop_size={"height": side, "width": side}, resample=3
            ).save_pretrained(found[name])
    return found


def family(place, **options):
    out = load(Config(name="dinov2", checkpoint=str(place), **options))
    out.bind(["image", "label" if options.get("task") != "segmentation" else "objects"])
    out.set_classes(CLASSES, [])
    return out


def plain(place):
    return AutoModel.from_pretrained(place, dtype=torch.float32).eval()


def images(side: int = 24, count: int = 2):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 255


def steps(model, batch, count: int = 5, lr: float = 1e-2) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(count):
        loss, _ = model(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", CONFIGS)
def test_features_equal_plain_transformers(places, name):
    ours, model = family(places[name]).eval(), plain(places[name])
    side = CONFIGS[name][1]["image_size"]
    pixels = images(side)
    registers = CONFIGS[name][1].get("num_register_tokens", 0)
    with torch.no_grad():
        out = model(pixel_values=ours.normalise(pixels))
        cls, patches = out.last_hidden_state[:, 0], out.last_hidden_state[:, 1 + registers :]
        torch.testing.assert_close(ours.image_embedding(pixels), out.pooler_output)
        grid = ours.patch_features(pixels)
        cells = side // ours.stride
        assert grid.shape == (2, 32, cells, cells)
        torch.testing.assert_close(grid[:, :, cells - 1, 0], patches[:, (cells - 1) * cells])
        for embedding, expected in (("mean", patches.mean(1)), ("both", torch.cat([cls, patches.mean(1)], 1))):
            ours.embedding = embedding
            torch.testing.assert_close(ours.image_embedding(pixels), expected)


@pytest.mark.parametrize("name", ["dinov2", "registers", "dinov3"])
def test_block_features_are_the_last_blocks_after_the_last_norm(places, name):
    ours, model = family(places[name]).eval(), plain(places[name])
    norm = model.norm if name == "dinov3" else model.layernorm
    with torch.no_grad():
        out = model(pixel_values=ours.normalise(images()), output_hidden_states=True)
        got = ours.block_features(images())
        assert got.shape == (2, 5, 32)
        for block in range(4):
            torch.testing.assert_close(got[:, block], norm(out.hidden_states[block - 4])[:, 0])
        torch.testing.assert_close(got[:, 3], ours.image_embedding(images()))
        torch.testing.assert_close(got[:, 4], ours.patch_features(images()).mean((2, 3)))


def test_head_on_both_equals_transformers_own_classifier(places):
    ours = family(places["dinov2"], embedding="both").eval()
    model = Dinov2ForImageClassification.from_pretrained(places["dinov2"], num_labels=3, dtype=torch.float32).eval()
    head.apply(ours, head.Config(name="head"))
    with torch.no_grad():
        ours.head.weight.copy_(model.classifier.weight)
        ours.head.bias.copy_(model.classifier.bias)
        expected = model(pixel_values=ours.normalise(images())).logits
        torch.testing.assert_close(ours.predictors()["class_logits"](images()), expected)


def test_other_sizes_interpolate_positions_as_transformers_does(places):
    ours, model = family(places["dinov2"], image_size=40).eval(), plain(places["dinov2"])
    assert ours.input["size"] == (40, 40)
    assert ours.input["resize"] == 45, "the processor's share of the crop is kept"
    with torch.no_grad():
        expected = model(pixel_values=ours.normalise(images(40))).last_hidden_state
        torch.testing.assert_close(ours.patch_features(images(40)).flatten(2).transpose(1, 2), expected[:, 1:])


@pytest.mark.parametrize(("name", "processor"), [("dinov2", BitImageProcessor), ("dinov3", DINOv3ViTImageProcessor)])
def test_preprocessing_equals_the_checkpoints_processor(places, name, processor):
    ours = family(places[name])
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 71, 3), np.uint8))
    expected = processor.from_pretrained(places[name])(picture, return_tensors="pt")["pixel_values"]
    got = ours.normalise(ours.preprocess({"image": picture}, False)["image"][None].float())
    # DINOv3's processor resizes floats; bytes are rounded after each of the two passes: one grey level, over the least std
    torch.testing.assert_close(got, expected, atol=1e-5 if name == "dinov2" else 1 / 255 / 0.224, rtol=0)


@pytest.mark.parametrize("method", ["head", "lora", "full"])
def test_a_method_learns_with_its_head_and_comes_back_from_disk(places, tmp_path, method):
    ours, other = family(places["registers"]), family(places["registers"])
    config = (
        lora.Config(name="lora", dropout=0) if method == "lora" else {"head": head, "full": full}[method].Config(name=method)
    )
    torch.manual_seed(3)
    for one in (ours, other):
        {"head": head, "lora": lora, "full": full}[method].apply(one, config)
    label = torch.arange(6) % 3
    batch = {"image": images(count=6) * (label[:, None, None, None] + 0.1) / 2.1, "label": label}  # dark, grey and bright
    losses = steps(ours, batch, 20)
    assert losses[-1] < losses[0]
    for name, parameter in ours.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name  # none that DDP would wait for
    adapter.save(ours, tmp_path / "adapter")
    adapter.load(other, tmp_path / "adapter")
    with torch.no_grad():
        want = ours.eval().predictors()["class_logits"](images())
        torch.testing.assert_close(other.eval().predictors()["class_logits"](images()), want)
    if method == "lora":
        peft = PeftModel.from_pretrained(plain(places["registers"]), tmp_path / "adapter").eval()
        with torch.no_grad():
            expected = peft(pixel_values=ours.normalise(images())).pooler_output
            torch.testing.assert_close(ours.image_embedding(images()), expected)
        (tmp_path / "adapter" / "head.safetensors").unlink()
        with pytest.raises(UserError, match="do not fit"):
            adapter.load(other, tmp_path / "adapter")


@pytest.mark.parametrize("name", ["dinov2", "dinov3"])
def test_cached_features_give_the_same_loss_in_training_too(places, name):
    for task in ("classification", "segmentation"):
        ours = family(places[name], task=task)
        assert ours.frozen_features() is None, "nothing learns yet"
        head.apply(ours, head.Config(name="head"))
        torch.nn.init.normal_(list(ours.head.parameters())[-2])
        batch = {"image": images(), "label": torch.tensor([1, 2]), "target": torch.randint(0, 4, (2, 24, 24))}
        batch["target"][:, :3] = IGNORE
        with torch.no_grad():
            features = ours.eval().frozen_features()(batch["image"])
            ours.train()
            torch.testing.assert_close(ours(batch | {"features": features, "image": None})[0], ours(batch)[0])
        full.apply(ours, full.Config(name="full"))
        assert ours.frozen_features() is None


def scene():
    from adapt.vision.masks import rle

    mask = np.zeros((24, 24), bool)
    mask[4:16, 6:20] = True
    small = np.zeros((24, 24), bool)
    small[8:10, 8:10] = True
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8))
    return {"image": picture, "objects": {"mask": [rle(mask), rle(small)], "category": [0, 2]}}, mask, small


def test_segmentation_learns_from_objects_and_upsamples_its_logits(places):
    ours = family(places["dinov2"], task="segmentation")
    head.apply(ours, head.Config(name="head"))
    sample, mask, small = scene()
    item = ours.preprocess(sample, True)
    expected = np.where(small, 3, np.where(mask, 1, 0))
    assert np.array_equal(item["target"].numpy(), expected), "background, category + 1, painted in order"
    batch = ours.collate([item, item])
    losses = steps(ours, batch, 8, 0.05)
    assert losses[-1] < losses[0]
    with torch.no_grad():
        logits = ours.eval().predictors()["semantic_logits"](batch["image"].float())
        assert logits.shape == (2, 4, 3, 3)
        upsampled = F.interpolate(logits, size=(24, 24), mode="bilinear")
        torch.testing.assert_close(
            ours(batch | {"image": batch["image"].float()})[0], F.cross_entropy(upsampled, batch["target"])
        )


def test_qlora_quantises_every_linear_of_the_encoder_and_learns(places):
    pytest.importorskip("bitsandbytes")
    from adapt.methods import qlora

    ours = family(places["dinov2"])
    qlora.apply(ours, qlora.Config(name="qlora", dropout=0))
    whole = [name for name, module in ours.backbone.named_modules() if type(module) is torch.nn.Linear]
    assert whole
    assert all("lora_" in name for name in whole), "only the adapters are whole"
    label = torch.arange(6) % 3
    losses = steps(ours, {"image": images(count=6) * (label[:, None, None, None] + 0.1) / 2.1, "label": label}, 10)
    assert losses[-1] < losses[0]


def test_segmentation_sees_the_whole_picture(places):
    ours = family(places["dinov2"], task="segmentation")
    assert ours.input["resize"] == (24, 24)
    assert ours.input["crop"] is None
    wide = Image.new("RGB", (60, 20))
    assert ours.preprocess({"image": wide}, False)["image"].shape == (3, 24, 24)


def test_a_segmentation_column_has_its_own_classes_and_255_is_none(places):
    ours = load(Config(name="dinov2", checkpoint=str(places["dinov2"]), task="segmentation", classes=["road", "sky"]))
    ours.bind(["image", "segmentation"])
    values = np.full((24, 24), 1, np.uint8)
    values[:5] = 255
    item = ours.preprocess({"image": Image.new("RGB", (24, 24)), "segmentation": Image.fromarray(values)}, True)
    assert (item["target"][:5] == IGNORE).all()
    assert (item["target"][5:] == 1).all()
    head.apply(ours, head.Config(name="head"))
    batch = ours.collate([item, item])
    with torch.no_grad():
        loss, _ = ours(batch)
        torch.testing.assert_close(loss, torch.tensor(2.0).log())  # two classes, a head of zeros


def test_random_views_carry_the_class_map_along(places):
    ours = family(places["dinov2"], task="segmentation")
    target = torch.zeros(4, 24, 24, dtype=torch.long)
    target[:, 6:18, 3:12] = 2
    batch = {"image": (target * 100)[:, None].expand(-1, 3, -1, -1), "target": target, "seed": torch.arange(4)}
    out = ours.augment(batch, Augment(crop=0.5, rotate=20, flip=0.5, colour=0))
    sharp = (out["image"][:, 0] < 20) | (out["image"][:, 0] > 180)  # away from the edges, where bilinear mixes
    assert sharp.float().mean() > 0.8
    assert torch.equal((out["image"][:, 0] > 100)[sharp], (out["target"] == 2)[sharp])
    assert set(out["target"].unique().tolist()) <= {0, 2}


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_every_answer_is_in_float32_whatever_the_autocast(places, task):
    """The head's sums too: in bfloat16 two classes that differ by less than a percent are tied."""
    ours = family(places["dinov2"], task=task)
    ours.new_head("random")
    predictors = ours.eval().predictors()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        answers = {name: function(images()) for name, function in predictors.items()}
    assert {name: answer.dtype for name, answer in answers.items()} == dict.fromkeys(answers, torch.float32)
    with torch.no_grad():
        if task == "classification":
            torch.testing.assert_close(answers["class_logits"], ours.head(answers["image_embedding"]), atol=1e-6, rtol=0)
        else:
            torch.testing.assert_close(answers["semantic_logits"], ours.head(answers["patch_features"]), atol=1e-6, rtol=0)


def test_distill_features_are_the_global_and_the_pooled_local_ones(places):
    ours = family(places["dinov2"], local=3).eval()
    with torch.no_grad():
        got = ours.predictors()["distill_features"](images())
        assert got.shape == (2, 10, 32)
        torch.testing.assert_close(got[:, 0], ours.image_embedding(images()))
        torch.testing.assert_close(got[:, 2], ours.patch_features(images())[:, :, 0, 1])


def test_data_choose_the_task(places):
    for columns, task in (
        (["image", "label", "objects"], "classification"),
        (["image", "objects"], "segmentation"),
        (["image", "segmentation"], "segmentation"),
        (["image"], "features"),
    ):
        ours = load(Config(name="dinov2", checkpoint=str(places["dinov2"])))
        ours.bind(columns)
        assert ours.task == task
        assert "class_logits" not in ours.predictors()
    with pytest.raises(UserError, match="head of this family needs classes"):
        head.apply(ours, head.Config(name="head"))
    with pytest.raises(UserError, match="no column label"):
        load(Config(name="dinov2", checkpoint=str(places["dinov2"]), task="classification")).bind(["image"])


def test_mistakes_are_one_clear_line(places):
    with pytest.raises(UserError, match=r"model.image_size: 30 is not a multiple of the patch size, 8 pixels. Near: 24, 32"):
        family(places["dinov2"], image_size=30)
    with pytest.raises(UserError, match="knows no texts"):
        family(places["dinov2"]).predictors(["a cat"])
    with pytest.raises(UserError, match="'text' needs a text tower"):
        head.apply(family(places["dinov2"]), head.Config(name="head", init="text"))
    with pytest.raises(UserError, match="'clip' model; this family takes dinov2"):
        load(Config(name="dinov2", checkpoint="clip-tiny"))


def test_a_convnext_has_no_place_for_tokens_and_takes_a_border(places):
    from adapt.methods import vpt

    ours = family(places["convnext"])
    with pytest.raises(UserError, match="a ConvNeXt has no tokens"):
        vpt.apply(ours, vpt.Config(name="vpt"))
    vpt.apply(ours, vpt.Config(name="vpt", kind="padding"))
    loss, _ = ours({"image": images(64), "label": torch.tensor([0, 1])})
    loss.backward()
    assert all(value.grad.abs().sum() > 0 for value in ours.prompts.parameters())
