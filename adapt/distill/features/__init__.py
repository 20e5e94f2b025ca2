"""Feature distillation: a CNN learns a teacher's global and local features from images without labels.

The student's pooled features and its feature map go through linear heads into the teacher's space, on the same augmented view; the
loss is one minus the cosine. Optionally the student also learns which other images an image is like: its similarities with a
queue of the teacher's features, softened by τ, are to be the teacher's.

Source: AM-RADIO (global and local features, cosine), Ranzinger et al. 2024, arXiv:2312.06709; mixing images and targets, mixup,
Zhang et al. 2018, arXiv:1710.09412; the same view for both, Beyer et al. 2021, arXiv:2106.05237; similarities with a queue, SEED,
Fang et al. 2021, arXiv:2101.04731.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from adapt.contracts import Augment, Lesson, ObjectiveConfig, Train
from adapt.plug import UserError

if TYPE_CHECKING:
    from adapt.contracts import Family
    from adapt.distill.features.training import Learner

PREDICTOR = "distill_features"
"""What of the teacher is cached: float[B, 1 + local², D], the global feature, then a square grid of local ones."""


class Config(ObjectiveConfig):
    """A CNN student, and how it learns."""

    version = 2

    teacher: Literal["adapted", "zero-shot"] = "zero-shot"
    """Who teaches: the adapted model, or the model as it comes."""
    local: float = Field(1.0, ge=0)
    """Weight of the local features beside the global one."""
    relation: float = Field(0.0, ge=0)
    """Weight of the similarities with the queue; 0 = none."""
    temperature: float = Field(0.07, gt=0)
    """τ of the similarities."""
    queue: int = Field(1024, ge=1, le=1_000_000)
    """Teacher features of the latest images, with which the similarities are."""
    mixup: float = Field(0.2, ge=0)
    """α of mixup's Beta(α, α): two images and their targets are mixed; 0 = none."""
    embedding: Literal["projected", "pooled"] = "projected"
    """The student's embedding: in the teacher's space, where the two can be compared; or its own, before the head."""
    views: int = Field(4, ge=1)
    """Random views of each image; the teacher sees each once, the student again in every `views`-th epoch."""
    train: Train = Train(epochs=20, batch=64, lr=2e-3, weight_decay=0.02, augment=Augment(crop=0.5))
    """The student's training loop."""


def lesson(config: Config, teacher: Family, load: Callable) -> Lesson:
    """The teacher's global and local features.

    Raises:
        UserError: it offers none.
    """
    if PREDICTOR not in teacher.predictors():
        raise UserError(f"distill.name: 'features' needs a model with {PREDICTOR}, such as dinov2. Use logits.")
    return Lesson(predictor=PREDICTOR, half=True)


def learner(config: Config, teacher: Family, live: Callable | None = None) -> Learner:
    """An embedder that learns; `live`: the teacher in the loop.

    Raises:
        UserError: the architecture gives no feature map.
    """
    from adapt.distill.features.training import Learner
    from adapt.students.cnn import seen_by
    from adapt.students.embedder import Student

    seen = seen_by(config.student, teacher.input, config.size)
    student = Student(config.student, seen, [], teacher.width, config.embedding, config.pretrained)
    return Learner(config, student, teacher, live)
