"""Bits and channels of a picture's file: of 16 bits the upper 8 are read, whatever values the picture has.

So a grey picture of 16 bit is read as Pillow, OpenCV and torchvision read one in colour, and is the same as its copy with 8 bits, whether
that was multiplied by 256 or by 257. A picture whose values have no fixed range, or which has more than four channels, is `Refused`: what
it would look like is for its owner to say.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from typing import Any

import numpy as np
from PIL import Image as Picture
from PIL import TiffImagePlugin

REFUSED = {
    "no fixed range": "convert it to 8 or unsigned 16 bit, all pictures by the same range",
    "many channels": "save those that a model is to see as a picture in RGB or grey, with 8 or 16 bit",
}
"""What is `Refused` → what to do about it."""
WIDTH, BITS, PHOTOMETRIC, SAMPLES, NUMBERS = 256, 258, 262, 277, 339
"""Tags of a TIFF: its width, bits of each channel, what values mean, channels, kind of numbers (TIFF 6.0, pp. 34–80)."""
SIGNED, FLOATING = 2, 3


class Refused(ValueError):
    """A picture that can be opened, and nobody can say what it looks like: a key of `REFUSED`, and a detail."""

    def __init__(self, kind: str, detail: str):
        super().__init__(f"{kind} ({detail}); {REFUSED[kind]}")
        self.kind, self.detail = kind, detail


def eight(image: Picture.Image) -> Picture.Image:
    """A picture with 8 bits a channel, of 16 the upper ones.

    Args:
        image: as it was opened, neither cut nor scaled: then nothing says any more what its numbers are.

    Raises:
        Refused: its values have no fixed range, or it has more than four channels.
    """
    image.load()
    refused = _refused(image.tag_v2) if image.format == "TIFF" else None
    if refused:
        raise refused
    if not _grey(image):
        if image.mode in ("I", "F"):
            raise Refused("no fixed range", "integers of 32 bit" if image.mode == "I" else "floating-point numbers of 32 bit")
        return image
    values = (np.asarray(image) >> 8).astype(np.uint8)
    # where 0 is white, Pillow turns 8 bits over, and not 16
    white = image.format == "TIFF" and image.tag_v2.get(PHOTOMETRIC) == 0
    out = Picture.fromarray(255 - values if white else values)
    out.info = {name: value for name, value in image.info.items() if name != "transparency"}
    return out


def _grey(image: Picture.Image) -> bool:
    """Is it a grey picture of 16 bit? Pillow gives some of them 32."""
    return image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))


def bits(image: Picture.Image) -> int:
    """Bits of each channel of a picture whose pixels are not loaded yet: 8, 16 or 32."""
    if _grey(image) or image.mode in ("I", "F"):
        return 16 if _grey(image) else 32
    what = (
        image.tile[0][3] if image.tile else ()
    )  # the decoder's arguments: what the file has, such as RGB;16B, or its largest value
    what = what if isinstance(what, tuple) else (what,)
    if image.format == "PPM":
        return 16 if any(isinstance(one, int) and one > 255 for one in what) else 8
    return 16 if image.format in ("PNG", "TIFF") and any(isinstance(one, str) and ";16" in one for one in what) else 8


def channels(image: Picture.Image) -> int:
    """The channels that a picture's file has; of other formats than TIFF, those that are read."""
    return (_number(image.tag_v2, SAMPLES) if image.format == "TIFF" else 0) or len(image.getbands())


def unknown(data: str | io.BytesIO) -> Exception:
    """Why Pillow does not know the format of a picture, a file or its bytes: of a TIFF, as its header says."""
    tags: dict[int, Any] = {}
    # a stranger's bytes may raise nearly anything
    with suppress(Exception), nullcontext(data) if isinstance(data, io.BytesIO) else open(data, "rb") as file:
        file.seek(0)
        head = file.read(16)
        directory = TiffImagePlugin.ImageFileDirectory_v2(head if b"+" in head[2:4] else head[:8])
        file.seek(directory.next)
        with warnings.catch_warnings(action="ignore"):
            directory.load(file)
        tags = dict(directory)
    if WIDTH not in tags:
        return Picture.UnidentifiedImageError()
    what = f"{_number(tags, SAMPLES) or 1} channels of {_number(tags, BITS) or 1} bit"
    return _refused(tags) or ValueError(f"a TIFF with {what} cannot be read; save it in RGB or grey, with 8 or 16 bit")


def _refused(tags: Mapping[int, Any]) -> Refused | None:
    """Why a TIFF with these tags is refused; none: it is not."""
    count, deep, kind = (_number(tags, tag) for tag in (SAMPLES, BITS, NUMBERS))
    if count > 4:
        return Refused("many channels", f"{count}")
    if kind == FLOATING:
        return Refused("no fixed range", f"floating-point numbers of {deep} bit")
    if kind == SIGNED or deep > 16:
        return Refused("no fixed range", f"{'signed ' * (kind == SIGNED)}integers of {deep} bit")
    return None


def _number(tags: Mapping[int, Any], tag: int) -> int:
    """The largest number of a tag; 0 where there is none."""
    value = tags.get(tag)
    return max((one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, int)), default=0)
