"""Between the model as it came and what it has learnt: the weights of any scale, without training.

    (1 − α) θ₀ + α θ        WiSE-FT §3, arXiv:2109.01903, of every weight that learnt

With full fine-tuning θ₀ is the checkpoint; with a linear head it is the zero-shot classifier times exp(logit_scale), and a bias of zero
(§3: one linear layer is interpolated, which is the ensemble of both classifiers' logits). LoRA's update is scaled in its place: its two
factors would not go from one model to the other in a straight line. What does not begin as the model as it came is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from adapt.plug import UserError
from adapt.verbs.answers import offered

if TYPE_CHECKING:
    from torch import Tensor, nn

    from adapt.models.base import Family
    from adapt.verbs.session import Session

FIRST = ("class_logits", "image_embedding", "patch_features")
TOLERANCE = 1e-3
"""Largest error allowed, as a share of the largest output."""


def interpolate(start: Mapping[str, Tensor], learned: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """(1 − α) θ₀ + α θ, by name; exactly θ₀ at 0 and θ at 1.

    BatchNorm's running means and variances are mixed as weights are. What counts or indexes (whole numbers, truth values) has no
    middle: it is θ₀'s at 0 and else θ's.

    Args:
        start, learned: θ₀ and θ, states of the same names and shapes.
        alpha: α, 0–1.

    Raises:
        KeyError: the names differ.
    """
    if start.keys() != learned.keys():
        raise KeyError(f"the states differ in {sorted(start.keys() ^ learned.keys())[:3]}")
    return {name: _between(start[name], learned[name], alpha) for name in start}


def _between(start: Tensor, learned: Tensor, alpha: float) -> Tensor:
    if alpha in (0, 1) or not start.is_floating_point():
        return (learned if alpha else start).clone()
    return ((1 - alpha) * start.float() + alpha * learned.float()).to(learned.dtype)


def lora(backbone: nn.Module) -> Callable[[float], None]:
    """Takes the backbone to any scale of its LoRA layers: θ₀ + α ΔW."""
    return partial(set_scale, backbone)


def set_scale(backbone: nn.Module, scale: float) -> None:
    """Scale the update of every LoRA layer: 0 is the base, 1 what was trained."""
    from peft.tuners.lora import LoraLayer

    for part in backbone.modules():
        if isinstance(part, LoraLayer):
            for name in part.scaling:
                part.set_scale(name, scale)


def weights(session: Session, adapter: Path, samples: list[dict[str, Any]], scale: float | str) -> Callable[[float], None]:
    """Takes the session's family, to which the method is applied here, to any scale between its start and what it has learnt.

    Args:
        samples: rows by which it is proven that it starts as the model as it comes; at scale 1 it need not.

    Raises:
        UserError: it does not.
    """
    from adapt.methods import adapter as learnt
    from adapt.train.checkpoint import load_trainable, trainable

    before = answers(session.as_it_comes(), samples)
    session.apply_method()
    family = session.family
    start = {name: value.clone() for name, value in trainable(family).items()}
    if scale != 1 and not _same(before, answers(family, samples)):
        raise UserError(
            f"scale: {scale} is not for method {session.recipe.method.name!r} as it was trained: it did not begin as the model as it "
            "comes, so there is no way back to it. Leave scale out, or train with full, lora, qlora, or head with method.init=text."
        )
    learnt.load(family, adapter)
    learned = {name: value.clone() for name, value in trainable(family).items()}
    return lambda alpha: load_trainable(family, interpolate(start, learned, alpha))


def answers(family: Family, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """What a family says of samples: `values` float[…] (its image function's, or its loss) and `choices`, one a sample."""
    import torch

    family.eval()
    device = next(family.parameters()).device
    functions = offered(family)
    name = next((name for name in (*FIRST, *functions) if name in functions), None)
    function = functions.get(name)
    with torch.inference_mode():
        if function is not None and function.takes == "images":
            images = family.collate([family.preprocess(sample, False) for sample in samples])["image"]
            values = torch.cat([function(part.float()) for part in images.to(device).split(16)]).float().cpu()
            return {"values": values.numpy(), "choices": list(values.flatten(1).argmax(1).numpy())}
        samples = samples[:8]
        batch = family.collate([family.preprocess(sample, True) for sample in samples]) | {"seed": torch.arange(len(samples))}
        batch = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
        torch.manual_seed(0)
        loss = family(batch)[0].float().cpu().numpy()
        return {"values": loss[None], "choices": list(function(samples)) if function else [0]}


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Do two models answer alike, but for what they add to all of a sample's values (SigLIP's logit bias, which a head leaves out)?"""
    a, b = one["values"], other["values"]
    if a.shape != b.shape:
        return False
    if a.ndim > 1:
        a, b = (values - values.mean(-1, keepdims=True) for values in (a, b))
    return bool(np.abs(a - b).max() <= TOLERANCE * max(float(np.abs(a).max()), 1e-12))
