"""Tip-Adapter: logits, gradient and search written out in numpy, and the whole road with and without a training."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from scipy.special import log_softmax, softmax

from adapt import pipeline
from adapt.methods import few_labels, tip_adapter
from adapt.methods.tip_adapter.cache import Cache
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.train import loop
from adapt.verbs import features, finetune
from adapt.verbs.session import Session
from adapt.vision.augment import augment, view_seed

KINDS = ["clip-tiny", "siglip_tiny", "open_clip_tiny"]
FEW = ["data.shots=2", "data.unlabelled=[]", "distill=null", "export=[]", "tracker=none", "evals.0.bootstrap=100"]


def config(**options) -> tip_adapter.Config:
    return tip_adapter.Config(name="tip_adapter", **options)


def applied(family, rows, pictures, **options):
    """Embeddings of the rows' two views float32[2, N, D], and the head's module, after `apply` and `prepare`."""
    with torch.no_grad():
        views = torch.stack([family.image_embedding(pictures), family.image_embedding(pictures.flip(3))])
    tip_adapter.apply(family, config(**options), rows)
    tip_adapter.prepare(family, config(**options), rows, lambda count: views)
    return views, few_labels.placed(family, Cache)


def numbers(family, cache):
    """float64: words [C, D], keys [N, D], one-hot values [N, C], scale and bias."""
    words, keys = (value.detach().double().numpy() for value in (cache.words, cache.keys))
    bias = family.net.logit_bias.item() if family.towers.sigmoid else 0.0
    return words, keys, np.eye(len(words))[cache.values.numpy()], family.net.logit_scale.detach().double().exp().item(), bias


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_formula(kind, made, rows, images):
    family = made(kind)
    pictures = images(family)
    views, cache = applied(family, rows, pictures, alpha=2.5, beta=3.0)
    words, keys, values, scale, bias = numbers(family, cache)
    mean = views.double().numpy().mean(0)
    np.testing.assert_allclose(keys, mean / np.linalg.norm(mean, axis=1, keepdims=True), atol=1e-6)
    with torch.no_grad():
        f = family.image_embedding(pictures.flip(2)).double().numpy()
        got = family.predictors()["class_logits"](pictures.flip(2)).numpy()
    # eq. 6 of the paper, whose zero-shot logits are 100 times the cosine
    paper = 100 * f @ words.T + 2.5 * np.exp(-3.0 * (1 - f @ keys.T)) @ values
    np.testing.assert_allclose(got - bias, scale / 100 * paper, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_with_alpha_of_zero_it_is_zero_shot_exactly(kind, made, rows, images):
    family = made(kind)
    pictures = images(family)
    with torch.no_grad():
        expected = family.predictors()["class_logits"](pictures)
        applied(family, rows, pictures, alpha=0)
        assert torch.equal(family.predictors()["class_logits"](pictures), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_the_keys_is_that_of_the_formula(kind, made, rows, images):
    family = made(kind)
    pictures, labels = images(family), np.array(rows["label"][:])
    views, cache = applied(family, rows, pictures, tuned=True, beta=2.0)
    assert [name for name, value in family.named_parameters() if value.requires_grad] == ["head.keys"]
    loss, _ = family({"image": pictures, "features": views[0], "label": torch.tensor(labels)})
    loss.backward()
    words, keys, values, scale, bias = numbers(family, cache)
    f, alpha = views[0].double().numpy(), 1.17 * scale / 100
    alike = np.exp(-2.0 * (1 - f @ keys.T))
    logits = scale * f @ words.T + bias + alpha * alike @ values
    own = np.arange(len(f)), labels
    assert loss.item() == pytest.approx(-log_softmax(logits, axis=1)[own].mean(), rel=1e-4)
    wrong = softmax(logits, axis=1)
    wrong[own] -= 1
    expected = (alpha * 2.0 * alike * (wrong @ values.T)).T @ f / len(f)
    np.testing.assert_allclose(cache.keys.grad.numpy(), expected, rtol=1e-3, atol=1e-6)


def test_the_search_takes_the_best_of_the_grid_and_the_start_where_none_is_better(made, rows, images):
    family = made()
    pictures = images(family, 9)
    views, cache = applied(family, rows, pictures)
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 40)
    noise = torch.tensor(random.normal(size=(40, views.shape[2])), dtype=torch.float32) * 0.05
    asked = F.normalize(views[0][[list(rows["label"][:]).index(label) for label in labels]] + noise, dim=1)
    words, keys, values, scale, _ = numbers(family, cache)
    f = asked.double().numpy()

    def judged(alpha: float, beta: float) -> tuple[int, float]:
        logits = scale / 100 * (100 * f @ words.T + alpha * np.exp(-beta * (1 - f @ keys.T)) @ values)
        return (logits.argmax(1) == labels).sum(), log_softmax(logits, axis=1)[np.arange(40), labels].mean()

    grid = list(itertools.product(0.1 + np.arange(200) * 49.9 / 200, 0.1 + np.arange(20) * 49.9 / 20))
    best = max(judged(alpha, beta) for beta, alpha in grid)
    chosen = tip_adapter.search(family, config(), asked, torch.tensor(labels))
    found = judged(**chosen)
    assert found[0] == best[0] >= judged(1.17, 1.0)[0] and found[1] == pytest.approx(best[1], abs=1e-3)
    assert (cache.alpha.item(), cache.beta.item()) == pytest.approx((chosen["alpha"], chosen["beta"]))
    with torch.no_grad():
        cache.keys.zero_()  # every class's pictures weigh alike for all: the grid has nothing better to offer
        cache.values.fill_(3)
        cache.alpha.fill_(0)
    right = torch.tensor((scale * f @ words[:3].T).argmax(1))
    assert tip_adapter.search(family, config(), asked, right)["alpha"] == 0


def test_few_pictures_of_each_class_are_drawn_by_the_seed():
    labels = [0] * 5 + [1] * 3 + [2]
    drawn = [finetune.few(labels, 2, seed) for seed in range(20)]
    assert all(sorted(labels[row] for row in rows) == [0, 0, 1, 1, 2] and rows == sorted(rows) for rows in drawn)
    assert len({tuple(rows) for rows in drawn}) > 5
    assert finetune.few(labels, 2, 3) == drawn[3]


def test_keys_are_of_ten_random_views_and_the_search_is_on_validation_alone(tmp_path, monkeypatch, capsys):
    session = Session(load_recipe("clip_lora", ["method={name: tip_adapter}", *FEW, "data.shots=1"]))
    session.apply_method()
    asked, real = [], features.table

    def told(session, split, views=0, rows=None):
        asked.append((split, views, None if rows is None else len(rows)))
        return real(session, split, views, rows)

    monkeypatch.setattr(features, "table", told)
    finetune.prepare(session)
    family, rows = session.family.eval(), session.data["train"]
    picture = family.preprocess(rows[7], False)["image"][None].float()
    seen = [augment(picture, torch.tensor([view_seed(0, view, 7)]), session.recipe.train.augment) for view in range(10)]
    with torch.no_grad():
        expected = F.normalize(family.image_embedding(torch.cat(seen)).mean(0), dim=0)
    torch.testing.assert_close(few_labels.placed(family, Cache).keys[7], expected, atol=1e-5, rtol=1e-4)
    chosen = finetune.search(session)["chosen"]
    labels = session.data["validation"]["label"][:]
    few = len(set(labels))
    assert asked == [("train", 10, None), ("validation", 0, few)]
    assert f"alpha {chosen['alpha']:.3g}, beta {chosen['beta']:.3g}, by {few} validation pictures, 1 of a class" in (
        capsys.readouterr().out
    )


def test_without_a_training_it_is_measured_saved_and_loaded_again(tmp_path, monkeypatch, capsys):
    recipe = load_recipe("clip_lora", ["method={name: tip_adapter, views: 3}", *FEW])
    outcome = pipeline.finetune(recipe)
    before, after = outcome.entries
    assert after["metrics"]["top1"] > before["metrics"]["top1"]
    assert after["notes"][0] == "nothing of it was trained." and "chosen on validation: alpha" in after["notes"][1]
    assert not (outcome.path / "history.jsonl").exists() and (outcome.path / "report.html").exists()
    stage = json.loads((outcome.path / "manifest.json").read_text())["stages"]["finetune"]
    state = load_file(outcome.path / "adapter" / "weights.safetensors")
    assert state["head.keys"].shape[0] == len(state["head.values"])
    assert stage["chosen"]["alpha"] == pytest.approx(state["head.alpha"].item())
    assert stage["chosen"]["beta"] == pytest.approx(state["head.beta"].item())
    monkeypatch.setattr(features, "table", lambda *given: pytest.fail("what is saved needs no picture"))
    assert pipeline.evaluate(recipe).entries == outcome.entries
    with pytest.raises(UserError, match="method 'tip_adapter' with these options has no training"):
        pipeline.finetune(recipe, extend=1)


def test_tuned_keys_learn_and_a_killed_training_goes_on_bit_for_bit(tmp_path, monkeypatch):
    own = ["method={name: tip_adapter, tuned: true, views: 2}", "train={epochs: 5, batch: 32, cache_views: 2}", "evals=[]"]
    recipe = load_recipe("clip_lora", [*own, *FEW[:-1]])
    assert (recipe.train.eps, recipe.train.lr, recipe.train.cache) == (1e-4, 1e-3, True)

    def weights() -> bytes:
        return (pipeline.finetune(recipe).path / "adapter" / "weights.safetensors").read_bytes()

    whole = weights()
    step, count = loop._step, itertools.count(1)

    def dies(*given):
        if next(count) == 8:
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.chdir((tmp_path / "again").mkdir() or tmp_path / "again")
    monkeypatch.setattr(loop, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        pipeline.finetune(recipe)
    assert weights() == whole
