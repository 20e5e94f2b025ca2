"""Linear evaluation: how well does a linear classifier on frozen features do? Many are trained in one pass, the best is chosen.

A classifier for each learning rate of the grid and each input — class tokens of the last 1 or 4 blocks, with or without the mean
of the patches — trains on the same batches of the bank; a held-out share of it chooses, then the chosen one learns from all of
it. The encoder is never trained, nor are the measured rows seen before the end.

Source: DINOv2 §7.1 and its eval/linear.py (SGD m=.9, no decay, cosine, lr × batch / 256), arXiv:2304.07193.

    >>> evaluate(Config(name="linear"), predict, dataset, {}, bank).metrics
    {'linear': 0.68, 'linear_mean_per_class': 0.66, 'linear_holdout': 0.69, 'linear_lr': 0.02}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from adapt.contracts import BankedEvalConfig

if TYPE_CHECKING:
    from adapt.evals.result import Result


class Config(BankedEvalConfig):
    """A linear classifier on frozen features."""

    version = 3
    main = "linear"
    predictor = "image_embedding"
    quick = {"pictures": 0}

    features: Literal["embedding", "blocks"] = "embedding"
    """embedding: the image embedding alone; blocks: DINOv2's four inputs, {1, 4} last blocks with and without mean of patches;
    of what has no blocks, such as an exported file, the embedding, and the protocol says so."""
    lrs: list[float] = [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]
    """The grid (DINOv2's ends at .1; the rest is for embeddings of length one); each is multiplied by batch / 256."""
    steps: int = Field(2000, ge=1)
    """Steps of SGD (DINOv2: 12,500)."""
    batch: int = Field(128, ge=1)
    """Rows a step."""
    holdout: float = Field(0.2, gt=0, lt=1)
    """Share of each class of the bank by which learning rate and input are chosen; where no class has two pictures, all of them choose."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of the order of the rows."""
    pictures: int = Field(0, ge=0, le=24)
    """How many pictures are shown beside their patch features as colours (PCA)."""


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set, predictor's name) → features float32[N, D], or [N, blocks + 1, D].
        dataset: rows with `id` and `label`.
        protocol: what the caller knows.
        bank: rows of `config.bank_split`.
    """
    from adapt.evals import feature_bank
    from adapt.evals.linear import classifiers
    from adapt.train.processes import once

    truth, labels, names = feature_bank.labels(dataset, bank, config.name)
    features = config.features
    try:
        found = [predict(rows, config.predictor if features == "embedding" else "block_features") for rows in (bank, dataset)]
    except LookupError:
        features, found = "embedding", [predict(rows, config.predictor) for rows in (bank, dataset)]
    learnt, measured = map(classifiers.inputs, found)
    chosen, best, sure = once(lambda: classifiers.judged(learnt, labels, measured, truth, len(names), config))
    more = {"linear_holdout": chosen.accuracy, "linear_lr": chosen.lr}
    out = feature_bank.result(config, best, sure, truth, dataset, protocol, **more)
    out.protocol["features"] = features
    out.figures["linear"] = {"input": chosen.input, "lr": chosen.lr, "grid": chosen.grid}
    out.pictures = feature_bank.pca_pictures(predict, dataset, config.pictures, protocol)
    return out


def statistic(table: dict[str, list]):
    """Top-1 of a table, as a function of how often each picture was drawn."""
    from adapt.evals.bootstrap import mean

    return mean(table["correct"])
