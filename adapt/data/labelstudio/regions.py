"""Regions of Label Studio → shapes in pixels: rectangles and polygons are in percent of the picture, strokes in run lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from adapt.data.labelstudio.brush import decode
from adapt.data.outlines import Shape, numeric, painted, polygon, rectangle
from adapt.data.problems import Bad


def objects(regions: Sequence[dict], size: tuple[int, int]) -> list[Shape]:
    """The things on a picture of `size` (width, height) in pixels.

    Args:
        regions: `type`, a key of `OBJECTS`; `value`; `size`: the width and height that Label Studio knew, or none.

    Raises:
        Bad: one cannot be read; with its number, which counts from 0.
    """
    shapes = []
    for number, region in enumerate(regions):
        kind, value = region["type"], region["value"]
        try:
            if kind == "brushlabels" and region["size"] not in (size, (None, None)):
                width, height = region["size"]
                raise Bad("bad annotation", f"drawn on a picture of {width} × {height}; the picture is {size[0]} × {size[1]}")
            shapes.append(OBJECTS[kind](_category(kind, value), value, size))
        except Bad as bad:
            raise Bad(bad.args[0], f"region {number} ({kind}): {bad.args[1]}") from None
    return shapes


def _category(kind: str, value: dict) -> str:
    names = value.get(kind)
    if not (isinstance(names, list) and len(names) == 1 and isinstance(names[0], str) and names[0].strip()):
        raise Bad("bad annotation", f"it needs one label, and has {str(names)[:60]}")
    return names[0].strip()


def _rectangle(category: str, value: dict, size: tuple[int, int]) -> Shape:
    if value.get("rotation"):
        raise Bad("bad annotation", f"it is turned by {str(value['rotation'])[:20]}°; oriented boxes cannot be read")
    left, top, width, height = (_number(value, name) for name in ("x", "y", "width", "height"))
    percent = [left, top, left + width, top + height]
    return rectangle(category, [share * side / 100 for share, side in zip(percent, [*size, *size], strict=True)], size)


def _polygon(category: str, value: dict, size: tuple[int, int]) -> Shape:
    points = value.get("points")
    if not (isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)):
        raise Bad("bad annotation", f"points must be a list of x and y, in percent, got {str(points)[:60]}")
    share = [[_number({"x": x}, "x") * size[0] / 100, _number({"y": y}, "y") * size[1] / 100] for x, y in points]
    return polygon(category, share, size)


def _brush(category: str, value: dict, size: tuple[int, int]) -> Shape:
    if value.get("format", "rle") != "rle":
        raise Bad("bad annotation", f"its format is {str(value['format'])[:20]!r}, and must be 'rle'")
    return painted(category, decode(value.get("rle"), size))


def _number(value: dict[str, Any], name: str) -> float:
    number = value.get(name)
    if not numeric(number):
        raise Bad("box unreadable", f"{name} must be a number, got {str(number)[:40]!r}")
    return number


OBJECTS: dict[str, Callable[[str, dict, tuple[int, int]], Shape]] = {
    "rectanglelabels": _rectangle,
    "polygonlabels": _polygon,
    "brushlabels": _brush,
}
"""Kind of region → its shape, from category, value and size of the picture."""
