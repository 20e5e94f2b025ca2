"""A linear head that starts from the classes' words and is held to them, each class as firmly as its words are right.

    logits = s · f · w_c / ‖w_c‖,   loss = cross-entropy + Σ_c λ_c ‖w_c − t_c‖²

f is a picture's embedding; t_c a class's words, from which w_c starts; s the model's own scale (SigLIP's bias is added). λ_c is the
probability, averaged over the training pictures of c, that zero-shot gives to c; a class without any is held by 1, the most.

Source: CLAP, Silva-Rodríguez et al. 2024, arXiv:2312.12730 §4; `penalty: 0` is its plain probe, ZS-LP. Optimiser, schedule and the 20
views of each picture are the paper's. Its code neither normalises t_c nor sums over the classes, but takes their mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from adapt.contracts import MethodConfig
from adapt.methods import few_labels

if TYPE_CHECKING:
    from collections.abc import Callable

    from datasets import Dataset
    from torch import Tensor

    from adapt.contracts import Family

EPOCHS = 300


class Config(MethodConfig):
    """A linear head that starts from words."""

    title = "linear text probe"
    prepares = True
    train = {
        "cache": True,
        "cache_views": 20,
        "optimizer": "sgd",
        "lr": 0.1,
        "epochs": EPOCHS,
        "batch": 256,
        "weight_decay": 0.0,
        "warmup": 1 / EPOCHS,
        "warmup_lr": 1e-5,
        "clip": 0.0,
        "validate_every": 10,
    }

    penalty: float = Field(1.0, ge=0)
    """What the paper's λ_c are multiplied by; 0: nothing holds the head to its words (ZS-LP)."""

    @property
    def only_learnt_classes(self) -> str:
        return "its head has no vectors of others"


def apply(family: Family, config: Config, rows: Dataset | None = None) -> None:
    """Freeze the family; what learns stands in the place of its classes' words.

    Raises:
        UserError: the family has no text tower, or the data have no labels.
    """
    from adapt.methods.linear_text.prototypes import Prototypes

    text = few_labels.texts(family, config.name)
    family.requires_grad_(False)
    prototypes = Prototypes(text.classifier())
    family.slots.classifier(prototypes)
    family.slots.penalty(prototypes.distance)


def prepare(family: Family, config: Config, rows: Dataset, features: Callable[[int], Tensor]) -> None:
    """Hold each class by what zero-shot gives to it, as it stands in the family before the training: λ_c, CLAP eq. 10."""
    import torch

    from adapt.methods.linear_text.prototypes import Prototypes, zero_shot_probability

    with torch.no_grad():
        logits = family.feature_logits(features(0)[0])
        labels = torch.as_tensor(few_labels.labels(rows), device=logits.device)
        few_labels.placed(family, Prototypes).hold.copy_(config.penalty * zero_shot_probability(logits, labels))
