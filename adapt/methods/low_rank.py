"""What the methods of low-rank adapters have in common: their options, and how they are put on a family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from adapt.methods.memory import Trains
from adapt.plug import UserError, nearest

if TYPE_CHECKING:
    from adapt.contracts import Family


class Adapters(Trains):
    """Low-rank adapters."""

    rank: int = Field(2, ge=1, le=1024)
    """Rank r of the update."""
    alpha: float = Field(1, gt=0)
    """The update is scaled by α/r, or by α/√r with rslora."""
    dropout: float = Field(0.25, ge=0, lt=1)
    """Dropout on the adapters' input."""
    dora: bool = False
    """Weight-decomposed LoRA: the magnitude learns apart from the direction."""
    rslora: bool = False
    """Rank-stabilised scaling, α/√r."""


def ending(ends: str) -> str:
    """A pattern of whole module names from one of their ends."""
    return rf"(?:.*\.)?(?:{ends})"


def named(family: Family, targets: list[str]) -> str:
    """The pattern of the modules that a recipe's targets (`q`, `mlp`, … or ends of module names) mean."""
    return ending("|".join(family.adapter_targets.get(name, name) for name in targets))


def add(family: Family, config: Adapters, modules: str | list[str], targets: list[str]) -> None:
    """Freeze the family and put adapters on `modules`; `family.backbone` becomes a `PeftModel`.

    Args:
        modules: a pattern of whole names, or the names.
        targets: what the recipe calls them, for the error.

    Raises:
        UserError: a target matches no module, or the module's kind cannot take an option.
    """
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=modules,
        use_dora=config.dora,
        use_rslora=config.rslora,
    )
    family.requires_grad_(False)
    try:
        family.backbone = get_peft_model(family.backbone, settings)
    except ValueError as error:
        if "not found in the base model" in str(error):
            hint = nearest(targets[0] if targets else "", family.adapter_targets)
            raise UserError(f"method.targets: {targets} match no module of this checkpoint.{hint}") from None
        raise UserError(f"method: this checkpoint's layers do not take these options: {' '.join(str(error).split())}") from None
    family.complete()
