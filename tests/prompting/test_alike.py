"""All like this: masks by an example in the same picture."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from adapt.plug import UserError
from adapt.prompting.alike import alike, around

BLOCKS = [(0, 0, "red"), (20, 0, "red"), (0, 20, "blue"), (20, 20, "red")]


def embed_images(pictures: list) -> np.ndarray:
    """What is not white, by its mean colour."""
    rows = [np.asarray(picture, float).reshape(-1, 3) for picture in pictures]
    return np.stack([row[(row < 250).any(1)].mean(0) for row in rows])


@pytest.fixture
def scene() -> tuple[Image.Image, np.ndarray]:
    image, masks = Image.new("RGB", (40, 40), "green"), []
    for left, top, colour in BLOCKS:
        image.paste(colour, (left, top, left + 10, top + 10))
        masks.append(np.zeros((40, 40), bool))
        masks[-1][top : top + 10, left : left + 10] = True
    return image, np.stack(masks)


def test_what_looks_the_same_is_found_once_and_the_example_is_not(scene):
    image, masks = scene
    part = masks[1] & (np.arange(40) < 25)  # of the second
    found = alike(image, masks[0], np.concatenate([masks, part[None]]), embed_images)
    assert sorted(found["order"].tolist()) == [1, 3], "red, without the example, and no part of what is there"
    assert found["similarity"] == pytest.approx([1, 1])
    assert len(alike(image, masks[2], masks, embed_images)["order"]) == 0, "there is one blue thing"
    assert len(alike(image, masks[2], masks, embed_images, least=-1)["order"]) == 3
    assert len(alike(image, masks[0], masks[:0], embed_images)["order"]) == 0


@pytest.mark.parametrize("mask", [np.zeros((40, 40), bool), np.ones((40, 30), bool)])
def test_an_example_of_nothing_is_refused(scene, mask):
    with pytest.raises(UserError, match="Mark the thing first"):
        alike(scene[0], mask, scene[1], embed_images)


def test_boxes_of_its_size_lie_all_over_the_picture_and_do_not_leave_it(scene):
    boxes = around(scene[1][3])
    sides = boxes[:, 2:] - boxes[:, :2]
    assert sorted(set(sides[:, 0].round(3).tolist())) == [7, 10, 14]
    assert boxes.min() == 0 and boxes.max() == 40
    for left, top, _ in BLOCKS:
        overlap = np.minimum(boxes[:, 2:], [left + 10, top + 10]) - np.maximum(boxes[:, :2], [left, top])
        assert (overlap.clip(0).prod(1) / (sides.prod(1) + 100 - overlap.clip(0).prod(1))).max() > 0.6, "each thing has a box"
    whole = np.ones((40, 40), bool)
    assert (around(whole)[-1] == [0, 0, 40, 40]).all()
