"""The student of `features`: a timm CNN with heads into the teacher's space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from adapt.distill._student import create
from adapt.plug import UserError
from adapt.recipe import Augment
from adapt.train.augment import augment
from adapt.train.images import Normalise, collate, view


class FeatureStudent(nn.Module):
    """A CNN that gives an embedding and a feature map.

    Args:
        config: of `adapt.distill.features`.
        spec: the teacher's `input`, so that both see the same view; mean and std are the student's own.
        width: D of the teacher's features.
        teacher: live teacher; none when the batch brings its outputs from the cache.
    """

    def __init__(self, config, spec: dict[str, Any], width: int, teacher: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.config = config
        self.net = create(config.student, 0, config.pretrained)
        own = resolve_model_data_config(self.net)
        self.input = dict(spec) | {"mean": list(own["mean"]), "std": list(own["std"])}
        self.normalise = Normalise(self.input)
        pooled, channels = self._widths()
        self.to_global, self.to_local = nn.Linear(pooled, width), nn.Linear(channels, width)
        if config.relation:
            self.register_buffer("queue", torch.zeros(config.queue, width))
            self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self.live = [teacher] if teacher else []  # in a list, so that it is no submodule: never saved, never in train mode

    @torch.no_grad()
    def _widths(self) -> tuple[int, int]:
        """Widths of the pooled features and of the feature map."""
        self.net.eval()
        try:
            features = self.net.forward_features(torch.zeros(1, 3, *self.input["size"]))
        except (AssertionError, RuntimeError):  # transformers of another size refuse
            features = torch.empty(0)
        if features.ndim != 4:
            raise UserError(f"distill.student: {self.config.student!r} gives no feature map. Use a CNN, such as resnet18.")
        pooled = self.net.forward_head(features).shape[1]
        self.net.train()
        return pooled, features.shape[1]

    # -------------------------------------------------------------------------------------------------------- features

    def image_embedding(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → float[B, D] in the teacher's space, or the student's own; not L2-normalised."""
        pooled = self.net.forward_head(self.net.forward_features(self.normalise(images)))
        return self.to_global(pooled) if self.config.embedding == "projected" else pooled

    def patch_features(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → float[B, D, h, w] in the teacher's space."""
        return self._project(self.net.forward_features(self.normalise(images)))

    def _project(self, features: Tensor) -> Tensor:
        return self.to_local(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def block_features(self, images: Tensor) -> Tensor:
        """float[B, 2, D]: the embedding and the mean of the map, both in the teacher's space, as a family's last block."""
        features = self.net.forward_features(self.normalise(images))
        return torch.stack([self.to_global(self.net.forward_head(features)), self._project(features).mean((2, 3))], 1)

    def predictors(self, texts: None = None) -> dict[str, Callable[[Tensor], Tensor]]:
        return {name: getattr(self, name) for name in ("image_embedding", "patch_features", "block_features")}

    def deployed(self) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
        """What is exported, with example inputs: images float[N, 3, H, W] 0–255 → embeddings float[N, D]."""
        return {"embedding": (Embedder(self), (torch.zeros(1, 3, *self.input["size"]),))}

    # ------------------------------------------------------------------------------------------------------------ loss

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        images = batch["image"]
        with torch.no_grad():
            target = (self.live[0](images) if self.live else batch["teacher"]).to(images.dtype)
        if self.training and self.config.mixup:
            share = torch.distributions.Beta(self.config.mixup, self.config.mixup).sample().to(images)  # seeded by the loop
            images, target = (share * x + (1 - share) * x.roll(1, 0) for x in (images, target))
        features = self.net.forward_features(self.normalise(images))
        ours = self.to_global(self.net.forward_head(features))
        loss = distance = (1 - F.cosine_similarity(ours, target[:, 0], dim=1)).mean()
        logs = {"global": distance}
        if self.config.local:
            side = round((target.shape[1] - 1) ** 0.5)
            grid = F.interpolate(self._project(features), size=(side, side), mode="bilinear", align_corners=False)
            distance = (1 - F.cosine_similarity(grid.flatten(2), target[:, 1:].transpose(1, 2), dim=1)).mean()
            loss, logs["local"] = loss + self.config.local * distance, distance
        if self.config.relation:
            distance = self._relation(F.normalize(ours, dim=1), F.normalize(target[:, 0], dim=1))
            loss, logs["relation"] = loss + self.config.relation * distance, distance
        return loss, logs

    def _relation(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """KL of the softened similarities with the queue and the batch's own teacher features (SEED eq. 4)."""
        held = min(int(self.filled), len(self.queue))
        others = torch.cat([theirs, self.queue[:held].to(theirs)])
        ours, wanted = (F.log_softmax(x @ others.T / self.config.temperature, dim=1) for x in (ours, theirs))
        if self.training:
            place = (int(self.filled) + torch.arange(len(theirs))) % len(self.queue)
            self.queue[place[-len(self.queue) :]] = theirs[-len(self.queue) :].float()
            self.filled += len(theirs)
        return F.kl_div(ours, wanted, log_target=True, reduction="batchmean")

    # ------------------------------------------------------------------------------------------------------------ data

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        return {"image": view(sample["image"], self.input)}

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        return collate(items)

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        """The random views that the teacher saw."""
        return batch | {"image": augment(batch["image"], batch["seed"], config)}


class Embedder(nn.Module):
    """Images float[N, 3, H, W] 0–255 → embeddings, normalisation inside."""

    def __init__(self, student: FeatureStudent):
        super().__init__()
        self.normalise, self.net = student.normalise, student.net
        self.last = student.to_global if student.config.embedding == "projected" else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.net.forward_head(self.net.forward_features(self.normalise(images))))
