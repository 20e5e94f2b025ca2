"""The VQA rule against its formula written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Image
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Picture

from adapt.evals import vqa
from adapt.evals.text import normal, vqa_accuracy
from adapt.plug import UserError
from adapt.prompting.tasks import COUNT


def data(**columns) -> Dataset:
    number = len(next(iter(columns.values())))
    rows = {
        "id": [str(i) for i in range(number)],
        "image": [Picture.new("RGB", (8, 8), (i, 0, 0)) for i in range(number)],
    } | columns
    return Dataset.from_dict(rows).cast_column("image", Image())


@given(st.lists(st.sampled_from(["red", "blue", "green"]), min_size=10, max_size=10))
def test_the_rule_is_the_mean_over_all_nine_of_ten(answers):
    expected = np.mean([min(1, part.count("red") / 3) for part in itertools.combinations(answers, 9)])
    assert np.isclose(vqa_accuracy("red", answers), expected)


def test_answers_are_compared_without_articles_case_and_number_words():
    assert normal("The two dogs.") == "2 dogs"
    assert vqa_accuracy("Two", ["2"]) == 1
    assert vqa_accuracy("3", ["2"]) == 0
    assert vqa_accuracy("a dog", ["dog", "dog"]) == 1
    assert vqa_accuracy("dog", ["dog", "cat"]) == 0.5


def test_counts_are_asked_and_scored():
    asked = []

    def predict(dataset, name):
        asked.extend(dataset["prefix"][:])
        return ["2", "four", "many", "1"]

    rows = data(count=[2, 3, 1, 4], prefix=["caption en"] * 4)
    result = vqa.evaluate(vqa.Config(name="vqa"), predict, rows, {"data": "x"})
    assert asked == [COUNT] * 4
    assert result.metrics == {"accuracy": 0.25, "match": 0.25, "within_one": 0.5}
    assert result.table["label"] == ["2", "3", "1", "4"]
    assert result.table["correct"] == [True, False, False, False]


def test_labels_are_answered_by_the_words_of_their_classes():
    rows = data(label=[1, 0]).cast_column("label", ClassLabel(names=["animal-bird", "food-fruit"]))
    config = vqa.Config(name="vqa", column="label", prefix="answer en what is this?")
    result = vqa.evaluate(config, lambda *_, **__: ["fruit", "fruit"], rows, {"classes": ["bird", "fruit"]})
    assert result.table["label"] == ["fruit", "bird"]
    assert result.metrics["accuracy"] == 0.5


@pytest.mark.parametrize("column", ["count", "label"])
def test_a_row_without_an_answer_is_named_and_the_text_none_is_an_answer(column):
    rows = data(**{column: [1, None]})
    if column == "label":
        rows = rows.cast_column("label", ClassLabel(names=["bird", "fruit"]))
    with pytest.raises(UserError, match=f"row '1' has no {column}, and its eval asks for it"):
        vqa.evaluate(vqa.Config(name="vqa", column=column), lambda *_, **__: ["none", "none"], rows, {})
    said = data(count=["none", "0"])
    assert vqa.evaluate(vqa.Config(name="vqa"), lambda *_, **__: ["none", "none"], said, {}).metrics["accuracy"] == 1


def test_rows_with_their_own_questions():
    rows = data(prefix=["answer en what is it?", "caption en"], suffix=["x", "y"], answers=[["cat"] * 9 + ["dog"], ["y"]])
    result = vqa.evaluate(vqa.Config(name="vqa"), lambda asked, name: ["dog"] * len(asked), rows, {})
    assert np.isclose(result.metrics["accuracy"], 0.3), "one of ten agrees: in nine parts of ten a third"
    assert result.metrics["match"] == 1
    assert "within_one" not in result.metrics
