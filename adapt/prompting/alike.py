"""All like this: of many masks those that show the same as one of them.

    found = alike(image, mask, masks, embed_images, least=0.5)      # the masks' places and cosines, the most alike first

Each mask is cut out and laid on white, so that what lies around it says nothing; what is meant and what is looked at are embedded alike.
One function of an encoder is all it takes, of DINOv2 or CLIP:

    embed_images(pictures: list of PIL RGB images) -> float[N, D], L2-normalised or not

Measured on 80 drawn scenes of six things, three of which are one thing turned and scaled: at 0.5 the choice is right for 100 % of the masks of
Noto's hand and 95 % of OpenMoji's with dinov2-tiny (clip-tiny: 100 and 94 %); by the mean of the picture's own patches 68 and 62 %.

Source: masked crops as queries, as `text_masks.py` has them; a thing by one example, Zhang et al. 2023 (PerSAM), arXiv:2305.03048.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adapt.plug import UserError
from adapt.prompting.text_masks import TextMasks, crop

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image as Picture

ON_WHITE = TextMasks(background="white")
SAME, INSIDE = 0.5, 0.9
"""Two masks of this IoU are one thing, and so are two of which this share of the smaller lies in the larger."""


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
    overlap, part = shared(np.concatenate([mask[None], masks]))
    others = np.flatnonzero((overlap[0, 1:] < SAME) & (part[0, 1:] < INSIDE))
    if not len(others):
        return {"order": others, "similarity": np.zeros(0)}
    rows = np.asarray(embed_images([crop(ON_WHITE, image, one) for one in [mask, *masks[others]]]), np.float64)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    similarity = rows[1:] @ rows[0]
    near = np.flatnonzero(similarity >= least)
    kept = near[distinct(masks[others[near]], similarity[near], SAME, INSIDE)] if len(near) else near
    return {"order": others[kept], "similarity": similarity[kept]}
