"""Random views of images, batched: each view is a function of its image and its own seed alone.

So the teacher and the student, a cached and a live epoch, one process and many, see the same pixels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.contracts import Augment


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele et al. 2014): uint64 → well-mixed uint64."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def view_seed(seed: int, epoch: int, index: int) -> int:
    """The seed of the view that row `index` shows in `epoch`; 0 ≤ seed < 2^63."""
    x = 0
    for part in (seed, epoch, index):  # `_mix` of one number, without an array
        x = (x + part + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        x ^= x >> 31
    return x >> 1


def uniforms(seeds: Tensor, n: int) -> Tensor:
    """n numbers in [0, 1) for each seed: int64[B] → float32[B, n]."""
    with np.errstate(over="ignore"):
        base = seeds.cpu().numpy().astype(np.uint64)[:, None]
        steps = np.arange(1, n + 1, dtype=np.uint64)[None] * np.uint64(0x9E3779B97F4A7C15)
        bits = _mix(base + steps) >> np.uint64(40)
    return torch.from_numpy(bits.astype(np.float32) / np.float32(2**24))


def augment(images: Tensor, seeds: Tensor, config: Augment) -> Tensor:
    """Random views.

    Args:
        images: uint8 or float[B, 3, H, W], RGB, 0–255.
        seeds: int64[B], one a view.
        config: how strong.

    Returns:
        float32[B, 3, H, W], 0–255.
    """
    images = images.float()
    u = uniforms(seeds, 24).to(images.device)
    images = _geometry(images, u[:, :6], config)
    drawing = config.drawing
    if drawing.line:
        images = _line(images, u[:, 6:8], drawing.line)
    if config.hue:
        images = _hue(images, u[:, 8:11], config.hue)
    if config.colour:
        images = _colour(images, u[:, 11:14], config.colour)
    if drawing.background:
        tint = 0.35 + 0.65 * u[:, 15:18]  # as white paper under coloured light: black ink stays black
        images = torch.where(_column(u[:, 14] < drawing.background), images * tint[:, :, None, None], images)
    if drawing.invert:
        images = torch.where(_column(u[:, 18] < drawing.invert), 255 - images, images)
    return images


def augment_map(classes: Tensor, seeds: Tensor, config: Augment) -> Tensor:
    """Class maps int64[B, H, W], cropped, turned and flipped as `augment` does the images of the same seeds; nearest."""
    u = uniforms(seeds, 6).to(classes.device)
    return _geometry(classes[:, None].float(), u, config, "nearest")[:, 0].round().long()


def _column(mask: Tensor) -> Tensor:
    return mask[:, None, None, None]


def _geometry(images: Tensor, u: Tensor, config: Augment, mode: str = "bilinear") -> Tensor:
    """Crop, rotate and flip in one resampling."""
    if config.crop == 1 and config.rotate == 0 and config.flip == 0:
        return images
    scale = (config.crop + (1 - config.crop) * u[:, 0]).sqrt()
    angle = (2 * u[:, 1] - 1) * config.rotate * torch.pi / 180
    mirror = torch.where(u[:, 2] < config.flip, -1.0, 1.0)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    shift = (2 * u[:, 3:5] - 1) * (1 - scale)[:, None]
    rows = [torch.stack([mirror * cos, -sin, shift[:, 0]], 1), torch.stack([mirror * sin, cos, shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode=mode, padding_mode="border", align_corners=False)


def _line(images: Tensor, u: Tensor, probability: float) -> Tensor:
    """Grow dark strokes by one pixel, or light ones."""
    chosen = (u[:, 0] < probability).nonzero().squeeze(1)
    if len(chosen):
        sign = torch.where(_column(u[chosen, 1] < 0.5), -1.0, 1.0)
        images = images.clone()
        images[chosen] = sign * F.max_pool2d(sign * images[chosen], 3, stride=1, padding=1)
    return images


def _hue(images: Tensor, u: Tensor, probability: float) -> Tensor:
    """Permute the colour channels, or make the image grey."""
    orders = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]], device=images.device)
    order = orders[(u[:, 1] * 6).long()]
    mixed = images.gather(1, order[:, :, None, None].expand_as(images))
    images = torch.where(_column(u[:, 0] < probability), mixed, images)
    return torch.where(_column(u[:, 2] < probability), _grey(images).expand_as(images), images)


def _grey(images: Tensor) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device)  # ITU-R BT.601
    return (images * weights[:, None, None]).sum(1, keepdim=True)


def _colour(images: Tensor, u: Tensor, strength: float) -> Tensor:
    """Brightness, contrast and saturation, each scaled by 1 ± strength."""
    bright, contrast, saturation = (1 + strength * (2 * u - 1)).split(1, dim=1)
    images = images * bright[:, :, None, None]
    mean = _grey(images).mean((2, 3), keepdim=True)
    images = mean + (images - mean) * contrast[:, :, None, None]
    grey = _grey(images)
    return (grey + (images - grey) * saturation[:, :, None, None]).clamp(0, 255)
