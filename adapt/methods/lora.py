"""LoRA: low-rank updates beside frozen weights, in the standard PEFT layout.

Source: Hu et al. 2021, arXiv:2106.09685; defaults of CLIP-LoRA, Zanella and Ben Ayed 2024, arXiv:2405.18541;
DoRA, arXiv:2402.09353; rsLoRA, arXiv:2312.03732.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from adapt.plug import Plugin, UserError, nearest

if TYPE_CHECKING:
    from adapt.models._family import Family

TITLE = "LoRA"
"""Its name in tables."""


class Config(Plugin):
    """Low-rank adapters."""

    rank: int = Field(2, ge=1, le=1024)
    """Rank r of the update."""
    alpha: float = Field(1, gt=0)
    """The update is scaled by α/r (α/√r with rslora)."""
    dropout: float = Field(0.25, ge=0, lt=1)
    """Dropout on the adapters' input."""
    targets: list[str] = ["q", "k", "v"]
    """The family's names of what is adapted, such as q, k, v, o, mlp; or ends of module names."""
    dora: bool = False
    """Weight-decomposed LoRA: the magnitude learns apart from the direction."""
    rslora: bool = False
    """Rank-stabilised scaling."""


def apply(family: Family, config: Config) -> None:
    """Freeze the family and put adapters on its targets; `family.backbone` becomes a `PeftModel`; a head that the family
    needs learns beside them.

    Raises:
        UserError: a target matches no module, or the module's kind cannot take an option.
    """
    from peft import LoraConfig, get_peft_model

    ends = "|".join(family.adapter_targets.get(name, name) for name in config.targets)
    pattern = rf"(?:.*\.)?(?:{ends})"
    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=pattern,
        use_dora=config.dora,
        use_rslora=config.rslora,
    )
    family.requires_grad_(False)
    try:
        family.backbone = get_peft_model(family.backbone, settings)
    except ValueError as error:
        if "not found in the base model" in str(error):
            hint = nearest(config.targets[0] if config.targets else "", family.adapter_targets)
            raise UserError(f"method.targets: {config.targets} match no module of this checkpoint.{hint}") from None
        raise UserError(f"method: this checkpoint's layers do not take these options: {' '.join(str(error).split())}") from None
    family.complete()
