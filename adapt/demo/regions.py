"""What is marked on a picture: regions with their classes, drawn and as files. A script can use it without a page.

marks = Marks(upload).add(Region.of(upload, "cat", mask, score=0.9))
picture = drawn(shown(picture), marks)                     # veils, contours, and the clicks of the region at work
data = coco(marks, "photo.jpg")                            # bytes of a file
"""

from __future__ import annotations

import io
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw
from PIL.PngImagePlugin import PngInfo

from adapt.demo.parts import Upload
from adapt.plug import UserError
from adapt.verbs.formats import boxes
from adapt.verbs.formats.told import Told
from adapt.vision.draw import PALETTE, TRUE, rim
from adapt.vision.masks import corners, lengths, rle, unrle, window

UNDONE = 100
"""Steps that can be taken back."""
MOST = 255
"""Regions of a picture: the PNG has a byte a pixel."""
VEIL = 115
"""Of 255: how opaque a mask is."""
Point = tuple[float, float, bool]
"""x, y in pixels of the picture; is it on the thing?"""


@dataclass(frozen=True)
class Region:
    """A thing that is marked; never changed, but replaced."""

    name: str
    """Its class."""
    mask: dict
    """COCO's run lengths, of the picture's size."""
    small: dict
    """The same as the page shows it."""
    pixels: int
    score: float
    title: str = "predicted IoU"
    """What the score is."""
    points: tuple[Point, ...] = ()
    box: tuple[float, float, float, float] | None = None
    """XYXY in pixels of the picture; with the points, what was asked."""

    @classmethod
    def of(cls, upload: Upload, name: str, mask: np.ndarray, score: float, **more: Any) -> Region:
        """From a mask bool[H, W] of the picture's size."""
        size = [max(1, round(side / upload.scale)) for side in upload.size]
        return cls(name, rle(mask), rle(sized(mask, size)), int(np.count_nonzero(mask)), float(score), **more)


@dataclass(frozen=True)
class Marks:
    """All regions of a picture, and what the next click is for; never changed, but replaced."""

    upload: Upload
    regions: tuple[Region, ...] = ()
    active: int | None = None
    """The region that the next click changes; none: a new one."""
    corner: tuple[float, float] | None = None
    """The first of a box."""
    past: tuple[tuple, ...] = ()
    """`regions`, `active` and `corner` before each step, the last one last."""

    @property
    def region(self) -> Region | None:
        """The one at work."""
        return None if self.active is None else self.regions[self.active]

    def step(self, **changes: Any) -> Marks:
        """After a step that can be taken back; a corner that waited is forgotten."""
        past = (*self.past[1 - UNDONE :], (self.regions, self.active, self.corner))
        return replace(self, **({"corner": None, "past": past} | changes))

    def at(self, number: int | None) -> Marks:
        """With another region at work, or a new one, which is no step; a corner that waited is forgotten."""
        known = number is not None and 0 <= number < len(self.regions)
        return replace(self, active=number if known else None, corner=None)

    def add(self, *regions: Region, active: bool = True) -> Marks:
        """With new regions, of which the last one is at work; with `active=False` the same as before.

        Raises:
            UserError: there is no room for them.
        """
        if len(self.regions) + len(regions) > MOST:
            raise UserError(f"A picture has room for {MOST} regions. Remove some, or clear.")
        found = (*self.regions, *regions)
        return self.step(regions=found, active=len(found) - 1 if active else self.active)

    def put(self, region: Region | None) -> Marks:
        """With another one in the place of the region at work; none: without it."""
        here = self.active
        found = (*self.regions[:here], *([region] if region else []), *self.regions[here + 1 :])
        return self.step(regions=found, active=here if region else None)

    def called(self, number: int | None, name: str) -> Marks:
        """With another class of a region; the same marks, where there is none or it has this class."""
        if number is None or number >= len(self.regions) or self.regions[number].name == name:
            return self
        found = (*self.regions[:number], replace(self.regions[number], name=name), *self.regions[number + 1 :])
        return self.step(regions=found, corner=self.corner)

    def undone(self) -> Marks:
        """Before the last step.

        Raises:
            UserError: there was none.
        """
        if not self.past:
            raise UserError("There is nothing to take back.")
        regions, active, corner = self.past[-1]
        return replace(self, regions=regions, active=active, corner=corner, past=self.past[:-1])


def sized(mask: np.ndarray, size: tuple[int, int] | list[int]) -> np.ndarray:
    """A mask bool[H, W] in another size (width, height): smaller by the nearest pixels, larger with a smooth edge."""
    if mask.shape == (size[1], size[0]):
        return mask
    values = Picture.fromarray(np.ascontiguousarray(mask).view(np.uint8))
    if size[0] <= mask.shape[1]:
        return np.asarray(values.resize(tuple(size), Picture.Resampling.NEAREST)).view(bool)
    return np.asarray(values.point([0, 255] + [0] * 254).resize(tuple(size), Picture.Resampling.BILINEAR)) > 127


# ------------------------------------------------------------------------------------------------------------------ drawn


def colour(number: int) -> tuple[int, int, int]:
    """Of a region, by its place."""
    return PALETTE[number % len(PALETTE)]


def drawn(picture: Picture.Image, marks: Marks) -> Picture.Image:
    """The regions laid over the picture as the page shows it (see `parts.shown`), outlined, the one at work with a thicker line and with
    its clicks: on the thing green, not on it blue."""
    numbers, opaque = (np.zeros(picture.size[::-1], np.uint8) for _ in range(2))
    thin = max(1, round(max(picture.size) / 500))
    for number, region in enumerate(marks.regions):
        if not lengths([region.small["counts"]])[0][0]:
            continue  # nothing, or too little to be seen
        part, top, left = window(region.small)
        place = np.s_[top : top + part.shape[0], left : left + part.shape[1]]
        numbers[place][part] = number % len(PALETTE) + 1
        opaque[place][part] = VEIL
        opaque[place][_line(part, thin * (2 if number == marks.active else 1))] = 255
    veil = Picture.fromarray(numbers)
    veil.putpalette([0, 0, 0, *(value for one in PALETTE for value in one)])
    picture = picture.copy()
    picture.paste(veil.convert("RGB"), mask=Picture.fromarray(opaque))
    _clicks(picture, marks, thin)
    return picture


def _line(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a mask that are at most so near to its edge."""
    inner = mask
    for _ in range(width):
        inner = inner & ~rim(inner)
    return mask & ~inner


def _clicks(picture: Picture.Image, marks: Marks, thin: int) -> None:
    scale, region, radius = marks.upload.scale, marks.region, 4 * thin + 2
    pen = ImageDraw.Draw(picture)
    points = list(region.points) if region and not marks.corner else []
    if region and region.box and not marks.corner:
        pen.rectangle([value / scale for value in region.box], outline=PALETTE[1], width=thin)
    if marks.corner:
        points.append((*marks.corner, True))
    for x, y, inside in points:
        x, y = x / scale, y / scale
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=TRUE if inside else PALETTE[1], outline="white")


# ------------------------------------------------------------------------------------------------------------------ files


def numbered(marks: Marks) -> bytes:
    """A PNG of the picture's size: 0, and the k-th region's pixels k, in its colour on the page; where two overlap, the later one. The
    names are written in it as the text `regions`, a JSON list."""
    numbers = np.zeros(marks.upload.size[::-1], np.uint8)
    for number, region in enumerate(marks.regions, 1):
        numbers[unrle(region.mask)] = number
    picture = Picture.fromarray(numbers)
    picture.putpalette([0, 0, 0, *(value for number in range(MOST) for value in colour(number))])
    names = PngInfo()
    names.add_text("regions", json.dumps([region.name for region in marks.regions]))
    return _png(picture, pnginfo=names)


def cut_out(marks: Marks, picture: Picture.Image) -> bytes:
    """A PNG of what is marked, with transparency around it, cut to its box.

    Args:
        picture: RGB, the whole one.

    Raises:
        UserError: nothing is marked.
    """
    if not any(region.pixels for region in marks.regions):
        raise UserError("Nothing is marked yet: click on a thing first.")
    inside = np.logical_or.reduce([unrle(region.mask) for region in marks.regions])
    found = corners([rle(inside)])[0].astype(int).tolist()
    inside = Picture.fromarray(inside).crop(found).convert("L")
    empty = Picture.new("RGBA", inside.size)
    picture = picture.crop(found).convert("RGBA")
    picture.putalpha(inside)
    empty.paste(picture, mask=inside)  # no colour is left where nothing is seen
    return _png(empty)


def coco(marks: Marks, file_name: str) -> bytes:
    """A JSON file as COCO has them: the picture, the classes, and an annotation a region with compressed run lengths; of none, empty lists."""
    line = {"id": file_name, "number": 0, "width": marks.upload.size[0], "height": marks.upload.size[1], "masks": shapes(marks)}
    names = list(dict.fromkeys(one["name"] for one in line["masks"]))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        told = Told(lambda: [line], [file_name], names, "marked in the demo of adapt", lambda *_: None, place)
        boxes.coco(place / "coco.json", told, told.lines)
        return (place / "coco.json").read_bytes()


def shapes(marks: Marks) -> list[dict[str, Any]]:
    """The regions that have pixels: name, box (XYXY in pixels), rle, pixels, score."""
    found = [region for region in marks.regions if region.pixels]
    return [
        {"name": one.name, "box": box.tolist(), "rle": one.mask, "pixels": one.pixels, "score": one.score}
        for one, box in zip(found, corners([region.mask for region in found]), strict=True)
    ]


def _png(picture: Picture.Image, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", **options)
    return out.getvalue()
