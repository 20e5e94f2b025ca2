"""The loss of `semantic`, and maps that follow the random views of their pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.contracts import Augment
from adapt.distill.semantic import IGNORE
from adapt.distill.taught import Taught
from adapt.vision.augment import augment_map


class Learner(Taught):
    """A student of pixels that learns maps of classes; see `Taught`."""

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of each pixel with the teacher's map."""
        truth = batch["segmentation"].long()
        logits = self.student(batch["image"]).float()
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
        item = super().preprocess(sample, train)
        if train:
            pixels = sample["segmentation"].resize(self.input["size"], 0)  # nearest
            item["segmentation"] = torch.from_numpy(np.array(pixels, np.uint8))
        return item

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        """Random views; the maps follow crops, turns and flips."""
        maps = augment_map(batch["segmentation"].long(), batch["seed"], config)
        return super().augment(batch, config) | {"segmentation": maps}
