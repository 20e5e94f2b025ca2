"""Logit distillation: the student matches the teacher's softened class probabilities on the same view.

Source: Hinton et al. 2015, arXiv:1503.02531 (KL at temperature T, times T²); Beyer et al. 2021, arXiv:2106.05237 (the same
augmented view for both, many epochs).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from adapt.contracts import Augment, Train
from adapt.plug import Plugin

if TYPE_CHECKING:
    from adapt.models.base import Family
    from adapt.students.base import Student

VERSION = 2
"""Raised when what it makes changes, so that kept results are made again."""
PREDICTOR = "class_logits"
"""What of the teacher is cached."""
USES_WORDS = False
"""Does it ask about classes by the words of `prompts`, whatever its teacher does?"""
LABELLED_BY = ()
"""The options that the teacher's labels depend on: there are no labels."""


class Config(Plugin):
    """A CNN student, and how it learns."""

    teacher: Literal["adapted", "zero-shot"] = "adapted"
    """Who teaches: the adapted model, or the model as it comes."""
    student: str = "resnet18"
    """A timm architecture."""
    pretrained: bool | str = False
    """Start from timm's weights (true), an embedded student's (`cnn-tiny`), a safetensors file's (its path), or nothing (false)."""
    temperature: float = Field(2.0, gt=0)
    """T of both softmaxes."""
    hard: float = Field(0.1, ge=0, le=1)
    """Weight of the cross-entropy with the true labels, where there are any."""
    views: int = Field(4, ge=1)
    """Random views of each image; the teacher sees each once, the student again in every `views`-th epoch."""
    cache: bool = True
    """Compute the teacher's outputs once and keep them on disk; false: with the teacher in the loop."""
    budget: float = Field(0.03, ge=0, le=1)
    """Top-1 that the student may lose against its teacher before the guard fires."""
    keep: float | None = Field(None, gt=0, le=1)
    """Share of its teacher's main metric that the student must keep; given, it takes the place of `budget`."""
    train: Train = Train(epochs=20, batch=64, lr=2e-3, weight_decay=0.02, augment=Augment(crop=0.5))
    """The student's training loop."""


def build(config: Config, family: Family, live: Callable | None = None) -> Student:
    """The student of a family with classes; `live`: the teacher in the loop."""
    from adapt.students.base import Student

    return Student(config.student, len(family.classes), family.input, objective(config), config.pretrained, live)


def objective(config: Config):
    """The loss: (student's logits float[B, C], batch with `teacher` float[B, C] and `label` int64[B]) → (loss, logs)."""
    import torch.nn.functional as F

    t = config.temperature

    def loss(logits, batch):
        logits, teacher = logits.float(), batch["teacher"].float()  # bf16 would make ties of both
        target = F.log_softmax(teacher / t, dim=1)
        soft = F.kl_div(F.log_softmax(logits / t, dim=1), target, log_target=True, reduction="batchmean") * t**2
        agreement = (logits.argmax(1) == teacher.argmax(1)).float().mean()
        labelled = (batch["label"] >= 0).float()
        hard = F.cross_entropy(logits, batch["label"].clamp(min=0), reduction="none")
        hard = (hard * labelled).sum() / labelled.sum().clamp(min=1)
        return (1 - config.hard) * soft + config.hard * hard, {"agreement": agreement}

    return loss
