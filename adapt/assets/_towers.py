"""`dinov2-tiny` and `clip-tiny`'s image tower have the same layers: the weights of one in the format of the other.

The libraries' pixel norms are folded into the patch embedding. CLIP has a norm before its layers, DINOv2 has none: what stands in for it
is fitted to pictures by least squares, so the copy is close, not equal.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


@torch.no_grad()
def to_clip(tower: nn.Module, model: nn.Module, images: Tensor, pixels: dict, own: dict) -> None:
    """Copy a `Dinov2Model` into a CLIP image tower.

    Args:
        images: float[B, 3, H, W] 0–255; CLIP's first norm gets the weight and bias that change their embeddings least.
        pixels, own: `mean` and `std` of the tower's pixels and of the model's, of 1.
    """
    (mean, std), (own_mean, own_std) = _norms(pixels), _norms(own)
    theirs, embeddings = model.embeddings, tower.embeddings
    kernel, places = theirs.patch_embeddings.projection.weight, theirs.position_embeddings[0].clone()
    bias = theirs.patch_embeddings.projection.bias + (kernel * ((mean - own_mean) / own_std)).sum((1, 2, 3))
    places[1:] += bias  # CLIP's patches have none
    embeddings.patch_embedding.weight.copy_(kernel * (std / own_std))
    embeddings.class_embedding.copy_(theirs.cls_token.flatten())
    embeddings.position_embedding.weight.copy_(places)
    wanted = embeddings((images / 255 - mean) / std).flatten(0, 1)
    normed = nn.functional.layer_norm(wanted, wanted.shape[-1:])
    slope = _slope(normed, wanted)
    tower.pre_layrnorm.weight.copy_(slope)
    tower.pre_layrnorm.bias.copy_(wanted.mean(0) - slope * normed.mean(0))
    for layer, same, scale in _layers(tower, model):  # DINOv2's layer scales are folded into the weights
        layer.load_state_dict(same.state_dict())
        if scale is not None:
            layer.weight.mul_(scale.lambda1[:, None])
            layer.bias.mul_(scale.lambda1)


@torch.no_grad()
def to_dinov2(model: nn.Module, tower: nn.Module, images: Tensor, own: dict, pixels: dict) -> None:
    """Copy a CLIP image tower into a `Dinov2Model`; the arguments are those of `to_clip`.

    In the place of CLIP's first norm stand a scale a channel and the positions.
    """
    (mean, std), (own_mean, own_std) = _norms(pixels), _norms(own)
    theirs, embeddings = tower.embeddings, model.embeddings
    before = theirs((images / 255 - mean) / std)
    wanted, patches = tower.pre_layrnorm(before), (before - theirs.position_embedding.weight)[:, 1:]
    scale = _slope(patches.flatten(0, 1), wanted[:, 1:].flatten(0, 1))
    kernel = theirs.patch_embedding.weight * scale[:, None, None, None]
    embeddings.patch_embeddings.projection.weight.copy_(kernel * (own_std / std))
    embeddings.patch_embeddings.projection.bias.copy_((kernel * ((own_mean - mean) / std)).sum((1, 2, 3)))
    embeddings.position_embeddings[0, 1:] = (wanted[:, 1:] - scale * patches).mean(0)
    embeddings.position_embeddings[0, 0] = wanted[0, 0]
    embeddings.cls_token.zero_()
    for layer, same, scale in _layers(tower, model):
        same.load_state_dict(layer.state_dict())
        if scale is not None:
            scale.lambda1.fill_(1)


def _layers(tower: nn.Module, model: nn.Module) -> Iterator[tuple[nn.Module, nn.Module, nn.Module | None]]:
    """A CLIP tower's layers, those of a `Dinov2Model`, and the scales that follow these."""
    yield tower.post_layernorm, model.layernorm, None
    for one, other in zip(tower.encoder.layers, model.encoder.layer, strict=True):
        for name in "qkv":
            yield getattr(one.self_attn, f"{name}_proj"), getattr(other.attention, f"{name}_proj"), None
        yield one.self_attn.out_proj, other.attention.o_proj, other.layer_scale1
        yield one.mlp.fc1, other.mlp.fc1, None
        yield one.mlp.fc2, other.mlp.fc2, other.layer_scale2
        yield one.layer_norm1, other.norm1, None
        yield one.layer_norm2, other.norm2, None


def _norms(pixels: dict) -> list[Tensor]:
    return [torch.tensor(pixels[name])[:, None, None] for name in ("mean", "std")]


def _slope(x: Tensor, y: Tensor) -> Tensor:
    """float[N, D] twice → float[D]: how far y goes with x, a channel, by least squares."""
    x = x - x.mean(0)
    return (x * (y - y.mean(0))).sum(0) / x.square().sum(0)
