"""What the loop trains when a student learns: the student, its loss, and its teacher where that is in the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adapt.contracts import Augment, Input, Predictor
from adapt.students.base import Student
from adapt.train.learner import Learner
from adapt.vision.augment import augment
from adapt.vision.images import view

Loss = Callable[[Tensor, Tensor | None, dict[str, Any]], tuple[Tensor, dict[str, Tensor]]]


class Taught(Learner):
    """A student that learns; what loop and evals ask is the student's. Objectives derive from it, or give a loss.

    Args:
        student: the only part whose weights are kept.
        teacher: for its `input`.
        live: the teacher's function of images when it is in the loop; none: a batch brings what it says as `teacher`, if it says
            anything.
        loss: (the student's output, the teacher's, batch) → (loss, scalars to log).
    """

    def __init__(
        self, student: Student, teacher: nn.Module, live: Callable[[Tensor], Tensor] | None = None, loss: Loss | None = None
    ):
        super().__init__()
        self.student, self.loss = student, loss
        # in a list, so that it is no part of this module: never saved, never in train mode
        self.live = [torch.no_grad()(live)] if live else []
        sees = dict(teacher.input)
        self.sees = sees if live and tuple(sees["size"]) != tuple(student.input["size"]) else None
        """The `input` of a teacher in the loop that sees pictures of another size."""

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        assert self.loss is not None
        return self.loss(self.student(batch["image"]), self.theirs(batch), batch)

    def theirs(self, batch: dict[str, Any]) -> Tensor | None:
        """What the teacher says of a batch's views; none where it says nothing of a view."""
        return self.live[0](batch.get("seen", batch["image"])) if self.live else batch.get("teacher")

    @property
    def input(self) -> Input:
        return self.student.input

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        """One row → its view; when training also `label`, −1 where there is none, and `seen`, the view of a teacher that needs its own."""
        item = self.student.preprocess(sample, train)
        if not train:
            return item
        label = sample.get("label")
        return (
            item | {"label": -1 if label is None else label} | ({"seen": view(sample["image"], self.sees)} if self.sees else {})
        )

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        return self.student.collate(items)

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        """The random views that the teacher saw."""
        return batch | {name: augment(batch[name], batch["seed"], config) for name in ("image", "seen") if name in batch}

    def predictors(self, texts: None = None) -> Mapping[str, Predictor]:
        return self.student.predictors(texts)
