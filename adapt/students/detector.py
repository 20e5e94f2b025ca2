"""A small detector: torchvision's FCOS with one map, and its geometry. The student of `boxes`.

Source: Tian et al. 2019, arXiv:1904.01355; the assignment of cells to boxes and the losses are torchvision's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.ops import nms

from adapt.contracts import Deployable, Predictor
from adapt.students import base
from adapt.students.pyramid import Pyramid
from adapt.train.precision import full

STRIDE = 8
"""Pixels to a cell of the map on which boxes are found."""


class Head(FCOSHead):
    """Two towers of convolutions with batch norm, which folds away and quantises; torchvision's own has group norm."""

    def __init__(self, width: int, classes: int, convs: int):
        super().__init__(32, 1, classes, 0)  # its towers, whose group norm wants 32 channels or more, are replaced
        norm = nn.BatchNorm2d
        self.classification_head = FCOSClassificationHead(width, 1, classes, convs, norm_layer=norm)
        self.regression_head = FCOSRegressionHead(width, 1, convs, norm_layer=norm)
        nn.init.constant_(self.regression_head.bbox_reg.bias, 2.0)  # the ReLU behind it would leave half of the cells dead
        self.foreground = 0
        """Cells with a box, in the batch whose loss was computed last."""

    def compute_loss(self, targets, head_outputs, anchors, matched_idxs: list[Tensor]) -> dict[str, Tensor]:
        self.foreground = int(sum((matched >= 0).sum() for matched in matched_idxs))
        return super().compute_loss(targets, head_outputs, anchors, matched_idxs)


class Dense(nn.Module):
    """What is exported: an image's boxes and scores at every cell, before duplicates are removed."""

    def __init__(self, normalise: nn.Module, net: FCOS, size: int):
        super().__init__()
        self.normalise, self.net, self.size = normalise, net, size
        side = torch.arange(size // STRIDE) * STRIDE + STRIDE / 2
        y, x = torch.meshgrid(side, side, indexing="ij")
        self.register_buffer("centres", torch.stack([x, y], -1).reshape(-1, 2), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float[B, 3, S, S] 0–255 → boxes float[B, N, 4] XYXY in pixels of S × S, scores float[B, C, N] in 0–1."""
        out = self.net.head([self.net.backbone(self.normalise(images))])
        return self.decode(out)

    def decode(self, out: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the head gives → boxes and scores, as `forward`."""
        out = {name: value.float() for name, value in out.items()}  # in half precision, boxes would be pixels off
        reach = out["bbox_regression"] * STRIDE  # left, top, right, bottom of the cell's centre
        boxes = torch.cat([self.centres - reach[..., :2], self.centres + reach[..., 2:]], -1).clamp(0, self.size)
        # FCOS §3.3: the root of both sigmoids' product; written so that small ones, of which a runtime makes zeros, keep their digits
        scores = (-0.5 * (F.softplus(-out["cls_logits"]) + F.softplus(-out["bbox_ctrness"]))).exp()
        return boxes, scores.transpose(1, 2)


class Student(base.Student):
    """Images → boxes with classes and scores.

    Args:
        architecture, input, classes: see `base.Student`; the input is a square.
        width: channels of the fused map and of the head.
        convs: convolutions in each of the head's two towers.
        min_score: boxes with a lower score are not given out.
        nms: of two boxes of a class with a higher IoU, the better stays.
        pretrained: see `create`.
    """

    def __init__(
        self,
        architecture: str,
        input: dict[str, Any],
        classes: Sequence[str],
        width: int = 64,
        convs: int = 2,
        min_score: float = 0.05,
        nms: float = 0.6,
        pretrained: bool | str = False,
    ):
        super().__init__(architecture, input, classes, width=width, convs=convs, min_score=min_score, nms=nms)
        self.size = input["size"][0]
        backbone = Pyramid(architecture, STRIDE, (self.size // STRIDE, self.size // STRIDE), width, pretrained)
        backbone.out_channels = width
        anchors = AnchorGenerator(((STRIDE,),), ((1.0,),))
        self.net = FCOS(backbone, len(self.classes), anchor_generator=anchors, head=Head(width, len(self.classes), convs))
        self.dense = Dense(self.normalise, self.net, self.size)
        self.thresholds = {"score": min_score, "nms": nms}

    def detect(self, images: np.ndarray) -> list[dict[str, np.ndarray]]:
        """float32[B, 3, S, S] 0–255 → an image's bbox float32[N, 4] XYXY in pixels of S × S, category, score, best first."""
        boxes, scores = self.dense(torch.from_numpy(images).to(self.dense.centres.device))
        return [select(one, score, **self.thresholds) for one, score in zip(boxes.cpu(), scores.cpu(), strict=True)]

    def predictors(self, texts: None = None) -> dict[str, Predictor]:
        return {"detections": self.rows(self.detect)}

    def rows(self, function: Callable, batch: int = 32) -> Predictor:
        """The row predictor of a function of images, such as `detect` or an exported file's `Runner`.

        Returns:
            samples → bbox float32[N, 4] XYXY in pixels of the sample's own image, category int64[N], score float32[N].
        """

        @full()
        @torch.inference_mode()
        def detections(samples: list[dict]) -> list[dict[str, np.ndarray]]:
            self.eval()
            found = []
            for start in range(0, len(samples), batch):
                part = samples[start : start + batch]
                images = torch.stack([self.preprocess(sample, False)["image"] for sample in part]).float().numpy()
                for sample, one in zip(part, function(images), strict=True):
                    scale = np.array(2 * sample["image"].size, np.float32) / self.size
                    found.append(one | {"bbox": one["bbox"] * scale})
            return found

        return Predictor(detections, "rows")

    def deployed(self) -> Deployable:
        return Deployable(self.dense, ("boxes", "scores"), nms=self.thresholds)

    def file_predictors(self, runner: Callable[[np.ndarray], list[np.ndarray]]) -> dict[str, Predictor]:
        return {"detections": self.rows(lambda images: by_row(runner(images), len(images)))}


def by_row(found: list[np.ndarray], count: int) -> list[dict[str, np.ndarray]]:
    """An exported detector's outputs (see `contracts.Runner`) for `count` images → bbox, category, score of each."""
    boxes, scores, labels, rows = found
    return [{"bbox": boxes[rows == i], "category": labels[rows == i], "score": scores[rows == i]} for i in range(count)]


def select(boxes: Tensor, scores: Tensor, score: float, nms: float) -> dict[str, np.ndarray]:
    """Duplicates removed, class by class, as ONNX's NonMaxSuppression does it.

    Args:
        boxes: float[N, 4] XYXY.
        scores: float[C, N].
        score: only what scores more is kept.
        nms: of two boxes of a class that overlap by more than this IoU, the better stays.

    Returns:
        bbox float32[M, 4], category int64[M], score float32[M], best first.
    """
    kept = [(one, _suppress(boxes, scores[one], score, nms)) for one in (scores > score).any(1).nonzero().flatten().tolist()]
    category = torch.cat([torch.full((len(cells),), one) for one, cells in kept] or [torch.zeros(0, dtype=torch.int64)])
    cells = torch.cat([cells for _, cells in kept] or [torch.zeros(0, dtype=torch.int64)])
    order = scores[category, cells].argsort(descending=True, stable=True)
    category, cells = category[order], cells[order]
    return {"bbox": boxes[cells].numpy(), "category": category.numpy(), "score": scores[category, cells].numpy()}


def _suppress(boxes: Tensor, scores: Tensor, score: float, overlap: float) -> Tensor:
    cells = (scores > score).nonzero().flatten()
    return cells[nms(boxes[cells], scores[cells], overlap)]
