"""Noise: each pixel by itself, whatever the picture's size."""

from __future__ import annotations

import numpy as np


def gaussian_noise(image: np.ndarray, sigma: float, random: np.random.Generator) -> np.ndarray:
    """x + N(0, σ): a sensor in little light."""
    return image / np.float32(255) + np.float32(sigma) * random.standard_normal(image.shape, np.float32)


def shot_noise(image: np.ndarray, photons: float, random: np.random.Generator) -> np.ndarray:
    """Poisson(x · c) / c: light comes in photons."""
    counts = np.arange(256) / 255 * photons
    return random.poisson(counts[image]) / np.float32(photons)


def impulse_noise(image: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    """Salt and pepper: of all values (not pixels) a share becomes 0 or 1, each as often."""
    hit, salt = random.random((2, *image.shape), np.float32)
    return np.where(hit < share, np.float32(salt < 0.5), image / np.float32(255))
