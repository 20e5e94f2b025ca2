"""What CLIP says of things in boxes: against its own embeddings of the drawings, and how often it encodes."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image as Picture

from adapt.models.clip import Config, load
from adapt.plug import UserError
from adapt.prompting.visual import SUMMED, Visual, shown
from adapt.vision.masks import rle


@pytest.fixture(scope="module")
def clip():
    """With class words of its own; nobody trains it."""
    family = load(Config(name="clip")).eval()
    family.set_classes(["cat", "red apple", "bus"], ["{}", "a drawing of a {}"])
    return family


def rows() -> list[dict]:
    """Two pictures with three boxes and masks in all."""
    found = []
    for number, boxes in enumerate([[[10, 10, 60, 40], [0, 0, 120, 80]], [[5.5, 20, 30, 70]]]):
        pixels = np.random.default_rng(number).integers(0, 255, (80, 120, 3), np.uint8)
        masks = [np.zeros((80, 120), bool) for _ in boxes]
        for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
            mask[top + 2 : bottom - 2, int(left) + 2 : right - 2] = True
        objects = {"bbox": boxes, "category": [0] * len(boxes), "mask": [rle(mask) for mask in masks]}
        found.append({"id": f"r{number}", "image": Picture.fromarray(pixels), "objects": objects, "masks": masks})
    return found


def expected(clip, row: dict, config: Visual, drawings) -> torch.Tensor:
    """Each drawing of each box through the tower, one by one."""
    out = []
    for box, mask in zip(row["objects"]["bbox"], row["masks"], strict=True):
        views = [shown(config, row["image"], (box, mask), name, clip.input) for name in drawings]
        out.append(torch.stack([clip.image_embedding(view[None].float())[0] for view in views]))
    return torch.stack(out)


@torch.no_grad()
def test_scores_are_the_scaled_similarities_of_the_drawings_with_the_words(clip):
    config = Visual(drawings=["crop+white", "blur"])
    texts = ["a cat", ["a red apple", "an apple that is red"]]
    predictor = clip.predictors(texts)["region_scores"]
    assert predictor.takes == "rows"
    found = predictor(rows(), visual=[config] * 2, plain=[True, False])
    apple = F.normalize(clip.text_embedding(texts[1]).mean(0), dim=0)
    words = torch.stack([clip.text_embedding(["a cat"])[0], apple])
    for row, answer, plain in zip(rows(), found, (["crop"], []), strict=True):
        assert answer["drawings"] == [*config.drawings, *plain] and answer["summed"] == 2
        images = expected(clip, row, config, answer["drawings"])
        scale = clip.net.logit_scale.exp()
        np.testing.assert_allclose(answer["texts"], scale * images @ words.T, atol=2e-4)
        np.testing.assert_allclose(answer["classes"], scale * images @ clip.fixed_classifier(clip.templates).T, atol=2e-4)


@torch.no_grad()
def test_of_the_texts_those_of_a_rows_columns_are_told(clip):
    predictor = clip.predictors(["a", "b", "c"])["region_scores"]
    whole = predictor(rows())
    assert [answer["texts"].shape for answer in whole] == [(2, 4, 3), (1, 4, 3)]
    assert whole[0]["drawings"] == list(SUMMED)
    some = predictor(rows(), columns=[[2, 0], []])
    np.testing.assert_allclose(some[0]["texts"], whole[0]["texts"][..., [2, 0]], atol=1e-4)
    assert some[1]["texts"].shape == (1, 4, 0)


@torch.no_grad()
def test_boxes_may_be_given_in_the_place_of_the_objects(clip):
    embed = clip.predictors()["region_embedding"]
    given = embed(rows(), boxes=[[[10, 10, 60, 40]], []], visual=[Visual(drawings=["crop"])] * 2)
    assert [tuple(each.shape[:2]) for each in given] == [(1, 1), (0, 1)]
    own = embed(rows(), visual=[Visual(drawings=["crop"])] * 2)
    torch.testing.assert_close(given[0][0], own[0][0], atol=1e-5, rtol=1e-5)


def test_each_drawing_and_each_text_is_encoded_once(clip):
    images, texts = [], []
    image_embedding, text_embedding = clip.image_embedding, clip.text_embedding

    def see(views):
        images.append(len(views))
        return image_embedding(views)

    def read(words):
        texts.extend(words)
        return text_embedding(words)

    with patch.object(clip, "image_embedding", see), patch.object(clip, "text_embedding", read):
        with patch.object(clip, "fixed_classifier", lambda templates: text_embedding(list(clip.classes))):
            predictor = clip.predictors(["a", "b", ["a", "c"], "a"])["region_scores"]
            predictor(rows(), plain=[True, True])
            predictor(rows()[:1])
    assert sum(images) == 3 * 4 + 2 * 4, "four drawings of three boxes, then of two; the plain crop is one of them"
    assert sorted(texts) == ["a", "b", "c"]


def test_a_box_that_cannot_be_is_refused_before_anything_is_encoded(clip):
    bad = rows()
    bad[1]["objects"]["bbox"] = [[50, 20, 200, 70]]
    with patch.object(clip, "image_embedding", side_effect=AssertionError):
        with pytest.raises(UserError, match="row 'r1': box 1: 50,20,200,70 leaves the picture, which has 120 × 80 pixels"):
            clip.predictors([])["region_scores"](bad)
        with pytest.raises(UserError, match="'tokens' is for models that read boxes as words"):
            clip.predictors([])["region_scores"](rows(), visual=[Visual(drawings=["tokens"])] * 2)


@torch.no_grad()
def test_a_head_and_learned_words_answer_for_the_classes():
    family = load(Config(name="clip")).eval()
    family.set_classes(["cat", "bus"], ["{}"])
    config = [Visual(drawings=["crop"])] * 2
    images = torch.cat(family.predictors()["region_embedding"](rows(), visual=config))[:, 0]
    learned = F.normalize(torch.randn(2, images.shape[1]), dim=1)
    family.learned = lambda: learned
    found = np.concatenate([row["classes"] for row in family.predictors()["region_scores"](rows(), visual=config)])
    np.testing.assert_allclose(found[:, 0], family.net.logit_scale.exp() * images @ learned.T, atol=2e-4)
    family.learned = None
    family.new_head("zero")
    family.head.bias.copy_(torch.tensor([1.0, 2.0]))
    found = np.concatenate([row["classes"] for row in family.predictors()["region_scores"](rows(), visual=config)])
    np.testing.assert_allclose(found, np.tile([1.0, 2.0], (3, 1, 1)), atol=1e-5)


def test_without_classes_texts_alone_are_told():
    family = load(Config(name="clip")).eval()
    (answer,) = family.predictors(["a", "b"])["region_scores"](rows()[:1])
    assert "classes" not in answer and answer["texts"].shape == (2, 4, 2)
