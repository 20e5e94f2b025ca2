"""SAM: a picture and a prompt (points, a box) → a mask.

    model: {name: sam, checkpoint: facebook/sam-vit-base}
    model: {name: sam, checkpoint: segment_anything:vit_b/sam_vit_b_01ec64.pth}

Source: Kirillov et al. 2023, arXiv:2304.02643.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from adapt.contracts import FamilyConfig

if TYPE_CHECKING:
    from adapt.models.sam.family import Sam


class Config(FamilyConfig):
    """A checkpoint, and how its training draws prompts from the true masks."""

    title = "SAM"

    checkpoint: str = "sam-tiny"
    """An embedded name, a local folder, a hub id, or `segment_anything:ARCH/FILE.pth` with ARCH vit_b, vit_l or vit_h."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """random: only the checkpoint's configuration and processor are used, to train from the start."""
    objects: int = Field(4, ge=1, le=64)
    """At most so many objects of an image are prompted in a step, drawn by lot."""
    clicks: int = Field(2, ge=0, le=16)
    """Corrective clicks after the first prompt, each drawn from the error; SAM itself had 8."""
    box_noise: float = Field(0.1, ge=0, le=1)
    """Standard deviation of a box's edges, as a share of its side."""
    box_noise_most: float = Field(20, ge=0)
    """Largest error of a box's edge, pixels of the input."""


def load(config: Config) -> Sam:
    """The family with its weights.

    Raises:
        UserError: the checkpoint cannot be had, is of another family, or holds other weights than its configuration says.
    """
    if config.checkpoint.startswith("segment_anything:"):
        from adapt.models.sam.segment_anything import load_segment_anything

        return load_segment_anything(config)
    from adapt.models.sam.checkpoints import load_transformers

    return load_transformers(config)
