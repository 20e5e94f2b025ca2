"""What sets two numbers apart is named; what a model brings with it forbids no comparison."""

from __future__ import annotations

import pytest

from adapt.report.protocol import apart, difference, refused

INPUT = {"size": [224, 224], "resize": 224, "interpolation": "bicubic", "crop": "floor"}
ONE = {
    "eval": "zeroshot",
    "metric": "top1",
    "split": "test",
    "data": "0a1b",
    "classes": [f"dish {i}" for i in range(101)],
    "templates": [f"photo {i} of {{}}" for i in range(80)],
    "input": INPUT,
    "precision": "fp32",
    "logit_scale": 100.0,
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ["pho", "pad thai", "ramen", *ONE["classes"][3:]]}, "other class names: 3 of 101"),
        ({"classes": ONE["classes"][:100]}, "other class names: 101 against 100"),
        ({"classes": ONE["classes"][::-1]}, "other order of the class names"),
        ({"templates": ["a {}"]}, "other templates: 80 against 1"),
        ({"templates": ["a {}", *ONE["templates"][1:]]}, "other templates: 1 of 80"),
        ({"texts": "2c3d", "combine": "max"}, "texts of a class combined by: none against max; other texts of the classes"),
        ({"split": "validation"}, "other split: test against validation"),
        ({"data": "4e5f"}, "other data"),
        ({"metric": "mean_per_class"}, "other metric: top1 against mean_per_class"),
        ({"eval": "knn", "k": 20, "data": "4e5f"}, "other eval: zeroshot against knn"),
        ({"input": INPUT | {"interpolation": "bilinear"}}, "interpolation: bicubic against bilinear"),
        (
            {"input": INPUT | {"crop": None, "resize": [224, 224]}},
            "crop: floor against none; resize: shorter side against stretched",
        ),
        ({"input": INPUT | {"resize": 256}}, "resize: shorter side against shorter side, × 1.14"),
        ({"bins": 15}, "bins: none against 15"),
        ({"visual": {"drawings": ["crop"]}}, "other visual prompt"),
    ],
)
def test_what_is_not_comparable_is_refused_with_its_name(change, words):
    assert refused(ONE, ONE | change) == difference(ONE, ONE | change) == words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input": INPUT | {"size": [336, 336], "resize": 336}}, "size of the input: 224 × 224 against 336 × 336"),
        ({"precision": "bf16"}, "precision: fp32 against bf16"),
        ({"logit_scale": 71.25}, "logit scale: 100 against 71.25"),
    ],
)
def test_what_a_model_brings_with_it_is_said_and_refuses_nothing(change, words):
    assert difference(ONE, ONE | change) == words
    assert refused(ONE, ONE | change) == ""
    assert all(each.own for each in apart(ONE, ONE | change))


def test_nothing_is_made_of_what_an_older_number_does_not_say():
    older = {key: value for key, value in ONE.items() if key not in ("precision", "logit_scale", "metric")}
    assert apart(ONE, older) == apart(older, ONE) == apart(ONE, dict(ONE)) == []
