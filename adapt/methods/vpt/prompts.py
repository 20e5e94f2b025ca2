"""What learns in front of a frozen image tower, and the hooks that put it there.

The parameters belong to a module of the family; the hooks on the tower's layers are methods of that module, so that a copy of the family
has hooks of its own.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from adapt.contracts import VisionSlot


class Tokens(nn.Module):
    """P tokens beside the patches, in front of the first layer or of each, taken out behind the last.

    x: the class token and registers; E: the patches.
    shallow (eq. 4): [x1, Z1, E1] = L1([x0, P, E0]); [xi, Zi, Ei] = Li([xi−1, Zi−1, Ei−1])
    deep (eq. 5): [xi, _, Ei] = Li([xi−1, Pi−1, Ei−1])
    """

    def __init__(self, slot: VisionSlot, count: int, deep: bool, dropout: float):
        super().__init__()
        self.first, self.end = slot.first, slot.first + count
        self.tokens = nn.Parameter(torch.empty(len(slot.layers) if deep else 1, count, slot.width))
        bound = math.sqrt(6 / (3 * slot.patch**2 + slot.width))  # Xavier's, of the layer that makes tokens of patches
        nn.init.uniform_(self.tokens, -bound, bound)
        self.dropout = nn.Dropout(dropout)
        for i, layer in enumerate(slot.layers if deep else slot.layers[:1]):
            layer.register_forward_pre_hook(partial(self.put, i))
        slot.layers[-1].register_forward_hook(self.take)

    def put(self, i: int, layer: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        """The layer's input, float[B, N, W] first, with its tokens: the first layer gets more of them, each later one others."""
        hidden = given[0]
        tokens = self.dropout(self.tokens[i].expand(hidden.shape[0], -1, -1)).to(hidden.dtype)
        behind = self.end if i else self.first
        return torch.cat([hidden[:, : self.first], tokens, hidden[:, behind:]], 1), *given[1:]

    def take(self, layer: nn.Module, given: tuple[Any, ...], out: Any) -> Any:
        """The last layer's output without the tokens."""
        hidden = out[0] if isinstance(out, tuple) else out
        hidden = torch.cat([hidden[:, : self.first], hidden[:, self.end :]], 1)
        return (hidden, *out[1:]) if isinstance(out, tuple) else hidden


class Border(nn.Module):
    """A frame of pixels that is added to each normalised picture (Bahng et al., §3.1). It begins at zero, so that the first answers
    are the model's own; the authors' code begins at N(0, 1)."""

    def __init__(self, pixels: nn.Module, size: tuple[int, int], share: float):
        """The sides have `share` of the picture's, one pixel at least; size: height and width, pixels."""
        super().__init__()
        height, width = size
        high, wide = max(1, round(share * height)), max(1, round(share * width))
        self.inside = (height - 2 * high, width - 2 * wide)
        self.top, self.bottom = (nn.Parameter(torch.zeros(3, high, width)) for _ in range(2))
        self.left, self.right = (nn.Parameter(torch.zeros(3, self.inside[0], wide)) for _ in range(2))
        pixels.register_forward_hook(self.add)

    def add(self, module: nn.Module, given: tuple[Any, ...], images: Tensor) -> Tensor:
        """float[B, 3, H, W], normalised → the same with the frame."""
        middle = torch.cat([self.left, self.left.new_zeros(3, *self.inside), self.right], 2)
        return images + torch.cat([self.top, middle, self.bottom], 1).to(images.dtype)
