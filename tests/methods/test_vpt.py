"""Visual prompt tuning, arXiv:2203.12119, and padding prompts, arXiv:2203.17274, against their formulas written out."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from adapt import pipeline
from adapt.methods import adapter, vpt
from adapt.plug import UserError
from adapt.recipe import load_recipe

VITS = ["clip", "siglip", "open_clip", "open_clip timm", "dinov2", "registers", "dinov3", "paligemma"]
FEW = ["data.path=photos", "tracker=none", "train={steps: 3, batch: 8, lr: 0.1}"]


def applied(family, **options):
    torch.manual_seed(0)
    vpt.apply(family, vpt.Config(name="vpt", **options))
    return family.eval()


def images(family, count: int = 2):
    return torch.rand(count, 3, *family.input["size"], generator=torch.Generator().manual_seed(1)) * 255


def seen(family, pictures):
    """What an image tower makes of pictures."""
    return family.features(pictures) if "text" in family.predictors() else family.image_embedding(pictures)


def parts(kind: str, family):
    """An image tower in three parts, by its library's modules: pixels → hidden states; its layers; the last states → the answer."""
    net = family.net
    if kind in ("clip", "siglip", "paligemma"):
        tower = net.model.vision_tower if kind == "paligemma" else net.vision_model
        layers = [lambda hidden, layer=layer: layer(hidden, None) for layer in tower.encoder.layers]
        if kind == "clip":
            end = lambda hidden: F.normalize(net.visual_projection(tower.post_layernorm(hidden[:, 0])), dim=-1)  # noqa: E731
            return lambda pixels: tower.pre_layrnorm(tower.embeddings(pixels)), layers, end
        if kind == "siglip":
            return tower.embeddings, layers, lambda hidden: F.normalize(tower.head(tower.post_layernorm(hidden)), dim=-1)
        return tower.embeddings, layers, lambda hidden: net.model.multi_modal_projector(tower.post_layernorm(hidden))
    if kind == "open_clip":
        tower = net.visual
        end = lambda hidden: F.normalize(tower.ln_post(hidden)[:, 0] @ tower.proj, dim=-1)  # noqa: E731
        return tower._embeds, list(tower.transformer.resblocks), end
    if kind == "open_clip timm":
        trunk = net.visual.trunk
        end = lambda hidden: F.normalize(trunk.forward_head(trunk.norm(hidden)), dim=-1)  # noqa: E731
        return lambda pixels: trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(pixels))), list(trunk.blocks), end
    if kind == "dinov3":
        rope = lambda: net.rope_embeddings(family.normalise(images(family)))  # noqa: E731
        layers = [lambda hidden, layer=layer: layer(hidden, position_embeddings=rope()) for layer in net.model.layer]
        return net.embeddings, layers, lambda hidden: net.norm(hidden)[:, 0]
    return net.embeddings, list(net.encoder.layer), lambda hidden: net.layernorm(hidden)[:, 0]


@pytest.mark.parametrize("kind", VITS)
@torch.no_grad()
def test_shallow_is_equation_4_and_deep_is_equation_5(kind, vits):
    plain = vits[kind]()
    begin, layers, end = parts(kind, plain)
    pictures = images(plain)
    first = plain.slots.vision.first
    torch.testing.assert_close(end(run(begin(plain.normalise(pictures)), layers)), seen(plain, pictures), atol=1e-5, rtol=1e-4)
    for deep in (False, True):
        ours = applied(vits[kind](), kind="deep" if deep else "shallow", tokens=5)
        tokens = ours.prompts.tokens
        assert tokens.shape == (len(layers) if deep else 1, 5, plain.slots.vision.width)
        hidden = begin(plain.normalise(pictures))
        x, e = hidden[:, :first], hidden[:, first:]
        z = tokens[0].expand(2, -1, -1)
        for i, layer in enumerate(layers):
            p = tokens[i].expand(2, -1, -1) if deep else z
            hidden = layer(torch.cat([x, p, e], 1))
            x, z, e = hidden[:, :first], hidden[:, first : first + 5], hidden[:, first + 5 :]
        expected = end(torch.cat([x, e], 1))
        torch.testing.assert_close(seen(ours, pictures), expected, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(expected, seen(plain, pictures), atol=1e-3)


def run(hidden, layers):
    for layer in layers:
        hidden = layer(hidden)
    return hidden


@pytest.mark.parametrize("kind", ["clip", "open_clip", "dinov2"])
@torch.no_grad()
def test_a_border_is_added_to_the_normalised_picture(kind, vits):
    plain, ours = vits[kind](), applied(vits[kind](), kind="padding", border=0.2)
    pictures = images(plain)
    torch.testing.assert_close(seen(ours, pictures), seen(plain, pictures))
    side = plain.input["size"][0]
    wide = round(0.2 * side)
    sizes = {name: tuple(value.shape) for name, value in ours.prompts.named_parameters()}
    inner = (3, side - 2 * wide, wide)
    assert sizes == {"top": (3, wide, side), "bottom": (3, wide, side), "left": inner, "right": inner}
    for value in ours.prompts.parameters():
        value.normal_()
    frame = torch.zeros(3, side, side)
    frame[:, :wide], frame[:, -wide:] = ours.prompts.top, ours.prompts.bottom
    frame[:, wide:-wide, :wide], frame[:, wide:-wide, -wide:] = ours.prompts.left, ours.prompts.right
    mean, std = (torch.tensor(plain.input[name])[:, None, None] for name in ("mean", "std"))
    shifted = ((pictures / 255 - mean) / std + frame) * std + mean
    torch.testing.assert_close(seen(ours, pictures), seen(plain, shifted * 255), atol=1e-5, rtol=1e-4)


def test_the_border_has_30_of_224_pixels_and_as_many_numbers_as_in_the_paper():
    from adapt.methods.vpt.prompts import Border

    frame = Border(torch.nn.Identity(), (224, 224), vpt.Config(name="vpt", kind="padding").border)
    assert sum(value.numel() for value in frame.parameters()) == 69_840  # arXiv:2203.17274 §3.2: 2 C p (H + W − 2p)


def test_tokens_begin_as_xavier_says(vits):
    family = vits["clip"]()
    tokens = applied(family, tokens=50).prompts.tokens.detach()
    bound = (6 / (3 * 8 * 8 + 192)) ** 0.5
    assert tokens.abs().max() <= bound and tokens.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


@pytest.mark.parametrize("options", [{"kind": "deep"}, {"kind": "shallow"}, {"kind": "padding"}], ids=lambda one: one["kind"])
@pytest.mark.parametrize("kind", ["clip", "siglip", "open_clip", "dinov2"])
def test_gradients_reach_the_prompts_and_the_head_and_nothing_else(kind, options, vits):
    family = applied(vits[kind](), **options)
    loss, _ = family({"image": images(family), "label": torch.tensor([0, 1]), "seed": torch.arange(2)})
    loss.backward()
    reached = {name for name, value in family.named_parameters() if value.grad is not None and value.grad.abs().sum() > 0}
    assert reached == {name for name, value in family.named_parameters() if value.requires_grad}
    assert {name.partition(".")[0] for name in reached} == ({"prompts", "head"} if kind == "dinov2" else {"prompts"})


@pytest.mark.parametrize("kind", ["clip", "dinov2"])
def test_activations_that_are_computed_again_give_the_same_gradients(kind, vits):
    found = []
    for checkpointing in (False, True):
        family = applied(vits[kind](), checkpointing=checkpointing)
        family.train()
        torch.manual_seed(3)
        family({"image": images(family), "label": torch.tensor([0, 1]), "seed": torch.arange(2)})[0].backward()
        found.append(family.prompts.tokens.grad)
    torch.testing.assert_close(*found)


def test_a_copy_has_hooks_of_its_own(vits):
    family = applied(vits["clip"]())
    twin = copy.deepcopy(family)
    pictures = images(family)
    with torch.no_grad():
        before = family.image_embedding(pictures)
        torch.testing.assert_close(twin.image_embedding(pictures), before)
        twin.prompts.tokens.normal_()  # a constant would fall to the layers' norms
        torch.testing.assert_close(family.image_embedding(pictures), before)
        assert not torch.allclose(twin.image_embedding(pictures), before, atol=1e-3)


def test_dropout_is_on_the_tokens_in_training_alone(vits):
    family = applied(vits["clip"](), dropout=0.5)
    pictures = images(family)
    with torch.no_grad():
        torch.testing.assert_close(family.image_embedding(pictures), family.image_embedding(pictures))
        family.train()
        assert not torch.allclose(family.image_embedding(pictures), family.image_embedding(pictures))


def test_every_blocks_features_leave_the_tokens_out(vits):
    """Linear evaluation reads hidden states between the layers, where the tokens still are."""
    plain, ours = vits["registers"](), applied(vits["registers"]())
    pictures = images(plain)
    with torch.no_grad():
        assert ours.block_features(pictures).shape == plain.block_features(pictures).shape
        torch.testing.assert_close(ours.block_features(pictures)[:, -2:], torch.stack(last(ours, pictures), 1))


def last(family, pictures):
    cls, patches = family.tokens(pictures)
    return cls, patches.mean((2, 3))


def test_what_was_learned_comes_back_from_disk(vits, tmp_path):
    one, two = applied(vits["registers"]()), applied(vits["registers"]())
    with torch.no_grad():
        one.prompts.tokens.normal_()
        one.head.weight.add_(0.1)
    adapter.save(one, tmp_path / "adapter")
    adapter.load(two, tmp_path / "adapter")
    pictures = images(one)
    with torch.no_grad():
        for name in ("class_logits", "patch_features"):
            torch.testing.assert_close(two.predictors()[name](pictures), one.predictors()[name](pictures))


# ----------------------------------------------------------------------------------------------------------------- verbs


def test_the_papers_defaults_are_the_methods_own_and_the_borders_are_others():
    tokens, border = (
        load_recipe("dinov2_lora", [f"method={{name: vpt, kind: {kind}}}", "train=null"]).train for kind in ("deep", "padding")
    )
    assert (tokens.optimizer, tokens.epochs, tokens.warmup, tokens.schedule) == ("sgd", 100, 0.1, "cosine")
    assert (border.optimizer, border.lr, border.weight_decay, border.epochs) == ("sgd", 40, 0, 1000)


def test_a_killed_training_goes_on_to_the_same_bits(photos, monkeypatch):
    from adapt.train import loop

    def trained(name: str, *more: str) -> dict:
        overrides = [*FEW, "method={name: vpt, tokens: 2}", "evals=[]", f"name={name}", "distill=null", "export=[]"]
        return adapter.load_file(
            pipeline.finetune(load_recipe("clip_lora", [*overrides, *more])).path / "adapter" / adapter.FILE
        )

    whole = trained("whole")
    step, calls = loop._step, []

    def dies(*given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(loop, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        trained("killed", "train.checkpoint_every=1")
    monkeypatch.setattr(loop, "_step", step)
    again = trained("killed", "train.checkpoint_every=1")
    assert again.keys() == whole.keys() == {"prompts.tokens"}
    assert all(torch.equal(again[name], whole[name]) for name in whole)


def test_a_teacher_with_prompts_teaches_and_is_exported_to_be_timed(photos, capsys):
    student = [
        "distill={name: logits, student: test_resnet, pretrained: false, train: {steps: 2, batch: 16}}",
        "export=[{name: onnx, int8: false, bench: 0.1}]",
    ]
    recipe = load_recipe("clip_lora", [*FEW, "method={name: vpt, tokens: 2}", *student])
    outcome = pipeline.road(recipe)
    assert "timed in torch alone" not in capsys.readouterr().out
    names = [entry["name"] for entry in outcome.entries]
    assert names[:2] == ["zero-shot", "adapted"] and len(names) == 4
    with pytest.raises(UserError, match="what method 'vpt' has learnt is no part of a checkpoint") as error:
        pipeline.merge(recipe)
    assert "\n" not in str(error.value)


# -------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("tokens: 0", "method.tokens: got 0"),
        ("kind: padding, tokens: 20", "method.tokens is not for method.kind=padding"),
        ("kind: shallow, border: 0.2", "method.border is not for method.kind=shallow"),
        ("kind: padding, border: 0.5", "method.border: got 0.5"),
        ("kind: deeper", "method.kind: got 'deeper'"),
        ("deep: true", "method.deep: no such option"),
    ],
)
def test_a_wrong_option_is_one_clear_line(options, words):
    with pytest.raises(UserError) as error:
        load_recipe("clip_lora", [f"method={{name: vpt, {options}}}"])
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["deep", "padding"])
def test_a_tower_without_a_place_is_one_clear_line(kind):
    from adapt.models import sam

    with pytest.raises(UserError) as error:
        vpt.apply(sam.load(sam.Config(name="sam")), vpt.Config(name="vpt", kind=kind))
    assert "Use lora, decoder or full." in str(error.value) and "\n" not in str(error.value)
    assert kind == "padding" or "windows" in str(error.value)
