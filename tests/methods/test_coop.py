"""CoOp, arXiv:2109.01134: its classifier against each library's text tower called by hand, and what it leaves behind."""

from __future__ import annotations

import copy
import json

import pytest
import torch
import torch.nn.functional as F

from adapt import pipeline
from adapt.contracts import Train
from adapt.methods import adapter, coop
from adapt.plug import UserError
from adapt.recipe import load_recipe

CLASSES = ["cat", "fire engine", "dog"]
TOWERS = ["clip", "siglip", "siglip2", "open_clip"]
FEW = ["data.path=photos", "tracker=none"]


def applied(family, **options):
    torch.manual_seed(0)
    family.set_classes(CLASSES, ["{}"])
    coop.apply(family, coop.Config(name="coop", **options))
    return family.eval()


def ids(family, text: str) -> list[int]:
    """A text's tokens by the tokenizer alone, padded as it pads."""
    return family.towers.tokenise([text])[0].tolist()


def tower(kind: str, family, vectors, tokens):
    """A library's text tower on embeddings float[N, T, W] that stand for int64[N, T]: float[N, D], by its modules called one by one."""
    net = family.net
    if kind in ("siglip", "siglip2"):
        text = net.text_model
        hidden = vectors + text.embeddings.position_embedding.weight[: vectors.shape[1]]
        for layer in text.encoder.layers:
            hidden = layer(hidden, None)
        return text.head(text.final_layer_norm(hidden)[:, -1])  # the last place, whatever is there
    length = vectors.shape[1]
    mask = torch.full((length, length), float("-inf")).triu(1)
    end = torch.tensor([row.tolist().index(max(row.tolist())) for row in tokens])
    if kind == "clip":
        text = net.text_model
        hidden = vectors + text.embeddings.position_embedding.weight[:length]
        for layer in text.encoder.layers:
            hidden = layer(hidden, mask[None, None])
        return net.text_projection(text.final_layer_norm(hidden)[torch.arange(len(end)), end])
    hidden = vectors + net.positional_embedding[:length]
    for block in net.transformer.resblocks:
        hidden = block(hidden, attn_mask=mask)
    return net.ln_final(hidden)[torch.arange(len(end)), end] @ net.text_projection


def expected(kind: str, family, context, halves: int | None = None):
    """float[C, D]: [V]1 … [V]M CLASS. (eq. 2), each text tokenised by itself with M times 'a' in the place of the context, or with the
    class after `halves` of them (eq. 3)."""
    table = family._token_embedding.weight
    count = context.shape[-2]
    before = count if halves is None else halves
    begin = next(i for i, (one, other) in enumerate(zip(ids(family, "a"), ids(family, "b"), strict=True)) if one != other)
    out = []
    for c, name in enumerate(CLASSES):
        words = [*["a"] * before, name, *["a"] * (count - before)]
        tokens = torch.tensor([ids(family, " ".join(words) + ".")])
        size = len([i for i in ids(family, f"a {name}") if i]) - len([i for i in ids(family, "a") if i])
        if kind in ("clip", "siglip"):  # padded with the end: count what is none of it
            end = ids(family, "a")[-1]
            size = sum(i != end for i in ids(family, f"a {name}")) - sum(i != end for i in ids(family, "a"))
        vectors = table[tokens].clone()
        own = context[c] if context.ndim == 3 else context
        vectors[0, begin : begin + before] = own[:before]
        vectors[0, begin + before + size : begin + count + size] = own[before:]
        out.append(F.normalize(tower(kind, family, vectors, tokens), dim=-1))
    return torch.cat(out)


@pytest.mark.parametrize("kind", TOWERS)
@torch.no_grad()
def test_the_classifier_is_equation_2_through_the_plain_text_tower(kind, vits):
    family = applied(vits[kind](), tokens=4)
    context = family.learned.context.normal_(std=0.5)
    found = family.text_classifier([])
    torch.testing.assert_close(found, expected(kind, family, context), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    pictures = torch.rand(2, 3, *family.input["size"]) * 255
    logits = family.net.logit_scale.exp() * family.image_embedding(pictures) @ expected(kind, family, context).T
    if family.towers.sigmoid:
        logits = logits + family.net.logit_bias
    torch.testing.assert_close(family.predictors()["class_logits"](pictures), logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", TOWERS)
@torch.no_grad()
def test_the_class_between_the_halves_is_equation_3_and_each_class_may_have_its_own(kind, vits):
    family = applied(vits[kind](), tokens=5, position="middle", class_specific=True)
    context = family.learned.context.normal_(std=0.5)
    assert context.shape[:2] == (3, 5)
    torch.testing.assert_close(family.text_classifier([]), expected(kind, family, context, halves=2), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", TOWERS)
@torch.no_grad()
def test_context_that_begins_as_words_is_zero_shot_with_these_words(kind, vits):
    family = vits[kind]()
    family.set_classes(CLASSES, ["a photo of a {}."])
    plain = family.text_classifier(["a photo of a {}."])
    family = applied(family, init="a photo of a")
    torch.testing.assert_close(family.text_classifier([]), plain, atol=1e-5, rtol=1e-4)
    family.learned = None
    plain = family.text_classifier(["a photo of a {}"])
    family = applied(family, init="a photo of a", full_stop=False)
    torch.testing.assert_close(family.text_classifier([]), plain, atol=1e-5, rtol=1e-4)


def test_context_begins_with_a_deviation_of_two_hundredths(vits):
    context = applied(vits["open_clip"](), class_specific=True).learned.context
    assert context.shape == (3, 16, 32)
    assert context.std().item() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("kind", TOWERS)
def test_gradients_reach_the_context_and_nothing_else(kind, vits):
    family = applied(vits[kind](), tokens=3)
    pictures = torch.rand(3, 3, *family.input["size"]) * 255
    family({"image": pictures, "label": torch.arange(3)})[0].backward()
    assert {name for name, value in family.named_parameters() if value.grad is not None} == {"learned.context"}
    assert (family.learned.context.grad.abs().sum(1) > 0).all()


def test_activations_that_are_computed_again_give_the_same_gradient(vits):
    found = []
    for checkpointing in (False, True):
        family = applied(vits["clip"](), tokens=3, checkpointing=checkpointing).train()
        pictures = torch.rand(3, 3, 48, 48, generator=torch.Generator().manual_seed(1)) * 255
        family({"image": pictures, "label": torch.arange(3)})[0].backward()
        found.append(family.learned.context.grad)
    torch.testing.assert_close(*found)


def test_a_copy_has_a_context_and_a_tower_of_its_own(vits):
    family = applied(vits["clip"](), tokens=3)
    twin = copy.deepcopy(family)
    with torch.no_grad():
        before = family.text_classifier([])
        torch.testing.assert_close(twin.text_classifier([]), before)
        twin.learned.context.add_(1)
        for value in twin.net.text_model.parameters():
            value.zero_()
        assert twin.text_classifier([]).abs().sum() == 0
        torch.testing.assert_close(family.text_classifier([]), before)


@pytest.mark.parametrize("kind", TOWERS)
@torch.no_grad()
def test_the_notes_name_the_nearest_words(kind, vits, tmp_path):
    family = applied(vits[kind](), tokens=2)
    table, words = family._token_embedding.weight, family.slots.text.vocabulary()
    number = 20
    family.learned.context[0] = table[number]
    family.learned.context[1] = table[number] + 0.25 * F.normalize(torch.ones(table.shape[1]), dim=0)
    adapter.save(family, tmp_path / "adapter")
    rows = [line for line in (tmp_path / "adapter" / adapter.NOTES).read_text().splitlines() if line[:4] in ("| 1 ", "| 2 ")]
    assert f"| 1 | `{words[number]}` 0.00, " in rows[0] and len(rows) == 2
    distances = (table[: len(words)] - family.learned.context[1]).norm(dim=1)
    best = int(distances.argmin())
    assert f"| 2 | `{words[best]}` {distances[best]:.2f}, " in rows[1]


# ----------------------------------------------------------------------------------------------------------------- verbs


def test_the_papers_defaults_follow_the_shots():
    config = coop.Config(name="coop")
    assert [config.few(shots)["epochs"] for shots in (1, 2, 4, 8, 16)] == [50, 100, 100, 200, 200]
    train = Train(**config.train | config.few(16))
    assert (train.optimizer, train.lr, train.batch, train.weight_decay) == ("sgd", 2e-3, 32, 5e-4)
    assert train.warmup * train.epochs == 1 and train.warmup_lr == 1e-5 and train.schedule == "cosine"


def test_it_learns_is_kept_with_its_words_and_answers_the_same_again(photos):
    options = ["train={steps: 12, lr: 0.05, warmup: 0, cache: true}", "distill=null", "export=[]"]
    recipe = load_recipe("clip_lora", ["method={name: coop}", *FEW, *options])
    outcome = pipeline.finetune(recipe)
    assert [entry["title"] for entry in outcome.entries] == ["zero-shot CLIP", "CLIP + CoOp"]
    losses = [row["loss"] for row in map(json.loads, (outcome.path / "history.jsonl").open()) if "loss" in row]
    assert losses[-1] < losses[0]
    assert adapter.load_file(outcome.path / "adapter" / adapter.FILE).keys() == {"learned.context"}
    card = (outcome.path / "adapter" / "README.md").read_text()
    assert (outcome.path / "adapter" / adapter.NOTES).read_text() in card and "## Figures" in card
    assert pipeline.evaluate(recipe).entries == outcome.entries


def test_a_teacher_with_learned_context_teaches(photos, capsys):
    student = [
        "distill={name: logits, student: test_resnet, pretrained: false, train: {steps: 2, batch: 16}}",
        "export=[{name: onnx, int8: false, bench: 0.1}]",
    ]
    recipe = load_recipe("clip_lora", ["method={name: coop, tokens: 16}", *FEW, "train={steps: 2, batch: 8}", *student])
    with pytest.raises(UserError, match="16 context tokens and the class 'blue cup'"):
        pipeline.road(recipe)
    recipe = load_recipe("clip_lora", ["method={name: coop}", *FEW, "train={steps: 2, batch: 8}", *student])
    assert len(pipeline.road(recipe).entries) == 4
    said = capsys.readouterr().out
    assert "timed in torch alone" not in said
    assert "context tokens, for 16 and the class" in said, "the embedded text tower reads 16 tokens in all"
    with pytest.raises(UserError, match="what method 'coop' has learnt is no part of a checkpoint"):
        pipeline.merge(recipe)


# -------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(("kind", "limit"), [("clip", 16), ("siglip", 32), ("siglip2", 32), ("open_clip", 77)])
def test_a_class_that_just_fits_is_taken_and_one_token_more_is_one_clear_line(kind, limit, vits):
    family = vits[kind]()
    begin = next(i for i, (one, other) in enumerate(zip(ids(family, "a"), ids(family, "b"), strict=True)) if one != other)
    end = ids(family, "a")[-1]
    last = lambda text: max(i for i, token in enumerate(ids(family, text)) if token != end) + 1  # noqa: E731
    words = last("a a cat.") - last("a")
    count = limit - begin - words - 1  # and the end
    for name, tokens, fits in (
        ("a cat", count, True),
        ("a cat", count + 1, False),
        ("a a cat", count, False),
        ("a " * 99, 2, False),
    ):
        family.set_classes(["a", name], ["{}"])
        config = coop.Config(name="coop", tokens=tokens)
        if fits:
            coop.apply(family, config)
            continue
        with pytest.raises(UserError) as error:
            coop.apply(family, config)
        assert f"more than the {limit} tokens" in str(error.value) and repr(name) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("tokens: 0", "method.tokens: got 0"),
        ("tokens: 4, init: a photo of a", "method.tokens and method.init both say how many tokens there are"),
        ("position: front", "method.position: got 'front'"),
    ],
)
def test_a_wrong_option_is_one_clear_line(options, words):
    with pytest.raises(UserError) as error:
        load_recipe("clip_lora", [f"method={{name: coop, {options}}}"])
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_family_without_texts_or_classes_is_one_clear_line(vits):
    with pytest.raises(UserError, match="needs a family with a text tower, such as clip"):
        coop.apply(vits["dinov2"](), coop.Config(name="coop"))
    family = vits["clip"]()
    family.set_classes([], ["{}"])
    with pytest.raises(UserError, match="needs data with labels"):
        coop.apply(family, coop.Config(name="coop"))
