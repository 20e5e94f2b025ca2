"""Weather: snow, frost, fog, strong light. Snow, frost and fog are layers, drawn as for 224 pixels and brought to the picture's size.

The frost is ours. The published one lays photographs of frozen panes over the picture; we ship no photographs. `pane` draws crystals in their
place, with the mean colour (146, 167, 179), the range of brightness (117 to 207) and the contrast within one (σ 27 of 255) of the five
photographs that the published code takes. The formula and its constants are the published ones.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from adapt.vision.corrupt.blur import cut, track
from adapt.vision.corrupt.geometry import correlated, fitted, layer, zoomed

GREY = np.float32([0.299, 0.587, 0.114])
"""ITU-R BT.601."""
TINT = np.array([146, 167, 179]) / 164
DARK, BRIGHT, SPREAD = 117 / 255, 207 / 255, 27 / 255
"""Of a pane: the range of its mean, and σ within it."""
CRYSTALS = 260
"""On a square of 224 pixels."""


def snow(image: np.ndarray, constants: tuple[float, ...], random: np.random.Generator) -> np.ndarray:
    """Flakes that fall, twice (once upside down), over a picture that is whiter."""
    mean, sigma, zoom, threshold, radius, fall, share = constants
    flakes = zoomed(random.normal(mean, sigma, layer(image.shape))[..., None], zoom)
    flakes = cut(np.where(flakes < threshold, 0, flakes)) / 255
    flakes = correlated(flakes, track(radius, fall, random.uniform(-135, -45)), "edge")[..., 0]
    flakes = np.rint(255 * np.clip(flakes, 0, 1)) / 255
    image = image / np.float32(255)
    white = np.maximum(image, (image @ GREY)[..., None] * 1.5 + 0.5)
    return share * image + (1 - share) * white + fitted(flakes + np.rot90(flakes, 2), image.shape)[..., None]


def fog(image: np.ndarray, constants: tuple[float, float], random: np.random.Generator) -> np.ndarray:
    """(x + c · a cloudy fractal) · max / (max + c)."""
    thick, decay = constants
    height, width = layer(image.shape)
    cloud = plasma(1 << (max(height, width) - 1).bit_length(), decay, random)[:height, :width]
    image = image / np.float32(255)
    most = image.max()
    return (image + thick * fitted(cloud, image.shape)[..., None]) * (most / (most + thick))


def plasma(size: int, decay: float, random: np.random.Generator) -> np.ndarray:
    """Heights by diamonds and squares, float[size, size] from 0 to 1; `size` is a power of two, and opposite edges fit.

    Each middle of four points is a quarter of their mean plus a random height, as the published code has it: `array / 4`, of a sum.
    """
    heights = np.zeros((size, size))
    step, wide = size, 100.0

    def middles(sums: np.ndarray) -> np.ndarray:
        return sums / 4 + wide * random.uniform(-wide, wide, sums.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        sums = corners + np.roll(corners, -1, 0)
        heights[half::step, half::step] = middles(sums + np.roll(sums, -1, 1))
        centres = heights[half::step, half::step]
        heights[::step, half::step] = middles(centres + np.roll(centres, 1, 0) + corners + np.roll(corners, -1, 1))
        heights[half::step, ::step] = middles(centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 0))
        step, wide = half, wide / decay
    heights -= heights.min()
    return heights / heights.max()


def frost(image: np.ndarray, constants: tuple[float, float], random: np.random.Generator) -> np.ndarray:
    """a · x + b · a frozen pane."""
    own, other = constants
    ice = fitted(pane(layer(image.shape), random), image.shape)
    colours = np.clip(random.uniform(DARK, BRIGHT) * TINT + SPREAD * ice[..., None], 0, 1)
    return own * (image / 255) + other * colours


def pane(size: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Crystals on clouds of ice, float[h, w], mean 0 and σ 1: stems with branches at 60° on both sides, light above dark."""
    height, width = size
    crystals = round(CRYSTALS * height * width / 224**2)
    drawing = Image.new("L", (2 * width, 2 * height), 0)  # at twice the size, for smooth lines
    pen = ImageDraw.Draw(drawing)
    lean = random.uniform(0, np.pi)
    for light in np.sort(random.integers(30, 256, crystals)).tolist():
        start = random.uniform(0, 1, 2) * (2 * width, 2 * height)
        turn = lean + random.normal(0, 0.6) + np.pi * random.integers(2)
        for line in _crystal(start, turn, random.uniform(20, 120), random):
            pen.line(line, fill=light, width=1)
    lines = np.asarray(drawing.resize((width, height), Image.Resampling.BOX), float)
    clouds = plasma(1 << (max(size) - 1).bit_length(), 1.8, random)[:height, :width]
    ice = ndimage.gaussian_filter(_standard(lines), 0.5) + 0.8 * _standard(clouds)
    return _standard(ice)


def _crystal(start: np.ndarray, turn: float, length: float, random: np.random.Generator) -> list[tuple[float, ...]]:
    """The lines (x, y, x, y) of a stem and its branches, which are shorter towards its tip."""
    forward = np.array([np.cos(turn), np.sin(turn)])
    lines = [(*start, *(start + length * forward))]
    for side in (-np.pi / 3, np.pi / 3):
        along = np.sort(random.uniform(3, length, round(length / 6)))
        feet = start + along[:, None] * forward
        reach = 0.4 * (length - along) * random.uniform(0.5, 1.2, len(along))
        tips = feet + reach[:, None] * [np.cos(turn + side), np.sin(turn + side)]
        lines += [(*foot, *tip) for foot, tip in zip(feet.tolist(), tips.tolist(), strict=True)]
    return lines


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / max(values.std(), 1e-9)


def brightness(image: np.ndarray, more: float, random: np.random.Generator) -> np.ndarray:
    """V of HSV + c: hue and saturation stay, so all channels grow by one factor, and black becomes grey."""
    image = image / 255
    value = image.max(2, keepdims=True)
    brighter = np.minimum(value + more, 1)
    return np.where(value > 0, image * (brighter / np.maximum(value, 1e-9)), brighter)
