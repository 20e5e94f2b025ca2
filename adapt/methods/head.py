"""Linear probe: the backbone is frozen, a linear layer on its features learns; which layer, the family knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from adapt.plug import Plugin

if TYPE_CHECKING:
    from adapt.models.base import Family

TITLE = "linear probe"
"""Its name in tables."""
PLACES = False
"""Does it put the family on its device itself, by `place`?"""


class Config(Plugin):
    """A linear classifier on frozen features."""

    init: Literal["auto", "zero", "text"] = "auto"
    """text: start from the zero-shot classifier, scaled as its logits are (WiSE-FT §3, arXiv:2109.01903); auto: so where the
    family has texts, else from zero."""


def apply(family: Family, config: Config) -> None:
    """Freeze the backbone and put a linear layer of the classes on it.

    Raises:
        UserError: the data have no classes, or the family has no linear head.
    """
    family.requires_grad_(False)
    family.new_head(config.init)
