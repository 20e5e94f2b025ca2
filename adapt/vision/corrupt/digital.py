"""Digital: faint contrast, elastic waves, coarse pixels, strong JPEG."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image
from scipy import ndimage

from adapt.vision.corrupt.geometry import factor, fitted, layer


def contrast(image: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """(x − mean) · c + mean, by the mean of each channel."""
    image = image / 255
    mean = image.mean((0, 1))
    return (image - mean) * share + mean


def elastic_transform(image: np.ndarray, constants: tuple[float, float, float], random: np.random.Generator) -> np.ndarray:
    """An affine map that moves three points, then waves: random steps smoothed by a Gaussian."""
    height, sigma, far = constants
    f, shape = factor(image.shape), image.shape
    moved = _affine(image / 255, far * f, random)
    size = layer(shape)
    smooth = [_gaussian(side, sigma) for side in size]
    dx, dy = (fitted(smooth[0] @ random.uniform(-1, 1, size) @ smooth[1].T, shape) * (height * f) for _ in "xy")
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return _sampled(moved, rows + dy, columns + dx, "reflect")


def _affine(image: np.ndarray, far: float, random: np.random.Generator) -> np.ndarray:
    """The map that takes three corners of the middle third to places up to `far` pixels from them, x and y each."""
    height, width = image.shape[:2]
    centre, arm = np.array([width // 2, height // 2], float), max(1, min(height, width) // 3)
    before = centre + arm * np.array([[1, 1], [1, -1], [-1, -1]])
    after = before + random.uniform(-far, far, before.shape)
    back = np.linalg.solve(np.column_stack([after, np.ones(3)]), before)  # (x, y, 1) of the result → (x, y) of the picture
    y, x = np.mgrid[:height, :width]
    columns, rows = (x * back[0, i] + y * back[1, i] + back[2, i] for i in (0, 1))
    return _sampled(image, rows, columns, "mirror")


def _sampled(image: np.ndarray, rows: np.ndarray, columns: np.ndarray, edge: str) -> np.ndarray:
    """A picture at places float[H, W] twice, linear; `edge`: see `scipy.ndimage.map_coordinates`."""
    return np.stack(
        [ndimage.map_coordinates(part, (rows, columns), order=1, mode=edge) for part in image.transpose(2, 0, 1)], 2
    )


@lru_cache(32)
def _gaussian(size: int, sigma: float) -> np.ndarray:
    """A Gaussian filter along an axis, cut at 3 σ and mirrored at the ends, as a matrix: kernels of large σ are long, and always the same."""
    reach = int(3 * sigma + 0.5)
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    places = (np.arange(size)[:, None] + steps) % (2 * size)
    places = np.minimum(places, 2 * size - 1 - places) + size * np.arange(size)[:, None]
    shared = np.bincount(places.ravel(), np.tile(weights / weights.sum(), size), size * size)
    return shared.reshape(size, size)


def pixelate(image: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Fewer pixels, and as many again; both by means over boxes."""
    picture = Image.fromarray(image)
    small = picture.resize([max(1, int(side * share)) for side in picture.size], Image.Resampling.BOX)
    return np.array(small.resize(picture.size, Image.Resampling.BOX))


def jpeg_compression(image: np.ndarray, quality: int, random: np.random.Generator) -> np.ndarray:
    """Pillow's JPEG, colours at half the size."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=quality)
    return np.array(Image.open(out))
