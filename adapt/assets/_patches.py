"""Stage 0 of `paligemma-tiny`: its tower learns what lies under each patch, and how far that thing reaches.

A caption is a few words about sixty-four patches. Here every patch has a name and a box to learn, so that minutes teach a tower what
captions alone did not teach in hours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from adapt.contracts import Augment, Drawing, Train
from adapt.data.emoji_scenes import compose
from adapt.train.learner import Learner
from adapt.train.loop import fit
from adapt.train.views import Views
from adapt.vision.augment import augment
from adapt.vision.images import Normalise, collate, view
from adapt.vision.masks import unrle
from adapt.vision.pictures import open_picture

COVERED = 0.25
"""Least share of a patch that a thing covers whose patch it is."""


class Scenes:
    """Rows of scenes, drawn when asked for; their categories are the things."""

    def __init__(self, hands: list[str], cast: int, size: int, count: int):
        self.things, _ = compose.cast(hands, None, cast, "thing")
        self.size, self.count = size, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, indices: list[int]) -> dict[str, list]:
        # its own seed: not the scenes that captions are learnt from
        rows = [compose.scene(self.things, self.size, 1, "train", index) for index in indices]
        return {name: [row[name] for row in rows] for name in ("image", "objects")}


class PatchNamer(Learner):
    """A SigLIP tower with two linear heads on its patches: the thing's number (0: none) and its box, left, top, right, bottom."""

    def __init__(self, tower: nn.Module, spec: dict[str, Any], things: int):
        super().__init__()
        self.tower, self.spec, self.normalise = tower, spec, Normalise(spec)
        self.name = nn.Linear(tower.config.hidden_size, things + 1)
        self.box = nn.Linear(tower.config.hidden_size, 4)

    def preprocess(self, row: dict[str, Any], train: bool) -> dict[str, Any]:
        side, patch = self.tower.config.image_size, self.tower.config.patch_size
        masks = torch.stack([torch.from_numpy(unrle(code)) for code in row["objects"]["mask"]]).float()
        covered, first = F.avg_pool2d(masks[None], patch)[0].flatten(1).max(0)  # [8 × 8]
        numbers = torch.tensor(row["objects"]["category"])[first] + 1
        return {
            "image": view(open_picture(row["image"]), self.spec),
            "name": torch.where(covered >= COVERED, numbers, 0),
            "box": torch.tensor(row["objects"]["bbox"])[first] / side,
        }

    collate = staticmethod(collate)

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        return batch | {"image": augment(batch["image"], batch["seed"], config)}

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        patches = self.tower(self.normalise(batch["image"])).last_hidden_state
        names, thing = self.name(patches), batch["name"] > 0
        loss = F.cross_entropy(names.flatten(0, 1), batch["name"].flatten())
        off = (self.box(patches) - batch["box"]).abs().mean(-1)[thing]
        named = (names.argmax(-1) == batch["name"])[thing].float()
        return loss + 2 * off.mean(), {"named": named.mean(), "off": off.mean().detach()}


def teach(tower: nn.Module, spec: dict[str, Any], hands: list[str], cast: int, views: int, folder: Path) -> list[dict]:
    """Train `tower` in place on `views` scenes; returns the history. A killed run resumes from `folder`."""
    torch.manual_seed(0)
    scenes = Scenes(hands, cast, tower.config.image_size, views)
    learner = PatchNamer(tower, spec, len(scenes.things))
    still = Augment(crop=1, flip=0, colour=0.2, hue=0.1, drawing=Drawing(invert=0.03))
    train = Train(epochs=1, batch=32, optimizer="muon", lr=6e-3, weight_decay=0.05, warmup=0.04, augment=still)
    folder.mkdir(parents=True, exist_ok=True)
    return fit(learner, Views(scenes, learner.preprocess, 0), train, 0, folder, Accelerator(), title="patches")
