"""What the corruptions share: kernels and drawn layers that grow with the picture, and linear enlargement.

A length of p pixels in the published code is one of p · f pixels here, where f = (the picture's shorter side) / 224; at 224 nothing is scaled.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image
from scipy.signal import fftconvolve

REFERENCE = 224
"""Pixels a side that the published constants are of."""


def factor(shape: tuple[int, ...]) -> float:
    """f of a picture of (H, W, …)."""
    return min(shape[:2]) / REFERENCE


def scaled(kernel: np.ndarray, f: float) -> np.ndarray:
    """A kernel of pictures of 224 pixels for one of f times their size; its sum stays.

    Each weight is a square, f pixels wide, f times as far from the centre, shared among the pixels that it lies on.

    Args:
        kernel: float[2r + 1, 2r + 1].

    Returns:
        float[2s + 1, 2s + 1]; the same at f = 1.
    """
    half = len(kernel) // 2
    reach = max(0, math.ceil((half + 0.5) * f - 0.5))
    given = (np.arange(-half, half + 2) - 0.5) * f
    pixels = np.arange(-reach, reach + 2) - 0.5
    overlap = np.minimum.outer(pixels[1:], given[1:]) - np.maximum.outer(pixels[:-1], given[:-1])
    shares = np.maximum(overlap, 0) / f
    return shares @ kernel @ shares.T


def correlated(image: np.ndarray, kernel: np.ndarray, edge: str) -> np.ndarray:
    """A picture float[H, W, C] under a kernel float[2r + 1, 2r + 1].

    Args:
        edge: how the picture goes on beyond its edge: `reflect` (without its last pixel again), `edge` (its last pixel).
    """
    half = len(kernel) // 2
    padded = np.pad(image, ((half, half), (half, half), (0, 0)), mode=edge)
    return fftconvolve(padded, kernel[::-1, ::-1, None], mode="valid", axes=(0, 1))


def zoomed(image: np.ndarray, zoom: float) -> np.ndarray:
    """The middle of a picture [H, W, C], enlarged to its size: linear, ends on ends (as `scipy.ndimage.zoom` does)."""
    for axis in (0, 1):
        size = image.shape[axis]
        kept = math.ceil(size / zoom)
        grown = round(kept * zoom)
        places = np.arange(grown) * ((kept - 1) / max(grown - 1, 1)) + (size - kept) // 2
        image = _between(image, places[(grown - size) // 2 :][:size], axis)
    return image


def _between(image: np.ndarray, places: np.ndarray, axis: int) -> np.ndarray:
    """Values at places float[N] along an axis, linear."""
    low = np.clip(places.astype(int), 0, max(image.shape[axis] - 2, 0))
    share = (places - low).astype(image.dtype).reshape((-1, *[1] * (image.ndim - 1 - axis)))
    first = image.take(low, axis)
    return first + share * (image.take(np.minimum(low + 1, image.shape[axis] - 1), axis) - first)


def layer(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width, of which the shorter is 224, of what is drawn and then laid over a picture of (H, W, …)."""
    f = factor(shape)
    return round(shape[0] / f), round(shape[1] / f)


def fitted(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Such a layer float[h, w] at the picture's size, float32[H, W]: means over areas where it is smaller, linear where larger."""
    if values.shape == shape[:2]:
        return np.float32(values)
    how = Image.Resampling.BOX if factor(shape) < 1 else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(np.float32(values)).resize((shape[1], shape[0]), how))
