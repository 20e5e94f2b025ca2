"""Decoder fine-tuning: the image encoder is frozen, the decoder that answers prompts learns.

Source: Kirillov et al. 2023 (SAM), arXiv:2304.02643, whose mask decoder holds 4 of 94 M parameters (ViT-B).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.plug import Plugin, UserError

if TYPE_CHECKING:
    from adapt.models._family import Family

TITLE = "decoder"
"""Its name in tables."""


class Config(Plugin):
    """No options: choose the learning rate in `train`."""


def apply(family: Family, config: Config) -> None:
    """Freeze the family and let its decoder learn; the encoder's features can then be cached.

    Raises:
        UserError: the family has no decoder.
    """
    decoder = getattr(family, "decoder", None)
    if decoder is None:
        raise UserError("method.name: 'decoder' is for families that decode prompts, such as sam. Use full, lora or head.")
    family.requires_grad_(False)
    decoder.requires_grad_(True)
