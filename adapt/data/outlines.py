"""Shapes that people draw on pictures → boxes float[4] XYXY in pixels (right and bottom edges exclusive), and masks as COCO RLE.

A `size` is (width, height) of the picture in pixels, after turning as EXIF says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from adapt.data.problems import Bad
from adapt.vision.masks import box, rle

ROUNDING = 0.5
"""Pixels by which a shape may leave its picture; it is clipped."""


FAR = 1e9
"""Coordinates in pixels, or numbers in percent, that are further out are none."""


def numeric(value: object) -> bool:
    """Is it a number that a coordinate can be?"""
    return isinstance(value, int | float) and not isinstance(value, bool) and -FAR < value < FAR


@dataclass
class Shape:
    """One thing on a picture."""

    category: str
    """Its class's name."""
    bbox: list[float]
    """XYXY in pixels."""
    mask: dict | None = None
    """COCO RLE; none: only the box is known."""


def rectangle(category: str, corners: Iterable[float], size: tuple[int, int]) -> Shape:
    """A box by two opposite corners, x y x y in pixels, in any order.

    Raises:
        Bad: it has no area, or leaves the picture.
    """
    one, two, three, four = corners
    return Shape(category, _framed([min(one, three), min(two, four), max(one, three), max(two, four)], size))


def polygon(category: str, points: Sequence[Sequence[float]], size: tuple[int, int]) -> Shape:
    """An outline of x y points in pixels, drawn as COCO draws polygons.

    Raises:
        Bad: fewer than three points, no area, or it leaves the picture.
    """
    from pycocotools.mask import frPyObjects

    if len(points) < 3:
        raise Bad("bad annotation", f"a polygon of {len(points)} points; it needs three")
    flat = np.asarray(points, np.float64)
    bbox = _framed([*flat.min(0).tolist(), *flat.max(0).tolist()], size)
    flat = flat.clip(0, size)
    code = frPyObjects([flat.ravel().tolist()], size[1], size[0])[0]
    return Shape(category, bbox, _filled(_text(code)))


def circle(category: str, centre: Sequence[float], edge: Sequence[float], size: tuple[int, int]) -> Shape:
    """A disc by its centre and a point of its edge; the pixels whose centres lie in it. What leaves the picture is cut off.

    Raises:
        Bad: no pixel of the picture is in it.
    """
    radius = math.dist(centre, edge)
    rows, columns = np.ogrid[: size[1], : size[0]]
    disc = (columns + 0.5 - centre[0]) ** 2 + (rows + 0.5 - centre[1]) ** 2 <= radius**2
    code = _filled(rle(disc))
    corners = [centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius]
    return Shape(category, np.clip(corners, 0, [*size, *size]).tolist(), code)


def painted(category: str, mask: np.ndarray) -> Shape:
    """Pixels bool[H, W].

    Raises:
        Bad: there are none.
    """
    return Shape(category, box(mask), _filled(rle(mask)))


def joined(parts: Sequence[Shape], size: tuple[int, int]) -> Shape:
    """Several shapes of one thing → one, with the box around all; a mask if any part has one."""
    from pycocotools.mask import merge

    if len(parts) == 1:
        return parts[0]
    corners = np.array([part.bbox for part in parts])
    bbox = [*corners[:, :2].min(0).tolist(), *corners[:, 2:].max(0).tolist()]
    if all(part.mask is None for part in parts):
        return Shape(parts[0].category, bbox)
    codes = [part.mask or whole(part.bbox, size) for part in parts]
    code = merge([{"size": each["size"], "counts": each["counts"].encode("ascii")} for each in codes])
    return Shape(parts[0].category, bbox, _text(code))


def whole(bbox: Sequence[float], size: tuple[int, int]) -> dict:
    """The mask that fills a box, COCO RLE; where the box has an area, at least one pixel."""
    mask = np.zeros((size[1], size[0]), bool)
    left, top, right, bottom = bbox
    left, top = (min(math.floor(edge + 0.5), side - 1) for edge, side in zip((left, top), size, strict=True))
    mask[top : max(top + 1, math.floor(bottom + 0.5)), left : max(left + 1, math.floor(right + 0.5))] = True
    return rle(mask)


def _framed(bbox: list[float], size: tuple[int, int]) -> list[float]:
    """A box that lies on its picture, clipped by rounding errors at most."""
    if not all(map(math.isfinite, bbox)):
        raise Bad("box unreadable", f"{', '.join(map(str, bbox))}: not numbers")
    left, top, right, bottom = bbox
    words = f"{left:g}, {top:g}, {right:g}, {bottom:g}"
    if not (left < right and top < bottom):
        raise Bad("box reversed", f"{words}: it has no area")
    if left < -ROUNDING or top < -ROUNDING or right > size[0] + ROUNDING or bottom > size[1] + ROUNDING:
        raise Bad("box off the image", f"{words}; the image is {size[0]} × {size[1]}")
    return np.clip(bbox, 0, [*size, *size]).tolist()


def _filled(code: dict) -> dict:
    """The mask, which must have a pixel."""
    from pycocotools.mask import area

    if not area({"size": code["size"], "counts": code["counts"].encode("ascii")}):
        raise Bad("mask off the image", "no pixel of the picture is inside the outline")
    return code


def _text(code: dict) -> dict:
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}
