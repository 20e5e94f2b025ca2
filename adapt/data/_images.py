"""Pictures as Arrow columns: bytes in, RGB out, transparency over white."""

from __future__ import annotations

import io

from PIL import Image as Picture
from PIL import ImageOps


def rgb(image: Picture.Image) -> Picture.Image:
    """Any picture → RGB: turned as its EXIF tag says, 16-bit scaled, transparency laid over white."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        low, high = image.getextrema()
        scale = 255 / 65535 if high > 255 else 1.0
        image = image.convert("F").point(lambda value: value * scale).convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Picture.new("RGB", image.size, "white")
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")


def encoded(image: Picture.Image) -> dict:
    """A picture as the `Image` feature stores it: lossless bytes."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return {"bytes": out.getvalue(), "path": None}
