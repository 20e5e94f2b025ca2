"""Linear probe: the backbone is frozen, a linear layer on its features learns; which layer, the family knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from adapt.contracts import MethodConfig

if TYPE_CHECKING:
    from datasets import Dataset

    from adapt.contracts import Family


class Config(MethodConfig):
    """A linear classifier on frozen features."""

    title = "linear probe"

    init: Literal["auto", "zero", "text"] = "auto"
    """text: start from the zero-shot classifier, scaled as its logits are (WiSE-FT §3, arXiv:2109.01903); auto: so where the
    family has texts, else from zero."""

    @property
    def only_learnt_classes(self) -> str:
        return "its linear layer has no outputs of others"


def apply(family: Family, config: Config, rows: Dataset | None = None) -> None:
    """Freeze the backbone and put a linear layer of the classes on it.

    Raises:
        UserError: the data have no classes, or the family has no linear head.
    """
    family.requires_grad_(False)
    family.new_head(config.init)
