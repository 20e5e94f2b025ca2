"""kNN against scikit-learn's, with the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from adapt.evals import feature_bank, knn
from adapt.evals.knn import neighbours
from adapt.plug import UserError

NAMES = [f"class {i}" for i in range(6)]


def rows(labels, start: int = 0) -> Dataset:
    columns = {"id": [str(start + i) for i in range(len(labels))], "label": labels}
    return Dataset.from_dict(columns).cast_column("label", ClassLabel(names=NAMES))


def world(n: int = 400, m: int = 300, d: int = 12):
    random = np.random.default_rng(0)
    labels = random.integers(0, 6, n + m)
    centres = random.normal(size=(6, d))
    features = (centres[labels] + 1.3 * random.normal(size=(n + m, d))).astype(np.float32) * random.uniform(1, 9, (n + m, 1))
    features = features.astype(np.float32)
    dataset, bank = rows(labels[:n]), rows(labels[n:], n)
    return dataset, bank, lambda asked, name: features[[int(i) for i in asked["id"]]] if name == "image_embedding" else None


@pytest.mark.parametrize("k", [1, 10, 20, 100, 200])
def test_votes_equal_scikit_learns_with_the_same_weights(k):
    dataset, bank, predict = world()
    result = knn.evaluate(knn.Config(name="knn", k=k), predict, dataset, {"data": "x"}, bank)
    theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
    theirs.fit(predict(bank, "image_embedding").astype(np.float64), bank["label"])
    probabilities = theirs.predict_proba(predict(dataset, "image_embedding").astype(np.float64))
    assert result.metrics["knn"] == np.mean(probabilities.argmax(1) == np.array(dataset["label"]))
    np.testing.assert_allclose(result.table["confidence"], probabilities.max(1), atol=1e-9)
    assert set(result.metrics) >= {"knn@10", "knn@20", "knn@100", "knn@200"}
    assert result.metrics[f"knn@{k}"] == result.metrics["knn"]
    assert result.protocol["bank"] == 300
    assert result.protocol["temperature"] == 0.07


def test_k_beyond_the_bank_is_left_out_and_counts_all():
    dataset, bank, predict = world(m=30)
    metrics = knn.evaluate(knn.Config(name="knn"), predict, dataset, {}, bank).metrics
    assert set(metrics) == {"knn", "knn_mean_per_class", "knn@10", "knn@20"}
    assert "knn@50" in knn.evaluate(knn.Config(name="knn", k=50), predict, dataset, {}, bank).metrics


def test_a_row_does_not_vote_for_itself():
    _, bank, predict = world()
    with_itself = knn.vote(*[predict(bank, "image_embedding")] * 2, np.array(bank["label"]), 6, [1], 0.07)[1]
    assert (with_itself.argmax(1) == bank["label"]).all(), "each picture is its own nearest"
    assert knn.evaluate(knn.Config(name="knn", k=1), predict, bank, {}, bank).metrics["knn"] < 0.95


def test_a_row_of_another_split_votes_though_its_id_is_the_same():
    dataset, bank, predict = world()
    numbered = rows(bank["label"][:])  # from 0, as the measured rows are
    embedded = {id(dataset): predict(dataset, "image_embedding"), id(numbered): predict(bank, "image_embedding")}
    asked = {"config": knn.Config(name="knn"), "dataset": dataset, "protocol": {}}
    same = knn.evaluate(predict=lambda part, name: embedded[id(part)], bank=numbered, **asked)
    own = knn.evaluate(predict=predict, bank=bank, **asked)
    assert same.metrics == own.metrics and same.table == own.table


def double(queries, bank, wide: int, itself):
    """The nearest rows by double precision alone."""
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, bank)]
    cosines = unit[0] @ unit[1].T
    cosines[np.flatnonzero(itself >= 0), itself[itself >= 0]] = -np.inf
    return np.sort(cosines, axis=1)[:, ::-1][:, :wide].round(neighbours.DIGITS)


@pytest.mark.parametrize("apart", [1.0, 1e-5, 1e-8, 0.0])
def test_what_single_precision_cannot_tell_is_looked_at_again(apart):
    """Rows that lie nearer to each other than single precision sees still have the order of double precision."""
    random = np.random.default_rng(0)
    bank = np.ones((300, 24)) + apart * random.normal(size=(300, 24))
    queries, itself = bank[:40] + 1e-3 * random.normal(size=(40, 24)), np.where(np.arange(40) % 2, np.arange(40), -1)
    near, cosines = neighbours.Bank(bank).nearest(queries, 5, itself)
    np.testing.assert_allclose(cosines, double(queries, bank, 6, itself), atol=2e-12)
    assert not (near == itself[:, None]).any()
    every = np.stack(list(neighbours.Bank(bank).all_of(queries, itself)))
    np.testing.assert_allclose(np.take_along_axis(every, near, 1), cosines, atol=2e-12)


def test_coarser_products_are_looked_at_again_too(monkeypatch):
    """With TF32 or bfloat16 the candidates are others; what is uncertain then is computed in double precision."""
    random = np.random.default_rng(0)
    bank, queries, none = random.normal(size=(300, 24)), random.normal(size=(40, 24)), np.full(40, -1)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    coarse = neighbours.Bank(bank)
    coarse.single = coarse.single.bfloat16().float()
    _, cosines = coarse.nearest(queries, 20, none)
    np.testing.assert_allclose(cosines, double(queries, bank, 21, none), atol=2e-12)


def test_shares_do_not_depend_on_how_rows_are_split_into_blocks(monkeypatch):
    dataset, bank, predict = world()
    given = [predict(dataset, "image_embedding"), predict(bank, "image_embedding"), np.array(bank["label"]), 6, [3, 50], 0.07]
    whole = knn.vote(*given)
    monkeypatch.setattr(knn, "BLOCK", 100)
    monkeypatch.setattr(neighbours, "BLOCK", 1000)
    parts = knn.vote(*given)
    for k in (3, 50):
        np.testing.assert_allclose(parts[k], whole[k], atol=2e-12)


def test_long_similarities_do_not_overflow():
    one = np.eye(3, dtype=np.float32)
    shares = knn.vote(one, one, np.arange(3), 3, [3], 1e-4)[3]
    np.testing.assert_allclose(shares, np.eye(3), atol=1e-12)


def test_what_is_lacking_is_said():
    dataset, bank, predict = world(30, 30)
    with pytest.raises(UserError, match="bank_split: train"):
        knn.evaluate(knn.Config(name="knn"), predict, dataset, {})
    with pytest.raises(UserError, match="bank_split has none"):
        knn.evaluate(knn.Config(name="knn"), predict, dataset, {}, bank.remove_columns("label"))


def test_colours_are_the_first_three_principal_components():
    features = np.random.default_rng(0).normal(size=(3, 8, 4, 5)) * np.array([9, 5, 3, 1, 1, 1, 1, 1])[None, :, None, None]
    colours = feature_bank.pca_colours(features)
    assert colours.shape == (3, 4, 5, 3)
    assert colours.dtype == np.uint8
    parts = PCA(3).fit_transform(features.transpose(0, 2, 3, 1).reshape(-1, 8))
    for c in range(3):
        low, high = np.percentile(parts[:, c], [2, 98])
        stretched = 255 * np.clip((parts[:, c] - low) / (high - low), 0, 1)
        ours = colours[..., c].ravel().astype(float)
        assert min(np.abs(ours - stretched).max(), np.abs(255 - ours - stretched).max()) <= 1


def test_pictures_show_an_image_beside_its_features():
    random = np.random.default_rng(0)
    dataset, bank, embed = world(30, 30)
    images = [Image.fromarray(random.integers(0, 256, (20, 30, 3), np.uint8)) for _ in range(30)]
    columns = {"id": dataset["id"][:], "label": dataset["label"][:], "image": images}
    dataset = Dataset.from_dict(columns).cast_column("label", ClassLabel(names=NAMES))

    def predict(asked, name):
        return embed(asked, name) if name == "image_embedding" else random.normal(size=(len(asked), 8, 4, 4))

    pictures = knn.evaluate(knn.Config(name="knn", pictures=5), predict, dataset, {}, bank).pictures
    assert len(pictures) == 5
    assert all(picture.size == (260, 128) and "PCA" in caption for caption, picture in pictures)

    def poor(asked, name):
        if name != "image_embedding":
            raise UserError("no such predictor")
        return embed(asked, name)

    assert knn.evaluate(knn.Config(name="knn", pictures=5), poor, dataset, {}, bank).pictures == []


def test_a_vote_tied_with_another_class_is_not_right():
    bank, labels = np.eye(2), np.array([0, 1])
    shares = knn.vote(np.array([[1.0, 1.0]]), bank, labels, 2, [2], 0.07)[2]
    assert shares.tolist() == [[0.5, 0.5]]
    for truth in (0, 1):
        dataset, stored = rows([truth]), rows([0, 1], 1)
        predict = lambda part, name: np.array([[1.0, 1.0]]) if len(part) == 1 else bank  # noqa: E731
        result = knn.evaluate(knn.Config(name="knn", k=2, also=[]), predict, dataset, {}, stored)
        assert result.metrics["knn"] == 0 and result.table["correct"] == [False]
        assert result.table["prediction"] == [NAMES[1 - truth]]


@pytest.mark.parametrize("k", [1, 3, 7])
def test_of_equally_near_rows_none_comes_first(k):
    """Whatever the bank's order, rows that are as near as the last neighbour share the seats that are left."""
    random = np.random.default_rng(0)
    near = np.array([[1.0, 0.2, 0], [1, 0, 0.2], [1, -0.2, 0], [1, 0, -0.2], [1.0, 0, 0], [0, 1, 0]])
    bank, labels = np.repeat(near, 3, 0), random.integers(0, 4, 18)
    query = np.array([[1.0, 0, 0]])
    cosines = (bank / np.linalg.norm(bank, axis=1, keepdims=True))[:, 0].round(12)
    weights = np.exp((cosines - 1) / 0.07)
    every = []  # the mean over all orders, by drawing many
    for _ in range(4000):
        order = random.permutation(18)
        chosen = order[np.argsort(-cosines[order], kind="stable")][:k]
        every.append(np.bincount(labels[chosen], weights[chosen], 4))
    expected = np.mean(every, 0) / np.mean(every, 0).sum()
    for _ in range(3):
        order = random.permutation(18)
        shares = knn.vote(query, bank[order], labels[order], 4, [k, 18], 0.07)
        np.testing.assert_allclose(shares[k][0], expected, atol=0.02)
        np.testing.assert_allclose(shares[18][0], np.bincount(labels, weights, 4) / weights.sum(), atol=1e-9)


@pytest.mark.parametrize("order", [1, -1])
def test_an_embedding_that_has_collapsed_knows_at_most_the_largest_class(order):
    labels = sorted(
        np.random.default_rng(0).integers(0, 6, 300), reverse=order < 0
    )  # the first rows of the bank are of one class
    dataset, bank = rows([0, 5] * 20), rows(labels, 40)
    result = knn.evaluate(knn.Config(name="knn"), lambda part, name: np.ones((len(part), 8)), dataset, {}, bank)
    assert set(result.table["prediction"]) == {NAMES[np.bincount(labels).argmax()]}
    even = rows(np.repeat(np.arange(6), 50), 40)
    none = knn.evaluate(knn.Config(name="knn"), lambda part, name: np.ones((len(part), 8)), dataset, {}, even)
    assert {value for name, value in none.metrics.items()} == {0.0}
    assert none.floor == 0.5
