"""Tip-Adapter: the training pictures are kept, and a new one asks those that are like it.

    logits = zero-shot + α · s/100 · exp(−β (1 − f Kᵀ)) V

f is a picture's embedding; the rows of K are those of the training pictures, each the mean of ten random views; V are their labels, one
hot. Nothing is trained; with `tuned`, K learns (Tip-Adapter-F). α and β are searched on a few validation pictures of each class.

The paper's zero-shot logits are 100 · cos, and α is what the kept pictures weigh beside that. Here they are s · cos, s the model's own
scale (CLIP's is 100, clip-tiny's is not), so α is multiplied by s/100 and means the same.

Source: Zhang et al. 2022, arXiv:2207.09519, eq. 4 to 6 and §4.1: α = 1.17, β = 1, K by AdamW 1e-3 with ε = 1e-4 in 20 epochs. There
each epoch sees another view; here the ten of the keys come twice. The grid is that of its code, 200 values of β and 20 of α from 0.1. It
ends at 50, where it does for Flowers102, since one end must do for all data: for clip-tiny, ImageNet's 3 and 7 are too little.
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


class Config(MethodConfig):
    """Training pictures that are asked beside the words."""

    title = "Tip-Adapter"
    merges = False
    prepares = True
    searches = True
    train = {
        "cache": True,
        "cache_views": 10,
        "lr": 1e-3,
        "eps": 1e-4,
        "epochs": 20,
        "batch": 256,
        "warmup": 0.0,
        "clip": 0.0,
    }

    tuned: bool = False
    """Let the kept embeddings learn (Tip-Adapter-F); false: nothing is trained."""
    views: int = Field(10, ge=0, le=1000)
    """Random views of each training picture, by `train.augment`, whose mean is kept; 0: the picture as it is."""
    alpha: float = Field(1.17, ge=0)
    """α with which the training and the search begin: what kept pictures weigh beside the words."""
    beta: float = Field(1.0, ge=0)
    """β with which they begin: how much less a picture weighs that is less alike."""
    most_alpha: float = Field(50.0, gt=0.1)
    """End of the grid of α."""
    most_beta: float = Field(50.0, gt=0.1)
    """End of the grid of β."""

    @property
    def trains(self) -> bool:
        return self.tuned

    @property
    def only_learnt_classes(self) -> str:
        return "the pictures that it keeps are of no others"


def apply(family: Family, config: Config, rows: Dataset) -> None:
    """Freeze the family and make room for the training pictures.

    Raises:
        UserError: the family has no text tower, or the data have no labels.
    """
    import torch

    from adapt.methods.tip_adapter.cache import Cache

    text = few_labels.texts(family, config.name)
    family.requires_grad_(False)
    family.slots.head(Cache(text, torch.as_tensor(few_labels.labels(rows)), config.tuned, config.alpha, config.beta))


def prepare(family: Family, config: Config, rows: Dataset, features: Callable[[int], Tensor]) -> None:
    """Keep the training pictures: the mean of their views' embeddings, L2-normalised."""
    import torch
    import torch.nn.functional as F

    from adapt.methods.tip_adapter.cache import Cache

    with torch.no_grad():
        few_labels.placed(family, Cache).keys.copy_(F.normalize(features(config.views).mean(0), dim=-1))


def search(family: Family, config: Config, features: Tensor, labels: Tensor) -> dict[str, float]:
    """Choose α and β by the accuracy on these pictures; what is no better than the start is not taken."""
    import torch

    from adapt.methods.tip_adapter.cache import Cache, best

    cache = few_labels.placed(family, Cache)
    with torch.no_grad():
        alpha, beta = best(cache, features, labels, config.most_alpha, config.most_beta)
        cache.alpha.fill_(alpha)
        cache.beta.fill_(beta)
    return {"alpha": alpha, "beta": beta}
