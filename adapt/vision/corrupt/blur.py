"""Blur: out of focus, behind frosted glass, of a moving camera, of one that moves forward."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from adapt.vision.corrupt.geometry import correlated, factor, scaled, zoomed

HAIR = 1e-3
"""Of a value 0–255: bytes are cut off, not rounded, as in the published code, and rounding errors shall not decide."""


def cut(image: np.ndarray) -> np.ndarray:
    """float[…] 0–1 → uint8[…], cut off as `np.uint8` does."""
    return np.floor(255 * np.clip(image, 0, 1) + HAIR).astype(np.uint8)


def defocus_blur(image: np.ndarray, constants: tuple[float, float], random: np.random.Generator) -> np.ndarray:
    """The mean over a disk."""
    return correlated(image / 255, scaled(disk(*constants), factor(image.shape)), "reflect")


def disk(radius: int, smooth: float) -> np.ndarray:
    """A disk whose edge is smoothed by a Gaussian on 3 × 3 pixels, of large ones on 5 × 5: float[2r + 1, 2r + 1], r = 8 at least."""
    reach, width = (8, 1) if radius <= 8 else (radius, 2)
    line = np.arange(-reach, reach + 1)
    kernel = np.float64(line[:, None] ** 2 + line**2 <= radius**2)
    kernel /= kernel.sum()
    weights = np.exp(-(np.arange(-width, width + 1) ** 2) / (2 * smooth**2))
    for axis in (0, 1):
        kernel = ndimage.correlate1d(kernel, weights / weights.sum(), axis, mode="mirror")
    return kernel


def glass_blur(image: np.ndarray, constants: tuple[float, int, int], random: np.random.Generator) -> np.ndarray:
    """Each pixel is taken from near by, row by row from the end, between two Gaussians.

    The published code means to swap two pixels, but on views of one array: the first takes the other's colour, and nothing goes back. So
    ImageNet-C's pictures were made, and so are these. Taking from one that has taken before carries colours further.
    """
    sigma, reach, times = constants
    f = factor(image.shape)
    sigma = (sigma * f, sigma * f, 0)
    soft = cut(ndimage.gaussian_filter(image / 255, sigma, mode="nearest"))
    height, width = image.shape[:2]
    edge = math.ceil(reach * f)
    rows, columns = (np.arange(size - edge, edge, -1) for size in (height, width))
    places = list(range(height * width))
    for _ in range(times):
        steps = random.integers(-reach, reach, (2, len(rows), len(columns)))
        if f != 1:  # pixels of 224, as so many here on average
            steps = np.floor(steps * f + random.random(steps.shape)).astype(int)
        fromrow = np.clip(rows[:, None] + steps[1], 0, height - 1)
        fromcolumn = np.clip(columns + steps[0], 0, width - 1)
        to = (rows[:, None] * width + columns).ravel().tolist()
        for one, other in zip(to, (fromrow * width + fromcolumn).ravel().tolist(), strict=True):
            places[one] = places[other]
    taken = soft.reshape(-1, 3)[places].reshape(image.shape)
    return ndimage.gaussian_filter(taken / 255, sigma, mode="nearest")


def motion_blur(image: np.ndarray, constants: tuple[int, float], random: np.random.Generator) -> np.ndarray:
    """Along a line that leans 45° at most."""
    angle = random.uniform(-45, 45)
    moved = correlated(image / 255, scaled(track(*constants, angle), factor(image.shape)), "edge")
    return np.rint(255 * np.clip(moved, 0, 1)).astype(np.uint8)  # ImageMagick gives bytes, rounded


def track(radius: int, sigma: float, angle: float) -> np.ndarray:
    """ImageMagick's motion blur as a kernel float[4r + 1, 4r + 1]: half a Gaussian along a line from the middle.

    Args:
        radius, sigma: pixels.
        angle: degrees, from the x axis towards the y axis.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    x, y = (np.ceil(steps * part - 0.5).astype(int) for part in (np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))))
    kernel = np.zeros((4 * radius + 1, 4 * radius + 1))
    np.add.at(kernel, (2 * radius + y, 2 * radius + x), weights / weights.sum())
    return kernel


def zoom_blur(image: np.ndarray, constants: tuple[float, float, float], random: np.random.Generator) -> np.ndarray:
    """The mean of the picture and its enlargements."""
    image = image / np.float32(255)
    zooms = np.arange(*constants)
    return (image + sum(zoomed(image, zoom) for zoom in zooms.tolist())) / (len(zooms) + 1)
