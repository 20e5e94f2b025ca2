"""What PaliGemma says of things in boxes: likelihoods against transformers' own loss, one answer at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adapt.data.emoji_scenes import Config as Scenes
from adapt.data.emoji_scenes import compose
from adapt.models.paligemma import Config, load
from adapt.prompting.tokens import encode_box
from adapt.prompting.visual import Visual, drawn
from adapt.vision.masks import unrle

WORDS = ["fire engine", "pig face", "a"]


@pytest.fixture(scope="module")
def family():
    return load(Config(name="paligemma")).eval()


@pytest.fixture(scope="module")
def row() -> dict:
    """A scene with two things or more."""
    config = Scenes(hands=["noto"], things="all", cast=64, classes="thing")
    return next(row for row in compose.rows(config, "validation", 20) if row["count"] > 1)


@torch.no_grad()
def likelihood(family, image, prefix: str, suffix: str) -> float:
    """transformers' mean loss of one answer, times its tokens."""
    inputs = family.processor(text=f"<image>{prefix}", images=image, suffix=suffix, return_tensors="pt")
    tokens = (inputs["labels"] != -100).sum()
    return -float(family.net(**inputs).loss * tokens)


def test_a_drawn_picture_is_told_by_words_as_likely_as_transformers_says(family, row):
    config = Visual(drawings=["crop", "white"])
    (found,) = family.predictors(WORDS)["region_scores"]([row], visual=[config])
    assert found["texts"].shape == (row["count"], 2, 3) and found["summed"] == 2
    box, mask = row["objects"]["bbox"][1], unrle(row["objects"]["mask"][1])
    for number, drawing in enumerate(config.drawings):
        image = drawn(config, row["image"], box, mask, drawing)
        expected = [likelihood(family, image, "caption en", word) for word in WORDS]
        np.testing.assert_allclose(found["texts"][1, number], expected, atol=2e-2, rtol=1e-3)


def test_a_box_is_answered_by_its_tokens_as_likely_as_transformers_says(family, row):
    (found,) = family.predictors(WORDS)["region_scores"]([row])
    assert found["drawings"] == ["tokens"]
    for number, box in enumerate(row["objects"]["bbox"]):
        answers = [f"{encode_box(box, row['image'].size)} {word}" for word in WORDS]
        expected = [likelihood(family, row["image"], f"detect {word}", said) for word, said in zip(WORDS, answers, strict=True)]
        np.testing.assert_allclose(found["texts"][number, 0], expected, atol=2e-2, rtol=1e-3)


def test_texts_of_a_group_are_averaged_and_rows_are_told_their_columns(family, row):
    config = [Visual(drawings=["crop"])]
    (single,) = family.predictors(WORDS)["region_scores"]([row], visual=config)
    predictor = family.predictors([WORDS[:2], WORDS[2]])["region_scores"]
    (found,) = predictor([row], visual=config, columns=[[1, 0]])
    np.testing.assert_allclose(found["texts"][..., 0], single["texts"][..., 2], atol=1e-3)
    np.testing.assert_allclose(found["texts"][..., 1], single["texts"][..., :2].mean(-1), atol=1e-3)


def test_boxes_may_be_given_and_may_be_none(family, row):
    predictor = family.predictors(WORDS)["region_scores"]
    one, none = predictor([row, row], boxes=[row["objects"]["bbox"][:1], []], plain=[True, True])
    assert one["drawings"] == ["tokens", "crop"] and one["summed"] == 1
    assert one["texts"].shape == (1, 2, 3) and none["texts"].shape == (0, 2, 3)
