"""A timm CNN with the light head of LR-ASPP, a class for each pixel: the student of `semantic`.

Source: Howard et al. 2019 (MobileNetV3, §6.4: lite reduced atrous spatial pyramid pooling), arXiv:1905.02244.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch.nn.functional as F
from timm.layers import ConvNormAct
from torch import Tensor, nn

from adapt.contracts import Deployable, Predictor
from adapt.students import base
from adapt.students.pyramid import feature_maps
from adapt.train.precision import full

COARSE = 16
"""Pixels of the image to a cell of the map that knows what; the finer map knows where."""


class Lraspp(nn.Module):
    """A CNN with two maps: a coarse one, weighted by what the whole image is about, and a fine one; the logits of both are summed.

    Args:
        arch: a timm model name.
        outputs: classes, with the background.
        stride: pixels of the image to a cell of the fine map, and of the output.
        width: channels of the coarse map.
        pretrained: see `create`.
    """

    def __init__(self, arch: str, outputs: int, stride: int, width: int, pretrained: bool | str = False):
        super().__init__()
        info = feature_maps(arch, False).feature_info
        steps, channels = info.reduction(), info.channels()
        self.fine = next((i for i, step in enumerate(steps) if step >= stride), len(steps) - 1)
        self.coarse = next((i for i, step in enumerate(steps) if step >= COARSE), len(steps) - 1)
        self.cnn = feature_maps(arch, pretrained, out_indices=range(self.coarse + 1))  # coarser maps are of no use
        self.features = ConvNormAct(channels[self.coarse], width, 1)
        self.attention = nn.Conv2d(channels[self.coarse], width, 1)
        self.what = nn.Conv2d(width, outputs, 1)
        self.where = nn.Conv2d(channels[self.fine], outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised float[B, 3, H, W] → logits float[B, C, H / stride, W / stride]."""
        maps = self.cnn(images)
        coarse, fine = maps[self.coarse], maps[self.fine]
        weights = self.attention(coarse.mean((2, 3), keepdim=True)).sigmoid()
        what = self.what(self.features(coarse) * weights)
        return F.interpolate(what, fine.shape[-2:], mode="bilinear", align_corners=False) + self.where(fine)


class Student(base.Student):
    """Images → a class for each pixel, logits float[B, 1 + C, h, w]: class 0 is the background, k + 1 the category k.

    Args:
        architecture, input, classes: see `base.Student`.
        stride, width: see `Lraspp`.
        pretrained: see `create`.
    """

    def __init__(
        self,
        architecture: str,
        input: dict[str, Any],
        classes: Sequence[str],
        stride: int = 8,
        width: int = 128,
        pretrained: bool | str = False,
    ):
        super().__init__(architecture, input, classes, stride=stride, width=width)
        self.net = Lraspp(architecture, 1 + len(self.classes), stride, width, pretrained)

    def forward(self, images: Tensor) -> Tensor:
        """float[B, 3, S, S] 0–255 → float[B, 1 + C, h, w]."""
        return self.net(self.normalise(images))

    def predictors(self, texts: None = None) -> dict[str, Predictor]:
        return {"semantic_logits": Predictor(full()(self.forward))}

    def about(self) -> dict[str, Any]:
        return super().about() | {"classes": ["background", *self.classes]}

    def deployed(self) -> Deployable:
        return Deployable(base.Deployed(self.normalise, self.net))

    def file_predictors(self, runner: Callable[[np.ndarray], np.ndarray]) -> dict[str, Predictor]:
        return {"semantic_logits": base.of_images(runner)}
