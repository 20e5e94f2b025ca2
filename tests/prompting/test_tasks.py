"""Questions and answers of each task."""

from __future__ import annotations

import numpy as np
import pytest

from adapt.plug import UserError
from adapt.prompting.tasks import category_words, detect, named, needs, pair
from adapt.prompting.tokens import Codebook, encode_box

CLASSES = ["mammal animal", "ground vehicle", "fruit"]


def row(**other) -> dict:
    from pycocotools.mask import encode

    mask = encode(np.asfortranarray(np.ones((80, 100), np.uint8)))
    mask = {"size": mask["size"], "counts": mask["counts"].decode()}
    objects = {"bbox": [[50, 0, 90, 40], [10, 20, 30, 60]], "category": [1, 0], "mask": [mask, mask]}
    return {"id": "a", "size": (100, 80), "objects": objects, "caption": "a cow and a bus", "count": 2, "label": 2} | other


def test_detect_names_what_is_there_and_answers_from_left_to_right():
    prefix, suffix = pair("detect", row(), CLASSES)
    assert prefix == "detect ground vehicle ; mammal animal"
    cow, bus = encode_box([10, 20, 30, 60], (100, 80)), encode_box([50, 0, 90, 40], (100, 80))
    assert suffix == f"{cow} mammal animal ; {bus} ground vehicle"
    assert named(prefix) == ["ground vehicle", "mammal animal"]
    assert detect(["b", "a", "b"]) == "detect a ; b"


def test_detect_all_names_every_category_and_answers_the_same():
    assert pair("detect_all", row(), CLASSES) == (
        "detect fruit ; ground vehicle ; mammal animal",
        pair("detect", row(), CLASSES)[1],
    )
    nothing = row(objects={"bbox": [], "category": [], "mask": []})
    assert pair("detect_all", nothing, CLASSES) == ("detect fruit ; ground vehicle ; mammal animal", "")
    assert needs("detect_all", ["image", "objects"]) == ("objects",)


def test_the_other_tasks_have_the_public_syntax():
    assert pair("caption", row(), []) == ("caption en", "a cow and a bus")
    assert pair("ocr", row(caption="STOP"), []) == ("ocr", "STOP")
    assert pair("count", row(), []) == ("answer en how many things are there?", "2")
    assert pair("classify", row(), CLASSES) == ("answer en what is this?", "fruit")
    assert pair("given", row(prefix="x", suffix="y"), []) == ("x", "y")


def test_the_seed_chooses_among_several_captions():
    captions = ["one", "two", "three"]
    assert {pair("caption", row(caption=captions), [], seed)[1] for seed in range(6)} == set(captions)


def test_objects_are_counted_where_nobody_did():
    assert needs("count", ["image", "objects"]) == ("objects",)
    assert needs("count", ["image", "count", "objects"]) == ("count",)
    sample = row()
    del sample["count"]
    assert pair("count", sample, [])[1] == "2"


def test_a_picture_without_objects_has_an_empty_answer():
    prefix, suffix = pair("detect", row(objects={"bbox": [], "category": [], "mask": []}), CLASSES, seed=4)
    assert (prefix, suffix) == ("detect ground vehicle", "")


def test_segment_answers_all_of_one_category(monkeypatch):
    monkeypatch.setattr(Codebook, "__init__", lambda self: None)
    monkeypatch.setattr(Codebook, "write", lambda self, mask, box: f"<{mask.shape[0]}>")
    prefix, suffix = pair("segment", row(), CLASSES, seed=1, codebook=Codebook())
    assert prefix == "segment mammal animal"
    assert suffix == f"{encode_box([10, 20, 30, 60], (100, 80))}<80> mammal animal"


@pytest.mark.parametrize("task", ["given", "caption", "ocr"])
@pytest.mark.parametrize("empty", ["", "  ", None, []])
def test_an_empty_answer_is_one_clear_line(task, empty):
    if task == "given" and empty == []:
        return
    with pytest.raises(UserError, match="row 'a' has an empty") as error:
        pair(task, row(caption=empty, prefix="x", suffix=empty), CLASSES)
    assert "\n" not in str(error.value)


def test_categories_without_names_are_refused():
    with pytest.raises(UserError, match=r"prompts\.classes"):
        category_words([0], [])
    with pytest.raises(UserError, match=r"vae-oid\.npz"):
        pair("segment", row(), CLASSES)
