"""Winoground's scores, against the paper's words written out and CLIP_benchmark's count."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset, Features, Value

from adapt.evals import pairs
from adapt.plug import UserError

KINDS = Features({"id": Value("string"), "caption": Value("string"), "pair": Value("int64")})


def rows(numbers: list[int]) -> Dataset:
    names = [f"r{i}" for i in range(len(numbers))]
    return Dataset.from_dict({"id": names, "caption": [f"of {name}" for name in names], "pair": numbers}, KINDS)


def measure(dataset: Dataset, scores: np.ndarray):
    """`scores` float[N, N]: of each row's picture with each row's caption."""
    place = {f"of r{i}": i for i in range(len(scores))}

    def predict(part, texts):
        return scores[np.ix_([int(name[1:]) for name in part["id"]], [place[text] for text in texts])]

    return pairs.evaluate(pairs.Config(name="pairs"), predict, dataset, {})


@pytest.mark.parametrize("shuffled", [False, True])
def test_scores_are_clip_benchmarks(shuffled):
    """`metrics/image_caption_selection.py`: of a pair, does argmax find the own caption of both pictures, the own picture of both captions?"""
    random = np.random.default_rng(0)
    numbers = np.repeat(np.arange(60), 2)
    numbers = random.permutation(numbers) if shuffled else numbers
    scores = random.normal(size=(120, 120)) + 1.0 * np.eye(120)
    theirs = []
    for number in dict.fromkeys(numbers.tolist()):
        own = np.flatnonzero(numbers == number)
        each = scores[np.ix_(own, own)]
        theirs.append(((each.argmax(1) == [0, 1]).all(), (each.argmax(0) == [0, 1]).all()))
    text, image = np.array(theirs).T
    result = measure(rows(numbers.tolist()), scores)
    expected = {"text_score": text.mean(), "image_score": image.mean(), "group_score": (text & image).mean()}
    assert result.metrics == pytest.approx(expected)
    assert len(set(result.metrics.values())) == 3 and min(result.metrics.values()) > 0
    assert result.table["correct"] == (text & image).tolist()
    for name, (low, high) in result.intervals.items():
        assert low < result.metrics[name] < high


def test_chance_is_a_sixth():
    scores = np.random.default_rng(1).normal(size=(3000, 3000))
    result = measure(rows(np.repeat(np.arange(1500), 2).tolist()), scores)
    assert result.metrics["group_score"] == pytest.approx(result.floor, abs=0.03)
    assert result.metrics["text_score"] == pytest.approx(1 / 4, abs=0.04)


def test_a_tie_is_no_score_and_what_was_wrong_is_told():
    assert set(measure(rows([7, 7]), np.ones((2, 2))).metrics.values()) == {0}
    captions = measure(rows([7, 7]), np.array([[1.0, 2.0], [0.0, 3.0]]))  # the first picture takes the second's caption
    assert captions.table["label"] == ["of r0 / of r1"]
    assert captions.table["prediction"] == ["of r1 / of r1"]
    pictures = measure(rows([7, 7]), np.array([[2.0, 1.0], [3.0, 4.0]]))  # the first caption takes the second picture
    assert pictures.metrics == {"text_score": 1, "image_score": 0, "group_score": 0}
    assert pictures.table["prediction"] == ["of r1 / of r1"]


def test_what_is_no_pair_is_a_user_error():
    with pytest.raises(UserError, match="pair 1 has 1 row, and pairs needs two"):
        measure(rows([0, 0, 1]), np.ones((3, 3)))
    with pytest.raises(UserError, match=r"pairs needs the columns caption, pair, and pair is not there. Have: id, caption"):
        measure(rows([0, 0]).remove_columns("pair"), np.ones((2, 2)))
    empty = rows([0, 0]).remove_columns("caption").add_column("caption", ["of r0", ""])
    with pytest.raises(UserError, match="row 'r1' has no caption, and pairs needs it"):
        measure(empty, np.ones((2, 2)))
