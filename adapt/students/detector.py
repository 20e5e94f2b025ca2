"""The detection student: torchvision's FCOS with one map, small enough for a device, and its geometry.

Source: Tian et al. 2019, arXiv:1904.01355; the assignment of cells to boxes and the losses are torchvision's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSClassificationHead, FCOSHead, FCOSRegressionHead
from torchvision.ops import nms

from adapt.contracts import Augment
from adapt.students.pyramid import Pyramid
from adapt.train.learner import Learner
from adapt.train.precision import full
from adapt.vision.augment import augment, uniforms
from adapt.vision.images import Normalise, collate, view
from adapt.vision.masks import singles

STRIDE = 8
"""Pixels to a cell of the map on which boxes are found."""
FOUND = ("boxes", "scores", "labels", "rows")
"""Outputs of an exported file: boxes float[M, 4] XYXY in pixels of the input, scores float[M] best first, labels int64[M],
rows int64[M]: of which image of the batch."""
VISIBLE = 0.4
"""A box of which a random crop leaves less than this share is forgotten."""


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
    """What is exported: an image's boxes and scores at every cell, before duplicates are removed.

    Args:
        options: `score` and `nms`, what a target needs to remove duplicates.
    """

    OUTPUTS: ClassVar[tuple[str, ...]] = ("boxes", "scores")

    def __init__(self, normalise: nn.Module, net: FCOS, size: int, options: dict[str, float]):
        super().__init__()
        self.normalise, self.net, self.size, self.options = normalise, net, size, options
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


class Detector(Learner):
    """A small CNN that learns boxes; see `Family` for the surface.

    Args:
        arch: a timm model name.
        classes: number of categories.
        spec: the teacher's `input`.
        config: of `adapt/distill/boxes.py`.
    """

    def __init__(self, arch: str, classes: int, spec: dict[str, Any], config):
        super().__init__()
        size = config.size or 32 * max(2, round(spec["size"][0] / 32))
        backbone = Pyramid(arch, STRIDE, (size // STRIDE, size // STRIDE), config.width, config.pretrained)
        backbone.out_channels = config.width
        anchors = AnchorGenerator(((STRIDE,),), ((1.0,),))
        self.net = FCOS(backbone, classes, anchor_generator=anchors, head=Head(config.width, classes, config.convs))
        self.input = {"size": (size, size), "resize": (size, size), "interpolation": spec["interpolation"], "crop": None}
        self.input |= {"mean": backbone.mean, "std": backbone.std}
        self.size = size
        self.dense = Dense(Normalise(self.input), self.net, size, {"score": config.least, "nms": config.nms})
        half = STRIDE / 2
        self.register_buffer("cells", torch.cat([self.dense.centres - half, self.dense.centres + half], 1), persistent=False)

    # ------------------------------------------------------------------------------------------------------------ training

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Focal loss of classes, GIoU loss of boxes, cross-entropy of centre-ness, summed, as in FCOS eq. 2."""
        images = batch["image"]
        out = self.net.head([self.net.backbone(self.dense.normalise(images))])
        targets = [
            {"boxes": boxes.to(images.device), "labels": labels.to(images.device)}
            for boxes, labels in zip(batch["boxes"], batch["labels"], strict=True)
        ]
        out = {name: value.float() for name, value in out.items()}
        losses = self.net.compute_loss(targets, out, [self.cells] * len(images), [len(self.cells)])
        return sum(losses.values()), {name.removeprefix("bbox_"): value for name, value in losses.items()}

    def weight(self, batch: dict[str, Any]) -> float:
        """Cells with a box, of the batch that `forward` has just seen: the losses are sums divided by their number."""
        return float(self.net.head.foreground)

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        """One row → its square view; when training also boxes float[N, 4] XYXY in pixels of the view, labels int64[N]."""
        item: dict[str, Any] = {"image": view(sample["image"], self.input)}
        if train:
            objects = singles(sample["objects"])
            boxes = torch.tensor(objects["bbox"], dtype=torch.float32).reshape(-1, 4)
            item["boxes"] = boxes * self.size / torch.tensor(2 * sample["image"].size)
            item["labels"] = torch.tensor(objects["category"], dtype=torch.int64)
        return item

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Images and seeds are stacked; boxes and labels stay lists, a tensor an image."""
        ragged = ("boxes", "labels")
        batch = collate([{name: value for name, value in item.items() if name not in ragged} for item in items])
        return batch | {name: [item[name] for item in items] for name in ragged if name in items[0]}

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        """Random views; boxes follow crop and flip (no rotation: a turned box is no box)."""
        config = config.model_copy(update={"rotate": 0.0})
        batch["image"] = augment(batch["image"], batch["seed"], config)
        seen = [
            follow(boxes.cpu(), labels.cpu(), uniforms(seed[None], 6)[0], self.size, config)
            for boxes, labels, seed in zip(batch["boxes"], batch["labels"], batch["seed"], strict=True)
        ]
        batch["boxes"], batch["labels"] = [boxes for boxes, _ in seen], [labels for _, labels in seen]
        return batch

    # ---------------------------------------------------------------------------------------------------------- prediction

    def detect(self, images: np.ndarray) -> list[dict[str, np.ndarray]]:
        """float32[B, 3, S, S] 0–255 → an image's bbox float32[N, 4] XYXY in pixels of S × S, category, score, best first."""
        boxes, scores = self.dense(torch.from_numpy(images).to(self.cells.device))
        return [select(one, score, **self.dense.options) for one, score in zip(boxes.cpu(), scores.cpu(), strict=True)]

    def predictors(self, texts: None = None) -> dict[str, Callable]:
        return {"detections": self.rows(self.detect)}

    def rows(self, function: Callable, batch: int = 32) -> Callable[[list[dict]], list[dict[str, np.ndarray]]]:
        """The row predictor of a function of images, such as `detect` or an exported file's `Runner`.

        Returns:
            samples → bbox float32[N, 4] XYXY in pixels of the sample's own image, category int64[N], score float32[N].
        """

        @full()  # in fp32, as its file computes
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

        detections.rows = True
        return detections

    def about(self, labels: list[str]) -> dict[str, Any]:
        """What the exported file's outputs are called, and the classes that `labels` number."""
        return {"outputs": ["boxes", "scores", "labels", "rows"], "classes": labels}

    def deployed(self) -> nn.Module:
        """What is exported; the target removes duplicates, by the module's `options`."""
        return self.dense

    def file_predictors(self, runner: Callable[[np.ndarray], list[np.ndarray]]) -> dict[str, Callable]:
        """The predictors, by an exported file, whose outputs are `FOUND`."""
        return {"detections": self.rows(lambda images: by_row(runner(images), len(images)))}


def by_row(found: list[np.ndarray], count: int) -> list[dict[str, np.ndarray]]:
    """An exported detector's outputs, `FOUND`, for `count` images → bbox, category, score of each."""
    boxes, scores, labels, rows = found
    return [{"bbox": boxes[rows == i], "category": labels[rows == i], "score": scores[rows == i]} for i in range(count)]


def follow(boxes: Tensor, labels: Tensor, u: Tensor, size: int, config: Augment) -> tuple[Tensor, Tensor]:
    """Boxes through the crop and flip that `augment` draws from the same numbers.

    Args:
        boxes: float[N, 4] XYXY in pixels.
        u: float[6], the view's first `uniforms`.
        size: of the square view, pixels.
    """
    if config.crop == 1 and config.flip == 0:
        return boxes, labels
    scale = (config.crop + (1 - config.crop) * u[0]).sqrt()
    shift = (2 * u[3:5] - 1) * (1 - scale)
    corners = (boxes.reshape(-1, 2, 2) * 2 / size - 1 - shift) / scale  # affine_grid maps the other way, out → in
    if u[2] < config.flip:
        corners = torch.stack([-corners[:, [1, 0], 0], corners[..., 1]], -1)
    moved = ((corners + 1) * size / 2).reshape(-1, 4)
    inside = moved.clamp(0, size)
    keep = _area(inside) >= VISIBLE * _area(moved)
    return inside[keep], labels[keep]


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(1)


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


def _suppress(boxes: Tensor, scores: Tensor, least: float, overlap: float) -> Tensor:
    cells = (scores > least).nonzero().flatten()
    return cells[nms(boxes[cells], scores[cells], overlap)]
