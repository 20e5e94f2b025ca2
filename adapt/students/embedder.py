"""The student of `features`: a timm CNN with heads into the teacher's space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from adapt.contracts import Augment
from adapt.plug import UserError
from adapt.students.base import create
from adapt.train.learner import Learner
from adapt.train.precision import full
from adapt.vision.augment import augment
from adapt.vision.images import Normalise, collate, view


class FeatureStudent(Learner):
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
        cnn = create(config.student, 0, config.pretrained)
        own = resolve_model_data_config(cnn)
        self.input = dict(spec) | {"mean": list(own["mean"]), "std": list(own["std"])}
        self.normalise = Normalise(self.input)
        self.net = Net(cnn, config.student, width, self.input["size"])
        if config.relation:
            self.register_buffer("queue", torch.zeros(config.queue, width))
            self.register_buffer("filled", torch.zeros((), dtype=torch.long))
        self.live = [teacher] if teacher else []  # in a list, so that it is no submodule: never saved, never in train mode

    # -------------------------------------------------------------------------------------------------------- features

    def image_embedding(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → float[B, D] in the teacher's space, or the student's own; not L2-normalised."""
        pooled, _ = self.net(self.normalise(images))
        return self.net.to_global(pooled) if self.config.embedding == "projected" else pooled

    def patch_features(self, images: Tensor) -> Tensor:
        """float[B, 3, H, W] 0–255 → float[B, D, h, w] in the teacher's space."""
        return self.net.local(self.net(self.normalise(images))[1])

    def block_features(self, images: Tensor) -> Tensor:
        """float[B, 2, D]: the global feature and the mean of the map, both in the teacher's space, as a family's last block."""
        pooled, features = self.net(self.normalise(images))
        return torch.stack([self.net.to_global(pooled), self.net.local(features).mean((2, 3))], 1)

    def predictors(self, texts: None = None) -> dict[str, Callable[[Tensor], Tensor]]:
        """In fp32, as its file computes."""
        return {name: full()(getattr(self, name)) for name in ("image_embedding", "patch_features", "block_features")}

    def about(self, labels: list[str]) -> dict[str, Any]:
        """What the exported file's outputs are called; an embedding has no classes."""
        return {"outputs": ["embedding"]}

    def deployed(self) -> nn.Module:
        """What is exported: images float[N, 3, H, W] 0–255 → embeddings float[N, D]."""
        return Embedder(self)

    def file_predictors(self, runner: Callable[[np.ndarray], np.ndarray]) -> dict[str, Callable[[Tensor], Tensor]]:
        """The predictors, by an exported file."""
        return {"image_embedding": lambda images: torch.from_numpy(runner(images.cpu().numpy()))}

    # ------------------------------------------------------------------------------------------------------------ loss

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        images = batch["image"]
        with torch.no_grad():
            target = (self.live[0](images) if self.live else batch["teacher"]).float()
        if self.training and self.config.mixup:
            share = torch.distributions.Beta(self.config.mixup, self.config.mixup).sample().to(images)  # seeded by the loop
            images, target = (share * x + (1 - share) * x.roll(1, 0) for x in (images, target))
        pooled, features = self.net(self.normalise(images))
        ours = self.net.to_global(pooled).float()
        loss = distance = (1 - F.cosine_similarity(ours, target[:, 0], dim=1)).mean()
        logs = {"global": distance}
        if self.config.local:
            side = round((target.shape[1] - 1) ** 0.5)
            grid = F.interpolate(self.net.local(features).float(), size=(side, side), mode="bilinear", align_corners=False)
            distance = (1 - F.cosine_similarity(grid.flatten(2), target[:, 1:].transpose(1, 2), dim=1)).mean()
            loss, logs["local"] = loss + self.config.local * distance, distance
        else:  # DDP wants every learning parameter in every step
            loss = loss + sum(0 * parameter.sum() for parameter in self.net.to_local.parameters())
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

    # ------------------------------------------------------------------------------------------------------------ data

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        return {"image": view(sample["image"], self.input)}

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        return collate(items)

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        """The random views that the teacher saw."""
        return batch | {"image": augment(batch["image"], batch["seed"], config)}


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

    def __init__(self, student: FeatureStudent):
        super().__init__()
        self.normalise, self.cnn = student.normalise, student.net.cnn
        self.last = student.net.to_global if student.config.embedding == "projected" else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.last(self.cnn.forward_head(self.cnn.forward_features(self.normalise(images))))
