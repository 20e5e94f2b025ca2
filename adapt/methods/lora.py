"""LoRA: low-rank updates beside frozen weights, in the standard PEFT layout.

Source: Hu et al. 2021, arXiv:2106.09685; defaults of CLIP-LoRA, Zanella and Ben Ayed 2024, arXiv:2405.18541;
DoRA, arXiv:2402.09353; rsLoRA, arXiv:2312.03732.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.methods import _lora

if TYPE_CHECKING:
    from adapt.models._family import Family

TITLE = "LoRA"
"""Its name in tables."""


class Config(_lora.Adapters):
    """Low-rank adapters."""

    targets: list[str] = ["q", "k", "v"]
    """The family's names of what is adapted, such as q, k, v, o, mlp; or ends of module names."""


def apply(family: Family, config: Config) -> None:
    """Freeze the family and put adapters on its targets; `family.backbone` becomes a `PeftModel`; a head that the family
    needs learns beside them.

    Raises:
        UserError: a target matches no module, or the module's kind cannot take an option.
    """
    _lora.add(family, config, _lora.named(family, config.targets), config.targets)
