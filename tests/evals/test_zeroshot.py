"""Metrics against scikit-learn and the formulas written out."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from datasets import ClassLabel, Dataset
from pydantic import ValidationError
from scipy.special import softmax
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, top_k_accuracy_score

from adapt.evals import metrics as scores
from adapt.evals import zeroshot
from adapt.evals.calibration import temperature
from adapt.evals.result import counts, differing
from adapt.records import Confused

NAMES = [f"class {i}" for i in range(6)]


def data(n: int = 300):
    random = np.random.default_rng(0)
    labels = random.integers(0, 5, n)  # the sixth class never occurs
    logits = random.normal(size=(n, 6)).astype(np.float32)
    logits[np.arange(n), labels] += 1.5
    rows = Dataset.from_dict({"id": [str(i) for i in range(n)], "label": labels})
    return rows.cast_column("label", ClassLabel(names=NAMES)), labels, logits


@pytest.mark.parametrize(("classes", "top", "expected"), [(2, 5, 1), (3, 5, 1), (3, 3, 1), (2, 1, 0.5), (3, 1, 0.5)])
def test_among_as_many_as_there_are_every_answer_is_right(classes, top, expected, recwarn):
    logits = np.eye(classes)[[0, 0]]
    metric = scores.Classification().compute(predictions=scores.softmax(logits), references=[0, 1], top=top)
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


def test_macro_f1_is_scikit_learns_of_the_classes_that_occur():
    rows, labels, logits = data()
    result = zeroshot.evaluate(zeroshot.Config(name="zeroshot"), lambda _: logits, rows, {})
    assert result.metrics["f1_macro"] == pytest.approx(f1_score(labels, logits.argmax(1), average="macro", labels=range(5)))
    assert result.metrics["f1_macro"] != pytest.approx(result.metrics["mean_per_class"])
    for name in ("mean_per_class", "f1_macro"):
        low, high = result.intervals[name]
        assert low < result.metrics[name] < high


def test_a_temperature_is_fitted_on_another_split_and_changes_no_answer():
    rows, labels, logits = data()
    seen, other = 4 * logits[:150], rows.select(range(150))
    asked = lambda part: 4 * logits if part is rows else seen  # noqa: E731
    config = zeroshot.Config(name="zeroshot", fitted_on="validation")
    assert config.bank == "validation" and zeroshot.Config(name="zeroshot").bank is None
    found = zeroshot.evaluate(config, asked, rows, {}, other)
    plain = zeroshot.evaluate(zeroshot.Config(name="zeroshot"), asked, rows, {})
    t = found.metrics["temperature"]
    assert t == pytest.approx(temperature(seen, labels[:150])) and t > 2, "they are four times too sure"
    probabilities = softmax(4 * logits.astype(float) / t, axis=1)
    assert found.metrics["ece_fitted"] == pytest.approx(scores.calibration_error(scores.reliability(probabilities, labels, 15)))
    assert found.metrics["ece_fitted"] < found.metrics["ece"] / 2
    assert {name: value for name, value in found.metrics.items() if name in plain.metrics} == plain.metrics
    assert found.table == plain.table
    with pytest.raises(ValidationError, match="'test' is the split that is measured; name another"):
        zeroshot.Config(name="zeroshot", fitted_on="test")


def test_ece_is_guos_formula():
    probabilities = np.array([[0.95, 0.05], [0.91, 0.09], [0.3, 0.7], [0.45, 0.55]])
    labels = np.array([0, 1, 1, 0])
    # bins of width .1: (.9, 1]: confidence .93, accuracy .5; (.6, .7]: .7 and 1; (.5, .6]: .55 and 0
    expected = 2 / 4 * abs(0.93 - 0.5) + 1 / 4 * abs(0.7 - 1) + 1 / 4 * abs(0.55 - 0)
    assert np.isclose(scores.calibration_error(scores.reliability(probabilities, labels, 10)), expected)


def many(n: int = 2000, classes: int = 300):
    random = np.random.default_rng(1)
    labels, logits = random.integers(0, classes, n), random.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += 2
    logits[::9, 7] = logits.max(1)[::9]  # some tie
    names = [f"class {i}" for i in range(classes)]
    rows = Dataset.from_dict({"id": [str(i) for i in range(n)], "label": labels})
    return rows.cast_column("label", ClassLabel(names=names)), labels, logits


def test_blocks_of_rows_give_what_all_rows_at_once_give(monkeypatch):
    rows, _, logits = many()
    results = []
    for block in (10**9, 1, 12_345):
        monkeypatch.setattr(scores, "BLOCK", block)
        results.append(zeroshot.evaluate(zeroshot.Config(name="zeroshot"), lambda _: logits, rows, {}))
    assert results[0].metrics == results[1].metrics == results[2].metrics
    assert results[0].table == results[1].table == results[2].table
    assert results[0].figures == results[1].figures == results[2].figures


def test_the_metric_is_the_same_of_an_array_of_lists_and_of_batches():
    _, labels, logits = data()
    found = scores.Classification().compute(predictions=logits, references=labels, top=3)
    assert scores.Classification().compute(predictions=logits.tolist(), references=labels.tolist(), top=3) == found
    metric = scores.Classification(keep_in_memory=True)
    for start in (0, 150):
        metric.add_batch(predictions=logits[start : start + 150], references=labels[start : start + 150])
    assert metric.compute(top=3) == found


def test_a_confusion_of_many_classes_holds_what_is_not_zero():
    _, labels, logits = many()
    found = scores.answers(logits, labels)
    dense = confusion_matrix(labels, found, labels=range(300))
    for sparse in (scores.confusion(labels, found, 300), scores.stored(dense)):
        assert list(counts(sparse)) == [(i, j, dense[i, j]) for i, j in zip(*dense.nonzero(), strict=True)]
        assert Confused.model_validate(sparse)
    assert list(counts(scores.confusion(labels % 6, found % 6, 6))) == list(
        counts(scores.stored(confusion_matrix(labels % 6, found % 6)))
    )


def test_a_thousand_classes_need_little_memory_beside_the_logits():
    rows, _, logits = many(5000, 1000)
    tracemalloc.start()
    zeroshot.evaluate(zeroshot.Config(name="zeroshot"), lambda _: logits, rows, {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * logits.nbytes, "40 MB in double precision, and Python's floats take three times as much"


def test_ties_count_against_the_model():
    rows, _, _ = data(60)
    result = zeroshot.evaluate(zeroshot.Config(name="zeroshot", top=3), lambda _: np.zeros((60, 6), np.float32), rows, {})
    assert (result.metrics["top1"], result.metrics["top3"], result.metrics["mean_per_class"]) == (0, 0, 0)
    assert result.intervals["top1"] == (0, 0)
    assert not any(result.table["correct"])
    assert not any(said == there for said, there in zip(result.table["prediction"], result.table["label"], strict=True))
    assert np.trace(result.figures["confusion"]) == 0
    assert sum(np.array(result.figures["reliability"]["accuracy"]) * result.figures["reliability"]["count"]) == 0


@pytest.mark.parametrize(("others", "place"), [([], 0), ([1], 1), ([1, 1], 2), ([2, 1], 2), ([2, 2, 2], 3), ([0.5, 0.9], 0)])
def test_the_rank_is_how_many_others_score_as_high_or_higher(others, place):
    logits = np.full((1, 6), -1.0)
    logits[0, 3] = 1
    logits[0, : len(others)] = others
    assert scores.rank(logits, np.array([3])) == [place]
    (best,) = scores.answers(logits, np.array([3]))
    assert (best == 3) == (place == 0) and logits[0, best] == logits.max()
    metrics = scores.Classification().compute(predictions=logits, references=[3], top=2)
    assert (metrics["top1"], metrics["top2"]) == (place < 1, place < 2)


def test_what_is_not_a_number_is_no_hit():
    assert scores.rank(np.array([[np.nan, 0.0]]), np.array([0])) == [1]


def test_probabilities_too_small_for_a_number_still_have_an_order():
    logits = np.array([[2000.0, 1000.0, 0.0, -1000.0]])  # the softmax of the last three is zero
    metrics = scores.Classification().compute(predictions=logits, references=[1], top=2)
    assert (metrics["top1"], metrics["top2"]) == (0, 1)


def test_the_floor_is_what_one_answer_for_all_reaches():
    rows, labels, logits = data()
    result = zeroshot.evaluate(zeroshot.Config(name="zeroshot"), lambda _: logits, rows, {})
    one = np.tile(np.eye(6)[np.bincount(labels).argmax()], (300, 1))
    assert result.floor == zeroshot.evaluate(zeroshot.Config(name="zeroshot"), lambda _: one, rows, {}).metrics["top1"]
    assert scores.floor([{"2": 1.0, "two": 0.5}, {"3": 1.0}, {"two": 1.0}]) == 0.5
    assert scores.floor([]) == 0


def table(labels: str, answers: str) -> dict[str, list]:
    right = [a == b for a, b in zip(labels, answers, strict=True)]
    return {"label": list(labels), "prediction": list(answers), "correct": right}


@pytest.mark.parametrize(
    ("labels", "answers", "words"),
    [
        ("abcd" * 9, "a" * 36, "all 36 answers are 'a'"),
        ("abcd" * 9, "a" * 33 + "bcd", "the answers' entropy is 0.5 bits, the labels' 2.0"),
        ("abcd" * 9, "dcba" * 9, ""),
        ("abcd" * 9, "ab" * 18, ""),
        ("aaaa", "aaaa", ""),
        ("a" * 34 + "bc", "a" * 34 + "bc", ""),
    ],
)
def test_answers_that_hardly_depend_on_the_picture_are_told(labels, answers, words):
    assert scores.collapse(table(labels, answers)) == words


def test_of_tables_that_have_not_one_answer_a_row_nothing_is_said():
    assert scores.collapse({"label": ["a, b", "b"], "prediction": ["", ""]}) == ""
    assert scores.collapse({}) == ""


def test_protocols_that_differ_say_where():
    a, b = {"split": "test", "templates": ["{}"]}, {"split": "test", "templates": ["a {}"]}
    assert differing(a, b) == ["templates"]
    assert differing(a, dict(a)) == []
