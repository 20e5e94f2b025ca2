"""Linear probe: the backbone is frozen, a linear layer on its image embedding learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from adapt.plug import Plugin, UserError

if TYPE_CHECKING:
    from adapt.models._family import Family

TITLE = "linear probe"
"""Its name in tables."""


class Config(Plugin):
    """A linear classifier on frozen embeddings."""

    init: Literal["zero", "text"] = "zero"
    """text: start from the zero-shot classifier, scaled as its logits are (WiSE-FT §3, arXiv:2109.01903)."""


def apply(family: Family, config: Config) -> None:
    """Freeze the backbone and put a linear layer of the classes on it.

    Raises:
        UserError: the data have no labels.
    """
    import torch
    from torch import nn

    family.requires_grad_(False)
    if not family.classes:
        raise UserError("method.name: 'head' needs labelled data; this source has no labels. Use lora or full.")
    with torch.no_grad():
        weight = family.text_classifier(family.templates) * family.net.logit_scale.exp()
    family.head = nn.Linear(weight.shape[1], weight.shape[0]).to(weight.device)
    with torch.no_grad():
        family.head.weight.copy_(weight if config.init == "text" else torch.zeros_like(weight))
        family.head.bias.zero_()
