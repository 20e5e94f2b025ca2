"""Linear classifiers on stored features: a grid of them at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from adapt.train.precision import full


@dataclass
class Chosen:
    """The best of the grid on the held-out rows."""

    input: str
    """A name of `inputs`."""
    lr: float
    """Of the grid, before it is scaled by the batch."""
    accuracy: float
    """On the held-out rows, by which it was chosen: it flatters a little."""
    grid: dict[str, list[float]]
    """Held-out accuracy of each input and learning rate."""


def inputs(features: np.ndarray) -> dict[str, np.ndarray]:
    """What the classifiers see: float32[N, F] by name.

    Args:
        features: float[N, D], one input; or float[N, n + 1, D], class tokens of the last n blocks, the last one last, and then
            the mean of the last block's patches: {1, 4} blocks (those that there are), each without and with the mean.
    """
    if features.ndim == 2:
        return {"embedding": features}
    tokens, mean = features[:, :-1], features[:, -1]
    out = {}
    for n in sorted({1, min(4, tokens.shape[1])}):
        last = tokens[:, -n:].reshape(len(tokens), -1)
        out[f"{n} block{'s' if n > 1 else ''}"] = last
        out[f"{n} block{'s' if n > 1 else ''} + mean"] = np.concatenate([last, mean], 1)
    return out


def search(features: dict[str, np.ndarray], labels: np.ndarray, classes: int, config) -> Chosen:
    """Train every input with every learning rate on the same batches, and choose by the held-out rows."""
    held = holdout(labels, config.holdout, config.seed)
    grid = {}
    weights = fit({name: values[~held] for name, values in features.items()}, labels[~held], classes, config.lrs, config)
    for name, values in features.items():
        logits = apply(weights[name], values[held])
        own = logits.gather(2, torch.from_numpy(labels[held])[None, :, None].expand(len(logits), -1, 1))
        grid[name] = ((logits >= own).sum(2) == 1).float().mean(1).tolist()  # a tie with another class is no hit
    accuracy, name, place = max((value, name, -place) for name, values in grid.items() for place, value in enumerate(values))
    return Chosen(name, config.lrs[-place], accuracy, grid)


def refit(features: np.ndarray, labels: np.ndarray, classes: int, lr: float, config) -> Callable[[np.ndarray], np.ndarray]:
    """The chosen classifier, learnt from all rows: features float[N, F] → logits float32[N, C]."""
    weights = fit({"x": features}, labels, classes, [lr], config)["x"]
    return lambda values: apply(weights, values)[0].numpy()


def holdout(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which rows are held out, bool[N]: of each class the share, rounded, and never all."""
    held = np.zeros(len(labels), bool)
    random = np.random.default_rng(seed)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        held[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
    if not held.any():  # a row a class: the same rows learn and choose, there are no others
        held[:] = False
        held[random.permutation(len(labels))[: max(1, round(share * len(labels)))]] = True
    return held


@full()
@torch.inference_mode()
def fit(
    features: dict[str, np.ndarray], labels: np.ndarray, classes: int, lrs: list[float], config
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Softmax regression by SGD, one a learning rate and input, all in one pass over the rows.

    Returns:
        by input: weights float[G, F, C] and biases float[G, 1, C], G learning rates.
    """
    target = torch.nn.functional.one_hot(torch.from_numpy(labels), classes).float()
    random = torch.Generator().manual_seed(config.seed)
    rates = torch.tensor(lrs)[:, None, None] * config.batch / 256
    state = {}
    for name, values in features.items():
        shapes = [(len(lrs), values.shape[1], classes), (len(lrs), 1, classes)]
        start = torch.empty(shapes[0][1:]).normal_(std=0.01, generator=random).expand(shapes[0]).clone()
        state[name] = (torch.from_numpy(values).float(), [start, torch.zeros(shapes[1])], [torch.zeros(s) for s in shapes])
    order = torch.empty(0, dtype=torch.long)
    for step in range(config.steps):
        while len(order) < min(config.batch, len(labels)):
            order = torch.cat([order, torch.randperm(len(labels), generator=random)])
        rows, order = order[: config.batch], order[config.batch :]
        cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
        for values, parts, speeds in state.values():
            x = values[rows]
            error = (torch.baddbmm(parts[1], x.expand(len(lrs), *x.shape), parts[0]).softmax(2) - target[rows]) / len(rows)
            for part, speed, slope in zip(parts, speeds, (x.T @ error, error.sum(1, keepdim=True)), strict=True):
                speed.mul_(0.9).add_(slope)  # torch's SGD with momentum
                part.sub_(rates * cosine * speed)
    return {name: tuple(parts) for name, (_, parts, _) in state.items()}


@full()
@torch.inference_mode()
def apply(weights: tuple[torch.Tensor, torch.Tensor], features: np.ndarray) -> torch.Tensor:
    """Logits float[G, N, C] of features float[N, F]."""
    x = torch.from_numpy(features).float()
    return torch.baddbmm(weights[1], x.expand(len(weights[0]), *x.shape), weights[0]).nan_to_num()
