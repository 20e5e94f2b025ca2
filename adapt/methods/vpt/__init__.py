"""Visual prompts that learn: tokens beside the patches of a frozen ViT (VPT), or a border of pixels around the picture.

    method: {name: vpt}                                 # deep: tokens of their own in front of each layer
    method: {name: vpt, kind: shallow, tokens: 50}      # in front of the first layer alone
    method: {name: vpt, kind: padding}                  # a border of pixels, for any image tower

A family that has a head learns it beside; where class words classify, they stay the classifier.

Source: Jia et al. 2022, arXiv:2203.12119; the border: Bahng et al. 2022, arXiv:2203.17274.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from adapt.methods.memory import Trains, checkpoint
from adapt.plug import UserError

if TYPE_CHECKING:
    from datasets import Dataset

    from adapt.contracts import Family

BORDER = 30 / 224
VIEWS = {"crop": 0.08, "flip": 0.5, "colour": 0}
SGD = {"optimizer": "sgd", "schedule": "cosine", "clip": 0}
TOKENS = SGD | {"lr": 0.25, "weight_decay": 1e-4, "batch": 64, "epochs": 100, "warmup": 0.1, "augment": VIEWS}
"""Jia et al., appendix A: 100 epochs, of which 10 warm up; the rate is b · batch / 256, b searched between 0.05 and 50, here 1."""
PADDING = SGD | {
    "lr": 40,
    "weight_decay": 0,
    "batch": 256,
    "epochs": 1000,
    "warmup": 0.005,
    "augment": {"crop": 1, "flip": 0, "colour": 0},
}
"""Bahng et al., §4, and their code (MIT), which has no random views."""


class Config(Trains):
    """Learned visual prompts."""

    title = "VPT"
    merges = False

    kind: Literal["deep", "shallow", "padding"] = "deep"
    """deep: tokens of their own in front of each layer (eq. 5); shallow: in front of the first (eq. 4); padding: a border of pixels that
    is added to the picture, which any image tower can take."""
    tokens: int = Field(10, ge=1, le=1000)
    """Tokens in front of a layer; the authors search among 1, 5, 10, 50, 100 and 200."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Dropout on the tokens."""
    border: float = Field(BORDER, gt=0, lt=0.5)
    """Width of the border of `padding`, as a share of the input's sides; 30 of 224 pixels."""

    @property
    def train(self) -> dict[str, Any]:
        """The paper's own defaults of `train`, those of the border's own paper with `padding`."""
        return PADDING if self.kind == "padding" else TOKENS

    @model_validator(mode="after")
    def _goes_together(self) -> Config:
        idle = ("tokens", "dropout") if self.kind == "padding" else ("border",)
        for name in idle:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"method.{name} is not for method.kind={self.kind}. Leave it out, or take {_other(self.kind)}")
        return self


def _other(kind: str) -> str:
    return "kind=deep or kind=shallow" if kind == "padding" else "kind=padding"


def apply(family: Family, config: Config, rows: Dataset | None = None) -> None:
    """Freeze the family and put learned prompts before its image tower; a head that the family needs learns beside them.

    Raises:
        UserError: the image tower has no place for them.
    """
    slots = family.slots
    others = f"{'lora, decoder' if family.decoder is not None else 'lora'} or full"
    if config.kind == "padding" and (slots.pixels is None or slots.prompts is None):
        raise UserError(
            f"method.kind: 'padding' is for families whose pictures can have a border, such as clip and dinov2. Use {others}."
        )
    if config.kind != "padding" and (slots.vision is None or slots.prompts is None):
        instead = "method.kind=padding, " if slots.pixels is not None else ""
        raise UserError(
            f"method.name: 'vpt' puts tokens beside the patches of a plain ViT, and {slots.no_vision}. Use {instead}{others}."
        )
    from adapt.methods.vpt.prompts import Border, Tokens

    checkpoint(family.backbone, config.checkpointing)
    family.requires_grad_(False)
    if config.kind == "padding":
        prompts = Border(slots.pixels, family.input["size"], config.border)
    else:
        prompts = Tokens(slots.vision, config.tokens, config.kind == "deep", config.dropout)
    slots.prompts(prompts.to(next(family.parameters()).device))
    family.complete()
