"""Large pictures cut into tiles that overlap, each opened once: aerial and microscope pictures, whose things are a few pixels large.

A tile is as large as was asked for, or as the picture where that is smaller; a picture that is no larger than a tile is left whole.
Tiles are spread evenly, so that neighbours share `overlap` of their side or a little more, and the last ones end at the picture's edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from adapt.plug import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

    from adapt.verbs.predicting.pictures import Looked, Pictures

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of a picture."""
MOST = 2**29
"""Pixels of a picture that is cut, 23,170 × 23,170; whole ones have Pillow's limit, a sixth of it."""
WHOLE = ("detections", "semantic_logits")
"""Predictors whose answers for tiles can be joined to that for the picture."""


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut."""

    side: int
    """Pixels."""
    overlap: float
    """The share of a side that neighbours have in common, at least."""

    def boxes(self, width: int, height: int) -> list[Box]:
        """The tiles of a picture, row by row from the top left."""
        columns, rows = self._starts(width), self._starts(height)
        wide, high = min(self.side, width), min(self.side, height)
        return [(left, top, left + wide, top + high) for top in rows for left in columns]

    def _starts(self, length: int) -> list[int]:
        if length <= self.side:
            return [0]
        step = max(1, int(self.side * (1 - self.overlap)))
        last = math.ceil((length - self.side) / step)
        return [round(number * (length - self.side) / last) for number in range(last + 1)]


def tiling(side: int | None, overlap: float | None, predictor: str, called: str) -> Tiling | None:
    """The cutting that is asked for; none: pictures stay whole.

    Raises:
        UserError: the model's answers cannot be joined, or there is an overlap of nothing.
    """
    if side is None:
        if overlap is not None:
            raise UserError("overlap: is of tiles, and pictures stay whole. Give tile= too, such as tile=1024.")
        return None
    if predictor not in WHOLE:
        raise UserError(
            f"tile: is for boxes and for a class a pixel, and this model answers {called}: a tile's answer is not its picture's. "
            "Leave tile= out."
        )
    return Tiling(side, 0.2 if overlap is None else overlap)


@contextmanager
def large() -> Iterator[None]:
    """Pillow opens pictures of so many pixels as are cut; larger ones stay a decompression bomb."""
    from PIL import Image

    before = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = MOST
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def cut(pictures: Pictures, numbers: list[int], prepare: Callable[[Any], Any], how: Tiling) -> Iterator[Callable[[], Looked]]:
    """What is to be done for each tile of these pictures, in their order: cut it out, prepare it.

    A picture that is cut is decoded here, when its first tile is asked for, and let go with its last one; so are never more in memory
    than the tiles in work belong to. Pictures that stay whole are decoded in `look`.
    """
    from adapt.verbs.predicting.pictures import look

    for number in numbers:
        found = _opened(pictures, number, how.side)
        if found is None:
            yield partial(look, pictures, number, prepare)
            continue
        for box in how.boxes(*found.size):
            yield partial(_tile, number, pictures.ids[number], found, prepare, box)
        del found


def _opened(pictures: Pictures, number: int, side: int) -> Image | None:
    """A picture that is to be cut, decoded and upright; none: it stays whole, or it cannot be read, which `look` will say."""
    from PIL import ImageOps

    from adapt.data.scan import MODES, THIN
    from adapt.vision.depth import eight
    from adapt.vision.pictures import open_picture

    try:
        image = open_picture({"path": str(pictures.root / pictures.ids[number]), "bytes": None})
        sides = [min(side, length) for length in image.size]
        if max(image.size) <= side or max(sides) > THIN * min(sides) or image.mode not in MODES:
            return None
        image = eight(image)  # of a tile nothing says where its numbers come from
        ImageOps.exif_transpose(image, in_place=True)
        return image
    except Exception:  # decoders raise nearly anything on broken bytes
        return None


def _tile(number: int, name: str, image: Image, prepare: Callable[[Any], Any], box: Box) -> Looked:
    from adapt.verbs.predicting.pictures import Looked
    from adapt.vision.pictures import rgb

    return Looked(number, name, image.size, prepare(rgb(image.crop(box))), tile=box)
