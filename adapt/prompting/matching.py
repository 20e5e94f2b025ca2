"""Training-free few-shot matching: a picture with a mask says what is meant, and patch similarity finds it in other pictures.

Every patch is compared with the patches inside and outside the examples' masks; what is nearer to the inside is the thing.

    example = Example.of(features, mask)                        # one picture, or several, of what is meant
    scores = similarity(other_features, example)                # > 0 where the thing is
    masks, points = segment(scores, size=(224, 224)), peaks(scores, size=(224, 224))

Source: patch correspondences of frozen DINO features, Amir et al. 2021, arXiv:2112.05814; positive and negative patches, and the
way back (bidirectional matching), Matcher, Liu et al. 2023, arXiv:2305.13310; a point for SAM, PerSAM, Zhang et al. 2023,
arXiv:2305.03048.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.plug import UserError


@dataclass
class Example:
    """Patches of what is meant and of what is not, L2-normalised."""

    inside: Tensor
    """float[I, D], I ≥ 1."""
    outside: Tensor
    """float[O, D]; empty where the masks cover the pictures."""

    @classmethod
    def of(cls, features: Tensor, masks: Tensor, share: float = 0.5) -> Example:
        """From pictures with masks.

        Args:
            features: float[N, D, h, w], patch features of the N examples.
            masks: bool[N, H, W] (any size) of the same views.
            share: a patch is inside when at least this share of it is, outside when nothing of it is; the rest counts for neither.
                Where no patch is so full, the fullest ones are inside.

        Raises:
            UserError: a shape is wrong, or a mask is empty.
        """
        if features.ndim != 4 or masks.ndim != 3 or len(features) != len(masks):
            raise UserError(
                f"matching: features {tuple(features.shape)} and masks {tuple(masks.shape)}; give [N, D, h, w] and [N, H, W]."
            )
        if not masks.flatten(1).any(1).all():
            raise UserError("matching: an example's mask is empty. Mark what is meant in each example.")
        cover = F.adaptive_avg_pool2d(masks[:, None].float(), features.shape[-2:]).flatten(1)
        full = torch.minimum(cover.amax(1, keepdim=True), torch.tensor(share))
        rows = _rows(features)
        return cls(rows[cover >= full], rows[cover == 0])


def similarity(features: Tensor, example: Example, nearest: int = 1) -> Tensor:
    """How much nearer to the inside than to the outside each patch is.

    Args:
        features: float[B, D, h, w].
        nearest: cosines are averaged over so many nearest patches of each side; 0: over all, as one prototype a side.

    Returns:
        float[B, h, w], −2–2: cosine with the inside minus cosine with the outside (or minus 0 without an outside).
    """
    rows = _rows(features)
    inside = _closeness(rows, example.inside, nearest)
    outside = _closeness(rows, example.outside, nearest) if len(example.outside) else torch.zeros_like(inside)
    return (inside - outside).unflatten(1, features.shape[-2:])


def mutual(features: Tensor, example: Example) -> Tensor:
    """Patches whose way back ends inside: bool[B, h, w].

    Each patch of the examples' inside goes to its nearest patch of a picture, and from there back to its nearest patch of the
    examples; it is kept when that is inside too (Matcher §3.2).
    """
    out = torch.zeros(len(features), features.shape[-2] * features.shape[-1], dtype=torch.bool, device=features.device)
    known = torch.cat([example.inside, example.outside])
    for kept, rows in zip(out, _rows(features), strict=True):
        there = (example.inside @ rows.T).argmax(1)
        back = (rows[there] @ known.T).argmax(1)
        kept[there[back < len(example.inside)]] = True
    return out.unflatten(1, features.shape[-2:])


def segment(scores: Tensor, size: tuple[int, int], threshold: float = 0.0) -> Tensor:
    """Scores float[B, h, w] → masks bool[B, H, W] of the wanted size (H, W), bilinear between the patches."""
    return F.interpolate(scores[:, None], size=size, mode="bilinear", align_corners=False)[:, 0] > threshold


def peaks(scores: Tensor, size: tuple[int, int], count: int = 1) -> Tensor:
    """The centres of the `count` best patches, best first: float[B, count, 2], (x, y) in pixels of a picture of size (H, W)."""
    h, w = scores.shape[-2:]
    best = scores.flatten(1).topk(min(count, h * w)).indices
    x, y = (best % w + 0.5) * size[1] / w, (best // w + 0.5) * size[0] / h
    return torch.stack([x, y], -1)


def _rows(features: Tensor) -> Tensor:
    """float[B, D, h, w] → float[B, h·w, D], L2-normalised."""
    return F.normalize(features.flatten(2).transpose(1, 2).float(), dim=-1)


def _closeness(rows: Tensor, known: Tensor, nearest: int) -> Tensor:
    """Mean cosine of float[B, P, D] with the nearest of float[K, D]: float[B, P]."""
    if nearest == 0:
        return rows @ F.normalize(known.mean(0), dim=0)
    return (rows @ known.T).topk(min(nearest, len(known)), dim=-1).values.mean(-1)
