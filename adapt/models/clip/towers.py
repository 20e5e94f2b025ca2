"""What a library gives of a two-tower checkpoint, so that one family holds all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from adapt.contracts import Input, VisionSlot


@dataclass
class Towers:
    """What a library gives: two encoders of its module, and what goes into them."""

    encode_image: Callable[[nn.Module, Tensor], Tensor]
    """(module, normalised float[B, 3, H, W]) → float[B, D], not L2-normalised."""
    tokenise: Callable[[list[str]], Tensor]
    """N texts → int64[N, T]."""
    encode_tokens: Callable[[nn.Module, Tensor], Tensor]
    """(module, int64[N, T]) → float[N, D], not L2-normalised."""
    input: Input
    """See `adapt/vision/images.py`."""
    image: tuple[str, ...]
    """The module's children that see images; all else but the scales reads texts."""
    about: str
    """What the weights do not say of the text tower."""
    vocabulary: Callable[[], list[str]]
    """The tokens by their numbers, as the tokenizer writes them."""
    vision: VisionSlot | None = None
    """The layers of the image tower, where it is a ViT."""
    projection: Callable[[nn.Module], nn.Parameter] | None = None
    """Module → the matrix that ends its image tower, where there is one."""
    unprojected: Callable[[nn.Module, Tensor], Tensor] | None = None
    """`encode_image` without this matrix: (module, normalised float[B, 3, H, W]) → float[B, W]."""
    project: Callable[[nn.Module, Tensor], Tensor] | None = None
    """(module, float[B, W]) → float[B, D]."""
    sigmoid: bool = False
    """SigLIP's loss and logit bias."""
