"""`data.draft`: large JPEGs are decoded smaller, where the user asks for it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from adapt.pipeline import load_data, load_recipe
from adapt.plug import UserError
from adapt.vision.fingerprint import fingerprint

SIZE = (640, 480)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Class folders of JPEGs, and of one PNG in each, 640 × 480 pixels."""
    place, draw = tmp_path_factory.mktemp("large"), np.random.default_rng(0)
    for name in ("sea", "wood"):
        (place / name).mkdir()
        for number in range(12):
            noise = Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8)).resize(SIZE)
            noise.save(place / name / f"{number}.{'png' if number == 0 else 'jpg'}")
    return place


def rows(place, *options):
    """The training pictures, by their ids."""
    return load_data(load_recipe("clip_lora", [f"data={{source: folder, path: {place}}}", *options]))["train"]


def test_jpegs_keep_as_many_pixels_as_are_asked_for_and_other_pictures_all(large):
    sizes = {row["id"]: row["image"].size for row in rows(large, "data.draft=100")}
    assert {size for name, size in sizes.items() if name.endswith("jpg")} == {(160, 120)}
    assert all(size == SIZE for name, size in sizes.items() if name.endswith("png"))
    assert rows(large, "data.draft=300")[0]["image"].size in {SIZE}, "half of 480 would be less"


def test_by_default_each_pixel_is_decoded(large):
    row = next(row for row in rows(large) if row["id"].endswith("jpg"))
    with Image.open(large / row["id"]) as picture:
        assert (np.asarray(row["image"]) == np.asarray(picture)).all()


def test_what_was_made_of_other_pixels_is_not_used_again(large):
    prints = {fingerprint(rows(large, *options)) for options in ((), ("data.draft=100",), ("data.draft=120",))}
    assert len(prints) == 3


def test_pictures_whose_things_have_places_are_refused():
    with pytest.raises(UserError, match=r"data\.draft: these pictures have objects, whose places would be others"):
        load_data(load_recipe("sam_lora", ["data.draft=100", "data.train=2", "data.validation=2", "data.test=2"]))
