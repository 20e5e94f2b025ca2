"""Metrics against scikit-learn and the formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import ClassLabel, Dataset
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

from adapt.evals import _metrics, retrieval, zeroshot
from adapt.evals._result import differing

NAMES = [f"class {i}" for i in range(6)]


def data(n: int = 300):
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, n)  # the sixth class never occurs
    logits = random.normal(size=(n, 6)).astype(np.float32)
    logits[np.arange(n), labels] += 1.5
    rows = Dataset.from_dict(
        {"id": [str(i) for i in range(n)], "label": labels, "caption": [f"thing {i % 7}" for i in range(n)]}
    )
    return rows.cast_column("label", ClassLabel(names=NAMES)), labels, logits


@pytest.mark.parametrize(("classes", "top", "expected"), [(2, 5, 1), (3, 5, 1), (3, 3, 1), (2, 1, 0.5), (3, 1, 0.5)])
def test_among_as_many_as_there_are_every_answer_is_right(classes, top, expected, recwarn):
    logits = np.eye(classes)[[0, 0]]
    metric = _metrics.Classification().compute(predictions=_metrics.softmax(logits), references=[0, 1], top=top)
    assert metric[f"top{top}"] == expected and metric["top1"] == 0.5
    assert not [warning for warning in recwarn if "n_classes" in str(warning.message)]


def test_metrics_equal_scikit_learn_and_the_formulas():
    rows, labels, logits = data()
    result = zeroshot.evaluate(zeroshot.Config(name="zeroshot", top=3), lambda _: logits, rows, {"data": "x"})
    probabilities = softmax(logits.astype(float), axis=1)
    best = probabilities.argmax(1)
    assert np.isclose(result.metrics["top1"], accuracy_score(labels, best))
    assert np.isclose(result.metrics["top3"], top_k_accuracy_score(labels, probabilities, k=3, labels=range(6)))
    assert np.isclose(result.metrics["nll"], log_loss(labels, probabilities, labels=range(6)))
    recalls = [(best[labels == c] == c).mean() for c in range(5)]
    assert np.isclose(result.metrics["mean_per_class"], np.mean(recalls))
    assert np.array(result.figures["confusion"]).sum() == 300
    assert result.figures["confusion"][2][3] == ((labels == 2) & (best == 3)).sum()
    assert np.allclose(result.table["confidence"], probabilities.max(1))
    low, high = result.intervals["top1"]
    assert low < result.metrics["top1"] < high
    assert result.table["correct"] == (best == labels).tolist()


def test_ece_is_guos_formula():
    probabilities = np.array([[0.95, 0.05], [0.91, 0.09], [0.3, 0.7], [0.45, 0.55]])
    labels = np.array([0, 1, 1, 0])
    # bins of width .1: (.9, 1]: confidence .93, accuracy .5; (.6, .7]: .7 and 1; (.5, .6]: .55 and 0
    expected = 2 / 4 * abs(0.93 - 0.5) + 1 / 4 * abs(0.7 - 1) + 1 / 4 * abs(0.55 - 0)
    assert np.isclose(_metrics.calibration_error(_metrics.reliability(probabilities, labels, 10)), expected)


def test_bootstrap_interval_has_the_normal_approximations_width():
    values = np.random.default_rng(1).random(2000)
    low, high = _metrics.bootstrap(values, 2000)
    assert np.isclose((high - low) / 2, 1.96 * values.std() / np.sqrt(2000), rtol=0.1)


def test_a_paired_difference_is_narrower_than_two_intervals():
    random = np.random.default_rng(0)
    before = random.random(500) < 0.5
    after = before | (random.random(500) < 0.1)
    delta, low, high = _metrics.difference(before, after)
    assert np.isclose(delta, after.mean() - before.mean())
    assert low > 0, "a gain on every changed sample is a sure gain"
    assert high - low < 0.06


def test_retrieval_counts_the_ranks_of_the_own_caption():
    rows, _, _ = data(14)
    names = list(dict.fromkeys(rows["caption"]))
    scores = np.zeros((14, 7), np.float32)
    for i, caption in enumerate(rows["caption"]):
        scores[i, names.index(caption)] = 2 if i < 7 else 0.5
        scores[i, (names.index(caption) + 1) % 7] = 1
    result = retrieval.evaluate(
        retrieval.Config(name="retrieval"), lambda _, texts: scores if texts == names else None, rows, {}
    )
    assert result.metrics == {"r1": 0.5, "r5": 1.0}


def test_protocols_that_differ_say_where():
    a, b = {"split": "test", "templates": ["{}"]}, {"split": "test", "templates": ["a {}"]}
    assert differing(a, b) == ["templates"]
    assert differing(a, dict(a)) == []
