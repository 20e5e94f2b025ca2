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


def window(code: dict) -> tuple[np.ndarray, int, int]:
    """The part of a mask, as in `unrle`, that its box encloses: bool[h, w], and the box's top and left edge, pixels.

    Nothing outside of its columns is drawn. The run lengths are such as `lengths` accepts, of a mask that has pixels.
    """
    import numpy as np

    height = int(code["size"][0])
    runs, _, _ = _runs([code["counts"].encode("ascii")])
    ends = np.cumsum(runs)
    left, right = int(ends[0]) // height, -(-int(ends[len(runs) // 2 * 2 - 1]) // height)
    runs = np.diff(np.clip(np.concatenate([[0], ends]), left * height, right * height))
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(right - left, height)
    rows = np.flatnonzero(columns.any(0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return np.ascontiguousarray(columns[:, top:bottom].T), top, left


def corners(codes: Sequence[dict]) -> np.ndarray:
    """The boxes around masks given as run lengths: float64[N, 4] XYXY in pixels, right and bottom edges exclusive."""
    import numpy as np
    from pycocotools.mask import toBbox

    if not codes:
        return np.zeros((0, 4))
    found = toBbox([{"size": list(code["size"]), "counts": code["counts"].encode("ascii")} for code in codes])
    return np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1)


def unrle_many(codes: Sequence[dict]) -> np.ndarray:
    """The masks of one image, each as in `unrle` → bool[N, H, W]; [0, 0, 0] of none."""
    import numpy as np

    return np.stack([unrle(code) for code in codes]) if codes else np.zeros((0, 0, 0), bool)


def lengths(counts: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray]:
    """What run lengths say, read without drawing their masks: pycocotools fills what short ones leave with whatever lies in the memory.

    Args:
        counts: of N masks; none: there are no run lengths.

    Returns:
        The pixels of each mask, and of its whole picture, int64[N]; -1 for both, where the text is none.
    """
    import numpy as np

    texts = [(text or "").encode("ascii", "replace") for text in counts]
    runs, owner, broken = _runs(texts)
    odd = (np.arange(len(runs)) - np.searchsorted(owner, owner)) % 2
    area, whole = (np.bincount(owner, runs * which, len(texts)).astype(np.int64) for which in (odd, 1))
    return np.where(broken, -1, area), np.where(broken, -1, whole)


def _runs(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run lengths of N masks: the runs of all, pixels, int64[R]; the mask of each, int64[R]; and whether its text is none, bool[N].

    COCO's text (`rleToString` in maskApi.c) has numbers of 5 bits a character, the lowest first, 32 for one that goes on, 16 in the last for
    a negative one; from the fourth number on, what is written is the difference from the number before the last.
    """
    import numpy as np

    values = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    last = (values & 32) == 0
    broken = np.zeros(len(texts), bool)
    broken[owner[(values < 0) | (values > 63)]] = True
    broken[owner[~last & (np.diff(owner, append=-1) != 0)]] = True  # the text ends inside of a number
    first = np.flatnonzero(np.concatenate([[True], last[:-1]])) if len(values) else np.zeros(0, int)
    size = np.diff(first, append=len(values))  # of each number, characters
    broken[owner[first[size > 6]]] = True  # more pixels than any picture has
    place = np.minimum(np.arange(len(values)) - np.repeat(first, size), 6)
    values = ((values & 31) << (5 * place)) - np.where(last & (values & 16 > 0), 32 << (5 * place), 0)
    runs, owner = np.add.reduceat(values, first) if len(first) else values, owner[first]
    index = np.arange(len(runs)) - np.searchsorted(owner, owner)
    for chain in (np.flatnonzero(index % 2), np.flatnonzero((index > 0) & (index % 2 == 0))):  # pixels of the mask; others
        summed, start = np.cumsum(runs[chain]), np.flatnonzero(np.diff(owner[chain], prepend=-1))
        before = summed[start] - runs[chain[start]]
        runs[chain] = summed - np.repeat(before, np.diff(start, append=len(chain)))
    broken[owner[runs < 0]] = True
    return runs, owner, broken


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
