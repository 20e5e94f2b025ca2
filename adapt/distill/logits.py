"""Logit distillation: the student matches the teacher's softened class probabilities on the same view.

Source: Hinton et al. 2015, arXiv:1503.02531 (KL at temperature T, times T²); Beyer et al. 2021, arXiv:2106.05237 (the same
augmented view for both, many epochs).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adapt.contracts import Augment, LabelsObjectiveConfig, Lesson, Train

if TYPE_CHECKING:
    from torch import Tensor

    from adapt.contracts import Family
    from adapt.distill.taught import Taught


class Config(LabelsObjectiveConfig):
    """A CNN student, and how it learns."""

    version = 2
    needs = ("label",)

    temperature: float = Field(2.0, gt=0)
    """T of both softmaxes."""
    hard: float = Field(0.1, ge=0, le=1)
    """Weight of the cross-entropy with the true labels, where there are any."""
    views: int = Field(4, ge=1)
    """Random views of each picture; the teacher sees each once, the student again in every `views`-th epoch."""
    budget: float = Field(0.03, ge=0, le=1)
    """Top-1 that the student may lose against its teacher before the guard fires."""
    train: Train = Train(epochs=20, batch=64, lr=2e-3, weight_decay=0.02, augment=Augment(crop=0.5))
    """The student's training loop."""


def lesson(config: Config, teacher: Family, load: Callable) -> Lesson:
    """The teacher's logits, float[B, C]; nothing, where people's labels teach."""
    return Lesson(predictor=None if config.from_labels else "class_logits")


def learner(config: Config, teacher: Family, live: Callable | None = None) -> Taught:
    """A classifier that learns; `live`: the teacher in the loop."""
    from adapt.distill.taught import Taught
    from adapt.students.classifier import Student
    from adapt.students.cnn import seen_by

    seen = seen_by(config.student, teacher.input, config.size)
    student = Student(config.student, seen, teacher.classes, config.pretrained)
    return Taught(student, teacher, live, partial(loss, config))


def loss(config: Config, logits: Tensor, teacher: Tensor | None, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """The student's logits float[B, C], the teacher's if there is one, and `label` int64[B], −1 for none → (loss, logs)."""
    import torch.nn.functional as F

    if teacher is None:
        accuracy = (logits.argmax(1) == batch["label"]).float().mean()
        return F.cross_entropy(logits.float(), batch["label"]), {"accuracy": accuracy}
    t = config.temperature
    logits, teacher = logits.float(), teacher.float()  # bf16 would make ties of both
    target = F.log_softmax(teacher / t, dim=1)
    soft = F.kl_div(F.log_softmax(logits / t, dim=1), target, log_target=True, reduction="batchmean") * t**2
    agreement = (logits.argmax(1) == teacher.argmax(1)).float().mean()
    labelled = (batch["label"] >= 0).float()
    hard = F.cross_entropy(logits, batch["label"].clamp(min=0), reduction="none")
    hard = (hard * labelled).sum() / labelled.sum().clamp(min=1)
    return (1 - config.hard) * soft + config.hard * hard, {"agreement": agreement}
