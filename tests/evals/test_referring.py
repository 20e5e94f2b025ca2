"""Which box is meant: RefCOCO's rule written out, and each step's score."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Picture
from pydantic import ValidationError

from adapt.evals import referring
from adapt.plug import UserError
from adapt.prompting.visual import Visual
from adapt.vision.pictures import BOXES

NAMES = ["cat", "dog"]
LEFT, RIGHT, NEAR = [0, 0, 10, 10], [20, 0, 30, 10], [0, 0, 10, 6]


def data(boxes: list, categories: list, said: list | None = None, proposals: list | None = None) -> Dataset:
    count = len(boxes)
    rows = {
        "id": [f"r{i}" for i in range(count)],
        "image": [Picture.new("RGB", (40, 10), (i, 0, 0)) for i in range(count)],
        "objects": [{"bbox": own, "category": kinds} for own, kinds in zip(boxes, categories, strict=True)],
    }
    features = {"id": Value("string"), "image": Image()}
    features["objects"] = {"bbox": BOXES, "category": List(ClassLabel(names=NAMES))}
    if said is not None:
        features["referring"] = List({"sentence": Value("string"), "object": Value("int32")})
        rows["referring"] = [[{"sentence": text, "object": k} for text, k in row] for row in said]
    if proposals is not None:
        features["proposals"], rows["proposals"] = BOXES, proposals
    return Dataset.from_dict(rows, Features(features))


def model(scores, drawings=("crop",), summed=1):
    """A model with these scores float[B, D, T] for every row, and what it was asked."""
    asked = {}

    def predict(rows, **options):
        asked.update(options)
        return [{"drawings": list(drawings), "summed": summed, "texts": np.asarray(one, float)} for one in scores]

    return predict, asked


def column(*values: float) -> list:
    """Scores of B boxes for one sentence, in templates and plain."""
    return [[[value, value]] for value in values]


def test_a_box_is_right_from_an_iou_of_a_half_on():
    """The box that is meant is 10 × 10: a proposal of 10 × 6 has an IoU of 0.6, one of 10 × 4 of 0.4."""
    rows = data([[LEFT, RIGHT]] * 3, [[0, 1]] * 3, [[("it", 0)]] * 3, [[NEAR, RIGHT], [[0, 0, 10, 4], RIGHT], [NEAR, RIGHT]])
    predict, asked = model([column(1, 0), column(1, 0), column(0, 1)])
    config = referring.Config(name="referring", candidates="proposals", negatives=0)
    result = referring.evaluate(config, predict, rows, {})
    assert result.table["correct"] == [True, False, False]
    assert result.metrics["referring"] == pytest.approx(1 / 3)
    assert asked["boxes"] == [[NEAR, RIGHT], [[0, 0, 10, 4], RIGHT], [NEAR, RIGHT]]


def test_a_picture_without_proposals_is_wrong_and_one_with_a_single_one_is_judged():
    rows = data([[LEFT, RIGHT]] * 3, [[0, 1]] * 3, [[("it", 0)]] * 3, [[], [NEAR], [RIGHT]])
    predict, _ = model([np.zeros((0, 1, 2)), column(1), column(1)])
    config = referring.Config(name="referring", candidates="proposals", negatives=0)
    result = referring.evaluate(config, predict, rows, {})
    assert result.table["correct"] == [False, True, False]
    assert result.table["prediction"] == ["-1", "0", "0"] and len(result.pictures) == 2


def test_a_tie_with_a_wrong_box_is_wrong_and_one_between_right_boxes_is_right():
    rows = data([[LEFT, RIGHT]] * 2, [[0, 1]] * 2, [[("it", 0)]] * 2, [[LEFT, RIGHT], [LEFT, NEAR]])
    predict, _ = model([column(1, 1), column(1, 1)])
    result = referring.evaluate(referring.Config(name="referring", candidates="proposals", negatives=0), predict, rows, {})
    assert result.table["correct"] == [False, True]
    assert result.table["prediction"][0] == "1", "the wrong one is named"


def test_each_step_is_its_own_score():
    random = np.random.default_rng(0)
    rows = data([[LEFT, RIGHT]] * 2, [[0, 1], [1, 1]])
    scores = [random.normal(size=(2, 3, 2 + 2 + 2)), random.normal(size=(2, 3, 2 + 2 + 2))]
    predict, asked = model(scores, ("blur", "grey", "crop"), summed=2)
    config = referring.Config(name="referring", templates=["{}", "a photo of {}."], visual=Visual(subtract=0.5))
    result = referring.evaluate(config, predict, rows, {})
    said = ["the cat", "the dog", "the left dog", "the right dog"]
    assert result.table["sentence"] == said
    assert asked["texts"][:4] == [[text, f"a photo of {text}."] for text in said] and asked["texts"][4:] == said
    for row, own in zip(asked["columns"], ([0, 1], [2, 3]), strict=True):
        assert row[:4] == [*own, *(4 + k for k in own)]
        assert sorted(row[4:]) == sorted({0, 1, 2, 3} - set(own)), "negatives are the sentences of other pictures"
    expected = {step: [] for step in ("referring_plain", "referring_templates", "referring_drawings", "referring")}
    for each in scores:
        for k in (0, 1):
            expected["referring_plain"].append(each[:, 2, 2 + k].argmax() == k)
            expected["referring_templates"].append(each[:, 2, k].argmax() == k)
            total = (each[:, 0, k] + each[:, 1, k]) / 2
            expected["referring_drawings"].append(total.argmax() == k)
            less = (each[:, 0, 4:].mean(1) + each[:, 1, 4:].mean(1)) / 2
            expected["referring"].append((total - 0.5 * less).argmax() == k)
    for step, right in expected.items():
        assert result.metrics[step] == np.mean(right)
    assert result.metrics["referring_gain"] == result.metrics["referring"] - result.metrics["referring_plain"]
    assert result.protocol["sentences"] == "made of categories"


def test_pictures_with_one_candidate_are_left_out():
    rows = data([[LEFT], [LEFT, RIGHT]], [[0], [0, 1]])
    predict, _ = model([[[[1, 0, 1, 0]], [[0, 1, 0, 1]]]])
    result = referring.evaluate(referring.Config(name="referring", negatives=0), predict, rows, {})
    assert result.table["id"] == ["r1#0", "r1#1"] and result.metrics["referring"] == 1
    assert result.floor == 0.5, "always the same box"


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (data([[LEFT]], [[0]]).remove_columns("objects"), {}, "referring needs a column 'objects'"),
        (data([[LEFT, RIGHT]], [[0, 1]]), {"candidates": "proposals"}, "referring needs a column 'proposals'"),
        (data([[LEFT]], [[0]]), {}, "no picture of the split 'test' has a sentence and two boxes"),
    ],
)
def test_what_cannot_be_asked_is_refused(rows, options, said):
    with pytest.raises(UserError, match=said):
        referring.evaluate(referring.Config(name="referring", **options), None, rows, {})


@pytest.mark.parametrize("options", [{"template": "it"}, {"templates": ["{}", "{} {}"]}])
def test_a_template_has_one_place_for_the_sentence(options):
    with pytest.raises(ValidationError, match="where the sentence goes"):
        referring.Config(name="referring", **options)
