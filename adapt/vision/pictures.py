"""Pictures as Arrow columns: bytes or paths on disk, RGB when a row is looked at, transparency over white; 16 bits: see `depth.py`."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from logging import getLogger
from pathlib import Path

import numpy as np
from datasets import Dataset, Image, List, Value
from datasets.features.features import register_feature
from PIL import Image as Picture
from PIL import ImageOps

from adapt import hardware
from adapt.plug import UserError
from adapt.vision.depth import Refused, eight, unknown

# What Pillow may open: not EPS, which starts a program, and nothing that no camera or browser writes.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".gif", ".bmp", ".webp", ".avif", ".heic", ".heif")
SUFFIXES += (".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".ico")
ORIENTATION = 0x0112
"""EXIF's tag: from 5 on, a picture is turned by a quarter."""
# Objects of a picture: boxes float[N, 4] XYXY in its pixels (right and bottom edges exclusive), masks COCO RLE.
BOXES = List(List(Value("float32"), length=4))
MASKS = List({"size": List(Value("int32"), length=2), "counts": Value("string")})


@dataclass
class RGB(Image):
    """`datasets.Image` whose rows decode through `rgb`; nothing is converted, copied or kept in memory before that.

    Args:
        draft: pixels; a JPEG is decoded at a half, quarter or eighth of its size where both sides keep so many. None: as it is.
    """

    draft: int | None = None
    _type: str = field(default="RGB", init=False, repr=False)

    def decode_example(self, value: dict, token_per_repo_id=None) -> Picture.Image:
        """The picture of a row.

        Raises:
            UserError: it cannot be read.
        """
        if not self.decode or not isinstance(value, dict):
            return super().decode_example(value, token_per_repo_id)
        try:
            picture = open_picture(value)
            if self.draft:
                picture.draft(None, (self.draft, self.draft))  # only JPEGs know how
            return rgb(picture)
        except Exception as error:  # decoders raise nearly anything on broken bytes
            name = value.get("path") or "(bytes)"
            raise UserError(f"data: picture {name}: {reason(error)}. See all such pictures with: adapt doctor data") from None


with warnings.catch_warnings(action="ignore"):  # "experimental"; without it rows saved to disk would not find their way back
    register_feature(RGB, "RGB")


def drafted(rows: Dataset, pixels: int) -> Dataset:
    """Rows whose JPEGs are decoded at a half, quarter or eighth of their size where both sides keep so many pixels.

    Raises:
        UserError: they have boxes, masks or maps, whose places are those of the whole picture.
    """
    if placed := {"objects", "segmentation"} & set(rows.column_names):
        raise UserError(f"data.draft: these pictures have {min(placed)}, whose places would be others. Remove data.draft.")
    return rows.cast_column("image", RGB(draft=pixels))


def open_picture(value: dict) -> Picture.Image:
    """What an `Image` column stores → the picture, header read and pixels not yet."""
    data = value["path"] if value.get("bytes") is None else io.BytesIO(value["bytes"])
    if data is None:
        raise ValueError("no picture in this row")
    getLogger(
        "PIL.TiffImagePlugin"
    ).disabled = True  # what it prints of too many channels, `unknown` says by the picture's name
    try:
        picture = Picture.open(data, formats=FORMATS)
    except Picture.UnidentifiedImageError:
        raise unknown(data) from None
    if picture.width * picture.height > (Picture.MAX_IMAGE_PIXELS or float("inf")):
        raise Picture.DecompressionBombError(f"{picture.width} × {picture.height} pixels")
    if picture.format == "TIFF" and picture.getexif().get(ORIENTATION, 1) > 4:
        picture.filename = ""  # Pillow maps a file that it knows the name of into memory, with the sides of the turned picture
    return picture


def reason(error: Exception) -> str:
    """Why a picture cannot be read, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "the file is missing"
    if isinstance(error, Picture.UnidentifiedImageError):
        return f"not an image in a known format ({', '.join(FORMATS)})"
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, Refused):
        return text
    return f"too many pixels ({text[:100]})" if isinstance(error, Picture.DecompressionBombError) else text[:150]


def rgb(image: Picture.Image) -> Picture.Image:
    """Any picture → RGB: turned as its EXIF tag says, the upper 8 of 16 bits, transparency laid over white.

    Raises:
        Refused: its values have no fixed range, or it has more than four channels.
    """
    image = ImageOps.exif_transpose(eight(image))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Picture.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def held(picture: Picture.Image | np.ndarray) -> Picture.Image:
    """A picture in memory, PIL's or an array uint8[H, W, 3] in RGB or uint8[H, W], → RGB.

    Raises:
        Refused: see `rgb`.
    """
    return rgb(picture if isinstance(picture, Picture.Image) else Picture.fromarray(picture))


def encoded(image: Picture.Image) -> dict:
    """A picture as the `Image` feature stores it: lossless bytes."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return {"bytes": out.getvalue(), "path": None}


# ----------------------------------------------------------------------------------------------------------------- cache


def cache_folder(name: str) -> Path:
    """Where things of one kind are kept that can be made again."""
    return hardware.cache_folder() / name


def digest(*parts: object) -> str:
    """Sixteen hex digits of the parts; a path stands for the file's content."""
    total = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else str(part).encode()
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()[:16]


def cached(path: Path, build: Callable[[Path], None]) -> Dataset:
    """The memory-mapped rows of an Arrow file, which `build(temporary path)` writes when it is not there yet."""
    from adapt.run import atomic

    if not path.is_file():
        with atomic(path) as temporary:
            build(temporary)
    return Dataset.from_file(str(path))
