"""The last stage of `dinov2-tiny`: from where `clip-tiny`'s image tower ended, it learns what pictures are called and how `clip-tiny` sees them.

    python -m adapt.assets.teach_dinov2_tiny     # after the zoo's dinov2_tiny and clip_tiny; an hour on one core

`clip-tiny`'s tower began as that of `dinov2-tiny` (`build_clip_tiny.py`) and has learnt since what captions say of a picture: its name, and the
kind of thing that it is. Here that comes back into DINOv2's format. A run that is killed and started again goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from datasets import load_dataset
from torch import Tensor, nn

from adapt import hardware
from adapt.assets import _towers
from adapt.assets._sources import CACHE
from adapt.assets.publish import write
from adapt.contracts import Train
from adapt.distill import logits
from adapt.models import clip, dinov2
from adapt.models.checkpoint import EMBEDDED
from adapt.prompting.text import words
from adapt.recipe import load_recipe
from adapt.train.learner import Learner
from adapt.train.loop import fit
from adapt.train.views import Views

EPOCHS, RATE = 8, 3e-3
EMBEDDING = 2.0
"""Weight of the cosine between the teacher's embedding and a linear map of the student's."""


class Taught(Learner):
    """A `Dino` with two linear heads on its class token and the mean of its patches: the names, and the teacher's embedding.

    Args:
        teacher: images float[B, 3, H, W] 0–255 → float[B, D], L2-normalised; no part of what learns.
        texts: float[C, D], the teacher's classifier of the names, times its scale.
        naming: (logits of the names, the teacher's, batch) → (loss, logs).
    """

    def __init__(self, family: nn.Module, teacher: Callable, texts: Tensor, naming: Callable):
        super().__init__()
        self.family, self.teacher, self.texts, self.naming = family, teacher, texts, naming
        self.preprocess, self.collate, self.augment = family.preprocess, family.collate, family.augment
        names, width = texts.shape
        self.name, self.embedding = nn.Linear(2 * family.width, names), nn.Linear(2 * family.width, width)

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            seen = self.teacher(batch["image"])
        features = self.family.image_embedding(batch["image"])
        loss, logs = self.naming(self.name(features), seen @ self.texts.T, batch)
        off = 1 - F.cosine_similarity(self.embedding(features), seen, dim=1).mean()
        return loss + EMBEDDING * off, logs | {"off": off.detach()}


def teach(epochs: int = EPOCHS, rows=None, folder: Path = CACHE / "dinov2-tiny-taught") -> tuple[nn.Module, list[dict]]:
    """The taught `Dino` and its history; checkpoints go to `folder`. Teacher, words and the loss of the names are those of `cnn-tiny`."""
    recipe, other = load_recipe("zoo/dinov2_tiny"), load_recipe("zoo/cnn_tiny")
    rows = load_dataset("parquet", data_files=str(CACHE / "named" / "*.parquet"), split="train") if rows is None else rows
    family = dinov2.load(recipe.model)
    family.bind(rows.column_names)
    teacher = clip.load(other.model).eval()
    teacher.set_classes(**words(other.prompts, rows.features["label"].names).told)
    with torch.no_grad():
        texts = teacher.text_classifier(teacher.templates) * teacher.net.logit_scale.exp()
    some = rows.shuffle(seed=0).select(range(128))
    images = torch.stack([family.preprocess(row, train=False)["image"] for row in some]).float()
    _towers.to_dinov2(family.backbone, teacher.net.vision_model, images, family.input, teacher.input)
    torch.manual_seed(0)
    learner = Taught(family, teacher.image_embedding, texts, partial(logits.loss, other.distill))
    train = Train(**recipe.train.model_dump() | {"epochs": epochs, "lr": RATE})
    folder.mkdir(parents=True, exist_ok=True)
    views = Views(rows, family.preprocess, 0)
    return family, fit(learner, views, train, 0, folder, Accelerator(), title="dinov2-tiny")


def main() -> None:
    family, history = teach()
    print(write(family.backbone, EMBEDDED / "dinov2-tiny"), history[-1])


if __name__ == "__main__":
    hardware.guard()
    main()
