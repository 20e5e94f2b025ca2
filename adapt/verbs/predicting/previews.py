"""Drawings of the answers that are the least sure: what a person should look at first."""

from __future__ import annotations

import heapq
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image as Picture

    from adapt.verbs.formats.told import Told

MOST = 24
"""Pictures that are drawn."""
SIDE = 512
"""Pixels of the longer side."""
LARGE = 4096
"""The same of a picture that is thinned out."""


def write(place: Path, told: Told) -> None:
    """Draw the least sure pictures into `previews/`, the least sure first: NN-SURE-NAME.jpg. Words and embeddings have no such measure."""
    from adapt.verbs.predicting.tiles import large

    unsure = heapq.nsmallest(
        MOST, (line for line in told.lines() if line["sure"] is not None), lambda line: (line["sure"], line["number"])
    )
    if unsure:
        place.joinpath("previews").mkdir()
    for number, line in enumerate(unsure, 1):
        with large():
            picture = _small(told.root / line["id"])
        name = re.sub(r"[^\w-]+", "_", Path(line["id"]).stem)[:60]
        drawn(picture, line, told.names).save(place / "previews" / f"{number:02d}-{line['sure']:.2f}-{name}.jpg", quality=90)


def _small(path: Path) -> Picture.Image:
    """A picture, upright; a large one is thinned out before it is copied."""
    from PIL import Image

    from adapt.vision.depth import eight
    from adapt.vision.pictures import open_picture, rgb

    image = eight(open_picture({"path": str(path), "bytes": None}))
    scale = LARGE / max(image.size)
    if scale < 1:
        image = image.resize([max(1, round(scale * side)) for side in image.size], Image.Resampling.NEAREST)
    return rgb(image)


def drawn(picture: Picture.Image, line: dict[str, Any], names: list[str]) -> Picture.Image:
    """A picture, `SIDE` pixels or smaller, with its answer on it, which is a line as `shards.record` makes it."""
    if "objects" in line:
        from adapt.evals.detection.boxes import draw

        numbers = {name: number for number, name in enumerate(names)}
        objects = line["objects"]
        scale = [picture.width / line["width"], picture.height / line["height"]] * 2
        found = {"bbox": [[side * by for side, by in zip(one["box"], scale, strict=True)] for one in objects]}
        found["score"] = [one["score"] for one in objects]
        found["category"] = [numbers.get(one["name"], -1) for one in objects]
        return draw(picture, {"bbox": [], "category": []}, found, names, SIDE)
    small = picture.copy()
    small.thumbnail((SIDE, SIDE))
    if "masks" in line:
        return _veiled(small, line["masks"])
    if max(small.size) < SIDE // 2:  # names have no room on an icon
        scale = SIDE / 2 / max(small.size)
        small = small.resize((max(1, round(small.width * scale)), max(1, round(small.height * scale))))
    return _named(small, f"{line['label']} {line['probability']:.2f}")


def _veiled(picture: Picture.Image, masks: list[dict[str, Any]]) -> Picture.Image:
    """The masks over the picture, each with its class's colour."""
    import numpy as np
    from PIL import Image

    from adapt.verbs.formats.plain import colour
    from adapt.vision.draw import overlay
    from adapt.vision.masks import unrle

    if not masks:
        return picture
    small = [Image.fromarray(unrle(one["rle"])).resize(picture.size, Image.Resampling.NEAREST) for one in masks]
    return overlay(picture, np.stack([np.asarray(mask, bool) for mask in small]), [colour(one["class"]) for one in masks])


def _named(picture: Picture.Image, text: str) -> Picture.Image:
    """Words on a bar below the picture, large enough to be read when it is shown as an icon; long ones smaller."""
    from PIL import Image, ImageDraw, ImageFont

    width = max(picture.width, 200)
    size = width / 13
    size = max(10, min(size, size * (width - 8) / ImageFont.load_default(size).getlength(text)))
    canvas = Image.new("RGB", (width, picture.height + round(1.5 * size)), "white")
    canvas.paste(picture)
    ImageDraw.Draw(canvas).text((4, picture.height + size / 6), text, fill="black", font=ImageFont.load_default(size))
    return canvas
