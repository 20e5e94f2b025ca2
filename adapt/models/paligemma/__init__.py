"""PaliGemma 1 and 2: a picture and a question in, words out; boxes and masks are words too.

    model: {name: paligemma, checkpoint: google/paligemma2-3b-pt-224, tasks: [caption, detect], precision: bf16}

Source: Beyer et al. 2024, arXiv:2407.07726; Steiner et al. 2024, arXiv:2412.03555. Tasks and their syntax: `prompting/tasks.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from adapt.contracts import FamilyConfig

if TYPE_CHECKING:
    from adapt.models.paligemma.family import PaliGemma


Task = Literal["given", "caption", "detect", "detect_all", "segment", "count", "classify", "ocr"]


class Config(FamilyConfig):
    """A checkpoint, and what it is asked in training."""

    title = "PaliGemma"
    uses_words = True

    checkpoint: str = "paligemma-tiny"
    """An embedded name, a local folder, or a hub id."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """random: only the checkpoint's configuration and processor are used, to train from the start."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the weights in memory; bf16 halves it, for methods that leave them as they are (lora)."""
    tasks: list[Task] = Field(["given"], min_length=1)
    """What training asks; of several, each view's seed chooses one, so a task named twice is asked twice as often."""
    masks: str | None = None
    """big_vision's `vae-oid.npz`, the codebook of masks; `segment` needs it."""
    max_tokens: int = Field(128, ge=1, le=4096)
    """Longest answer, tokens."""
    batch: int = Field(16, ge=1)
    """Answers generated together."""


def load(config: Config) -> PaliGemma:
    """The family with its weights.

    Raises:
        UserError: the checkpoint cannot be had, is of another family, lacks weights, or its tokenizer has no location tokens.
    """
    from adapt.models.paligemma.family import load_transformers

    return load_transformers(config)
