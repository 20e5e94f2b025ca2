"""What a method has learned, on disk: the PEFT layout for adapters, safetensors for anything else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file

from adapt.plug import UserError
from adapt.train.checkpoint import load_trainable, trainable

if TYPE_CHECKING:
    from adapt.models._family import Family

FILE = "weights.safetensors"


def save(family: Family, folder: Path) -> None:
    """Write the learned weights into `folder`: `PeftModel.from_pretrained(base, folder)` loads them when they are adapters."""
    folder.mkdir(parents=True, exist_ok=True)
    if hasattr(family.backbone, "peft_config"):
        family.backbone.save_pretrained(folder)
    else:
        save_file({name: value.contiguous() for name, value in trainable(family).items()}, folder / FILE)


def load(family: Family, folder: Path) -> None:
    """Read what `save` wrote into a family to which the same method has been applied.

    Raises:
        UserError: the folder is of another method or another checkpoint.
    """
    try:
        if hasattr(family.backbone, "peft_config"):
            from peft import load_peft_weights, set_peft_model_state_dict

            outcome = set_peft_model_state_dict(family.backbone, load_peft_weights(str(folder), device="cpu"))
            if outcome.unexpected_keys:
                raise KeyError(outcome.unexpected_keys[0])
        else:
            load_trainable(family, load_file(folder / FILE))
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise UserError(f"{folder}: these weights do not fit this model and method ({str(error).splitlines()[0]}).") from None
