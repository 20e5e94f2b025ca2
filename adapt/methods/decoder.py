"""Decoder fine-tuning: the image encoder is frozen, the decoder that answers prompts learns.

Source: Kirillov et al. 2023 (SAM), arXiv:2304.02643, whose mask decoder holds 4 of 94 M parameters (ViT-B). Of PaliGemma, the projector
and the language model learn; its authors warm the tower up slowly instead, for the same reason (arXiv:2407.07726 §3.2): what a decoder
that reads nothing yet sends back destroys a tower.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.methods.memory import Trains, checkpoint
from adapt.plug import UserError

if TYPE_CHECKING:
    from datasets import Dataset

    from adapt.contracts import Family


class Config(Trains):
    """Choose the learning rate in `train`."""

    title = "decoder"


def apply(family: Family, config: Config, rows: Dataset | None = None) -> None:
    """Freeze the family and let its decoder learn; where all that feeds it is frozen, its features can be cached.

    Raises:
        UserError: the family has no decoder, or checkpointing is not offered.
    """
    if family.decoder is None:
        raise UserError(
            "method.name: 'decoder' is for families that have one, such as sam and paligemma. Use full, lora or head."
        )
    checkpoint(family.backbone, config.checkpointing)
    family.requires_grad_(False)
    family.decoder.requires_grad_(True)
