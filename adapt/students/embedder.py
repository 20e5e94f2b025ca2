"""A CNN that gives an embedding and a feature map, in its teacher's space: the student of `features`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adapt.contracts import Deployable, Predictor
from adapt.plug import UserError
from adapt.students import base
from adapt.students.cnn import create
from adapt.train.precision import full


class Student(base.Student):
    """Images → embeddings float[B, D].

    Args:
        architecture, input, classes: see `base.Student`; there are no classes.
        width: D of the teacher's features.
        embedding: `projected`, in the teacher's space; `pooled`, the student's own, before the head.
        pretrained: see `create`.
    """

    def __init__(
        self,
        architecture: str,
        input: dict[str, Any],
        classes: Sequence[str],
        width: int,
        embedding: str = "projected",
        pretrained: bool | str = False,
    ):
        super().__init__(architecture, input, classes, width=width, embedding=embedding)
        self.net = Net(create(architecture, 0, pretrained), architecture, width, input["size"])
        self.projected = embedding == "projected"

    def image_embedding(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → float[B, D] in the teacher's space, or the student's own; not L2-normalised."""
        pooled, _ = self.net(self.normalise(images))
        return self.net.to_global(pooled) if self.projected else pooled

    def patch_features(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → float[B, D, h, w] in the teacher's space."""
        return self.net.local(self.net(self.normalise(images))[1])

    def block_features(self, images: Tensor) -> Tensor:
        """float[B, 2, D]: the global feature and the mean of the map, both in the teacher's space, as a family's last block."""
        pooled, features = self.net(self.normalise(images))
        return torch.stack([self.net.to_global(pooled), self.net.local(features).mean((2, 3))], 1)

    def predictors(self, texts: None = None) -> dict[str, Predictor]:
        functions = (self.image_embedding, self.patch_features, self.block_features)
        return {function.__name__: Predictor(full()(function)) for function in functions}

    def deployed(self) -> Deployable:
        return Deployable(Embedder(self), ("embedding",))

    def file_predictors(self, runner: Callable[[np.ndarray], np.ndarray]) -> dict[str, Predictor]:
        return {"image_embedding": base.of_images(runner)}


class Net(nn.Module):
    """A timm CNN without its last layer, and linear heads from its pooled features and from its map into the teacher's space.

    Args:
        size: (H, W) of the images, at which the architecture is tried.

    Raises:
        UserError: it gives no feature map.
    """

    def __init__(self, cnn: nn.Module, name: str, width: int, size: tuple[int, int]):
        super().__init__()
        self.cnn = cnn
        try:
            with torch.no_grad():
                pooled, features = self.eval()(torch.zeros(1, 3, *size))
        except (AssertionError, RuntimeError):  # transformers of another size refuse
            pooled = features = torch.empty(0)
        if features.ndim != 4:
            raise UserError(f"distill.student: {name!r} gives no feature map. Use a CNN, such as resnet18.")
        self.to_global, self.to_local = nn.Linear(pooled.shape[1], width), nn.Linear(features.shape[1], width)
        self.train()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised float[B, 3, H, W] → pooled float[B, P] and the map float[B, C, h, w]."""
        features = self.cnn.forward_features(images)
        return self.cnn.forward_head(features), features

    def local(self, features: Tensor) -> Tensor:
        """The map in the teacher's space, float[B, D, h, w]."""
        return self.to_local(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Embedder(nn.Module):
    """Images float[N, 3, H, W] 0–255 → embeddings, normalisation inside."""

    def __init__(self, student: Student):
        super().__init__()
        self.normalise, self.cnn = student.normalise, student.net.cnn
        self.last = student.net.to_global if student.projected else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.cnn.forward_head(self.cnn.forward_features(self.normalise(images))))
