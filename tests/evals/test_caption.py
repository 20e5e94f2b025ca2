"""Captions against sacrebleu, coco-caption's published numbers, and the formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
from datasets import Dataset, Image
from PIL import Image as Picture

from adapt.evals import caption
from adapt.evals.text import cider, rows
from adapt.plug import UserError

SAID = ["a pig face and a bus", "a red apple on the table", "two dogs", "a cat and a cat and a cat", "boat"]
RIGHT = [
    ["a pig face and a bus"],
    ["an apple on a table", "a red apple lies on the table"],
    ["two dogs play in the snow", "dogs in snow"],
    ["a cat"],
    ["a sailing boat on the sea"],
]


def data(**columns) -> Dataset:
    number = len(next(iter(columns.values())))
    pictures = [Picture.new("RGB", (8, 8), (i, 0, 0)) for i in range(number)]
    rows = {"id": [str(i) for i in range(number)], "image": pictures} | columns
    return Dataset.from_dict(rows).cast_column("image", Image())


def test_cider_equals_coco_captions():
    # pycocoevalcap 1.2, CiderScorer(n=4, sigma=6.0), on these lower-case words
    expected = [10.0, 3.6383135675520517, 1.5776536468195719, 0.7895421914955401, 0.9519321762625834]
    np.testing.assert_allclose(cider(SAID, RIGHT), expected, rtol=1e-12)


def test_metrics_equal_sacrebleu_and_the_formula():
    asked = []

    def predict(dataset, name):
        asked.append((name, dataset["prefix"][:]))
        return SAID

    result = caption.evaluate(caption.Config(name="caption"), predict, data(caption=RIGHT), {"data": "x"})
    assert asked == [("text", ["caption en"] * 5)]
    assert result.metrics["exact"] == 1 / 5
    streams = [[each[0] for each in RIGHT], [each[1] if len(each) > 1 else None for each in RIGHT]]
    assert np.isclose(result.metrics["bleu4"], sacrebleu.corpus_bleu(SAID, streams, lowercase=True).score / 100)
    assert np.isclose(result.metrics["cider"], cider(SAID, RIGHT).mean())
    assert result.table["correct"] == [True, False, False, False, False]
    assert result.protocol["prefix"] == "caption en"
    assert len(result.pictures) == 5
    low, high = result.intervals["cider"]
    assert low < result.metrics["cider"] < high


def test_case_and_punctuation_do_not_count():
    result = caption.evaluate(
        caption.Config(name="caption"), lambda *_, **__: ["A cat, and a dog."], data(caption=["a cat and a dog"]), {}
    )
    assert result.metrics["exact"] == 1


def test_rows_that_ask_themselves_are_taken_by_their_prefix():
    own = data(prefix=["detect cat", "caption en", "caption de"], suffix=["<loc0001>", "a cat", "eine Katze"])
    result = caption.evaluate(caption.Config(name="caption"), lambda rows, name: rows["suffix"][:], own, {})
    assert result.metrics["exact"] == 1
    assert (result.table["id"], result.table["picture"]) == (["1", "2"], ["1", "2"]), "of the rows that were asked"
    asked, answers = rows(own.add_column("answers", [["x"], ["a cat", "cat"], ["y"]]), ("caption",), "caption", "")
    assert asked["id"] == ["1", "2"]
    assert answers == [["a cat", "cat"], ["y"]]
    with pytest.raises(UserError, match="begins with 'answer'"):
        rows(own, ("answer",), "count", "")


@pytest.mark.parametrize("nothing", [None, [], [" "], [None]])
def test_a_row_without_a_caption_is_named(nothing):
    with pytest.raises(
        UserError, match=r"row '1' has no caption, and its eval asks for it\. Write one, or leave the row out\."
    ):
        rows(data(caption=[["a cat"], nothing]), ("caption",), "caption", "")
    with pytest.raises(UserError, match="row '1' has no suffix"):
        rows(data(prefix=["caption en"] * 2, suffix=["a cat", None]), ("caption",), "caption", "")
    with pytest.raises(UserError, match="row '1' has no answers"):
        own = {"suffix": ["a cat"] * 2, "answers": [["a cat"], nothing]}
        rows(data(prefix=["caption en"] * 2, **own), ("caption",), "caption", "")


def test_of_several_captions_those_that_are_there_count():
    several = data(caption=[["a cat", None], ["a dog", "dogs"]])
    assert rows(several, ("caption",), "caption", "")[1] == [["a cat"], ["a dog", "dogs"]]


def test_nothing_said_is_nothing_right():
    result = caption.evaluate(caption.Config(name="caption"), lambda *_, **__: ["", ""], data(caption=["a cat", "a dog"]), {})
    assert result.metrics == {"exact": 0, "bleu4": 0, "cider": 0}
