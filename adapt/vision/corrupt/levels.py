"""The published constants of the 15 corruptions, for severity 1 to 5, number by number.

Source: Hendrycks and Dietterich 2019, arXiv:1903.12261; the code of its authors, hendrycks/robustness (Apache-2.0),
`ImageNet-C/create_c/make_imagenet_c.py`, which made ImageNet-C of pictures of 224 × 224 pixels.
"""

from __future__ import annotations

from typing import Any

CONSTANTS: dict[str, tuple[Any, ...]] = {
    # σ, of values 0–1
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),
    # photons of a white pixel
    "shot_noise": (60, 25, 12, 5, 3),
    # share of the values that become 0 or 1
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),
    # radius of the disk, pixels; σ that smooths its edge
    "defocus_blur": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    # σ before and after, pixels; how far a pixel is taken from; how often
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    # radius and σ along the line, pixels
    "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    # enlargements: from, below, step
    "zoom_blur": ((1, 1.11, 0.01), (1, 1.16, 0.01), (1, 1.21, 0.02), (1, 1.26, 0.02), (1, 1.31, 0.03)),
    # mean and σ of the flakes; their enlargement; threshold; radius and σ of their fall, pixels; share of the picture
    "snow": (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    ),
    # share of the picture, share of the frost
    "frost": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    # how thick; how fast the heights of the fractal fall
    "fog": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    # added to the V of HSV
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    # share of the distance from the mean that is left
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
    # height of the waves, their σ, and how far the corners of the affine map move, pixels; the 244 is theirs, for 224
    "elastic_transform": (
        (244 * 2, 244 * 0.7, 244 * 0.1),
        (244 * 2, 244 * 0.08, 244 * 0.2),
        (244 * 0.05, 244 * 0.01, 244 * 0.02),
        (244 * 0.07, 244 * 0.01, 244 * 0.02),
        (244 * 0.12, 244 * 0.01, 244 * 0.02),
    ),
    # share of the sides that is left
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
    # quality
    "jpeg_compression": (25, 18, 15, 10, 7),
}
