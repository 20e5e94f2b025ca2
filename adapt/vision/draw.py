"""Masks and boxes drawn over pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw

TRUE, FOUND = (0, 190, 90), (230, 40, 60)
"""Colours of what is there and of what was found."""
PALETTE = [
    (230, 40, 60),
    (0, 120, 220),
    (0, 170, 80),
    (250, 160, 0),
    (150, 60, 200),
    (0, 180, 190),
    (220, 60, 160),
    (130, 100, 40),
]


def overlay(
    image: Picture.Image, masks: np.ndarray, colours: Sequence[tuple[int, int, int]], alpha: float = 0.45
) -> Picture.Image:
    """Masks bool[N, H, W] of the image's size laid over it, one colour a mask (in turn), outlined."""
    canvas = np.asarray(image.convert("RGB")).astype(np.float32)
    for number, mask in enumerate(masks):
        colour = np.array(colours[number % len(colours)], np.float32)
        canvas[mask] = (1 - alpha) * canvas[mask] + alpha * colour
        canvas[rim(mask)] = colour
    return Picture.fromarray(canvas.round().astype(np.uint8))


def rim(mask: np.ndarray) -> np.ndarray:
    """The mask's own pixels that touch its outside, bool[H, W]."""
    wide = np.pad(mask, 1)
    return mask & ~(wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:])


def comparison(image: Picture.Image, truth: np.ndarray, mask: np.ndarray, box: Sequence[float] | None = None) -> Picture.Image:
    """What was found, bool[H, W], as a red veil; what is there as a green outline; the prompt's box XYXY in blue."""
    picture = np.array(overlay(image, mask[None], [FOUND]))
    picture[rim(truth)] = TRUE
    picture = Picture.fromarray(picture)
    if box is not None:
        left, top, right, bottom = box
        ImageDraw.Draw(picture).rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=PALETTE[1])
    return picture


def clicked(image: Picture.Image, points: Sequence[tuple[float, float, int]]) -> Picture.Image:
    """Clicks X, Y in pixels: those inside of a thing (1) in green, those outside (0) in blue."""
    picture = image.copy()
    pen, radius = ImageDraw.Draw(picture), max(2, round(max(image.size) / 150))
    for x, y, inside in points:
        colour = TRUE if inside else PALETTE[1]
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white")
    return picture


def boxed(image: Picture.Image, true: Sequence[float], found: Sequence[float] | None = None) -> Picture.Image:
    """A box XYXY in green, and what was taken for it in red."""
    picture = image.convert("RGB")
    pen, width = ImageDraw.Draw(picture), max(1, round(max(image.size) / 200))
    for box, colour in ((found, FOUND), (true, TRUE)):
        if box is not None:
            left, top, right, bottom = box
            pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=width)
    return picture
