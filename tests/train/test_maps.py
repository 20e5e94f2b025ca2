"""Class maps, and what data must have for them."""

from __future__ import annotations

import pytest
from PIL import Image

from adapt.plug import UserError
from adapt.train.maps import class_map


@pytest.mark.parametrize("objects", [None, {"bbox": [[0, 0, 4, 4]], "category": [0]}])
def test_objects_without_masks_are_no_class_map(objects):
    with pytest.raises(UserError, match=r"sample 'x' has no masks.*model\.task=features"):
        class_map({"id": "x", "image": Image.new("RGB", (8, 8)), "objects": objects})
