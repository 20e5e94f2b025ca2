"""DINOv2, DINOv2 with registers and DINOv3: one image encoder, its global embedding and its patch features.

    model: {name: dinov2, checkpoint: facebook/dinov2-small}
    model: {name: dinov2, checkpoint: facebook/dinov2-with-registers-base, embedding: both}
    model: {name: dinov2, checkpoint: facebook/dinov2-small, task: segmentation, image_size: 448}

The encoder has no classes: a linear head on the embedding (classification) or on each patch (segmentation) learns, alone with
`method: head`, together with the encoder with `lora` and `full`.

DINOv3's weights are not under an open licence: read Meta's before you use them.

Source: Oquab et al. 2023, arXiv:2304.07193; Darcet et al. 2023, arXiv:2309.16588; Siméoni et al. 2025, arXiv:2508.10104.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from adapt.contracts import FamilyConfig

if TYPE_CHECKING:
    from adapt.models.dinov2.family import Dino


class Config(FamilyConfig):
    """An encoder, what its embedding is, and what its head learns."""

    title = "DINOv2"

    checkpoint: str = "dinov2-tiny"
    """An embedded name, a local folder, or a hub id; `dinov2`, `dinov2_with_registers`, `dinov3_vit` or `dinov3_convnext`."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """random: only the checkpoint's configuration is used, to train from the start."""
    task: Literal["auto", "classification", "segmentation", "features"] = "auto"
    """What the head learns: `label`, or the class of each pixel from `objects` or `segmentation`; features: no head; auto: by
    the data."""
    embedding: Literal["cls", "mean", "both"] = "cls"
    """The image's embedding: the class token, the mean of the patches, or both, one after the other."""
    image_size: int | None = Field(None, ge=8, le=2048)
    """Another input size in pixels, a multiple of the patch; none: the checkpoint's own."""
    classes: list[str] = []
    """Names of the values 0, 1, … of a `segmentation` column; with `objects` the categories, after a background, are known."""
    local: int = Field(4, ge=1, le=64)
    """Side of the grid to which `distill_features` pools the patch features."""


def load(config: Config) -> Dino:
    """The family with its weights.

    Raises:
        UserError: the checkpoint cannot be had, is of another family, or holds other weights than its configuration says.
    """
    from adapt.models.dinov2.family import load_transformers

    return load_transformers(config)
