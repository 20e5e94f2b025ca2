"""The metrics of single sets against scikit-learn, and against the code of the benchmarks that report them, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, matthews_corrcoef

from adapt import plug
from adapt.evals import by_set
from adapt.measures import METRICS

RANDOM = np.random.default_rng(0)


def test_macro_f1_is_wilds_of_the_classes_that_occur():
    labels = RANDOM.integers(0, 30, 400)
    labels = labels[labels % 3 > 0]  # classes that never occur
    predictions = np.where(RANDOM.random(len(labels)) < 0.4, labels, RANDOM.integers(0, 30, len(labels)))
    theirs = f1_score(labels, predictions, average="macro", labels=np.unique(labels))  # WILDS, metrics/all_metrics.py
    assert by_set.macro_f1(labels, predictions) == pytest.approx(theirs)
    assert by_set.macro_f1(labels, predictions) != pytest.approx(f1_score(labels, predictions, average="macro"))


def test_the_worst_group_is_wilds():
    correct, groups = RANDOM.random(500) < 0.6, RANDOM.integers(0, 6, 500)
    means = by_set.group_means(correct, groups.tolist())
    counts = torch.bincount(torch.tensor(groups), minlength=6)  # WILDS, common/utils.py: avg_over_groups
    theirs = torch.zeros(6).scatter_add_(0, torch.tensor(groups), torch.tensor(correct).float()) / counts
    assert means == pytest.approx(dict(enumerate(theirs.tolist())), abs=1e-6)
    assert by_set.worst(means) == (int(theirs.argmin()), pytest.approx(float(theirs.min()), abs=1e-6))


def test_a_group_may_be_passed_over():
    means = by_set.group_means([True, False, False, True, False], ["Asia", "Other", "Other", "Asia", "Asia"])
    assert means == {"Asia": pytest.approx(2 / 3), "Other": 0.0}
    assert by_set.worst(means, {"Other"}) == ("Asia", pytest.approx(2 / 3))
    with pytest.raises(ValueError, match="no group is left"):
        by_set.worst(means, {"Asia", "Other"})


def benchmark_precision(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """CLIP_benchmark's `average_precision_per_class` (MIT), written out."""
    found = torch.zeros(scores.size(1))
    ranks = torch.arange(1, scores.size(0) + 1).float()
    for k in range(scores.size(1)):
        truth = targets[:, k][torch.sort(scores[:, k], 0, True)[1]]
        precision = truth.float().cumsum(0).div(ranks)
        found[k] = precision[truth.bool()].sum() / max(float(truth.sum()), 1)
    return found


def test_average_precision_is_clip_benchmarks_and_scikit_learns():
    scores, truth = RANDOM.normal(size=(120, 8)).astype(np.float32), RANDOM.random((120, 8)) < 0.15
    truth[:, 5] = False
    ours = by_set.average_precision(scores, truth)
    assert ours == pytest.approx(benchmark_precision(torch.tensor(scores), torch.tensor(truth)).numpy(), abs=1e-6)
    kept = [column for column in range(8) if column != 5]
    assert ours[kept] == pytest.approx([average_precision_score(truth[:, k], scores[:, k]) for k in kept])
    assert ours[5] == 0


def test_a_model_that_says_the_same_of_all_pictures_has_the_worst_order():
    truth = np.array([[True], [True], [False], [False]])
    assert by_set.average_precision(np.zeros((4, 1)), truth)[0] == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert by_set.average_precision(np.array([[3.0], [2], [1], [0]]), truth)[0] == 1


def test_jaccard_is_datacomps():
    total, many = [], []
    for _ in range(60):
        count = int(RANDOM.choice([5, 6, 10, 12]))
        scores, truth = RANDOM.normal(size=count), RANDOM.random(count) < 0.4
        truth[0] = True
        chosen = np.isin(np.arange(count), np.argsort(scores)[-truth.sum() :])  # DataComp, eval_utils/wino_eval.py
        theirs = jaccard_score(truth, chosen)
        assert by_set.jaccard(scores, truth) == pytest.approx(theirs)
        total.append((scores, truth))
        many += [theirs] if count >= 10 else []
    found = by_set.jaccards(*zip(*total, strict=True))
    assert found["jaccard_10_12"] == pytest.approx(np.mean(many)) != pytest.approx(found["jaccard"])
    assert "jaccard_10_12" not in by_set.jaccards([np.ones(5)], [np.array([1, 0, 0, 0, 0])])


def test_equal_scores_choose_the_wrong_pictures():
    assert by_set.jaccard(np.ones(4), np.array([True, True, False, False])) == 0
    with pytest.raises(ValueError, match="without an associated picture"):
        by_set.jaccard(np.ones(3), np.zeros(3))


def test_winogrounds_scores_are_the_papers_and_clip_benchmarks():
    scores = RANDOM.normal(size=(300, 2, 2)) + 0.7 * np.eye(2)
    found = by_set.winoground(scores)
    for i, row in enumerate(scores):
        text = row[0, 0] > row[0, 1] and row[1, 1] > row[1, 0]  # of each picture, its own caption
        image = row[0, 0] > row[1, 0] and row[1, 1] > row[0, 1]  # of each caption, its own picture
        assert (found["text_score"][i], found["image_score"][i], found["group_score"][i]) == (text, image, text and image)
        assert text == (row.argmax(1) == [0, 1]).all()  # CLIP_benchmark, image_caption_selection.py
        assert image == (row.argmax(0) == [0, 1]).all()
    assert found["text_score"].mean() != found["image_score"].mean() > found["group_score"].mean() > 0


def test_collapsed_scores_earn_nothing():
    assert not any(values.any() for values in by_set.winoground(np.ones((5, 2, 2))).values())


def test_clicks_until_an_iou():
    ious = np.array([[0.5, 0.92, 0.8], [0.9, 0.9, 0.9], [0.1, 0.2, 0.3]])
    assert by_set.clicks_until(ious, 0.9).tolist() == [2, 1, 3]


def test_concept_f1_is_f1_where_words_apply_times_matthews_correlation():
    there, found = RANDOM.integers(0, 3, 80), RANDOM.integers(0, 3, 80)
    limits = np.linspace(1, 0.3, 10)
    matched = (np.minimum(there, found)[:, None] * limits).astype(int)
    ours = by_set.concept_f1(matched, found, there)
    scores = []
    for t in range(10):
        hits = sum(matched[i, t] for i in range(80) if there[i])
        false = sum(found[i] - matched[i, t] for i in range(80) if there[i])
        missed = sum(there[i] - matched[i, t] for i in range(80) if there[i])
        scores.append(2 * hits / (2 * hits + false + missed))
    assert ours["positive_f1"] == pytest.approx(np.mean(scores))
    assert ours["presence_mcc"] == pytest.approx(matthews_corrcoef(there > 0, found > 0))
    assert ours["cgf1"] == pytest.approx(ours["positive_f1"] * ours["presence_mcc"])


def test_masks_for_words_that_are_not_there_cost():
    there, matched = np.array([1, 1, 0, 0]), np.array([[1], [1], [0], [0]])
    careful = by_set.concept_f1(matched, np.array([1, 1, 0, 0]), there)
    eager = by_set.concept_f1(matched, np.array([1, 1, 1, 0]), there)
    assert careful["cgf1"] == 1 > eager["cgf1"]
    assert by_set.concept_f1(matched, np.ones(4, int), there)["cgf1"] == 0, "who always finds something knows nothing"


def test_every_metric_has_its_eval():
    assert {metric.eval for metric in METRICS.values()} <= set(plug.names("evals"))
