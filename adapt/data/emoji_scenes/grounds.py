"""What the things of a scene lie on: a quiet texture, or paper that has been drawn on."""

from __future__ import annotations

import numpy as np
from PIL import Image as Picture
from PIL import ImageDraw


def textured(rng: np.random.Generator, size: int) -> np.ndarray:
    """uint8[size, size, 3]: two colours mixed by a gradient, stripes, checks, dots or clouds, with grain."""
    y, x = np.mgrid[:size, :size] / size
    angle, period = rng.uniform(0, np.pi), rng.uniform(4, 14)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    kind = rng.integers(5)
    if kind == 0:
        mix = (along - along.min()) / np.ptp(along)
    elif kind == 1:
        mix = 0.5 + 0.5 * np.sin(2 * np.pi * period * along)
    elif kind == 2:
        mix = (np.floor(along * period) + np.floor(across * period)) % 2
    elif kind == 3:
        mix = np.hypot((along * period) % 1 - 0.5, (across * period) % 1 - 0.5) < 0.3
    else:
        mix = _clouds(rng, size, 3, 6, 12)
    first, second = rng.uniform(60, 250, (2, 3))
    second = first + 0.5 * (second - first)  # a quiet background
    return _grained(rng, first + np.asarray(mix, float)[..., None] * (second - first), 4)


def paper(rng: np.random.Generator, size: int) -> np.ndarray:
    """uint8[size, size, 3]: light paper with lines, squares, hatching, dots, a map's contours or strokes of a pen, in dark ink."""
    kind, unit = rng.integers(6), size / 128
    angle = rng.uniform(0, np.pi) if kind == 2 else rng.uniform(-0.1, 0.1)
    period, width = unit * rng.uniform(7, 18), unit * rng.uniform(0.8, 1.8)
    y, x = np.mgrid[:size, :size].astype(float)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x

    def drawn(distance: np.ndarray) -> np.ndarray:
        """How much ink lies where the middle of the line is so many pixels away."""
        return np.clip((width + 1) / 2 - np.abs(distance), 0, 1)

    if kind in (0, 2):
        ink = drawn(across % period - period / 2)
    elif kind == 1:
        ink = np.maximum(drawn(across % period - period / 2), drawn(along % period - period / 2))
    elif kind == 3:
        ink = drawn(0.7 * np.hypot(along % period - period / 2, across % period - period / 2))
    elif kind == 4:
        height = rng.uniform(5, 10) * _clouds(rng, size, 3, 6)
        ink = drawn((height % 1 - 0.5) / (np.hypot(*np.gradient(height)) + 1e-3))
    else:
        ink = _strokes(rng, size, width)
    light = rng.uniform(232, 255, 3)
    dark = np.clip(rng.uniform(0, 130) + rng.uniform(-30, 30, 3), 0, None)
    return _grained(rng, light + ink[..., None] * (dark - light), 3)


def _strokes(rng: np.random.Generator, size: int, width: float) -> np.ndarray:
    """float[size, size]: a few wandering lines of a pen."""
    fine, knots, steps = 4, 12, np.linspace(0, 11, 80)
    sheet = Picture.new("L", (fine * size, fine * size))
    for _ in range(rng.integers(4, 12)):
        path = rng.uniform(-0.1, 1.1, 2) + np.cumsum(rng.normal(0, 0.06, (knots, 2)), 0)
        path = np.stack([np.convolve(np.interp(steps, range(knots), part), np.ones(9) / 9, "valid") for part in path.T], 1)
        points = [tuple(point) for point in fine * size * path]
        ImageDraw.Draw(sheet).line(points, fill=255, width=max(1, round(fine * width)), joint="curve")
    return np.asarray(sheet.resize((size, size), Picture.Resampling.BOX)) / 255


def _clouds(rng: np.random.Generator, size: int, *cells: int) -> np.ndarray:
    """float[size, size] from 0 to 1: random grids of so many cells, the finer the weaker."""
    clouds = 0
    for count in cells:
        grid = Picture.fromarray(rng.uniform(0, 1, (count, count)).astype(np.float32))
        clouds = clouds + np.asarray(grid.resize((size, size), Picture.Resampling.BICUBIC)) / count
    return (clouds - clouds.min()) / np.ptp(clouds)


def _grained(rng: np.random.Generator, colours: np.ndarray, most: float) -> np.ndarray:
    """With grey noise of a standard deviation of up to `most`, as uint8."""
    noise = rng.normal(0, rng.uniform(0, most), (*colours.shape[:2], 1))
    return np.clip(colours + noise, 0, 255).round().astype(np.uint8)
