"""WinoGAViL's Jaccard index against DataComp's code written out, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from sklearn.metrics import jaccard_score

from adapt.evals import captions, cues
from adapt.plug import UserError


def rows(sizes: list[int], right: list[int]) -> Dataset:
    """Of each cue so many candidates, of which the first ones go with it."""
    cue = np.repeat(np.arange(len(sizes)), sizes)
    associated = np.concatenate([np.arange(size) < count for size, count in zip(sizes, right, strict=True)])
    return Dataset.from_dict(
        {
            "id": [f"r{i}" for i in range(len(cue))],
            "caption": [f"A cue{number}" for number in cue],
            "cue": cue.tolist(),
            "associated": associated.tolist(),
        }
    )


def measure(dataset: Dataset, scores: np.ndarray):
    """`scores` float[N]: of each row's picture with its own text; with any other it is much higher."""

    def predict(part, texts):
        own = np.array([[text == caption for text in texts] for caption in part["caption"]])
        return np.where(own, scores[[int(name[1:]) for name in part["id"]]][:, None], 99)

    return cues.evaluate(cues.Config(name="cues"), predict, dataset, {})


def test_the_index_is_datacomps(monkeypatch):
    monkeypatch.setattr(captions, "ROWS", 17)  # a cue's rows may lie in two blocks
    random = np.random.default_rng(0)
    sizes = random.choice([5, 6, 10, 12], 50).tolist()
    right = [int(random.integers(2, size // 2 + 1)) for size in sizes]
    dataset, scores = rows(sizes, right), random.normal(size=sum(sizes))
    scores += np.array(dataset["associated"][:]) * 0.8
    each, start = [], 0
    for size, count in zip(sizes, right, strict=True):  # DataComp, eval_utils/wino_eval.py
        chosen = np.zeros(size, bool)
        chosen[np.argsort(scores[start : start + size])[-count:]] = True
        each.append(jaccard_score(np.arange(size) < count, chosen))
        start += size
    result = measure(dataset, scores)
    many = np.array(sizes) >= 10
    assert result.metrics == pytest.approx({"jaccard": np.mean(each), "jaccard_10_12": np.mean(np.array(each)[many])})
    assert result.metrics["jaccard"] != result.metrics["jaccard_10_12"]
    assert result.table["jaccard"] == pytest.approx(each)
    for name, (low, high) in result.intervals.items():
        assert low < result.metrics[name] < high


def test_chance_is_what_drawing_gives():
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(3000):
        hits = (random.permutation(6)[:2] < 2).sum()
        drawn.append(hits / (4 - hits))
    assert measure(rows([6, 6], [2, 2]), np.arange(12.0)).floor == pytest.approx(np.mean(drawn), abs=0.02)


def test_of_equal_scores_the_wrong_picture_is_taken():
    result = measure(rows([5], [2]), np.ones(5))
    assert result.metrics == {"jaccard": 0}, "and there is no cue with ten candidates"


def test_cues_that_cannot_be_asked_are_a_user_error():
    plain = rows([5, 5], [2, 2])
    with pytest.raises(UserError, match="cue 0 has no associated picture"):
        measure(rows([5], [0]), np.ones(5))
    other = plain.remove_columns("caption").add_column("caption", ["A cue0"] * 4 + ["A dog"] + ["A cue1"] * 5)
    with pytest.raises(UserError, match="cue 0 has two texts, 'A cue0' and 'A dog'"):
        measure(other, np.ones(10))
    with pytest.raises(UserError, match="associated is not there"):
        measure(plain.remove_columns("associated"), np.ones(10))
