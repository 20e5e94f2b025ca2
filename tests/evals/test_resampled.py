"""Metrics of resampled pictures: each against the metric itself of the pictures that were drawn, written out."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from adapt.evals import bootstrap, by_set, resampled
from adapt.evals.bootstrap import draws
from adapt.measures import METRICS

COUNT = 90
RANDOM = np.random.default_rng(0)
LABELS = RANDOM.integers(0, 6, COUNT)
ANSWERS = np.where(RANDOM.random(COUNT) < 0.5, LABELS, RANDOM.integers(0, 9, COUNT))  # some are no label
RANKS = np.where(LABELS == ANSWERS, 0, RANDOM.integers(1, 8, COUNT))
GROUPS = np.array(["east", "west", None], object)[RANDOM.integers(0, 3, COUNT)]
SCORES, TRUTH = RANDOM.normal(size=(COUNT, 4)), RANDOM.random((COUNT, 4)) < [0.2, 0.4, 0.1, 0.0]
TRUTH[:, 2] &= np.arange(COUNT) > COUNT - 15  # so few that not every resample has one
TEXTS = RANDOM.integers(0, 4, COUNT)
FOUND = RANDOM.binomial(TEXTS, 0.4)
CANDIDATES, JACCARD = RANDOM.choice([5, 10, 12], COUNT), RANDOM.random(COUNT)
HITS = RANDOM.random((COUNT, 3)) < 0.5
TABLE = {
    "label": [f"class {i}" for i in LABELS],
    "prediction": [f"class {i}" for i in ANSWERS],
    "correct": (LABELS == ANSWERS).tolist(),
    "rank": RANKS.tolist(),
    "group": GROUPS.tolist(),
    "scores": SCORES.tolist(),
    "truth": TRUTH.tolist(),
    "texts": TEXTS.tolist(),
    "texts_found": FOUND.tolist(),
    "candidates": CANDIDATES.tolist(),
    "jaccard": JACCARD.tolist(),
    "hits": HITS.astype(int).tolist(),
    "text": HITS[:, 0].tolist(),
    "image": HITS[:, 1].tolist(),
    "corrupted": JACCARD.tolist(),
    "clean": HITS[:, 0].tolist(),
}
RIGHT = LABELS == ANSWERS


def least(rows: np.ndarray, right: np.ndarray) -> float:
    kept = [row for row in rows if GROUPS[row] is not None]
    return by_set.worst(by_set.group_means(right[kept], GROUPS[kept].tolist()))[1]


def precision(rows: np.ndarray, scores=SCORES, truth=TRUTH) -> float:
    """scikit-learn's, of pictures that count as often as they were drawn; 0 for a class without any in the data."""
    drawn = [k for k in range(truth.shape[1]) if truth[rows, k].any()]
    never = truth.shape[1] - truth.any(0).sum()
    return sum(average_precision_score(truth[rows, k], scores[rows, k]) for k in drawn) / (len(drawn) + never)


OF_ROWS = {
    "top1": lambda rows: RIGHT[rows].mean(),
    "top5": lambda rows: (RANKS[rows] < 5).mean(),
    "mean_per_class": lambda rows: balanced_accuracy_score(LABELS[rows], ANSWERS[rows]),
    "f1_macro": lambda rows: by_set.macro_f1(LABELS[rows], ANSWERS[rows]),
    "worst_group": lambda rows: least(rows, RIGHT),
    "top5_worst_group": lambda rows: least(rows, RANKS < 5),
    "template_mean": lambda rows: HITS[rows].mean(),
    "corrupted_top1": lambda rows: JACCARD[rows].mean(),
    "retained": lambda rows: JACCARD[rows].sum() / HITS[rows, 0].sum(),
    "map": precision,
    "r1": lambda rows: RIGHT[rows].mean(),
    "text_r1": lambda rows: FOUND[rows].sum() / TEXTS[rows].sum(),
    "mean_r1": lambda rows: (RIGHT[rows].mean() + FOUND[rows].sum() / TEXTS[rows].sum()) / 2,
    "choice": lambda rows: RIGHT[rows].mean(),
    "text_score": lambda rows: HITS[rows, 0].mean(),
    "image_score": lambda rows: HITS[rows, 1].mean(),
    "group_score": lambda rows: RIGHT[rows].mean(),
    "jaccard": lambda rows: JACCARD[rows].mean(),
    "jaccard_10_12": lambda rows: JACCARD[rows][CANDIDATES[rows] >= 10].mean(),
}
"""Metric → what it is of rows, some of them several times."""


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
@pytest.mark.parametrize("metric", OF_ROWS)
def test_a_metric_of_weights_is_the_metric_of_the_rows_drawn_so_often(metric):
    statistic = resampled.statistic(metric, TABLE)
    drawn = [np.arange(COUNT), *np.random.default_rng(1).integers(0, COUNT, (8, COUNT))]
    weights = np.stack([np.bincount(rows, minlength=COUNT) for rows in drawn]).astype(float)
    np.testing.assert_allclose(statistic(weights), [OF_ROWS[metric](rows) for rows in drawn])
    assert statistic.pictures == COUNT


def test_a_class_that_a_resample_lacks_counts_in_no_mean_of_it():
    """The interval of the mAP is that of a slow bootstrap, where half of the classes have one picture, and one has none."""
    random = np.random.default_rng(2)
    truth = random.random((40, 6)) < 0.4
    truth[:, 2:] = np.arange(40)[:, None] == [3, 14, 15, -1]
    scores = random.normal(size=truth.shape) + truth
    ours = bootstrap.interval(resampled.Precision(scores, truth), 2000)
    slow = [precision(random.integers(0, 40, 40), scores, truth) for _ in range(2000)]
    np.testing.assert_allclose(ours, np.percentile(slow, [2.5, 97.5]), atol=0.015)
    perfect = resampled.Precision(truth[:, :5], truth[:, :5])
    assert bootstrap.interval(perfect, 500) == pytest.approx((1, 1))


def test_every_function_of_a_table_is_of_a_metric_and_tested():
    assert resampled.OF_TABLES.keys() == OF_ROWS.keys() <= METRICS.keys()
    assert resampled.statistic("ece", TABLE) is None, "it has no interval"
    assert resampled.statistic("map", {"id": ["a"], "correct": [True]}) is None, "the table does not hold it"


@pytest.mark.parametrize("metric", ["mean_per_class", "f1_macro", "worst_group"])
def test_kinds_of_pictures_are_drawn_as_pictures_are(metric, monkeypatch):
    """Many pictures that bring the same are drawn as one number, which changes the time and not the distribution."""
    table = {name: TABLE[name] * 20 for name in ("label", "prediction", "correct", "group")}
    statistic = resampled.statistic(metric, table)
    asked = []
    kinds = bootstrap._weights
    monkeypatch.setattr(bootstrap, "_weights", lambda *given: (asked.append(len(given[1])), kinds(*given))[1])
    ours = draws([statistic], 2000)[:, 0]
    monkeypatch.setattr(bootstrap, "FEW", len(table["label"]))
    plain = draws([statistic], 2000)[:, 0]
    assert asked[0] < 60 < asked[-1] == COUNT * 20
    assert np.isclose(ours.mean(), plain.mean(), atol=2e-3)
    assert np.isclose(ours.std(), plain.std(), rtol=0.08)


def test_two_models_are_compared_by_what_a_set_is_reported_by():
    """Of mean per class, the change of a class of few pictures weighs as much as that of one of many."""
    labels = ["many"] * 90 + ["few"] * 10
    before = {"label": labels, "correct": [True] * 90 + [False] * 10}
    after = before | {"correct": [True] * 100}
    pair = [resampled.statistic("mean_per_class", table) for table in (before, after)]
    difference, low, high = bootstrap.gain(*pair, 500)
    assert difference == pytest.approx(0.5) and low == high == pytest.approx(0.5)
    assert bootstrap.gain(*(resampled.statistic("top1", table) for table in (before, after)), 500)[0] == pytest.approx(0.1)


def test_a_resample_without_a_picture_of_any_group_is_left_out():
    alone = resampled.worst(["east", None, None], [True, False, False])
    assert alone(np.array([[1.0, 1, 1], [0, 2, 1]])).tolist() == pytest.approx([1, np.nan], nan_ok=True)
