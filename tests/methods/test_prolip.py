"""ProLIP: what learns, its loss and gradient written out, and the whole road."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.special import softmax
from transformers import CLIPModel

from adapt import pipeline
from adapt.methods import prolip
from adapt.models.checkpoint import resolve
from adapt.plug import UserError
from adapt.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("fewer")

FEW = ["data.shots=1", "data.unlabelled=[]", "distill=null", "export=[]", "tracker=none", "evals.0.bootstrap=100"]


def config(**options) -> prolip.Config:
    return prolip.Config(name="prolip", **options)


@pytest.mark.parametrize("kind", ["clip-tiny", "open_clip_tiny"])
def test_before_a_step_it_answers_as_zero_shot_does_and_one_matrix_learns(kind, made, rows, images):
    family = made(kind)
    pictures = images(family)
    with torch.no_grad():
        expected = family.predictors()["class_logits"](pictures)
        prolip.apply(family, config(), rows)
        assert torch.equal(family.predictors()["class_logits"](pictures), expected)
        torch.testing.assert_close(family.feature_logits(family.frozen_features()(pictures)), expected, atol=1e-4, rtol=1e-5)
        assert family.penalty() == 0
    (learning,) = [value for value in family.parameters() if value.requires_grad]
    assert learning is family.slots.projection.weight


@pytest.mark.parametrize("kind", ["clip-tiny", "open_clip_tiny"])
def test_loss_and_gradient_are_those_of_the_formula(kind, made, rows, images):
    family = made(kind)
    pictures, labels = images(family), np.array(rows["label"][:])
    prolip.apply(family, config(), rows)
    weight = family.slots.projection.weight
    start = weight.detach().double().numpy()
    with torch.no_grad():
        features = family.frozen_features()(pictures)
        weight += 0.01 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    loss, _ = family({"image": pictures, "features": features, "label": torch.tensor(labels)})
    loss.backward()

    turned = kind == "open_clip_tiny"  # open_clip has it as float[W, D]
    f, w, t = (value.detach().double().numpy() for value in (features, weight, family.fixed_classifier(family.templates)))
    w, w0 = (w.T, start.T) if turned else (w, start)
    scale, hold = family.net.logit_scale.detach().double().exp().item(), 1 / 4  # of the first class there are four
    z = f @ w.T
    length = np.linalg.norm(z, axis=1, keepdims=True)
    unit = z / length
    p = softmax(scale * unit @ t.T, axis=1)
    own = np.arange(len(f)), labels
    assert loss.item() == pytest.approx(-np.log(p[own]).mean() + hold * ((w - w0) ** 2).sum(), rel=1e-4)
    p[own] -= 1
    towards = scale * p @ t / len(f)
    expected = ((towards - (towards * unit).sum(1, keepdims=True) * unit) / length).T @ f + 2 * hold * (w - w0)
    got = weight.grad.numpy()
    np.testing.assert_allclose(got.T if turned else got, expected, rtol=1e-3, atol=1e-5)


def test_the_penalty_is_the_users_or_one_by_shots(made, rows):
    for options, hold in (({}, 0.25), ({"penalty": 3.0}, 3.0), ({"penalty": 0.0}, 0.0)):
        family = made()
        prolip.apply(family, config(**options), rows)
        with torch.no_grad():
            family.slots.projection.weight[0, :2] += 2.0
        assert family.penalty().item() == pytest.approx(8 * hold)


def test_a_checkpoint_without_a_projection_is_refused_in_a_line(made, rows):
    with pytest.raises(UserError, match="this checkpoint has none") as error:
        prolip.apply(made("siglip_tiny"), config(), rows)
    assert len(str(error.value).splitlines()) == 1


def test_it_is_trained_on_all_pictures_at_once_saved_and_loaded_again(tmp_path):
    recipe = load_recipe("clip_lora", ["method={name: prolip}", "train={steps: 12, lr: 1e-3, cache_views: 0}", *FEW])
    assert (recipe.train.batch, recipe.train.weight_decay, recipe.train.cache) == ("all", 0, True)
    outcome = pipeline.finetune(recipe)
    rows = [json.loads(line) for line in (outcome.path / "history.jsonl").read_text().splitlines() if "loss" in line]
    assert [row["epoch"] for row in rows] == list(range(12)), "a step is an epoch"
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert pipeline.evaluate(recipe).entries == outcome.entries
    merged = CLIPModel.from_pretrained(pipeline.merge(recipe).path / "merged", dtype=torch.float32).state_dict()
    start = CLIPModel.from_pretrained(resolve("clip-tiny"), dtype=torch.float32).state_dict()
    assert [name for name in start if not torch.equal(merged[name], start[name])] == ["visual_projection.weight"]
