"""Masks of boxes by SAM, for evals whose drawings follow masks."""

from __future__ import annotations

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Picture

from adapt.evals import region, zeroshot
from adapt.prompting.visual import Visual
from adapt.recipe import load_recipe
from adapt.verbs import boxes
from adapt.verbs.session import Session
from adapt.vision.masks import rle
from adapt.vision.pictures import BOXES


def data() -> Dataset:
    """Two pictures, one with a red square in its box and one without boxes."""
    picture = Picture.new("RGB", (96, 64), "white")
    picture.paste((200, 30, 30), (20, 20, 50, 50))
    features = {"id": Value("string"), "image": Image()}
    features["objects"] = {"bbox": BOXES, "category": List(ClassLabel(names=["a", "b"]))}
    objects = [{"bbox": [[18, 18, 52, 52]], "category": [1]}, {"bbox": [], "category": []}]
    return Dataset.from_dict({"id": ["r0", "r1"], "image": [picture] * 2, "objects": objects}, Features(features))


def test_boxes_without_masks_get_those_of_the_segmenter_that_is_named():
    session, rows = Session(load_recipe("sam_lora")), data()
    config = region.Config(name="region", visual=Visual(segmenter="sam-tiny"))
    found = boxes.masked(session, config, rows)
    sam = boxes.segmenter(session, "sam-tiny")
    (answer,) = sam.predictors()["masks"]([rows[0]])
    assert found["objects"][0]["mask"] == [rle(answer["masks"][0])] and found["objects"][1]["mask"] == []
    assert {name: found["objects"][0][name] for name in ("bbox", "category")} == rows["objects"][0]
    assert found.features["objects"]["category"] == rows.features["objects"]["category"]
    assert (np.asarray(found[0]["image"]) == np.asarray(rows[0]["image"])).all()
    assert boxes.masked(session, config, found) is found, "masks that are there stay"


def test_without_a_segmenter_rows_stay_as_they_are():
    rows = data()
    assert boxes.masked(None, region.Config(name="region"), rows) is rows
    assert boxes.masked(None, zeroshot.Config(name="zeroshot"), rows) is rows
    assert boxes.masked(None, region.Config(name="region", visual=Visual(segmenter="sam-tiny")), None) is None
