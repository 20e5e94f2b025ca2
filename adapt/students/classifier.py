"""A CNN with an answer for each class: the student of `logits`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from adapt.contracts import Deployable, Predictor
from adapt.students import base
from adapt.students.cnn import create
from adapt.train.precision import full


class Student(base.Student):
    """Images → logits float[B, C].

    Args:
        architecture, input, classes: see `base.Student`.
        pretrained: see `create`.
    """

    def __init__(self, architecture: str, input: dict[str, Any], classes: Sequence[str], pretrained: bool | str = False):
        super().__init__(architecture, input, classes)
        self.net = create(architecture, len(self.classes), pretrained)

    def forward(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → float[B, C]."""
        return self.net(self.normalise(images))

    def predictors(self, texts: None = None) -> dict[str, Predictor]:
        return {"class_logits": Predictor(full()(self.forward))}

    def deployed(self) -> Deployable:
        return Deployable(base.Deployed(self.normalise, self.net))

    def file_predictors(self, runner: Callable[[np.ndarray], np.ndarray]) -> dict[str, Predictor]:
        return {"class_logits": base.of_images(runner)}
