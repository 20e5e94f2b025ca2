"""The losses of `features`, and the queue of the teacher's latest features."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adapt.distill.taught import Taught
from adapt.students.embedder import Student
from adapt.train.precision import full

if TYPE_CHECKING:
    from adapt.distill.features import Config


class Learner(Taught):
    """An embedder that learns global and local features, and what is like what.

    Args:
        config: how.
        student, teacher, live: see `Taught`; the teacher's `width` is that of its features.
    """

    def __init__(self, config: Config, student: Student, teacher: nn.Module, live: Callable[[Tensor], Tensor] | None = None):
        super().__init__(student, teacher, live)
        self.config = config
        if config.relation:
            self.register_buffer("queue", torch.zeros(config.queue, teacher.width))
            self.register_buffer("filled", torch.zeros((), dtype=torch.long))

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        images, target, net = batch["image"], self.theirs(batch).float(), self.student.net
        if self.training and self.config.mixup:
            share = torch.distributions.Beta(self.config.mixup, self.config.mixup).sample().to(images)  # seeded by the loop
            images, target = (share * x + (1 - share) * x.roll(1, 0) for x in (images, target))
        pooled, features = net(self.student.normalise(images))
        ours = net.to_global(pooled).float()
        loss = distance = (1 - F.cosine_similarity(ours, target[:, 0], dim=1)).mean()
        logs = {"global": distance}
        if self.config.local:
            side = round((target.shape[1] - 1) ** 0.5)
            grid = F.interpolate(net.local(features).float(), size=(side, side), mode="bilinear", align_corners=False)
            distance = (1 - F.cosine_similarity(grid.flatten(2), target[:, 1:].transpose(1, 2), dim=1)).mean()
            loss, logs["local"] = loss + self.config.local * distance, distance
        else:  # every learning parameter has a gradient in every step: weight decay acts on all alike
            loss = loss + sum(0 * parameter.sum() for parameter in net.to_local.parameters())
        if self.config.relation:
            distance = self._relation(F.normalize(ours, dim=1), F.normalize(target[:, 0], dim=1))
            loss, logs["relation"] = loss + self.config.relation * distance, distance
        return loss, logs

    @full()
    def _relation(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """KL of the softened similarities with the queue and the batch's own teacher features (SEED eq. 4)."""
        held = min(int(self.filled), len(self.queue))
        others = torch.cat([theirs, self.queue[:held].to(theirs)])
        ours, wanted = (F.log_softmax(x @ others.T / self.config.temperature, dim=1) for x in (ours, theirs))
        if self.training:
            place = (int(self.filled) + torch.arange(len(theirs))) % len(self.queue)
            self.queue[place[-len(self.queue) :]] = theirs[-len(self.queue) :]
            self.filled += len(theirs)
        return F.kl_div(ours, wanted, log_target=True, reduction="batchmean")
