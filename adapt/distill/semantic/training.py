"""The loss of `semantic`, and maps that follow the random views of their pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as Picture
from torch import Tensor

from adapt.contracts import Augment
from adapt.distill.semantic import IGNORE
from adapt.distill.taught import Taught
from adapt.plug import UserError
from adapt.vision.augment import augment_map
from adapt.vision.maps import class_map


class Learner(Taught):
    """A student of pixels that learns maps of classes; see `Taught`."""

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy of each pixel with the map of the teacher, or of people."""
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
        """One row → its square view; when training also its map of classes, uint8[S, S].

        Raises:
            UserError: the map has a class that is none of the student's.
        """
        item = super().preprocess(sample, train)
        if train:
            classes = class_map(sample)
            wrong = classes[(classes != IGNORE) & ((classes < 0) | (classes > len(self.student.classes)))]
            if wrong.size:
                raise UserError(
                    f"data: sample {sample.get('id', '?')!r}: its segmentation has the class {wrong[0]}, and the data name "
                    f"{len(self.student.classes)}: 0 is the background, then 1 to {len(self.student.classes)}, and {IGNORE} is not judged."
                )
            pixels = Picture.fromarray(classes.astype(np.uint8)).resize(self.input["size"], Picture.Resampling.NEAREST)
            item["segmentation"] = torch.from_numpy(np.array(pixels))
        return item

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        """Random views; the maps follow crops, turns and flips."""
        maps = augment_map(batch["segmentation"].long(), batch["seed"], config)
        return super().augment(batch, config) | {"segmentation": maps}
