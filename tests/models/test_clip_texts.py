"""Several texts a class: their embeddings averaged, their similarities averaged, or the greatest; each against its formula written out."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from adapt.models.clip import Config, load, words
from adapt.plug import UserError
from adapt.prompting.text import words as of_recipe
from adapt.recipe import Prompts

TEMPLATES = ["a photo of a {}.", "{}"]
CLASSES = ["hen", "cup", "fire engine"]
TEXTS = [["hen, which has a red comb", "hen, which has two legs", "chicken"], ["cup"], ["fire engine", "fire truck"]]
COMBINE = ("mean", "similarity", "max")


@pytest.fixture(scope="module")
def openai(tmp_path_factory) -> str:
    """Random weights of a small public architecture of open_clip."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("open_clip") / "weights.pt"
    torch.save(open_clip.create_model("ViT-S-32-alt").state_dict(), path)
    return f"open_clip:ViT-S-32-alt/{path}"


@pytest.fixture(scope="module", params=["clip-tiny", "openai", "siglip_tiny"])
def clip(request):
    """One of each library, and the one that pads."""
    name = request.param
    return load(
        Config(name="clip", checkpoint=name if name == "clip-tiny" else request.getfixturevalue(name), loss="classification")
    )


def seen(clip) -> torch.Tensor:
    return torch.rand(4, 3, *clip.input["size"], generator=torch.Generator().manual_seed(0)) * 255


def written_out(clip, images: torch.Tensor, combine: str) -> torch.Tensor:
    """Of embeddings float32[B, D] the similarities float32[B, C], by the formula of each."""
    found = []
    for several in TEXTS:
        each = [clip.text_embedding([t.replace("{}", text) for t in TEMPLATES]) for text in several]  # K of [T, D], of length 1
        if combine == "similarity":  # Menon and Vondrick eq. 1: the mean of what a picture has in common with each
            found.append(torch.cat([images @ rows.T for rows in each], dim=1).mean(1))
            continue
        ensembles = torch.stack([F.normalize(rows.mean(0), dim=0) for rows in each])  # CLIP §3.1.4
        if combine == "mean":
            found.append(images @ F.normalize(ensembles.mean(0), dim=0))
        else:
            found.append((images @ ensembles.T).max(1).values)
    return torch.stack(found, dim=1)


@pytest.mark.parametrize("combine", COMBINE)
def test_class_logits_are_the_formula_written_out(clip, combine):
    clip.eval().set_classes(CLASSES, TEMPLATES, TEXTS, combine)
    with torch.no_grad():
        images = clip.image_embedding(seen(clip))
        similar = written_out(clip, images, combine)
        expected = clip.net.logit_scale.exp() * similar
        expected = expected + clip.net.logit_bias if clip.towers.sigmoid else expected
        torch.testing.assert_close(clip.predictors()["class_logits"](seen(clip)), expected, atol=2e-4, rtol=1e-5)
        if combine == "max":
            for asked in (clip.text_classifier, clip.fixed_classifier, lambda _: clip.new_head()):
                with pytest.raises(UserError, match=r"prompts\.combine: max .* no linear classifier.*Use mean or similarity"):
                    asked(TEMPLATES)
        else:
            torch.testing.assert_close(images @ clip.fixed_classifier(TEMPLATES).T, similar, atol=2e-6, rtol=1e-5)
        clip.set_classes(CLASSES, TEMPLATES)
        plain = images @ clip.fixed_classifier(TEMPLATES).T
    assert not torch.allclose(plain[:, 0], similar[:, 0], atol=1e-4), "the names alone are another question"


@pytest.mark.parametrize("combine", COMBINE)
def test_a_frozen_text_tower_learns_from_all_texts(siglip_tiny, combine):
    clip = load(Config(name="clip", checkpoint=siglip_tiny, loss="classification"))
    clip.set_classes(CLASSES, TEMPLATES, TEXTS, combine)
    for name, parameter in clip.net.named_parameters():
        parameter.requires_grad_(name.startswith("vision_model"))
    labels = torch.tensor([0, 1, 2, 0])
    loss, _ = clip.train()({"image": seen(clip), "label": labels})
    loss.backward()
    with torch.no_grad():
        logits = (
            clip.net.logit_scale.exp() * written_out(clip.eval(), clip.image_embedding(seen(clip)), combine)
            + clip.net.logit_bias
        )
    torch.testing.assert_close(loss.detach(), F.cross_entropy(logits, labels))
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in clip.parameters())


def test_a_learning_text_tower_reads_one_text_a_class_drawn_by_the_step(siglip_tiny):
    clip = load(Config(name="clip", checkpoint=siglip_tiny, loss="classification"))
    clip.set_classes(CLASSES, TEMPLATES, TEXTS, "max")
    read, tokenise = [], clip.towers.tokenise
    clip.towers.tokenise = lambda texts: (read.append(texts), tokenise(texts))[1]
    clip.train()({"image": seen(clip), "label": torch.tensor([0, 1, 2, 0])})  # finds out how many classes fit
    drawn = set()
    for seed in range(40):
        clip.begin(seed)
        read.clear()
        clip.train()({"image": seen(clip), "label": torch.tensor([0, 1, 2, 0])})
        ((first, second, third),) = read
        assert second in {"a photo of a cup.", "cup"}
        drawn |= {first, third}
    places = [template.replace("{}", text) for text in TEXTS[0] + TEXTS[2] for template in TEMPLATES]
    assert drawn == set(places), "in forty steps each text has stood in each template"


def test_the_draw_of_texts_is_the_seeds_and_leaves_plain_names_alone():
    assert words.one_each([["a"], ["b"]], [1, 0], 7) == ["b", "a"]
    texts = [[f"{c} {k}" for k in range(c % 4 + 1)] for c in range(50)]
    all_of = words.one_each(texts, range(50), 7)
    assert all_of == words.one_each(texts, range(50), 7) != words.one_each(texts, range(50), 8)
    assert words.one_each(texts, [40, 3], 7) == [all_of[40], all_of[3]], "whatever else a step sees"
    assert all(text in several for text, several in zip(all_of, texts, strict=True))


def test_random_words_average_the_similarities_of_thirty_texts():
    """WaffleCLIP: 15 pairs, the same for all classes, each a photo of the class; the mean of what a picture has in common with each."""
    clip = load(Config(name="clip", loss="classification")).eval()
    found = of_recipe(Prompts(templates=["A photo of a {}."], random={"seed": 4}, combine="similarity"), CLASSES)
    clip.set_classes(**found.told)
    with torch.no_grad():
        images = clip.image_embedding(seen(clip))
        per_class = [clip.text_embedding([t.replace("{}", name) for t in found.templates]) for name in CLASSES]
        expected = clip.net.logit_scale.exp() * torch.stack([(images @ rows.T).mean(1) for rows in per_class], dim=1)
        got = clip.predictors()["class_logits"](seen(clip))
    assert [rows.shape[0] for rows in per_class] == [30, 30, 30]
    torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-5)


def test_a_kept_classifier_is_that_of_its_texts(siglip_tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    clip = load(Config(name="clip", checkpoint=siglip_tiny, loss="classification")).eval()
    answers = {}
    for combine in COMBINE:
        for texts in (TEXTS, [[*TEXTS[0][:2], "rooster"], *TEXTS[1:]]):
            clip.set_classes(CLASSES, TEMPLATES, texts, combine)
            with torch.no_grad():
                answers[combine, texts[0][2]] = clip.predictors()["class_logits"](seen(clip))
    assert len(list((tmp_path / "cache" / "classifiers").iterdir())) == 6
    assert len({tuple(np.round(logits.flatten().tolist(), 6)) for logits in answers.values()}) == 6


def test_texts_that_the_tower_reads_in_part_are_told(clip, capsys):
    clip.set_classes(CLASSES, TEMPLATES)
    assert not capsys.readouterr().out
    long = "fire truck, which has " + "a ladder " * 60
    for texts, templates in ([[*TEXTS[:2], [long]], ["{}"]], [None, [f"{long}, as a {{}}", "a {}"]]):
        clip.set_classes(CLASSES, templates, texts)
        out = capsys.readouterr().out
        assert out.startswith(
            "prompts: texts are longer than the model reads, and are cut, such as 'fire truck, which has a ladder"
        )
        assert out.count("\n") == 1
