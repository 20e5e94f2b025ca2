"""What the methods of low-rank adapters have in common: their options, and how they are put on a family."""

from __future__ import annotations

import re
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
    """The pattern of the modules that a recipe's targets (`q`, `mlp`, … or ends of module names) mean.

    Of the family's own names, which are those of all its checkpoints, this one may lack some: a line says so.

    Raises:
        UserError: another name matches no module.
    """
    known = family.adapter_targets
    patterns = {target: known.get(target, target) for target in targets}
    modules = [name for name, _ in family.backbone.named_modules()]
    lacking = [name for name, ends in patterns.items() if not any(re.fullmatch(ending(ends), module) for module in modules)]
    if wrong := [name for name in lacking if name not in known]:
        raise _none(family, wrong)
    if 0 < len(lacking) < len(patterns):
        _say(f"method.targets: this checkpoint has no {', '.join(lacking)}; the others are adapted")
    return ending("|".join(patterns.values()))


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
            raise _none(family, targets) from None
        raise UserError(f"method: this checkpoint's layers do not take these options: {' '.join(str(error).split())}") from None
    family.complete()
    _look(family, config)


def _none(family: Family, targets: list[str]) -> UserError:
    hint = nearest(targets[0] if targets else "", family.adapter_targets)
    return UserError(f"method.targets: {targets} match no module of this checkpoint.{hint}")


def _look(family: Family, config: Adapters) -> None:
    """One line where a family that has words and an image tower gets adapters for the words alone."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = {name.partition(".")[0] for name, part in family.net.named_modules() if isinstance(part, BaseTunerLayer)}
    if family.image_parts and adapted.isdisjoint(family.image_parts):
        _say(
            f"{config.title}: none of these targets lies in the image tower of this checkpoint ({', '.join(family.image_parts)}), which "
            "stays as it is. method.targets takes the ends of its modules' names too; method.name=full adapts all of it."
        )


def _say(line: str) -> None:
    """A line for the user, once."""
    from accelerate import PartialState

    if PartialState().is_main_process:
        print(line)
