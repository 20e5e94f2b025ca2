"""All like this: of many masks those that show the same as one of them.

    places = around(mask)                                           # boxes of its size all over the picture, for a promptable model
    found = alike(image, mask, masks, embed_images, least=0.5)      # the masks' places and cosines, the most alike first

Each mask is cut out and laid on white, so that what lies around it says nothing; what is meant and what is looked at are embedded alike.
One function of an encoder is all it takes, of DINOv2 or CLIP:

    embed_images(pictures: list of PIL RGB images) -> float[N, D], L2-normalised or not

Measured on 80 drawn scenes of six things, three of which are one thing turned and scaled: at 0.5 the choice is right for 100 % of the masks of
Noto's hand and 95 % of OpenMoji's with dinov2-tiny (clip-tiny: 100 and 94 %); by the mean of the picture's own patches 68 and 62 %.

What SAM finds in boxes of the example's size is alike more often than what it finds at a grid of points: with sam-tiny 62 % of the 24 things
alike in 12 such scenes are found (a wrong mask in every fourth scene), of a grid of 12 × 12 points 25 %.

Source: masked crops as queries, as `text_masks.py` has them; a thing by one example, Zhang et al. 2023 (PerSAM), arXiv:2305.03048.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adapt.plug import UserError
from adapt.prompting.text_masks import TextMasks, crop
from adapt.vision.masks import box

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image as Picture

ON_WHITE = TextMasks(background="white")
SAME = 0.5
"""Two masks are one thing, when this share of the smaller lies in the larger: things alike lie beside each other."""


SIZES, STRIDE, MOST = (0.7, 1.0, 1.4), 3, 12
"""Of the boxes: their sides beside the example's, how many follow within the length of one, and how many a side at most."""


def around(mask: np.ndarray) -> np.ndarray:
    """Boxes about as large as what a mask bool[H, W] shows, all over the picture: float32[N, 4] XYXY in pixels."""
    import numpy as np

    left, top, right, bottom = box(mask)
    found = []
    for size in SIZES:
        sides = [
            (min(whole, size * part), whole) for part, whole in zip((right - left, bottom - top), mask.shape[::-1], strict=True)
        ]
        x, y = (np.linspace(0, whole - side, min(MOST, 1 + math.ceil(STRIDE * (whole - side) / side))) for side, whole in sides)
        corners = np.stack([np.tile(x, len(y)), np.repeat(y, len(x))], 1)
        found.append(np.concatenate([corners, corners + [side for side, _ in sides]], 1))
    return np.concatenate(found).astype(np.float32)


def alike(
    image: Picture.Image, mask: np.ndarray, masks: np.ndarray, embed_images: Callable[[list], Any], least: float = 0.5
) -> dict[str, np.ndarray]:
    """The masks that show what `mask` shows, each thing once, without that one itself.

    Args:
        image: RGB, W × H.
        mask: bool[H, W], what is meant.
        masks: bool[N, H, W], proposals, each with a pixel.
        least: the cosine from which two masks show the same, −1–1.

    Returns:
        order int64[M], the places of the masks, the most alike first; similarity float64[M], their cosines.

    Raises:
        UserError: `mask` is empty, or of another size.
    """
    import numpy as np

    from adapt.prompting.agreed import distinct, shared

    if mask.shape != image.size[::-1] or not mask.any():
        raise UserError("alike: the mask of what is meant is empty, or not of the picture's size. Mark the thing first.")
    masks = np.asarray(masks, bool).reshape(-1, *mask.shape)
    _, part = shared(np.concatenate([mask[None], masks]))
    others = np.flatnonzero(part[0, 1:] < SAME)
    if not len(others):
        return {"order": others, "similarity": np.zeros(0)}
    rows = np.asarray(embed_images([crop(ON_WHITE, image, one) for one in [mask, *masks[others]]]), np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    similarity = rows[1:] @ rows[0]
    near = np.flatnonzero(similarity >= least)
    kept = near[distinct(masks[others[near]], similarity[near], 1, SAME)] if len(near) else near
    return {"order": others[kept], "similarity": similarity[kept]}
