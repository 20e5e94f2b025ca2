"""LoRA: low-rank updates beside frozen weights, in the standard PEFT layout.

Source: Hu et al. 2021, arXiv:2106.09685; defaults of CLIP-LoRA, Zanella and Ben Ayed 2024, arXiv:2405.18541;
DoRA, arXiv:2402.09353; rsLoRA, arXiv:2312.03732.

CLIP-LoRA's paper writes α/r; its code, which made its numbers, scales by α/√r, so that is the default here. Values that were
tuned elsewhere, by peft's default, want `rslora: false`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapt.methods import low_rank, memory

if TYPE_CHECKING:
    from datasets import Dataset

    from adapt.contracts import Family


class Config(low_rank.Adapters):
    """Low-rank adapters."""

    title = "LoRA"

    targets: list[str] = ["q", "k", "v"]
    """The family's names of what is adapted, such as q, k, v, o, mlp; or ends of module names."""
    rslora: bool = True
    """Rank-stabilised scaling, α/√r, as CLIP-LoRA's code has it; false: α/r."""

    def few(self, shots: int) -> dict[str, Any]:
        """CLIP-LoRA §5: 500 steps for each picture of a class."""
        return {"steps": 500 * shots, "batch": 32, "lr": 2e-4, "weight_decay": 0.01, "warmup": 0.0, "min_lr": 1e-6}


def apply(family: Family, config: Config, rows: Dataset | None = None) -> None:
    """Freeze the family and put adapters on its targets; `family.backbone` becomes a `PeftModel`; a head that the family
    needs learns beside them.

    Raises:
        UserError: a target matches no module, or the module's kind cannot take an option.
    """
    memory.checkpoint(family.backbone, config.checkpointing)
    low_rank.add(family, config, low_rank.named(family, config.targets), config.targets)
