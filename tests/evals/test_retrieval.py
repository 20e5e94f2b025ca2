"""Recall at k against CLIP_benchmark's own count, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Picture

from adapt.evals import retrieval
from adapt.plug import UserError
from adapt.report.table import label


def rows(captions: list, pictures: list[int] | None = None) -> Dataset:
    """A row for each entry, a text or several; `pictures`: which rows show the same."""
    kind = Value("string") if isinstance(captions[0], str) else List(Value("string"))
    columns = {"id": [f"r{i}" for i in range(len(captions))], "caption": captions}
    features = {"id": Value("string"), "caption": kind}
    if pictures:
        columns["image"] = [Picture.new("RGB", (2, 2), (number, 0, 0)) for number in pictures]
        features["image"] = Image()
    return Dataset.from_dict(columns, Features(features))


def recall(scores: torch.Tensor, positive: torch.Tensor, k: int) -> torch.Tensor:
    """CLIP_benchmark's `recall_at_k`, written out: the share of a row's right columns that are among its k best."""
    best = torch.topk(scores, k, dim=1)[1]
    return torch.stack([positive[i, best[i]].sum() / positive[i].sum() for i in range(len(scores))])


def benchmark(function, scores: np.ndarray, positive: np.ndarray) -> dict[str, float]:
    """The benchmark's metrics by our names: a picture or caption is found when its recall is above zero."""
    scores, positive = torch.from_numpy(scores), torch.from_numpy(positive)
    ways = {"r": (scores, positive), "text_r": (scores.T, positive.T)}
    return {f"{name}{k}": float((function(*both, k=k) > 0).float().mean()) for name, both in ways.items() for k in (1, 5, 10)}


def embedded(count: int = 60, texts: int = 5, noise: float = 1.2):
    """Random embeddings of pictures and of up to five captions each, and which belong together."""
    random = np.random.default_rng(0)
    owner = np.repeat(np.arange(count), random.integers(1, texts + 1, count))
    images = random.normal(size=(count, 16))
    words = images[owner] + noise * random.normal(size=(len(owner), 16))
    images, words = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (images, words))
    captions = [[f"text {j}" for j in np.flatnonzero(owner == i)] for i in range(count)]
    return rows(captions), (images @ words.T).astype(np.float32), owner[None] == np.arange(count)[:, None]


def measure(dataset: Dataset, scores: np.ndarray):
    return retrieval.evaluate(retrieval.Config(name="retrieval"), lambda rows, texts: scores, dataset, {})


def test_recall_both_ways_is_clip_benchmarks():
    dataset, scores, positive = embedded()
    ours = measure(dataset, scores)
    theirs = benchmark(recall, scores, positive)
    assert ours.metrics == pytest.approx(theirs | {"mean_r1": (theirs["r1"] + theirs["text_r1"]) / 2})
    assert 0 < ours.metrics["r1"] < ours.metrics["r5"] < ours.metrics["r10"] < 1
    assert ours.metrics["text_r1"] != ours.metrics["r1"]
    for name, (low, high) in ours.intervals.items():
        assert low <= ours.metrics[name] <= high and low < high


def test_the_formula_written_out_is_clip_benchmarks_function():
    """Its package brings 100 MB of Java for captions, so it is looked at where it happens to be installed."""
    theirs = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
    _, scores, positive = embedded()

    def function(scores, positive, k):
        return theirs.batchify(theirs.recall_at_k, scores, positive, 16, "cpu", k=k)

    assert benchmark(function, scores, positive) == benchmark(recall, scores, positive)


def test_an_embedding_that_has_collapsed_finds_nothing():
    dataset, scores, _ = embedded()
    result = measure(dataset, np.ones_like(scores))
    assert set(result.metrics.values()) == {0.0}
    assert not any(result.table["correct"])
    assert not any(a == b for a, b in zip(result.table["label"], result.table["prediction"], strict=True))


def test_any_of_several_captions_is_a_hit_by_hand():
    dataset = rows([["a", "b"], ["c", "d"]])
    scores = np.array([[0.1, 0.9, 0.5, 0.2], [0.3, 0.8, 0.7, 0.1]], np.float32)  # a b c d
    result = measure(dataset, scores)
    assert result.metrics["r1"] == 0.5, "b is found for the first; for the second it stands before c"
    assert result.metrics["r5"] == 1
    assert result.metrics["text_r1"] == 0.5, "of a, b, c and d, those of the columns 1 and 2 have their own picture first"
    both = {"texts": [2, 2], "texts_found": [1, 1]}
    assert result.table == {"id": ["r0", "r1"], "label": ["a", "c"], "prediction": ["b", "b"], "correct": [True, False]} | both


def test_a_caption_that_several_pictures_have_is_one_text_of_them_all():
    asked = []

    def predict(part, texts):
        asked.append(texts)
        return np.array([[0.5, 0.1], [0.9, 0.2], [0.8, 0.7]], np.float32)

    result = retrieval.evaluate(retrieval.Config(name="retrieval"), predict, rows(["a", "a", "b"]), {})
    assert asked == [["a", "b"]]
    assert result.metrics["r1"] == pytest.approx(2 / 3)
    assert result.metrics["text_r1"] == 1, "the second picture is one of a's"
    assert result.floor == pytest.approx(2 / 3), "who always says a"


def test_a_picture_that_several_rows_show_has_the_captions_of_all():
    """Sets with a row a caption: the same picture twice is no tie with itself."""
    seen = []

    def predict(part, texts):
        seen.append(part["id"][:])
        return np.array([[0.2, 0.9, 0.1], [0.1, 0.3, 0.8]], np.float32)

    dataset = rows(["a", "b", "c"], pictures=[1, 1, 2])
    result = retrieval.evaluate(retrieval.Config(name="retrieval"), predict, dataset, {})
    assert seen == [["r0", "r2"]]
    assert result.metrics == dict.fromkeys(["r1", "r5", "r10", "text_r1", "text_r5", "text_r10", "mean_r1"], 1)


def test_blocks_of_rows_change_nothing(monkeypatch):
    dataset, scores, _ = embedded()
    whole = measure(dataset, scores)
    monkeypatch.setattr(retrieval, "BLOCK", 7)
    assert measure(dataset, scores) == whole


def test_rows_without_a_caption_are_a_user_error():
    with pytest.raises(UserError, match="needs a column 'caption'"):
        measure(rows(["a"]).remove_columns("caption"), np.zeros((1, 1)))
    with pytest.raises(UserError, match="row 'r1' has no caption"):
        measure(rows([["a"], []]), np.zeros((2, 1)))


def test_tables_call_the_two_ways_apart():
    assert [label(name) for name in ("r1", "r10", "text_r1", "text_r10")] == [
        "R@1",
        "R@10",
        "R@1 text → image",
        "R@10 text → image",
    ]
