"""Prompts as a user would give them, drawn from the true masks; every draw is a function of a seed.

Source: Kirillov et al. 2023 (SAM), arXiv:2304.02643, §A "Training algorithm".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.prompting.prompted import CORNER, INSIDE, NOTHING, OUTSIDE
from adapt.vision.augment import uniforms

DRAWS = 10
"""Numbers that an object's first prompt takes."""


def draws(seeds: Tensor, n: int, stream: int) -> Tensor:
    """n numbers in [0, 1) for each seed, other ones in each stream and other ones than the random views take: float32[B, n]."""
    return uniforms(seeds.cpu() ^ (0x5A3 + stream), n)


def pick(seeds: Tensor, counts: list[int], most: int) -> list[list[int]]:
    """Which objects of each image are prompted: at most `most`, without repeats, in their order."""
    chosen = []
    for seed, count in zip(seeds, counts, strict=True):
        u = draws(seed[None], max(count, 1), 0)[0, :count]
        chosen.append(sorted(u.argsort()[:most].tolist()))
    return chosen


def pixels(regions: Tensor, u: Tensor) -> Tensor:
    """A pixel of each region, uniformly.

    Args:
        regions: bool[N, H, W], none of them empty.
        u: float[N], in [0, 1).

    Returns:
        int64[N, 2], X and Y.
    """
    counts = regions.flatten(1).cumsum(1)
    rank = (u * counts[:, -1]).long().clamp(max=counts[:, -1] - 1)
    index = torch.searchsorted(counts, rank[:, None], right=True)[:, 0]
    return torch.stack([index % regions.shape[2], index // regions.shape[2]], 1)


def noisy(boxes: Tensor, u: Tensor, noise: float, most: float, size: Tensor) -> Tensor:
    """Boxes as drawn by hand: each edge moved by a normal error.

    Args:
        boxes: float[N, 4], XYXY, pixels.
        u: float[N, 8], in [0, 1).
        noise: standard deviation, as a share of the box's side.
        most: largest error, pixels.
        size: [N, 2], height and width of the images, which the boxes do not leave.
    """
    normal = (-2 * (1 - u[:, :4]).log()).sqrt() * (2 * torch.pi * u[:, 4:]).cos()  # Box and Muller 1958
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    moved = boxes + (noise * sides * normal).clamp(-most, most)
    corners = moved.view(-1, 2, 2).sort(1).values
    return torch.minimum(corners.clamp(min=0), size.flip(1)[:, None]).flatten(1)


def first(masks: Tensor, boxes: Tensor, size: Tensor, u: Tensor, scale: float, noise: float, most: float):
    """Each object's first prompt: by lot a point inside its mask or its noisy box; both are two tokens long.

    Args:
        masks: bool[N, G, G], none of them empty.
        boxes: float[N, 4], XYXY, pixels of the input.
        size: [N, 2], height and width of the image in the input, pixels.
        u: float[N, DRAWS].
        scale: pixels of the input for each cell of the masks' grid.

    Returns:
        coordinates float[N, 2, 2], XY, pixels of the input; labels int64[N, 2].
    """
    point = (pixels(masks, u[:, 0]) + 0.5) * scale - 0.5
    points = torch.stack([point, torch.zeros_like(point)], 1)
    corners = noisy(boxes, u[:, 2:10], noise, most, size).view(-1, 2, 2)
    boxed = u[:, 1] < 0.5
    kinds = torch.tensor([[INSIDE, NOTHING], [CORNER, CORNER + 1]], device=masks.device)
    return torch.where(boxed[:, None, None], corners, points), kinds[boxed.long()]


def click(masks: Tensor, found: Tensor, u: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """A corrective click somewhere in the error; where there is none, inside the object.

    Args:
        masks, found: bool[N, G, G], the true and the predicted masks.
        u: float[N].

    Returns:
        coordinates float[N, 1, 2], XY, pixels of the input; labels int64[N, 1].
    """
    error = masks ^ found
    region = torch.where(error.flatten(1).any(1)[:, None, None], error, masks)
    x, y = pixels(region, u).unbind(1)
    label = torch.where(masks[torch.arange(len(masks), device=masks.device), y, x], INSIDE, OUTSIDE)
    return ((torch.stack([x, y], 1) + 0.5) * scale - 0.5)[:, None], label[:, None]


def on_grid(mask: Tensor, size: tuple[int, int], side: int, grid: int) -> Tensor:
    """A mask of the picture → the padded input's grid.

    Args:
        mask: bool[H, W], not empty.
        size: height and width of the picture inside the input, pixels.
        side: of the input, pixels; `grid` divides it.

    Returns:
        bool[grid, grid]: the cells of which at least half is covered, or those covered most, so that no object vanishes.
    """
    values = mask[None, None].float()
    if tuple(mask.shape) != tuple(size):
        values = F.interpolate(values, size, mode="bilinear", antialias=True)
    values = F.pad(values, (0, side - size[1], 0, side - size[0]))
    values = F.avg_pool2d(values, side // grid)[0, 0]
    return values >= values.max().clamp(max=0.5)


def inside(size: Tensor, side: int, step: int) -> Tensor:
    """Where a padded input shows its picture.

    Args:
        size: int64[N, 2], height and width of the picture, pixels.
        side: of the input, pixels.
        step: pixels of a cell of the grid.

    Returns:
        bool[N, 1, side / step, side / step].
    """
    at = torch.arange(0, side, step, device=size.device)
    return ((at < size[:, :1])[:, :, None] & (at < size[:, 1:])[:, None, :])[:, None]
