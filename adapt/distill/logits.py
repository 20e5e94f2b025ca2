"""Logit distillation: the student matches the teacher's softened class probabilities on the same view.

Source: Hinton et al. 2015, arXiv:1503.02531 (KL at temperature T, times T²); Beyer et al. 2021, arXiv:2106.05237 (the same
augmented view for both, many epochs); Wu et al. 2022, arXiv:2207.10666 (TinyViT: of thousands of classes the best alone are kept).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adapt.contracts import Augment, LabelsObjectiveConfig, Lesson, Packing, Train

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from adapt.contracts import Family
    from adapt.distill.taught import Taught

ALL = 2048
"""Classes of which all logits are kept, unless `top` says otherwise."""
TOP = 128
"""Logits that are kept where there are more classes."""


class Config(LabelsObjectiveConfig):
    """A CNN student, and how it learns."""

    version = 2
    needs = ("label",)

    temperature: float = Field(2.0, gt=0)
    """T of both softmaxes."""
    hard: float = Field(0.1, ge=0, le=1)
    """Weight of the cross-entropy with the true labels, where there are any."""
    top: int | None = Field(None, ge=1)
    """Of how many classes, the best of each view, logits are kept on disk; the others share the rest of the probability at T evenly.
    None: of all where there are up to 2,048 classes, else of 128."""
    views: int = Field(4, ge=1)
    """Random views of each picture; the teacher sees each once, the student again in every `views`-th epoch."""
    budget: float = Field(0.03, ge=0, le=1)
    """Top-1 that the student may lose against its teacher before the guard fires."""
    train: Train = Train(epochs=20, batch=64, lr=2e-3, weight_decay=0.02, augment=Augment(crop=0.5))
    """The student's training loop."""


def lesson(config: Config, teacher: Family, load: Callable) -> Lesson:
    """The teacher's logits, float[B, C]; nothing, where people's labels teach."""
    if config.from_labels:
        return Lesson()
    return Lesson(predictor="class_logits", packing=packing(config, len(teacher.classes)))


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


def packing(config: Config, classes: int) -> Packing | None:
    """How logits lie on disk: the best `top` as they are, the others as one (TinyViT eq. 3); none: all of them."""
    top = config.top or (classes if classes <= ALL else TOP)
    if top >= classes:
        return None
    made_of = {"top": top, "temperature": config.temperature}
    return Packing(partial(pack, top, config.temperature), partial(unpack, classes), made_of)


def pack(top: int, temperature: float, logits: np.ndarray) -> np.ndarray:
    """float32[B, C] → records [B]: the best classes' numbers and logits, and the one logit of all others.

    With it these have together the probability at `temperature` that they had.
    """
    import numpy as np
    import torch

    best, numbers = torch.from_numpy(logits).topk(top, dim=1)
    others = torch.from_numpy(logits).double().scatter(1, numbers, float("-inf"))
    rest = temperature * ((others / temperature).logsumexp(1) - np.log(logits.shape[1] - top))
    packed = np.empty(len(logits), [("class", "<i4", (top,)), ("logit", "<f4", (top,)), ("rest", "<f4")])
    packed["class"], packed["logit"], packed["rest"] = numbers.numpy(), best.numpy(), rest.numpy()
    return packed


def unpack(classes: int, item: np.ndarray) -> np.ndarray:
    """A record → float32[C]."""
    import numpy as np

    logits = np.full(classes, item["rest"], np.float32)
    logits[item["class"]] = item["logit"]
    return logits
