"""Linear evaluation against scikit-learn's logistic regression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset
from sklearn.linear_model import LogisticRegression

from adapt.evals import linear
from adapt.evals.linear import classifiers


def rows(labels, start: int = 0) -> Dataset:
    columns = {"id": [str(start + i) for i in range(len(labels))], "label": labels}
    return Dataset.from_dict(columns).cast_column("label", ClassLabel(names=[f"class {i}" for i in range(6)]))


def world(n: int = 1500, m: int = 900, d: int = 16, length: float | None = None):
    random = np.random.default_rng(1)
    labels = random.integers(0, 6, n + m)
    features = random.normal(size=(6, d))[labels] + 1.2 * random.normal(size=(n + m, d)) + 2
    if length:
        features *= length / np.linalg.norm(features, axis=1, keepdims=True)
    features = features.astype(np.float32)
    dataset, bank = rows(labels[:n]), rows(labels[n:], n)
    return dataset, bank, features


@pytest.mark.parametrize("length", [None, 1.0])
def test_within_a_point_of_logistic_regression(length):
    dataset, bank, features = world(length=length)
    asked = []

    def predict(part, name):
        asked.append(name)
        return features[[int(i) for i in part["id"]]]

    result = linear.evaluate(linear.Config(name="linear"), predict, dataset, {}, bank)
    best = 0
    for c in (0.01, 0.1, 1, 10, 100):
        theirs = LogisticRegression(C=c, max_iter=2000).fit(predict(bank, ""), bank["label"])
        best = max(best, theirs.score(predict(dataset, ""), dataset["label"]))
    assert result.metrics["linear"] > best - 0.01, (result.metrics, best)
    assert abs(result.metrics["linear"] - best) < 0.02
    assert asked[:2] == ["image_embedding"] * 2
    assert result.metrics["linear_lr"] in linear.Config(name="linear").lrs
    assert len(result.figures["linear"]["grid"]["embedding"]) == 19


def test_the_grid_in_one_pass_equals_torchs_sgd_alone():
    _, bank, features = world(n=0, m=64)
    config = linear.Config(name="linear", lrs=[0.1, 2.0], steps=7, batch=16)
    labels = np.array(bank["label"])
    weights, biases = classifiers.fit({"x": features}, labels, 6, config.lrs, config)["x"]
    for place, lr in enumerate(config.lrs):
        random = torch.Generator().manual_seed(config.seed)
        layer = torch.nn.Linear(16, 6)
        with torch.no_grad():
            layer.weight.copy_(torch.empty(16, 6).normal_(std=0.01, generator=random).T)
            layer.bias.zero_()
        optimizer = torch.optim.SGD(layer.parameters(), lr=lr * 16 / 256, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 7)
        order = torch.cat([torch.randperm(64, generator=random) for _ in range(2)])
        for step in range(7):
            chosen = order[16 * step : 16 * step + 16]
            loss = torch.nn.functional.cross_entropy(
                layer(torch.from_numpy(features)[chosen]), torch.from_numpy(labels)[chosen]
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        torch.testing.assert_close(weights[place].T, layer.weight, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(biases[place][0], layer.bias, atol=1e-5, rtol=1e-4)


def test_logits_do_not_depend_on_how_rows_are_split_into_blocks(monkeypatch):
    dataset, bank, features = world(n=200, m=300)
    predict = lambda part, name: features[[int(i) for i in part["id"]]]  # noqa: E731
    config = linear.Config(name="linear", steps=50)
    whole = linear.evaluate(config, predict, dataset, {}, bank)
    monkeypatch.setattr(classifiers, "BLOCK", 1000)
    parts = linear.evaluate(config, predict, dataset, {}, bank)
    assert parts.metrics == whole.metrics and parts.figures == whole.figures
    np.testing.assert_allclose(parts.table["confidence"], whole.table["confidence"], atol=1e-6)


def test_inputs_are_one_and_four_blocks_with_and_without_the_mean():
    features = np.arange(2 * 5 * 3, dtype=np.float32).reshape(2, 5, 3)
    got = classifiers.inputs(features)
    assert list(got) == ["1 block", "1 block + mean", "4 blocks", "4 blocks + mean"]
    assert np.array_equal(got["1 block"], features[:, 3])
    assert np.array_equal(got["1 block + mean"], np.concatenate([features[:, 3], features[:, 4]], 1))
    assert np.array_equal(got["4 blocks"], features[:, :4].reshape(2, -1))
    assert np.array_equal(got["4 blocks + mean"], features.reshape(2, -1))
    assert list(classifiers.inputs(features[:, 3:])) == ["1 block", "1 block + mean"], "a student has one"


def test_the_input_that_knows_the_classes_is_chosen():
    random = np.random.default_rng(0)
    dataset, bank, known = world(n=200, m=200)
    blocks = random.normal(size=(400, 5, 16)).astype(np.float32)
    blocks[:, 4] = known  # only the mean of the patches tells
    predict = lambda part, name: {"block_features": blocks}[name][[int(i) for i in part["id"]]]  # noqa: E731
    config = linear.Config(name="linear", features="blocks", steps=300)
    result = linear.evaluate(config, predict, dataset, {}, bank)
    assert result.figures["linear"]["input"].endswith("+ mean")
    assert result.metrics["linear"] > 0.5


def test_what_has_no_blocks_is_measured_by_its_embedding():
    dataset, bank, features = world(n=50, m=200)
    predict = lambda part, name: {"image_embedding": features}[name][[int(i) for i in part["id"]]]  # noqa: E731
    result = linear.evaluate(linear.Config(name="linear", features="blocks", steps=20), predict, dataset, {}, bank)
    assert result.protocol["features"] == "embedding"
    assert result.figures["linear"]["input"] == "embedding"


def test_held_out_rows_are_of_every_class_and_never_all():
    labels = np.repeat(np.arange(6), [50, 10, 3, 2, 1, 1])
    held = classifiers.holdout(labels, 0.2, 0)
    assert [int(held[labels == c].sum()) for c in range(6)] == [10, 2, 1, 0, 0, 0]
    for seed in range(20):
        held = classifiers.holdout(np.repeat(np.arange(6), [2, 2, 2, 2, 1, 1]), 0.2, seed)
        assert held.sum() == 2 and set(np.repeat(np.arange(6), [2, 2, 2, 2, 1, 1])[~held]) == set(range(6))
    assert not classifiers.holdout(np.arange(4), 0.2, 0).any(), "no class can spare its only row"


def test_of_a_picture_a_class_the_same_rows_learn_and_choose():
    dataset, bank, features = world(n=300, m=300)
    labels = np.array(bank["label"])
    shot = bank.select([int(np.flatnonzero(labels == c)[0]) for c in range(6)])
    config = linear.Config(name="linear", steps=200)
    result = linear.evaluate(config, lambda part, name: features[[int(i) for i in part["id"]]], dataset, {}, shot)
    grid = result.figures["linear"]["grid"]["embedding"]
    assert result.metrics["linear_holdout"] == max(grid) == 1 and min(grid) < 1
    assert result.metrics["linear_lr"] == config.lrs[grid.index(1)] > min(config.lrs)


def test_a_rate_that_bursts_does_not_win():
    dataset, bank, features = world(n=200, m=200)
    config = linear.Config(name="linear", lrs=[0.1, 1e30], steps=50)
    result = linear.evaluate(config, lambda part, name: features[[int(i) for i in part["id"]]], dataset, {}, bank)
    assert result.metrics["linear_lr"] == 0.1


def test_a_tie_with_another_class_is_no_hit():
    dataset, bank, _ = world(n=100, m=100)
    config = linear.Config(name="linear", lrs=[0.0], steps=1)  # nothing is learnt, and all logits are zero
    result = linear.evaluate(config, lambda part, name: np.zeros((len(part), 16), np.float32), dataset, {}, bank)
    assert (result.metrics["linear"], result.metrics["linear_holdout"]) == (0, 0)
    assert not any(result.table["correct"]) and 0 < result.floor < 1


def test_it_learns_in_single_precision_under_autocast():
    dataset, bank, features = world(n=100, m=100)

    def measure():
        config = linear.Config(name="linear", steps=50)
        return linear.evaluate(config, lambda part, name: features[[int(i) for i in part["id"]]], dataset, {}, bank)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = measure()
    assert inside.table == measure().table
