"""CLIP, SigLIP and SigLIP 2: two towers, one space.

    model: {name: clip, checkpoint: openai/clip-vit-base-patch16}
    model: {name: clip, checkpoint: open_clip:ViT-B-16/laion2b_s34b_b88k}
    model: {name: clip, checkpoint: open_clip:ViT-B-16/weights.safetensors}

Source: Radford et al. 2021, arXiv:2103.00020; Zhai et al. 2023, arXiv:2303.15343.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from adapt.contracts import FamilyConfig

if TYPE_CHECKING:
    from adapt.models.clip.family import Clip


class Config(FamilyConfig):
    """A two-tower checkpoint and its loss."""

    title = "CLIP"
    uses_words = True

    checkpoint: str = "clip-tiny"
    """An embedded name, a local folder, a hub id, or `open_clip:ARCH/PRETRAINED` (a tag or a file)."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """random: only the checkpoint's configuration and tokenizer are used, to train from the start."""
    loss: Literal["auto", "classification", "contrastive"] = "auto"
    """classification: cross-entropy over the class prompts; contrastive: images against their captions; auto: by the data."""
    train_templates: int = Field(0, ge=0)
    """What the classification loss reads of the templates while the text tower learns. 0: one of all for each class, drawn anew at each
    step, which costs the same however many there are; a number: as many, from the first, averaged, each of which costs a text a class
    and step. Evaluation averages all."""
    train_tokens: int = Field(16384, ge=1)
    """Tokens of texts, at most, that a learning text tower reads at each step, beside those of the batch's own classes: of more
    classes than this holds, a part is drawn anew at each step. In training a token takes about 0.5 MB of a ViT-B's text tower in fp32."""
    image_size: int | None = Field(None, ge=8, le=2048)
    """Another input size in pixels, position embeddings interpolated; none: the checkpoint's own (transformers only)."""


def load(config: Config) -> Clip:
    """The family with its weights.

    Raises:
        UserError: the checkpoint cannot be had, is of another family, or holds other weights than its configuration says.
    """
    if config.checkpoint.startswith("open_clip:"):
        from adapt.models.clip.open_clip import load_open_clip

        return load_open_clip(config)
    from adapt.models.clip.checkpoints import load_transformers

    return load_transformers(config)
