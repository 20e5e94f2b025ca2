"""Florence-2: a picture and a question in, words out; an encoder and a decoder where PaliGemma has a decoder alone.

    model: {name: florence2, checkpoint: florence-community/Florence-2-base, tasks: [detect, caption]}
    method: {name: lora, targets: [q, k, v, o, mlp]}

Source: Xiao et al. 2023, arXiv:2311.06242. The tasks' public prompts stand for what PaliGemma is asked, so data and evals are the same:
`caption en` is <CAPTION>, `ocr` is <OCR>, `detect …` is <OD> (all objects, whatever was named), `answer en …` is asked in its own words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from adapt.contracts import FamilyConfig

if TYPE_CHECKING:
    from adapt.models.florence2.family import Florence2


Task = Literal["given", "caption", "detect", "count", "classify", "ocr"]


class Config(FamilyConfig):
    """A checkpoint, and what it is asked in training."""

    title = "Florence-2"
    uses_words = True

    checkpoint: str = "florence-community/Florence-2-base"
    """A local folder or a hub id, in the format of transformers' own Florence-2."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """random: only the checkpoint's configuration and processor are used, to train from the start."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the weights in memory; bf16 halves it, for methods that leave them as they are (lora)."""
    tasks: list[Task] = Field(["given"], min_length=1)
    """What training asks; of several, each view's seed chooses one, so a task named twice is asked twice as often."""
    max_tokens: int = Field(128, ge=1, le=1024)
    """Longest answer, tokens."""
    batch: int = Field(16, ge=1)
    """Answers generated together."""


def load(config: Config) -> Florence2:
    """The family with its weights.

    Raises:
        UserError: the checkpoint cannot be had, is of another family, lacks weights, or its tokenizer has no location tokens.
    """
    from adapt.models.florence2.family import load_transformers

    return load_transformers(config)
