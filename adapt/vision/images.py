"""From a picture to what a network takes, described by one dictionary, `input`, that travels with the weights.

`size` (H, W); `resize` an int (the shorter side), (H, W), `longest` (the longest side fills `size`, the rest is padded), or none;
`interpolation`; `crop`: none, or how the centre's odd pixel is rounded, `floor` (transformers) or `round` (torchvision, open_clip);
`mean` and `std` float[3] for values 0–1.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F


def view(image, spec: dict[str, Any]) -> Tensor:
    """A PIL image → uint8[3, H, W]: resized (antialiased, rounded to bytes as the processors do), then the centre cropped.

    With `resize: longest` float32[3, H, W], padded right and bottom with the mean, which normalises to nothing.
    """
    if spec["resize"] == "longest":
        return longest(image, spec)
    pixels = F.pil_to_tensor(image if image.mode == "RGB" else image.convert("RGB"))
    if spec["resize"] is not None:
        size = spec["resize"] if isinstance(spec["resize"], int) else list(spec["resize"])
        pixels = F.resize(pixels, size, interpolation=F.InterpolationMode(spec["interpolation"]), antialias=True)
    return centre(pixels, spec["size"], spec["crop"]) if spec["crop"] else pixels


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height in pixels when the longest side becomes `side`; the shorter may become 0 (as segment-anything rounds)."""
    scale = side / max(width, height)
    return int(width * scale + 0.5), int(height * scale + 0.5)


def longest(image, spec: dict[str, Any]) -> Tensor:
    """A PIL image → float32[3, S, S], 0–255: its longest side fills the square, by Pillow as segment-anything does."""
    side = spec["size"][0]
    small = image.convert("RGB").resize(fitted(*image.size, side), Image.Resampling[spec["interpolation"].upper()])
    square = 255 * torch.tensor(spec["mean"])[:, None, None].repeat(1, side, side)
    square[:, : small.height, : small.width] = F.pil_to_tensor(small)
    return square


def centre(pixels: Tensor, size: tuple[int, int], rounding: str) -> Tensor:
    """The centre of [3, H, W], black where the image is smaller than `size`."""
    wide, high = (max(0, wanted - have) for wanted, have in zip(reversed(size), reversed(pixels.shape[-2:]), strict=True))
    if wide or high:
        pixels = F.pad(pixels, [wide // 2, high // 2, (wide + 1) // 2, (high + 1) // 2])
    if tuple(pixels.shape[-2:]) == tuple(size):
        return pixels
    half = [(have - wanted) / 2 for have, wanted in zip(pixels.shape[-2:], size, strict=True)]
    top, left = (int(value) if rounding == "floor" else round(value) for value in half)
    return F.crop(pixels, top, left, *size)


class Normalise(nn.Module):
    """Images float[B, 3, H, W] 0–255 → (x / 255 − mean) / std."""

    def __init__(self, spec: dict[str, Any]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec["mean"])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(spec["std"])[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images / 255 - self.mean) / self.std


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Items → a batch: tensors are stacked, numbers become int64[B], the rest are lists."""
    batch: dict[str, Any] = {}
    for name in items[0]:
        values = [item[name] for item in items]
        if isinstance(values[0], Tensor):
            batch[name] = torch.stack(values)
        else:
            batch[name] = torch.tensor(values) if isinstance(values[0], int) else values
    return batch
