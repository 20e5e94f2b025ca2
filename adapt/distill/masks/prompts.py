"""Prompts drawn in the loop, the masks' loss, and a teacher's layers without its adapters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn


def merged(module: nn.Module) -> nn.Module:
    """A module without peft's layers: adapters merged into the weights, trained copies in the place of their originals."""
    if isinstance(module, ModulesToSaveWrapper):
        return merged(module.modules_to_save[module.active_adapters[0]])
    if isinstance(module, BaseTunerLayer):
        module.merge()
        return module.get_base_layer()
    for name, child in module.named_children():
        plain = merged(child)
        if plain is not child:
            setattr(module, name, plain)
    return module


def mask_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy and dice of logits float[N, M, h, w] against the teacher's, as probabilities (V-Net's dice, of squares)."""
    target = wanted.float().sigmoid()
    entropy = F.binary_cross_entropy_with_logits(found.float(), target)
    ours, target = found.float().sigmoid().flatten(2), target.flatten(2)
    dice = 1 - (2 * (ours * target).sum(2) + 1) / ((ours**2).sum(2) + (target**2).sum(2) + 1)
    return entropy + dice.mean()


def click(wanted: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """A random cell where masks bool[N, h, w] differ (anywhere, if nowhere): its XY float[N, 2] and 1 inside, 0 outside."""
    wrong = (wanted ^ found).flatten(1)
    cell = (torch.rand(wrong.shape, device=wrong.device) + wrong).argmax(1)  # 1 + u beats every u elsewhere
    width = wanted.shape[2]
    return torch.stack([cell % width, cell // width], 1) + 0.5, wanted.flatten(1).gather(1, cell[:, None])[:, 0].long()


def around(masks: Tensor) -> Tensor:
    """Boxes float[N, 4] XYXY around masks bool[N, h, w], in cells; of an empty mask, all of it."""
    masks = torch.where(masks.any((1, 2))[:, None, None], masks, torch.ones_like(masks))
    sides = []
    for axis in (1, 2):
        seen = masks.any(axis).int()
        sides.append((seen.argmax(1), seen.shape[1] - seen.flip(1).argmax(1)))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], 1).float()
