"""Full fine-tuning: every parameter learns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.plug import Plugin

if TYPE_CHECKING:
    from adapt.models._family import Family

TITLE = "full"
"""Its name in tables."""


class Config(Plugin):
    """No options: choose the learning rate in `train`."""


def apply(family: Family, config: Config) -> None:
    """Let every parameter of the backbone learn, and the head that the family needs."""
    family.backbone.requires_grad_(True)
    family.complete()
