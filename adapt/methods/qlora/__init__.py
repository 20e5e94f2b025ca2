"""QLoRA: low-rank adapters in full precision beside frozen weights in 4 bits.

Merging goes to the base in full precision, never into the 4-bit weights: `adapt merge`.

Source: Dettmers et al. 2023, arXiv:2305.14314; LLM.int8(), arXiv:2208.07339.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from adapt.methods import low_rank, memory
from adapt.plug import UserError

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

    from adapt.contracts import Family


class Config(low_rank.Adapters):
    """Low-rank adapters on a quantised model."""

    title = "QLoRA"
    places = True

    rank: int = Field(16, ge=1, le=1024)
    """Rank r of the update."""
    alpha: float = Field(32, gt=0)
    """The update is scaled by α/r, or by α/√r with rslora."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on the adapters' input."""
    targets: list[str] | None = None
    """The family's names of what is adapted, or ends of module names; none: every layer that is quantised (QLoRA §4)."""
    bits: Literal[4, 8] = 4
    """4: nf4 in blocks of 64; 8: int8 by rows."""
    double: bool = True
    """Quantise the 4-bit blocks' constants too: 4.13 bits a weight in place of 4.5."""
    compute: Literal["auto", "fp32", "bf16"] = "auto"
    """The type in which 4-bit weights are multiplied; auto: bf16 on GPU, fp32 on CPU."""
    checkpointing: bool | None = None
    """Compute activations again in the backward pass: less memory, a third more time; none: on GPU, where it is offered."""


def place(family: Family, config: Config, device: torch.device) -> None:
    """Put a family on a device, its `quantised` layers rounded on the way there, one after the other.

    In full precision they stay where they are, so that a model can be loaded of which only the rounded weights fit the device.
    A checkpoint that is in 4 or 8 bits already is moved as it is.

    Raises:
        UserError: bitsandbytes is missing, or nothing can be quantised.
    """
    from adapt.methods.qlora import quantise

    backbone = family.backbone
    if not quantise.rounded(backbone):
        names = quantise.linears(backbone, low_rank.ending(family.quantised))
        if not names:
            raise UserError("method.name: 'qlora' finds no linear layer to quantise in this checkpoint. Use method.name=lora.")
        quantise.quantise(backbone, names, config.bits, config.double, _compute(config, device.type), device)
    for name in quantise.rounded(backbone):
        quantise.plain(backbone.get_submodule(name))
    family.to(device)


def placed(config: Config) -> str:
    """What tables say of a family that `place` has put on its device, and that nothing has been learnt by."""
    return f", {config.bits} bits"


def apply(family: Family, config: Config, rows: Dataset | None = None) -> None:
    """Quantise the family where it is, unless `place` has done it; freeze it, and put adapters on it.

    Raises:
        UserError: bitsandbytes is missing, nothing can be quantised, or a target matches no module.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    from adapt.methods.qlora import quantise

    backbone = family.backbone
    place(family, config, next(backbone.parameters()).device)
    device, names = next(backbone.parameters()).device.type, quantise.rounded(backbone)
    sizes = quantise.weights(backbone), quantise.size(backbone, before=True), quantise.size(backbone)
    memory.checkpoint(backbone, False if config.checkpointing is None and device != "cuda" else config.checkpointing)
    targets = names if config.targets is None else low_rank.named(family, config.targets)
    low_rank.add(family, config, targets, config.targets or [])
    for part in family.backbone.modules():  # an adapter hides the layer below it from open_clip's question
        if isinstance(part, BaseTunerLayer) and (dtype := vars(part.get_base_layer()).get("int8_original_dtype")):
            part.int8_original_dtype = dtype
    _say(family, config, len(names), *sizes)


def _compute(config: Config, device: str) -> torch.dtype:
    import torch

    name = config.compute if config.compute != "auto" else ("bf16" if device == "cuda" else "fp32")
    return torch.bfloat16 if name == "bf16" else torch.float32


def _say(family: Family, config: Config, count: int, weights: int, before: int, after: int) -> None:
    """One line, once, for the user: what became small, and how much learns."""
    from accelerate import PartialState
    from torch import nn

    if not PartialState().is_main_process:
        return
    kind = "int8" if config.bits == 8 else "nf4, double quantisation" if config.double else "nf4"
    learning = sum(p.numel() for p in family.parameters() if p.requires_grad)
    print(
        f"QLoRA: {count} layers in {config.bits} bits ({kind}): {before / 1e6:.1f} → {after / 1e6:.1f} MB; "
        f"{learning:,} weights learn ({learning / (weights + learning):.2%})"
    )
    fused = sum(isinstance(part, nn.MultiheadAttention) for part in family.backbone.modules())
    if fused:
        print(
            f"QLoRA: {fused} attention layers keep their precision: their q, k and v are one matrix that bitsandbytes cannot "
            "replace. The transformers version of the checkpoint has them apart."
        )
