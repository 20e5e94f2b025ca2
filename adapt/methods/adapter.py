"""What a method has learned, on disk: the PEFT layout for adapters, safetensors for anything else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from adapt.plug import UserError
from adapt.train.checkpoint import load_trainable, trainable

if TYPE_CHECKING:
    from adapt.contracts import Family

FILE = "weights.safetensors"
HEAD = "head.safetensors"
"""Beside an adapter: what else learned, such as the family's head."""
NOTES = "notes.md"
"""Beside the weights: what learned parts say of themselves in words."""


class Noted(nn.Module):
    """Base of a learned part that can say in words what it has learned."""

    def notes(self) -> str:
        """A section of Markdown with its heading; `save` writes it beside the weights, and the adapter's card shows it."""
        raise NotImplementedError


def notes(family: Family) -> str:
    """What the learned parts of a family say of themselves; empty without any."""
    return "\n".join(part.notes() for part in family.modules() if isinstance(part, Noted))


def save(family: Family, folder: Path) -> None:
    """Write the learned weights into `folder`: `PeftModel.from_pretrained(base, folder)` loads them when they are adapters."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(family.backbone, PeftModel):
        family.backbone.save_pretrained(folder)
        if beside := _beside(family):
            save_file({name: value.contiguous() for name, value in beside.items()}, folder / HEAD)
    else:
        save_file({name: value.contiguous() for name, value in trainable(family).items()}, folder / FILE)
    if said := notes(family):
        (folder / NOTES).write_text(said, encoding="utf-8")


def load(family: Family, folder: Path) -> None:
    """Read what `save` wrote into a family to which the same method has been applied.

    Raises:
        UserError: the folder is of another method or another checkpoint.
    """
    try:
        if isinstance(family.backbone, PeftModel):
            outcome = set_peft_model_state_dict(family.backbone, load_peft_weights(str(folder), device="cpu"))
            if outcome.unexpected_keys:
                raise KeyError(outcome.unexpected_keys[0])
            load_beside(family, folder)
        else:
            load_trainable(family, load_file(folder / FILE))
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise UserError(f"{folder}: these weights do not fit this model and method ({str(error).splitlines()[0]}).") from None


def _beside(family: Family) -> dict[str, torch.Tensor]:
    """What learns outside the backbone, by name."""
    return {name: value for name, value in trainable(family).items() if not name.startswith("backbone.")}


@torch.no_grad()
def load_beside(family: Family, folder: Path) -> None:
    """Read what `save` wrote beside an adapter; raises KeyError when it is of another head."""
    own, state = _beside(family), load_file(folder / HEAD) if (folder / HEAD).exists() else {}
    if own.keys() != state.keys():
        raise KeyError(f"{HEAD} and model differ in {sorted(own.keys() ^ state.keys())[:3]}")
    for name, value in own.items():
        value.copy_(state[name])
