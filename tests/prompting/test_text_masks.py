"""Words find their masks: with the embedded CLIP on real scenes, and step by step."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image as Picture
from pydantic import ValidationError

from adapt.plug import UserError
from adapt.prompting import text_masks
from adapt.prompting.text_masks import TextMasks, crop, find, score, subject
from adapt.vision.masks import unrle_many


@pytest.mark.parametrize(
    ("request_", "thing"),
    [
        ("segment the red apple", "red apple"),
        ("Segment the red apple, please.", "red apple"),
        ("please find all of the dogs", "dogs"),
        ("Can you show me an owl?", "owl"),
        ("cut out a cup of coffee", "cup of coffee"),
        ("where is the bus?", "bus"),
        ("theatre mask", "theatre mask"),
        ("findus box", "findus box"),
    ],
)
def test_a_request_is_about_its_thing(request_, thing):
    assert subject(request_) == thing


@pytest.mark.parametrize("request_", ["", "segment the ", "please"])
def test_a_request_without_a_thing_is_a_user_error(request_):
    with pytest.raises(UserError, match="names nothing"):
        subject(request_)


def test_a_template_has_one_place_for_the_name():
    assert TextMasks(templates=["a {c}", "{}"]).templates == ["a {}", "{}"]
    for wrong in ("no place", "{} and {}"):
        with pytest.raises(ValidationError, match=r"needs exactly one \{\} \(or \{c\}\)"):
            TextMasks(templates=[wrong])


def scene():
    """A red square of 8 pixels on blue, 40 wide and 24 high."""
    image, mask = Picture.new("RGB", (40, 24), (0, 0, 250)), np.zeros((24, 40), bool)
    image.paste((250, 0, 0), (4, 10, 12, 18))
    mask[10:18, 4:12] = True
    return image, mask


def test_a_crop_is_the_expanded_box_with_the_background_as_wished():
    image, mask = scene()
    mask[10:12] = False  # six high, eight wide
    seen = {name: np.asarray(crop(TextMasks(expand=0.25, background=name), image, mask)) for name in ("keep", "grey", "white")}
    assert all(view.shape == (12, 12, 3) for view in seen.values()), "the longer side, and a quarter of it at both ends"
    assert (seen["keep"][1, 0] == (0, 0, 250)).all() and (seen["keep"][3, 3] == (250, 0, 0)).all()
    for name, colour in (("grey", 128), ("white", 255)):
        inside = (seen[name] == (250, 0, 0)).all(-1)
        assert inside.sum() == mask.sum() and (seen[name][~inside] == colour).all()
    assert crop(TextMasks(square=False), image, mask).size == (8, 6)


def test_a_blurred_background_leaves_the_thing_sharp():
    image, mask = scene()
    view = np.asarray(crop(TextMasks(expand=0.5), image, mask)).astype(int)
    inside = (view == (250, 0, 0)).all(-1)
    assert inside.sum() == mask.sum()
    assert (view[~inside][:, 0] > 0).any(), "red has run into the blue"


def test_off_the_image_a_crop_is_grey():
    image, mask = scene()
    view = np.asarray(crop(TextMasks(expand=1, background="keep"), image, mask))
    assert view.shape == (24, 24, 3)
    assert (view[:, :4] == 128).all() and (view[0, 4] == (0, 0, 250)).all()


def colours(pictures):
    """An embedding that a test can follow: the picture's mean colour."""
    means = torch.tensor([np.asarray(picture).reshape(-1, 3).mean(0).tolist() for picture in pictures])
    return torch.nn.functional.normalize(means, dim=1)


WORDS = {"red": [1.0, 0, 0], "blue": [0, 0, 1.0], "wall": [0, 1.0, 0]}


def test_the_score_is_a_softmax_over_the_request_and_what_speaks_against_it():
    image, mask = scene()
    config = TextMasks(templates=["{}"], against=["blue", "wall"], scale=5, background="keep")
    masks = np.stack([~mask, mask])
    values, cosine = score(config, image, masks, ["red"], colours, lambda texts: np.array([WORDS[text] for text in texts]))
    embedding = colours([crop(config, image, one) for one in masks]).double().numpy()
    assert np.allclose(cosine[:, 0], embedding[:, 0])
    assert np.allclose(values[:, 0], np.exp(5 * embedding)[:, 0] / np.exp(5 * embedding).sum(1))
    found = find(config, image, masks, "the red", colours, lambda texts: np.array([WORDS[text] for text in texts]))
    assert found["order"].tolist() == [1, 0]
    assert found["bbox"][0].tolist() == [4, 10, 12, 18] and (found["masks"][0] == mask).all()
    assert (np.diff(found["score"]) <= 0).all()


def test_no_proposals_are_no_masks():
    image, mask = scene()
    found = find(TextMasks(), image, mask[None][:0], "red", colours, lambda texts: np.ones((len(texts), 3)))
    assert len(found["masks"]) == len(found["score"]) == len(found["order"]) == 0


@pytest.mark.parametrize("wrong", [np.zeros((24, 40), bool), np.ones((20, 40), bool)])
def test_an_empty_mask_and_one_of_another_size_are_user_errors(wrong):
    with pytest.raises(UserError, match="40 × 24"):
        crop(TextMasks(), scene()[0], wrong)


def test_clip_finds_what_is_named(clip_tiny, tmp_path, monkeypatch):
    """Among the true masks of scenes of two to four things; 98 % when written, 32 % by chance."""
    from adapt.data.emoji_scenes import Config, compose

    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path))
    clip = clip_tiny.eval()

    @torch.no_grad()
    def embed_images(pictures):
        views = [clip.preprocess({"image": picture}, False)["image"] for picture in pictures]
        return clip.image_embedding(torch.stack(views).float())

    texts = torch.no_grad()(clip.text_embedding)
    config = TextMasks(background="white", templates=["{}"])
    right, chance = [], []
    for row in compose.rows(Config(hands=["noto"]), "validation", 40):
        names = [text_masks.subject(name) for name in re.split(", | and ", row["caption"])]
        if len(names) != row["count"] or len(names) == 1:
            continue  # a name with an "and" of its own
        masks = unrle_many(row["objects"]["mask"])
        values, _ = score(config, row["image"], masks, names, embed_images, texts)
        right += (values.argmax(0) == np.arange(len(names))).tolist()
        chance += [1 / len(names)] * len(names)
    assert len(right) > 50
    assert np.mean(right) > 0.9 > 2 * np.mean(chance)


def test_of_several_things_each_mask_has_its_best_word_and_is_found_once():
    image = Picture.new("RGB", (40, 24), (0, 0, 250))
    image.paste((250, 0, 0), (4, 10, 12, 18))
    image.paste((0, 250, 0), (24, 10, 32, 18))
    masks = np.zeros((5, 24, 40), bool)
    masks[0, 10:18, 4:12] = True  # red
    masks[1, 10:18, 4:11] = True  # red again, a column less
    masks[2, 10:18, 24:32] = True  # green
    masks[3, 11:14, 25:28] = True  # a part of it
    masks[4, :8] = True  # blue
    config = TextMasks(templates=["{}"], against=[], background="keep", square=False)
    embed = lambda texts: np.array([WORDS[text] for text in texts])  # noqa: E731
    found = text_masks.find_all(config, image, masks, ["the red", "segment the wall"], colours, embed)
    assert sorted(found["order"].tolist()) == [0, 2, 4], "one of each thing"
    assert dict(zip(found["order"].tolist(), found["request"].tolist(), strict=True)) | {4: None} == {0: 0, 2: 1, 4: None}
    assert (np.diff(found["score"]) <= 0).all()
    parts = text_masks.find_all(config.model_copy(update={"inside": None}), image, masks, ["red", "wall"], colours, embed)
    assert 3 in parts["order"], "parts of things stay"
    without = text_masks.find_all(config, image, masks, ["red"], colours, embed, without=["the blue", "wall"])
    assert without["order"].tolist() == [0], "what shows another word better goes"
    assert without["request"].tolist() == [0]


def test_words_that_are_not_meant_are_in_the_softmax():
    image, mask = scene()
    config = TextMasks(templates=["{}"], against=["wall"], scale=5, background="keep")
    embed = lambda texts: np.array([WORDS[text] for text in texts])  # noqa: E731
    found = text_masks.find_all(config, image, mask[None], ["red"], colours, embed, without=["blue"])
    cosines = colours([crop(config, image, mask)]).double().numpy()[0]  # with red, wall and blue, in this order
    assert found["score"][0] == pytest.approx(np.exp(5 * cosines)[0] / np.exp(5 * cosines).sum())
    empty = text_masks.find_all(config, image, mask[None][:0], ["red"], colours, embed, without=["blue"])
    assert len(empty["masks"]) == len(empty["request"]) == 0
