"""Boxes, outlines and brush strokes → boxes float[4] XYXY in pixels (right and bottom edges exclusive), and masks as COCO RLE.

A `size` is (width, height) of the picture in pixels, after turning as EXIF says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco

from adapt.data.problems import Bad
from adapt.plug import counted
from adapt.vision.masks import box as around
from adapt.vision.masks import lengths, rle

ROUNDING = 1.0
"""Pixels: what lies outside the picture by less is clipped."""


@dataclass
class Shape:
    """A thing on a picture, or a part of one."""

    box: list[float]
    """XYXY in pixels."""
    mask: dict | None = None
    """COCO RLE; none: only the box is known."""


def numbers(values, most: int | None = None) -> list[float]:
    """What JSON or a text gave as finite numbers.

    Raises:
        Bad: it is no list of them, or not of `most`.
    """
    good = isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values)
    try:
        found = [float(value) for value in values] if good else []
    except OverflowError:
        found = [math.inf]
    if not good or (most and len(found) != most) or not all(map(math.isfinite, found)):
        raise Bad("box unreadable" if most else "bad polygon", short(values))
    return found


FAR = 1e9
"""Coordinates in pixels, or numbers in percent, that are further out are none."""


def numeric(value: object) -> bool:
    """Is it a number that a coordinate can be?"""
    return isinstance(value, int | float) and not isinstance(value, bool) and -FAR < value < FAR


def inside(box: Sequence[float], size: tuple[int, int]) -> list[float]:
    """A box XYXY in pixels, clipped where it leaves the picture by less than a pixel.

    Raises:
        Bad: it is reversed, or leaves the picture.
    """
    left, top, right, bottom = box
    width, height = size
    shown = f"{left:g}, {top:g}, {right:g}, {bottom:g}"
    if not (left < right and top < bottom):
        raise Bad("box reversed", shown)
    clipped = [max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))]
    far = max(abs(a - b) for a, b in zip(box, clipped, strict=True)) >= ROUNDING
    if far or not (clipped[0] < clipped[2] and clipped[1] < clipped[3]):
        raise Bad("box off the image", f"{shown}; the image is {width} × {height}")
    return clipped


def polygons(parts: Iterable, size: tuple[int, int]) -> dict:
    """Polygons [x, y, x, y, …] in pixels, which are one object → its mask, COCO RLE, as pycocotools draws it.

    Raises:
        Bad: one has fewer than three points, or leaves the picture by a pixel or more; they cover no pixel.
    """
    width, height = size
    checked = []
    for part in parts:
        points = numbers(part)
        if len(points) % 2:
            raise Bad("bad polygon", f"{len(points)} numbers, which are no pairs")
        if len(points) < 6:
            raise Bad("bad polygon", counted(len(points) // 2, "point"))
        xs, ys = points[::2], points[1::2]
        # far outside, its outline would be as long as the numbers say, in memory
        if min(*xs, *ys) <= -ROUNDING or max(xs) >= width + ROUNDING or max(ys) >= height + ROUNDING:
            shown = f"x {min(xs):g} to {max(xs):g}, y {min(ys):g} to {max(ys):g}"
            raise Bad("polygon off the image", f"{shown}; the image is {width} × {height}")
        checked.append(points)
    code = coco.merge(coco.frPyObjects(checked, height, width)) if len(checked) > 1 else None
    return _filled(code or coco.frPyObjects(checked, height, width)[0])


def run_lengths(code: dict, size: tuple[int, int]) -> dict:
    """COCO RLE, compressed (a text) or not (a list of numbers) → compressed; what is so already stays as it is.

    Raises:
        Bad: it is of another size than the picture, cannot be read, or covers no pixel.
    """
    width, height = size
    counts, sides = code.get("counts"), code.get("size")
    if sides != [height, width]:
        said = f"{short(sides[1])} × {short(sides[0])}" if isinstance(sides, list) and len(sides) == 2 else short(sides)
        raise Bad("mask of another size", f"{said}; the picture is {width} × {height}")
    if isinstance(counts, list):
        if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != width * height:
            raise Bad("bad run lengths", f"they must be whole numbers with the sum {width * height:,}")
        return _filled(coco.frPyObjects({"size": [height, width], "counts": counts}, height, width))
    pixels, whole = lengths([counts if isinstance(counts, str) else None])
    if whole != width * height:
        raise Bad("bad run lengths", short(counts))
    if not pixels:
        raise Bad("mask without pixels", "")
    return {"size": [height, width], "counts": counts}


def _filled(code: dict) -> dict:
    if not coco.area(code):
        raise Bad("mask without pixels", "")
    return _text(code)


def _text(code: dict) -> dict:
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}


def short(value: object, most: int = 60) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text[:most] + (" …" if len(text) > most else "")


# ---------------------------------------------------------------------------------------------------------------- shapes


def rectangle(corners: Iterable[float]) -> Shape:
    """A box by two opposite corners, x y x y in pixels, in any order."""
    one, two, three, four = corners
    return Shape([min(one, three), min(two, four), max(one, three), max(two, four)])


def polygon(points: Sequence[Sequence[float]], size: tuple[int, int]) -> Shape:
    """An outline of x y points in pixels, drawn as COCO draws polygons.

    Raises:
        Bad: as `polygons`.
    """
    flat = [value for point in points for value in point]
    mask = polygons([flat], size)
    return Shape([min(flat[::2]), min(flat[1::2]), max(flat[::2]), max(flat[1::2])], mask)


def circle(centre: Sequence[float], edge: Sequence[float], size: tuple[int, int]) -> Shape:
    """A disc by its centre and a point of its edge; the pixels whose centres lie in it. What leaves the picture is cut off.

    Raises:
        Bad: no pixel of the picture is in it.
    """
    radius = math.dist(centre, edge)
    rows, columns = np.ogrid[: size[1], : size[0]]
    disc = painted((columns + 0.5 - centre[0]) ** 2 + (rows + 0.5 - centre[1]) ** 2 <= radius**2)
    corners = [centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius]
    return Shape(np.clip(corners, 0, [*size, *size]).tolist(), disc.mask)


def painted(mask: np.ndarray) -> Shape:
    """Pixels bool[H, W].

    Raises:
        Bad: there are none.
    """
    if not mask.any():
        raise Bad("mask without pixels", "")
    return Shape(around(mask), rle(mask))


def joined(parts: Sequence[Shape], size: tuple[int, int]) -> Shape:
    """Several shapes of one thing → one, with the box around all; a mask if any part has one."""
    if len(parts) == 1:
        return parts[0]
    corners = np.array([part.box for part in parts])
    box = [*corners[:, :2].min(0).tolist(), *corners[:, 2:].max(0).tolist()]
    if all(part.mask is None for part in parts):
        return Shape(box)
    codes = [part.mask or whole(part.box, size) for part in parts]
    return Shape(box, _text(coco.merge([{"size": each["size"], "counts": each["counts"].encode("ascii")} for each in codes])))


def whole(box: Sequence[float], size: tuple[int, int]) -> dict:
    """The mask that fills a box, COCO RLE; where the box has an area, at least one pixel."""
    mask = np.zeros((size[1], size[0]), bool)
    left, top, right, bottom = box
    left, top = (min(math.floor(edge + 0.5), side - 1) for edge, side in zip((left, top), size, strict=True))
    mask[top : max(top + 1, math.floor(bottom + 0.5)), left : max(left + 1, math.floor(right + 0.5))] = True
    return rle(mask)
