"""Class maps, and what data must have for them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from adapt.plug import UserError
from adapt.vision.classes import IGNORE
from adapt.vision.maps import class_map
from adapt.vision.masks import rle


@pytest.mark.parametrize("objects", [None, {"bbox": [[0, 0, 4, 4]], "category": [0]}])
def test_objects_without_masks_are_no_class_map(objects):
    with pytest.raises(UserError, match=r"sample 'x' has no masks.*model\.task=features"):
        class_map({"id": "x", "image": Image.new("RGB", (8, 8)), "objects": objects})


def test_a_crowd_is_not_judged_and_things_lie_over_it():
    crowd, thing = np.zeros((2, 8, 8), bool)
    crowd[:4], thing[2:6, :3] = True, True
    objects = {"bbox": [[0, 2, 3, 6], [0, 0, 8, 4]], "category": [4, 4], "mask": [rle(thing), rle(crowd)], "iscrowd": [0, 1]}
    found = class_map({"id": "x", "image": Image.new("RGB", (8, 8)), "objects": objects})
    assert (found == np.where(thing, 5, np.where(crowd, IGNORE, 0))).all()
