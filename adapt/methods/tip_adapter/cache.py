"""The kept pictures as a head, and the search of its two numbers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.contracts import TextSlot

SCALE = 100.0
"""By which the paper multiplies cosines."""
ALPHAS, BETAS = 20, 200
"""Values of the grid, by which the paper's code searches."""
FROM = 0.1


class Cache(nn.Module):
    """Embeddings float32[B, D], L2-normalised → class logits float32[B, C]: the words', and what N kept pictures add.

    Args:
        text: the text tower, which knows its classes.
        values: the kept pictures' labels, int64[N].
        tuned: do their embeddings learn?
        alpha, beta: see the method.
    """

    def __init__(self, text: TextSlot, values: Tensor, tuned: bool, alpha: float, beta: float):
        super().__init__()
        words = text.classifier()
        self.zero_shot, self.scale = text.logits, text.scale
        self.register_buffer("words", words, persistent=False)
        keys = torch.zeros(len(values), words.shape[1], device=words.device)
        if tuned:
            self.keys = nn.Parameter(keys)
        else:
            self.register_buffer("keys", keys)
        self.register_buffer("values", values.to(words.device))
        self.register_buffer("alpha", torch.tensor(alpha, device=words.device))
        self.register_buffer("beta", torch.tensor(beta, device=words.device))

    def forward(self, images: Tensor) -> Tensor:
        return self.zero_shot(images, self.words) + self.alpha * self.scale() / SCALE * self.asked(images, self.beta)

    def asked(self, images: Tensor, beta: Tensor | float) -> Tensor:
        """exp(−β (1 − f Kᵀ)) V, float32[B, C]."""
        alike = torch.exp(-beta * (1 - images @ self.keys.T))
        return alike @ F.one_hot(self.values, len(self.words)).to(alike)


def best(cache: Cache, images: Tensor, labels: Tensor, most_alpha: float, most_beta: float) -> tuple[float, float]:
    """α and β of the most right answers, of as many the likeliest; those that the cache has, where none are better.

    Args:
        images: embeddings float32[N, D], L2-normalised.
        labels: int64[N].
        most_alpha, most_beta: ends of the grid.
    """
    words, scale = cache.zero_shot(images, cache.words), cache.scale() / SCALE

    def score(alpha: float, asked: Tensor) -> tuple[int, float]:
        logits = words + alpha * scale * asked
        return int((logits.argmax(1) == labels).sum()), -float(F.cross_entropy(logits, labels))

    found = cache.alpha.item(), cache.beta.item()
    most = score(found[0], cache.asked(images, found[1]))
    for beta in _grid(most_beta, BETAS):
        asked = cache.asked(images, beta)
        for alpha in _grid(most_alpha, ALPHAS):
            if (now := score(alpha, asked)) > most:
                most, found = now, (alpha, beta)
    return found


def _grid(most: float, count: int) -> list[float]:
    """`count` values from `FROM`, evenly up to below `most`."""
    return [FROM + i * (most - FROM) / count for i in range(count)]
