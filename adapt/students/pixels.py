"""The semantic student: a timm CNN with the light head of LR-ASPP, a class for each pixel.

Source: Howard et al. 2019 (MobileNetV3, §6.4: lite reduced atrous spatial pyramid pooling), arXiv:1905.02244.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from timm.layers import ConvNormAct
from torch import Tensor, nn

from adapt.contracts import Augment
from adapt.distill.semantic import IGNORE
from adapt.students.pyramid import _features
from adapt.train.learner import Learner
from adapt.train.precision import full
from adapt.vision.augment import augment, augment_map
from adapt.vision.images import Normalise, collate, view

COARSE = 16
"""Pixels of the image to a cell of the map that knows what; the finer map knows where."""


class Lraspp(nn.Module):
    """A CNN with two maps: a coarse one, weighted by what the whole image is about, and a fine one; the logits of both are summed.

    Args:
        arch: a timm model name.
        outputs: classes, with the background.
        stride: pixels of the image to a cell of the fine map, and of the output.
        width: channels of the coarse map.
        pretrained: see `Student`.
    """

    def __init__(self, arch: str, outputs: int, stride: int, width: int, pretrained: bool | str = False):
        super().__init__()
        info = _features(arch, False).feature_info
        steps, channels = info.reduction(), info.channels()
        self.fine = next((i for i, step in enumerate(steps) if step >= stride), len(steps) - 1)
        self.coarse = next((i for i, step in enumerate(steps) if step >= COARSE), len(steps) - 1)
        self.cnn = _features(arch, pretrained, out_indices=range(self.coarse + 1))  # coarser maps are of no use
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


class SemanticStudent(Learner):
    """A CNN that learns maps of classes; see `Family` for the surface.

    Args:
        arch: a timm model name.
        outputs: classes, with the background.
        spec: the teacher's `input`, of which the interpolation is taken; mean and std are the student's own.
        config: of `adapt/distill/semantic.py`.
    """

    def __init__(self, arch: str, outputs: int, spec: dict[str, Any], config):
        super().__init__()
        self.net = Lraspp(arch, outputs, config.stride, config.width, config.pretrained)
        own = resolve_model_data_config(self.net.cnn)
        size = config.size or 32 * max(2, round(spec["size"][0] / 32))
        self.input = {"size": (size, size), "resize": (size, size), "interpolation": spec["interpolation"], "crop": None}
        self.input |= {"mean": list(own["mean"]), "std": list(own["std"])}
        self.normalise = Normalise(self.input)

    def logits(self, images: Tensor) -> Tensor:
        """float[B, 3, S, S] 0–255 → float[B, C, h, w]; class 0 is the background, k + 1 the category k."""
        return self.net(self.normalise(images))

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of each pixel with the teacher's map."""
        truth = batch["segmentation"].long()
        logits = self.logits(batch["image"]).float()
        logits = F.interpolate(logits, truth.shape[-2:], mode="bilinear", align_corners=False)
        judged = truth != IGNORE
        # a mean over judged pixels by hand: a batch without any is a loss of zero, not of NaN
        loss = F.cross_entropy(logits, truth, ignore_index=IGNORE, reduction="sum") / judged.sum().clamp(min=1)
        right = ((logits.argmax(1) == truth) & judged).sum() / judged.sum().clamp(min=1)
        return loss, {"pixels": right}

    def weight(self, batch: dict[str, Any]) -> Tensor:
        """Judged pixels."""
        return (batch["segmentation"] != IGNORE).sum()

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        """One row → its square view; when training also the teacher's map, uint8[S, S]."""
        item = {"image": view(sample["image"], self.input)}
        if train:
            pixels = sample["segmentation"].resize(self.input["size"], 0)  # nearest
            item["segmentation"] = torch.from_numpy(np.array(pixels, np.uint8))
        return item

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        return collate(items)

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        """Random views; the maps follow crops, turns and flips."""
        maps = augment_map(batch["segmentation"].long(), batch["seed"], config)
        return batch | {"image": augment(batch["image"], batch["seed"], config), "segmentation": maps}

    def predictors(self, texts: None = None) -> dict[str, Callable[[Tensor], Tensor]]:
        return {"semantic_logits": full()(self.logits)}  # in fp32, as its file computes

    def about(self, labels: list[str]) -> dict[str, Any]:
        """What the exported file's outputs are called, and the classes that its channels stand for."""
        return {"outputs": ["logits"], "classes": ["background", *labels]}

    def deployed(self) -> nn.Module:
        """What is exported: images float[N, 3, S, S] 0–255 → logits, normalisation inside."""
        return nn.Sequential(self.normalise, self.net)

    def file_predictors(self, runner: Callable[[np.ndarray], np.ndarray]) -> dict[str, Callable[[Tensor], Tensor]]:
        """The predictors, by an exported file."""
        return {"semantic_logits": lambda images: torch.from_numpy(runner(images.cpu().numpy()))}
