"""Full fine-tuning: every parameter learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.methods.memory import Trains, checkpoint

if TYPE_CHECKING:
    from datasets import Dataset

    from adapt.contracts import Family


class Config(Trains):
    """Choose the learning rate in `train`."""

    title = "full"


def apply(family: Family, config: Config, rows: Dataset | None = None) -> None:
    """Let every parameter of the backbone learn, and the head that the family needs.

    Raises:
        UserError: checkpointing is not offered.
    """
    checkpoint(family.backbone, config.checkpointing)
    family.backbone.requires_grad_(True)
    family.complete()
