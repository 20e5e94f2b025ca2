"""Regions of Label Studio → shapes in pixels: rectangles and polygons are in percent of the picture, strokes in run lengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets import Value

from adapt.data.labelstudio.brush import decode
from adapt.data.objects import Objects
from adapt.data.outlines import Shape, numeric, painted, polygon, rectangle
from adapt.data.problems import Bad


def read(objects: Objects) -> None:
    """Add the things on the tasks' pictures, and the texts; a box among outlines is its own mask."""
    numbers, objects.fill = {name: number for number, name in enumerate(objects.classes)}, True
    for row, picture in enumerate(objects.pictures):
        for number, region in enumerate(picture.key.regions):
            where = f"{picture.place}, region {number} ({region['type']})"
            try:
                shape = OBJECTS[region["type"]](region["value"], objects.sizes[row], region["size"])
                name = named(region)
                if name is None:
                    raise Bad("bad annotation", f"it needs one label, and has {str(region['value'].get(region['type']))[:60]}")
                objects.add(row, numbers[name], where, shape.box, shape.mask)
            except Bad as bad:
                objects.wrong(row, where, bad)
    texts = [" ".join(picture.key.texts) if picture.told and picture.key.texts else None for picture in objects.pictures]
    if any(text is not None for text in texts):
        objects.columns["caption"] = (Value("string"), texts)


def named(region: dict) -> str | None:
    """The region's only label."""
    names = region["value"].get(region["type"])
    good = isinstance(names, list) and len(names) == 1 and isinstance(names[0], str) and names[0].strip()
    return names[0].strip() if good else None


def _rectangle(value: dict, size: tuple[int, int], drawn: tuple) -> Shape:
    if value.get("rotation"):
        raise Bad("bad annotation", f"it is turned by {str(value['rotation'])[:20]}°; oriented boxes cannot be read")
    left, top, width, height = (_number(value, name) for name in ("x", "y", "width", "height"))
    percent = [left, top, left + width, top + height]
    return rectangle([share * side / 100 for share, side in zip(percent, [*size, *size], strict=True)])


def _polygon(value: dict, size: tuple[int, int], drawn: tuple) -> Shape:
    points = value.get("points")
    if not (isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)):
        raise Bad("bad annotation", f"points must be a list of x and y, in percent, got {str(points)[:60]}")
    share = [[_number({"x": x}, "x") * size[0] / 100, _number({"y": y}, "y") * size[1] / 100] for x, y in points]
    return polygon(share, size)


def _brush(value: dict, size: tuple[int, int], drawn: tuple) -> Shape:
    if drawn not in (size, (None, None)):
        raise Bad("mask of another size", f"drawn on {drawn[0]} × {drawn[1]}; the picture is {size[0]} × {size[1]}")
    if value.get("format", "rle") != "rle":
        raise Bad("bad annotation", f"its format is {str(value['format'])[:20]!r}, and must be 'rle'")
    return painted(decode(value.get("rle"), size))


def _number(value: dict[str, Any], name: str) -> float:
    number = value.get(name)
    if not numeric(number):
        raise Bad("box unreadable", f"{name} must be a number, got {str(number)[:40]!r}")
    return number


OBJECTS: dict[str, Callable[[dict, tuple[int, int], tuple], Shape]] = {
    "rectanglelabels": _rectangle,
    "polygonlabels": _polygon,
    "brushlabels": _brush,
}
"""Kind of region → its shape, from its value, the size of the picture, and the size that Label Studio knew, or (None, None)."""
