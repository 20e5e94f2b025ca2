"""The losses of `boxes`, and boxes that follow the random views of their pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adapt.contracts import Augment
from adapt.distill.taught import Taught
from adapt.students.detector import STRIDE, Student
from adapt.vision.augment import augment, uniforms
from adapt.vision.images import collate
from adapt.vision.masks import singles

VISIBLE = 0.4
"""A box of which a random crop leaves less than this share is forgotten."""


class Learner(Taught):
    """A detector that learns boxes; see `Taught`."""

    student: Student

    def __init__(self, student: Student, teacher: nn.Module):
        super().__init__(student, teacher)
        centres, half = student.dense.centres, STRIDE / 2
        self.register_buffer("cells", torch.cat([centres - half, centres + half], 1), persistent=False)

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Focal loss of classes, GIoU loss of boxes, cross-entropy of centre-ness, summed, as in FCOS eq. 2."""
        images, net = batch["image"], self.student.net
        out = net.head([net.backbone(self.student.normalise(images))])
        targets = [
            {"boxes": boxes.to(images.device), "labels": labels.to(images.device)}
            for boxes, labels in zip(batch["boxes"], batch["labels"], strict=True)
        ]
        out = {name: value.float() for name, value in out.items()}
        losses = net.compute_loss(targets, out, [self.cells] * len(images), [len(self.cells)])
        return sum(losses.values()), {name.removeprefix("bbox_"): value for name, value in losses.items()}

    def weight(self, batch: dict[str, Any]) -> float:
        """Cells with a box, of the batch that `forward` has just seen: the losses are sums divided by their number."""
        return float(self.student.net.head.foreground)

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        """One row → its square view; when training also boxes float[N, 4] XYXY in pixels of the view, labels int64[N]."""
        item = super().preprocess(sample, train)
        if train:
            objects = singles(sample["objects"])
            boxes = torch.tensor(objects["bbox"], dtype=torch.float32).reshape(-1, 4)
            item["boxes"] = boxes * self.student.size / torch.tensor(2 * sample["image"].size)
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
            follow(boxes.cpu(), labels.cpu(), uniforms(seed[None], 6)[0], self.student.size, config)
            for boxes, labels, seed in zip(batch["boxes"], batch["labels"], batch["seed"], strict=True)
        ]
        batch["boxes"], batch["labels"] = [boxes for boxes, _ in seen], [labels for _, labels in seen]
        return batch


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
