"""The head, and how firmly it is held."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Prototypes(nn.Module):
    """A vector a class, () → float32[C, D], L2-normalised.

    Args:
        texts: where they start, and what they are held to, float32[C, D], L2-normalised.
    """

    def __init__(self, texts: Tensor):
        super().__init__()
        self.weight = nn.Parameter(texts.clone())
        self.register_buffer("texts", texts, persistent=False)
        self.register_buffer("hold", torch.zeros(len(texts), device=texts.device))
        """λ_c, float32[C]."""

    def forward(self) -> Tensor:
        return F.normalize(self.weight, dim=-1)

    def distance(self) -> Tensor:
        """Σ_c λ_c ‖w_c − t_c‖², float32[]."""
        return (self.hold * (self.weight - self.texts).pow(2).sum(1)).sum()


def zero_shot_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """What the softmax gives to each class, averaged over its own rows: float32[N, C], int64[N] → float32[C]; without rows 1."""
    own = logits.softmax(1).gather(1, labels[:, None])[:, 0]
    sums = torch.zeros(logits.shape[1], device=logits.device).index_add(0, labels, own)
    counts = labels.bincount(minlength=logits.shape[1])
    return torch.where(counts > 0, sums / counts.clamp(min=1), 1.0)
