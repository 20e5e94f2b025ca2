"""The right caption among almost equal ones: against CLIP_benchmark's count and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset, Features, List, Value

from adapt.evals import captions as captions_of
from adapt.evals import choice
from adapt.plug import UserError

RANDOM = np.random.default_rng(0)


def rows(captions: list[list[str]]) -> Dataset:
    features = Features({"id": Value("string"), "caption": List(Value("string"))})
    return Dataset.from_dict({"id": [f"r{i}" for i in range(len(captions))], "caption": captions}, features)


def measure(captions: list[list[str]], score):
    """`score`: (row's number, text) → similarity."""

    def predict(part, texts):
        return np.array([[score(int(name[1:]), text) for text in texts] for name in part["id"]], np.float32)

    return choice.evaluate(choice.Config(name="choice"), predict, rows(captions), {})


def test_choices_are_clip_benchmarks(monkeypatch):
    """`metrics/image_caption_selection.py` with one picture: the first caption's similarity is the largest."""
    monkeypatch.setattr(captions_of, "ROWS", 7)
    captions = [[f"right {i}", *(f"wrong {i} {k}" for k in range(1 + i % 3))] for i in range(40)]
    scores = {(i, text): RANDOM.normal() for i, each in enumerate(captions) for text in each}
    theirs = [np.argmax([scores[i, text] for text in each]) == 0 for i, each in enumerate(captions)]
    result = measure(captions, lambda i, text: scores.get((i, text), 9.0))
    assert result.table["correct"] == theirs
    assert result.metrics["choice"] == pytest.approx(np.mean(theirs))
    low, high = result.intervals["choice"]
    assert low < result.metrics["choice"] < high
    assert result.floor == pytest.approx(np.mean([1 / len(each) for each in captions]))


def test_a_tie_is_no_choice():
    result = measure([["a cat", "a dog"], ["b", "c"]], lambda i, text: 0.0)
    assert result.metrics["choice"] == 0
    assert result.table["prediction"] == ["a dog", "c"]


def test_what_is_not_a_number_is_no_choice():
    assert measure([["a", "b"]], lambda i, text: np.nan).metrics["choice"] == 0


@pytest.mark.parametrize(
    ("captions", "said"),
    [([["a"]], "has 1 caption, and choice needs the right one and a wrong one"), ([["a", "b", "a"]], "among the wrong ones")],
)
def test_rows_without_a_wrong_caption_are_a_user_error(captions, said):
    with pytest.raises(UserError, match=f"row 'r0' .*{said}"):
        measure(captions, lambda i, text: 0.0)
    with pytest.raises(UserError, match="choice needs a column 'caption'"):
        choice.evaluate(choice.Config(name="choice"), None, rows(captions).remove_columns("caption"), {})
