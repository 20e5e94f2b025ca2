"""What SAM answers on the page: as the verbs do, and encoded once."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from adapt.data import world
from adapt.demo import masks
from adapt.demo.parts import Upload
from adapt.plug import UserError
from adapt.verbs.question import Question
from adapt.vision.masks import box, rle, unrle

TIGERS, BANANA = [(6, 8), (70, 66)], (72, 6)
"""Left and top edges of things of 46 pixels."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Upload:
    """Two tigers and a banana on white."""
    rows = {row["caption"]: row["image"] for row in world.read("noto")}
    picture = Image.new("RGB", (128, 128), "white")
    for name, corner in (*(("tiger face", one) for one in TIGERS), ("banana", BANANA)):
        thing = rows[name].convert("RGBA").resize((46, 46))
        picture.paste(thing, corner, thing)
    path = tmp_path_factory.mktemp("tigers") / "tigers.png"
    picture.save(path)
    return Upload(str(path), picture.size)


def over(mask: np.ndarray, corner: tuple[int, int]) -> bool:
    """Does a mask show the thing at this corner, and little else?"""
    left, top = corner
    return bool(mask[top : top + 46, left : left + 46].sum() > 0.8 * mask.sum() > 300)


@pytest.mark.parametrize(
    ("points", "place"),
    [
        (((95, 28, True),), None),
        (((95, 28, True), (30, 30, False)), None),
        ((), (70, 4, 120, 54)),
        (((95, 28, True),), (70, 4, 120, 54)),
    ],
)
def test_masks_are_those_of_the_verb_prompt(desk, scene, points, place):
    from adapt.verbs.prompt import ask

    mask, score = masks.prompted(desk, "sam-tiny", scene, points, place)
    on, off = ([point[:2] for point in points if point[2] == inside] for inside in (True, False))
    with desk.using("sam-tiny") as model:
        (expected,) = ask(model.session, Question(scene.path, point=on, outside=off, box=place)).found["masks"]
    assert rle(mask) == expected["rle"] and score == pytest.approx(expected["score"])
    assert over(mask, BANANA)


def test_a_picture_is_encoded_once_and_a_click_runs_the_decoder_alone(desk, scene, monkeypatch):
    other = Upload(scene.path + "?", scene.size)
    desk.pictures.get(other.path, lambda: desk.picture(scene.path))
    with desk.using("sam-tiny") as model:
        encoded, real = [], model.module.image_features
        monkeypatch.setattr(model.module, "image_features", lambda images: encoded.append(len(images)) or real(images))
    masks.ready(desk, "sam-tiny", other)
    for x in (30, 60, 90):
        masks.prompted(desk, "sam-tiny", other, [(x, 30, True)], None)
    _, found = masks.proposals(desk, "sam-tiny", other)
    assert encoded == [1], "for clicks and for everything"
    monkeypatch.setattr(model.module, "decode", None)
    assert (masks.proposals(desk, "sam-tiny", other)[1] == found).all(), "everything is asked once"


def test_words_find_the_thing_of_each_and_say_what_is_not_there(desk, scene):
    found, lacking = masks.named(desk, "sam-tiny", "clip-tiny", scene, "segment the banana; tiger face")
    assert [name for name, _, _ in found] == ["banana", "tiger face"] and not lacking
    assert over(found[0][1], BANANA) and any(over(found[1][1], tiger) for tiger in TIGERS)
    with pytest.raises(UserError, match="words: none yet"):
        masks.named(desk, "sam-tiny", "clip-tiny", scene, " ;")


def test_all_like_an_example_in_a_picture_larger_than_the_page(desk, scene, tmp_path):
    large = Upload(str(tmp_path / "large.png"), (1536, 1536))
    Image.open(scene.path).resize(large.size).save(large.path)
    mask, _ = masks.prompted(desk, "sam-tiny", large, [(348, 372, True)], None)
    found = masks.like(desk, "sam-tiny", "dinov2-tiny", large, rle(mask), 0.5)
    assert len(found) == 1 and found[0][0].shape == (1536, 1536)
    assert over(found[0][0][6::12, 6::12], TIGERS[1]), "the other tiger, not the banana, in pixels of the picture"
    assert box(unrle(rle(found[0][0])))[0] > 700


def test_where_nothing_is_found_the_next_step_is_told(desk, tmp_path):
    blank = Upload(str(tmp_path / "blank.png"), (64, 64))
    Image.new("RGB", blank.size, "white").save(blank.path)
    with pytest.raises(UserError, match="Click on the thing"):
        masks.proposals(desk, "sam-tiny", blank)


def test_a_student_of_another_kind_is_refused(desk, scene):
    with pytest.raises(UserError, match="a student: it does not answer clicks"):
        masks.ready(desk, "a student", scene)
