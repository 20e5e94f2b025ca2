"""The 15 corruptions of ImageNet-C, deterministic: a function of the picture, the name, the severity and a seed alone.

    corrupt(image, "snow", 3, seed=7)        # uint8[H, W, 3] → uint8[H, W, 3]

Formulas and constants are the published ones (`levels.py` has them with their source); bytes are cut off, not rounded, as there. What differs:

- The published code knows 224 × 224 pixels alone. Here a length in pixels grows with the picture's shorter side (`geometry.py`), and at 224 it
  is the published one: a disk of 10 pixels on a picture of 64 would be another corruption. What works on single pixels stays as it is at any
  size: noise, the share of pixelate, the 8 × 8 blocks of JPEG.
- The frost is drawn, since we ship no photographs (`weather.py`).
- numpy's generator draws, seeded, where the published code draws from one that is not; and the libraries are other ones: OpenCV rounds the
  places of its affine map to 1/32 pixel, ImageMagick its motion blur to 16 bits.

Source: Hendrycks and Dietterich 2019, arXiv:1903.12261.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from adapt.plug import UserError, nearest

if TYPE_CHECKING:
    import numpy as np

GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
"""Module of this folder → its corruptions, in the paper's order."""
NAMES = tuple(name for names in GROUPS.values() for name in names)
SEVERITIES = (1, 2, 3, 4, 5)


def corrupt(image: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """A corrupted picture of the same size.

    Args:
        image: uint8[H, W, 3], RGB.
        name: one of `NAMES`.
        severity: 1 to 5.
        seed: not negative; another one gives other noise, where there is any.

    Returns:
        uint8[H, W, 3].

    Raises:
        UserError: there is no such corruption or severity, or the picture is not of that kind.
    """
    from adapt.vision.corrupt.blur import cut
    from adapt.vision.corrupt.levels import CONSTANTS

    known(name)
    if severity not in SEVERITIES:
        raise UserError(f"severity: got {severity!r}; it can be 1, 2, 3, 4 or 5.")
    if str(image.dtype) != "uint8" or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(
            f"corrupt: got an array {image.dtype}{list(image.shape)}; give a picture uint8[height, width, 3], RGB, values 0 to 255."
        )
    found = _functions()[name](image, CONSTANTS[name][severity - 1], generator(name, severity, seed))
    return found if str(found.dtype) == "uint8" else cut(found)


def _functions() -> dict[str, Callable[..., np.ndarray]]:
    """Name → what makes it: (picture, the constants of a severity, a generator) → the picture, bytes or values not yet cut off."""
    from adapt.vision.corrupt import blur, digital, noise, weather

    parts = {
        "noise": (noise.gaussian_noise, noise.shot_noise, noise.impulse_noise),
        "blur": (blur.defocus_blur, blur.glass_blur, blur.motion_blur, blur.zoom_blur),
        "weather": (weather.snow, weather.frost, weather.fog, weather.brightness),
        "digital": (digital.contrast, digital.elastic_transform, digital.pixelate, digital.jpeg_compression),
    }
    return {name: made for group, names in GROUPS.items() for name, made in zip(names, parts[group], strict=True)}


def known(name: str) -> None:
    """Refuse what is not the name of a corruption.

    Raises:
        UserError: with the nearest name and all of them.
    """
    if name not in NAMES:
        raise UserError(f"There is no corruption {name!r}.{nearest(name, NAMES)}")


def generator(name: str, severity: int, seed: int) -> np.random.Generator:
    """What a corruption draws from."""
    import numpy as np

    return np.random.default_rng([seed, zlib.crc32(name.encode()), severity])
