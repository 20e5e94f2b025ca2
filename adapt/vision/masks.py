"""Objects on pictures: masks as COCO's compressed run lengths, which is how data sets and tables hold them, boxes, and crowds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def rle(mask: np.ndarray) -> dict:
    """A mask bool[H, W] → {size: [H, W], counts: str}."""
    import numpy as np
    from pycocotools.mask import encode

    code = encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}


def unrle(code: dict) -> np.ndarray:
    """{size: [H, W], counts: str} → the mask bool[H, W].

    Raises:
        ValueError: the run lengths cannot be read.
    """
    from pycocotools.mask import decode

    return decode({"size": list(code["size"]), "counts": code["counts"].encode("ascii")}).astype(bool)


def unrle_many(codes: Sequence[dict]) -> np.ndarray:
    """The masks of one image, each as in `unrle` → bool[N, H, W]; [0, 0, 0] of none."""
    import numpy as np

    return np.stack([unrle(code) for code in codes]) if codes else np.zeros((0, 0, 0), bool)


def box(mask: np.ndarray) -> list[float]:
    """The box XYXY around a mask bool[H, W] in pixels, right and bottom edges exclusive; zeros for an empty one."""
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    if not len(rows):
        return [0.0, 0.0, 0.0, 0.0]
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


def singles(objects: dict[str, list]) -> dict[str, list]:
    """Objects without regions of crowds (COCO's `iscrowd`: many things under one mask), which nobody is to find or to learn one by one."""
    crowds = objects.get("iscrowd")
    if not crowds or not any(crowds):
        return objects
    kept = [i for i, crowd in enumerate(crowds) if not crowd]
    return {name: values and [values[i] for i in kept] for name, values in objects.items()}
