"""Promptable segmentation in a CNN: the student's encoder takes the place of SAM's, in front of the teacher's prompt decoder.

First the encoder learns the teacher's features alone; then prompts come into the loop: random points on the view, boxes around what
the teacher makes of them, and clicks where student and teacher disagree; the student's masks are to be the teacher's. No label is
used here; an adapted teacher has learned from masks before.

    distill: {name: masks, student: repvit_m0_9, feature_steps: 2000, train: {epochs: 30, batch: 16, lr: 2e-3}}

Source: MobileSAM, Zhang et al. 2023, arXiv:2306.14289 (features alone); EdgeSAM, Zhou et al. 2023, arXiv:2312.06660 (why that is
not enough, and prompts in the loop).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from adapt.contracts import Augment, Lesson, ObjectiveConfig, Train
from adapt.plug import UserError

if TYPE_CHECKING:
    from adapt.contracts import Family
    from adapt.distill.masks.training import Learner

PREDICTOR = "image_features"
"""What of the teacher is cached: float[B, C, h, w], before its decoder."""


class Config(ObjectiveConfig):
    """A CNN encoder, and how it learns."""

    version = 2
    steps_alike = False  # features first, then prompts
    renamed = {"alone": "feature_steps"}

    student: str = "resnet18"
    """A timm architecture with feature maps."""
    width: int = Field(128, ge=8, le=1024)
    """Channels of the fused feature map, before it is given the teacher's number of channels."""
    feature_steps: int = Field(500, ge=0)
    """Micro-batches (steps, but for `train.accumulate`) in which only the features are learned, before prompts come into the loop."""
    features: float = Field(1.0, ge=0)
    """Weight of the features' squared error, in units of the teacher's variance."""
    prompts: float = Field(1.0, ge=0)
    """Weight of the masks' loss: cross-entropy, dice and the error of the predicted IoU; 0: features alone."""
    points: int = Field(8, ge=1, le=256)
    """Random points on each view; each is one prompt."""
    clicks: int = Field(1, ge=0, le=8)
    """Rounds of boxes and corrective clicks after the first points."""
    decoder: Literal["frozen", "trained"] = "frozen"
    """Keep the teacher's mask decoder as it is, or let it learn with the encoder."""
    views: int = Field(4, ge=1)
    """Random views of each image; the teacher sees each once, the student again in every `views`-th epoch."""
    train: Train = Train(epochs=20, batch=16, lr=2e-3, weight_decay=0.02, augment=Augment(crop=0.6))
    """The student's training loop."""


def lesson(config: Config, teacher: Family, load: Callable) -> Lesson:
    """The teacher's features.

    Raises:
        UserError: it offers none, or no masks.
    """
    have = teacher.predictors()
    if PREDICTOR not in have or "masks" not in have:
        raise UserError(f"distill.name: 'masks' needs a teacher with {PREDICTOR} and masks. This one has: {', '.join(have)}.")
    return Lesson(predictor=PREDICTOR, half=True)


def learner(config: Config, teacher: Family, live: Callable | None = None) -> Learner:
    """A promptable student that learns.

    Args:
        teacher: a family around transformers' `SamModel`, with or without adapters; its decoder is copied.
        live: the teacher's `image_features`, when it is in the loop and not cached.

    Raises:
        UserError: the student's size does not fit the teacher's grid.
    """
    from adapt.distill.masks.training import Learner

    return Learner(config, teacher, live)
