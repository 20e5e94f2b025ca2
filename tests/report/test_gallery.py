"""Rows of pictures in a notebook: what is known is drawn, what was answered is held against it, and words are no markup."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from PIL import Image

from adapt.plug import UserError
from adapt.report.gallery import show
from adapt.vision.masks import rle
from adapt.vision.pictures import BOXES, MASKS, RGB

RED, GREEN = (215, 30, 110), (0, 140, 80)


def grey(width: int = 40, height: int = 20) -> Image.Image:
    return Image.new("RGB", (width, height), (128, 128, 128))


def labelled() -> Dataset:
    """Two pictures, of a cat and of a bus."""
    features = Features(id=Value("string"), image=RGB(), label=ClassLabel(names=["cat", "<bus>"]))
    return Dataset.from_dict({"id": ["a", "b"], "image": [grey(), grey()], "label": [0, 1]}, features=features)


def scenes(**more) -> Dataset:
    """A picture with a cup at its left."""
    kinds = {"bbox": BOXES, "category": [ClassLabel(names=["cup"])]} | dict.fromkeys(more, MASKS)
    objects = {"bbox": [[0.0, 0.0, 10.0, 20.0]], "category": [0]} | more
    rows = {"id": ["a"], "image": [grey()], "objects": [objects]}
    return Dataset.from_dict(rows, features=Features(id=Value("string"), image=RGB(), objects=kinds))


def colours(picture: Image.Image) -> set:
    return {colour for _, colour in picture.convert("RGB").getcolors(10**6)}


def test_classes_are_named_and_answers_are_held_against_them():
    assert show(labelled()).words == ["cat", "<bus>"]
    answers = [{"label": "cat", "probability": 0.914}, {"label": "cat", "probability": 0.5}]
    assert show(labelled(), answers).words == ["✓ cat 91%", "✗ cat 50% (it is <bus>)"]
    assert show([grey()], answers[:1]).words == ["cat 91%"], "nobody knows what it is"


@pytest.mark.parametrize(("caption", "words"), [("a cat", "a cat"), (["a cat", "a pet"], "a cat"), ([], "")])
def test_without_a_class_the_caption_is_shown_the_first_of_several(caption, words):
    kind = Value("string") if isinstance(caption, str) else [Value("string")]
    rows = {"id": ["a"], "image": [grey()], "caption": [caption]}
    assert show(Dataset.from_dict(rows, Features(id=Value("string"), image=RGB(), caption=kind))).words == [words]


def test_masks_are_drawn_and_boxes_where_there_are_none():
    left = np.zeros((20, 40), bool)
    left[:, :10] = True
    veiled = np.array(show(scenes(mask=[rle(left)])).pictures[0])
    assert (veiled[:, :10] != 128).any(-1).all() and (veiled[:, 10:] == 128).all()
    boxed = show(scenes())
    assert GREEN in colours(boxed.pictures[0]) and boxed.words == ["cup"]


def test_boxes_that_were_found_are_beside_those_that_are_there():
    answer = {"objects": [{"name": "cup", "box": [1.0, 1.0, 11.0, 19.0], "score": 0.8}]}
    found = show(scenes(), [answer])
    assert {GREEN, RED} <= colours(found.pictures[0]) and found.words == ["cup 80%"]
    assert show(scenes(), [{"objects": []}]).words == ["nothing"]


def test_a_map_of_classes_is_laid_over_its_picture_and_the_background_stays():
    classes = np.zeros((20, 40), np.uint8)
    classes[:, 20:] = 2
    found = show([grey()], [{"classes": classes, "names": ["background", "road", "sky"]}])
    drawn = np.array(found.pictures[0])
    assert (drawn[:, :20] == 128).all() and (drawn[:, 20:] != 128).any(-1).all()
    assert found.words == ["sky"]
    assert show([grey()], [{"classes": classes * 0, "names": ["background"]}]).words == ["nothing"]


def test_any_kind_of_picture_is_shown_alike(tmp_path):
    grey().save(tmp_path / "a.png")
    found = show([tmp_path / "a.png", str(tmp_path / "a.png"), grey(), np.asarray(grey())], words=list("abcd"))
    assert len({picture.tobytes() for picture in found.pictures}) == 1 and found.words == list("abcd")


def test_a_page_has_the_pictures_inside_small_and_words_as_words():
    page = show([grey(1000, 500)], words=["<b>&\"'"], side=100)._repr_html_()
    assert "<b>" not in page and "&lt;b&gt;" in page
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (200, 100), "twice the pixels on the screen, no more"
    assert str(show([grey(), grey()], words=["a", ""])) == "a\n(a picture)"


def test_what_cannot_be_shown_is_said(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"show: .*bad\.png: not an image"):
        show([tmp_path / "bad.png"])
    with pytest.raises(UserError, match="1 answer for 2 pictures"):
        show(labelled(), [{"label": "cat", "probability": 1.0}])
    with pytest.raises(UserError, match=r"61 pictures are too many.*select\(range\(60\)\)"):
        show([grey()] * 61)
    with pytest.raises(UserError, match=r"show: an array: .*fixed range"):
        show([np.zeros((4, 4), np.float32)])
