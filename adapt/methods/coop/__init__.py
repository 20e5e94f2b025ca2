"""CoOp: the words around the class names are learned vectors; both towers stay frozen.

    method: {name: coop}                                # 16 vectors, the class behind them
    method: {name: coop, init: a photo of a}            # they begin as these words
    train: {cache: true}                                # pictures are encoded once: seconds in the place of minutes, without random views

Source: Zhou et al. 2022, arXiv:2109.01134; its defaults are those of the authors' configurations (KaiyangZhou/CoOp, MIT).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from adapt.methods.memory import Trains, checkpoint
from adapt.plug import UserError

if TYPE_CHECKING:
    from datasets import Dataset

    from adapt.contracts import Family

TOKENS = (16, 4)
"""The authors' context tokens; and those of their short context, such as `a photo of a`, for a text tower that has no room for 16."""
EPOCHS = {1: 50, 4: 100}
"""Shots → epochs, up to that number; 200 with more of them."""


def schedule(epochs: int) -> dict[str, Any]:
    """So many epochs, of which the first is at the rate of the warm-up."""
    return {"epochs": epochs, "warmup": 1 / epochs}


class Config(Trains):
    """Learned context. Without `data.shots` it trains for 50 epochs, as the authors do on all of ImageNet's classes."""

    title = "CoOp"
    merges = False
    train = {
        "optimizer": "sgd",
        "lr": 2e-3,
        "warmup_lr": 1e-5,
        "weight_decay": 5e-4,
        "batch": 32,
        "clip": 0,
        "augment": {"crop": 0.08, "flip": 0.5, "colour": 0},
        **schedule(50),
    }

    tokens: int | None = Field(None, ge=1, le=1024)
    """Context tokens, M. None: 16, or 4 where a short text tower has no room for 16 beside the longest class."""
    init: str = ""
    """Words that the context begins as, such as `a photo of a`; as many tokens as they have. Empty: N(0, 0.02)."""
    class_specific: bool = False
    """A context for each class instead of one for all."""
    position: Literal["end", "middle"] = "end"
    """Where the class is: behind the context (eq. 2), or between its halves (eq. 3)."""

    full_stop: bool = True
    """End each prompt with a full stop, as the authors do; false: for a text tower that has seen none, such as clip-tiny's."""

    @model_validator(mode="after")
    def _says_it_once(self) -> Config:
        if self.tokens and self.init:
            raise ValueError("method.tokens and method.init both say how many tokens there are; leave one out")
        return self

    @property
    def only_learnt_classes(self) -> str:
        return "each class has words of its own" if self.class_specific else ""

    def few(self, shots: int) -> dict[str, Any]:
        return schedule(next((epochs for most, epochs in EPOCHS.items() if shots <= most), 200))


def apply(family: Family, config: Config, rows: Dataset | None = None) -> None:
    """Freeze the family and put learned context in the place of the templates.

    Raises:
        UserError: the family has no text tower, the data have no classes, or context and class do not fit the tower.
    """
    if family.slots.text is None:
        raise UserError("method.name: 'coop' needs a family with a text tower, such as clip. Use vpt, lora or full.")
    if not family.classes or family.contrastive:
        raise UserError(
            "method.name: 'coop' learns words around class names, so it needs data with labels. Use vpt, lora or full."
        )
    from adapt.methods.coop.context import Context

    checkpoint(family.backbone, config.checkpointing)
    family.requires_grad_(False)
    context = Context(family.slots.text, family.classes, config, next(family.parameters()).device)
    if config.tokens is None and not config.init and context.count < TOKENS[0]:
        _say(context)
    family.slots.classifier(context)


def _say(context) -> None:
    """One line for the user: why there are fewer tokens than in the paper."""
    from accelerate import PartialState

    if PartialState().is_main_process:
        print(
            f"CoOp: {context.count} context tokens, for {TOKENS[0]} and the class {context.longest!r} are more than the {context.limit} "
            "tokens that this text tower reads"
        )
