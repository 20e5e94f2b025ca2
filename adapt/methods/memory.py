"""Activations that are computed again in the backward pass instead of being kept, for every method that trains the backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.contracts import MethodConfig
from adapt.plug import UserError

if TYPE_CHECKING:
    from torch import nn


class Trains(MethodConfig):
    """A method whose gradients flow through the backbone."""

    checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more time."""


def checkpoint(backbone: nn.Module, wanted: bool | None) -> None:
    """Let a backbone compute its layers' activations again; none: only where its library offers that.

    Raises:
        UserError: it is wanted, and not offered.
    """
    if wanted is False:
        return
    if getattr(backbone, "supports_gradient_checkpointing", False):  # transformers
        backbone.activation_checkpointing_enable({"use_reentrant": False})
    elif hasattr(backbone, "set_grad_checkpointing"):  # open_clip, timm
        backbone.set_grad_checkpointing()
    elif wanted:
        raise UserError("method.checkpointing: true, but this checkpoint's library does not offer it. Leave it out.")
