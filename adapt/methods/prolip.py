"""ProLIP: of the whole model, the matrix learns that ends the image tower, and is held to where it started.

    loss = cross-entropy + λ ‖W − W₀‖²,   λ = 1/shots

The rest is frozen, so what W is multiplied with is computed once.

Source: Fahes et al. 2024, arXiv:2410.05270: the Frobenius norm, squared and not averaged; λ = 1/shots needs no validation split; Adam at 1e-5
in 300 steps, each on all training pictures. The paper sees another view of each in every step; here ten views come in turn.

The rate is for CLIP's public checkpoints. Adam moves an entry by at most rate · steps = 0.003: of clip-tiny's, which are of 0.1, that is
little; there `train.lr=1e-3` is better, which the paper finds as good.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from adapt.contracts import MethodConfig
from adapt.methods import few_labels
from adapt.plug import UserError

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

    from adapt.contracts import Family


class Config(MethodConfig):
    """The image tower's projection."""

    title = "ProLIP"
    train = {
        "cache": True,
        "cache_views": 10,
        "lr": 1e-5,
        "steps": 300,
        "batch": "all",
        "weight_decay": 0.0,
        "warmup": 0.0,
        "schedule": "constant",
        "clip": 0.0,
        "validate_every": 10,
    }

    penalty: float | None = Field(None, ge=0)
    """λ; none: 1 / the training pictures of the largest class."""


def apply(family: Family, config: Config, rows: Dataset) -> None:
    """Freeze the family but for the projection of its image tower.

    Raises:
        UserError: the family has no text tower or its checkpoint no projection, or the data have no labels.
    """
    few_labels.texts(family, config.name)
    slot = family.slots.projection
    if slot is None:
        raise UserError(
            "method.name: 'prolip' trains the projection that ends an image tower, and this checkpoint has none, as SigLIP's and ResNets' "
            "have not. Use linear_text, tip_adapter or lora."
        )
    family.requires_grad_(False)
    slot.weight.requires_grad_(True)
    hold = 1 / few_labels.shots(rows) if config.penalty is None else config.penalty
    start = slot.weight.detach().clone()

    def distance() -> Tensor:
        return hold * (slot.weight - start.to(slot.weight.device)).pow(2).sum()

    family.slots.penalty(distance)
