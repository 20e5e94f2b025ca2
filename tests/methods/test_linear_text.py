"""A head that starts from words: what it answers before a step, its λ, loss and gradient written out, and the whole road."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from scipy.special import softmax

from adapt import pipeline
from adapt.methods import few_labels, linear_text
from adapt.methods.linear_text.prototypes import Prototypes
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.train import loop

pytestmark = pytest.mark.usefixtures("fewer")

KINDS = ["clip-tiny", "siglip_tiny", "open_clip_tiny"]
FEW = ["data.shots=1", "data.unlabelled=[]", "distill=null", "export=[]", "tracker=none", "evals.0.bootstrap=100"]


def config(**options) -> linear_text.Config:
    return linear_text.Config(name="linear_text", **options)


def applied(family, rows, pictures, **options):
    """Features float32[N, D], and the head's module, after `apply` and `prepare`."""
    with torch.no_grad():
        features = family.image_embedding(pictures)
    linear_text.apply(family, config(**options), rows)
    linear_text.prepare(family, config(**options), rows, lambda views: features[None])
    return features, few_labels.placed(family, Prototypes)


@pytest.mark.parametrize("kind", KINDS)
def test_before_a_step_it_answers_as_zero_shot_does(kind, made, rows, images):
    family = made(kind)
    pictures = images(family)
    with torch.no_grad():
        expected = family.predictors()["class_logits"](pictures)
        features, _ = applied(family, rows, pictures)
        torch.testing.assert_close(family.predictors()["class_logits"](pictures), expected, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(family.feature_logits(features), expected, atol=1e-4, rtol=1e-5)
        assert family.penalty() == 0
    assert [name for name, value in family.named_parameters() if value.requires_grad] == ["learned.weight"]


@pytest.mark.parametrize("kind", KINDS)
def test_lambda_is_what_zero_shot_gives_to_the_right_class(kind, made, rows, images):
    family = made(kind)
    pictures, labels = images(family), np.array(rows["label"][:])
    with torch.no_grad():
        probabilities = softmax(family.predictors()["class_logits"](pictures).double().numpy(), axis=1)
    _, head = applied(family, rows, pictures, penalty=2.0)
    expected = [probabilities[labels == label, label].mean() for label in range(3)] + [1.0]  # nothing is known of the last
    np.testing.assert_allclose(head.hold.numpy(), 2 * np.array(expected), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_loss_and_gradient_are_those_of_the_formula(kind, made, rows, images):
    family = made(kind)
    pictures, labels = images(family), np.array(rows["label"][:])
    features, head = applied(family, rows, pictures)
    with torch.no_grad():
        head.weight += 0.1 * torch.randn(head.weight.shape, generator=torch.Generator().manual_seed(2))
    loss, _ = family({"image": pictures, "features": features, "label": torch.tensor(labels)})
    loss.backward()

    f, w, t = (value.detach().double().numpy() for value in (features, head.weight, head.texts))
    hold, scale = head.hold.double().numpy(), family.net.logit_scale.detach().double().exp().item()
    bias = family.net.logit_bias.item() if family.towers.sigmoid else 0.0
    length = np.linalg.norm(w, axis=1, keepdims=True)
    unit = w / length
    p = softmax(scale * f @ unit.T + bias, axis=1)
    own = np.arange(len(f)), labels
    assert loss.item() == pytest.approx(-np.log(p[own]).mean() + (hold * ((w - t) ** 2).sum(1)).sum(), rel=1e-4)
    p[own] -= 1
    along = p.T @ f / len(f)  # float64[C, D]; what points along w_c changes no logit
    expected = scale * (along - (along * unit).sum(1, keepdims=True) * unit) / length + 2 * hold[:, None] * (w - t)
    np.testing.assert_allclose(head.weight.grad.numpy(), expected, rtol=1e-3, atol=1e-4)


def test_without_penalty_it_is_a_plain_probe_that_starts_from_texts(made, rows, images):
    family = made()
    pictures, labels = images(family), torch.tensor(rows["label"][:])
    start, scale = family.fixed_classifier(family.templates), family.net.logit_scale.detach().exp()
    features, head = applied(family, rows, pictures, penalty=0)
    plain = torch.nn.Parameter(start.clone())
    for _ in range(5):
        for weight, loss in (
            (plain, F.cross_entropy(scale * features @ F.normalize(plain, dim=1).T, labels)),
            (head.weight, family({"image": pictures, "features": features, "label": labels})[0]),
        ):
            weight.grad = None
            loss.backward()
            with torch.no_grad():
                weight -= 0.1 * weight.grad
    torch.testing.assert_close(head.weight, plain)
    assert not torch.allclose(plain, start)


def test_a_firmer_hold_keeps_it_nearer_to_its_words(made, rows, images):
    def moved(hold: float) -> float:
        family = made()
        pictures = images(family)
        features, head = applied(family, rows, pictures)
        head.hold.fill_(hold)
        optimizer = torch.optim.SGD([head.weight], lr=0.01)
        for _ in range(50):
            optimizer.zero_grad()
            family({"image": pictures, "features": features, "label": torch.tensor(rows["label"][:])})[0].backward()
            optimizer.step()
        return (head.weight - head.texts).norm().item()

    assert moved(0) > 1.5 * moved(5)


def test_without_words_or_labels_it_is_refused_in_a_line(made):
    from adapt.models import dinov2

    with pytest.raises(UserError, match="this family has no text tower") as error:
        linear_text.apply(dinov2.load(dinov2.Config(name="dinov2", checkpoint="dinov2-tiny")), config())
    assert len(str(error.value).splitlines()) == 1
    family = made()
    family.set_classes([], ["{}"])
    with pytest.raises(UserError, match="needs labelled data"):
        linear_text.apply(family, config())


def test_it_is_trained_on_features_saved_killed_and_loaded_again(tmp_path, monkeypatch, capsys):
    own = ["method={name: linear_text}", "train={epochs: 6, cache_views: 3, batch: 32, validate_every: 2}", *FEW]
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("clip_lora", own)
    assert (recipe.train.optimizer, recipe.train.lr, recipe.train.cache) == ("sgd", 0.1, True)
    outcome = pipeline.finetune(recipe)
    assert pipeline.evaluate(recipe).entries == outcome.entries, (
        "what was saved answers as what was trained, without a training"
    )
    weights = (outcome.path / "adapter" / "weights.safetensors").read_bytes()

    step, count = loop._step, itertools.count(1)

    def dies(*given):
        if next(count) == 5:
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.chdir((tmp_path / "again").mkdir() or tmp_path / "again")
    monkeypatch.setattr(loop, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        pipeline.finetune(recipe)
    again = pipeline.finetune(recipe)
    assert "resumed at step" in capsys.readouterr().out
    assert (again.path / "adapter" / "weights.safetensors").read_bytes() == weights


def test_a_class_without_pictures_is_counted(tmp_path, monkeypatch, capsys):
    from adapt.verbs import finetune
    from adapt.verbs.session import Session

    session = Session(load_recipe("clip_lora", ["method={name: linear_text}", *FEW]))
    session.data["train"] = session.data["train"].filter(lambda label: label > 1, input_columns="label")
    session.apply_method()
    finetune.prepare(session)
    assert "2 classes of 49 without a training picture" in capsys.readouterr().out
    assert few_labels.placed(session.family, Prototypes).hold[:2].tolist() == [1, 1]


def test_rows_without_a_label_of_a_class_are_a_data_set(rows):
    assert few_labels.shots(rows) == 4
    assert few_labels.shots(Dataset.from_dict({"label": []})) == 1
