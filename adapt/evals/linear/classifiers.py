"""Linear classifiers on stored features: a grid of them at once, on the device, to which features go batch by batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from adapt import hardware
from adapt.evals import metrics
from adapt.train.precision import full

BLOCK = 2**24
"""Numbers of one array in memory."""


@dataclass
class Chosen:
    """The best of the grid on the held-out rows, or on all where none can be held out."""

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


def judged(
    learnt: dict[str, np.ndarray], labels: np.ndarray, measured: dict[str, np.ndarray], truth: np.ndarray, classes: int, config
) -> tuple[Chosen, np.ndarray, np.ndarray]:
    """The chosen classifier, and of the measured rows the classes int64[N], as `metrics.answers` has them, with their probabilities."""
    chosen = search(learnt, labels, classes, config)
    weights = fit({"x": learnt[chosen.input]}, labels, classes, [chosen.lr], config)["x"]
    best, sure = [], []
    for rows, logits in apply(weights, measured[chosen.input]):
        probabilities = metrics.softmax(logits[0].numpy())
        best.append(metrics.answers(probabilities, truth[rows]))
        sure.append(probabilities.max(1))
    return chosen, np.concatenate(best), np.concatenate(sure)


def search(features: dict[str, np.ndarray], labels: np.ndarray, classes: int, config) -> Chosen:
    """Train every input with every learning rate on the same batches, and choose by the held-out rows."""
    held = holdout(labels, config.holdout, config.seed)
    kept = ~held
    if not held.any():  # a row a class: the same rows learn and choose, there are no others
        held = kept
    grid = {}
    weights = fit({name: values[kept] for name, values in features.items()}, labels[kept], classes, config.lrs, config)
    truth = torch.from_numpy(labels[held])
    for name, values in features.items():
        hits = torch.zeros(len(config.lrs))
        for rows, logits in apply(weights[name], values[held]):
            own = logits.gather(2, truth[None, rows, None].expand(len(logits), -1, 1))
            hits += ((logits >= own).sum(2) == 1).sum(1)  # a tie with another class is no hit
        grid[name] = (hits / len(truth)).tolist()
    accuracy, name, place = max((value, name, -place) for name, values in grid.items() for place, value in enumerate(values))
    return Chosen(name, config.lrs[-place], accuracy, grid)


def holdout(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which rows are held out, bool[N]: of each class the share, rounded, and never all; none where no class has two rows.

    Where the share of every class is less than half a row, some classes give one of theirs.
    """
    held, spare = np.zeros(len(labels), bool), []
    random = np.random.default_rng(seed)
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        held[rows[: min(round(share * len(rows)), len(rows) - 1)]] = True
        if len(rows) > 1:
            spare.append(int(rows[0]))
    if spare and not held.any():
        held[random.permutation(spare)[: max(1, round(share * len(labels)))]] = True
    return held


@full()
@torch.inference_mode()
def fit(
    features: dict[str, np.ndarray], labels: np.ndarray, classes: int, lrs: list[float], config
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Softmax regression by SGD, one a learning rate and input, all in one pass over the rows.

    Returns:
        by input: weights float[G, F, C] and biases float[G, 1, C], G learning rates, on the device.
    """
    device, target = hardware.device(), torch.from_numpy(labels)
    random = torch.Generator().manual_seed(config.seed)
    rates = (torch.tensor(lrs)[:, None, None] * config.batch / 256).to(device)
    state = {}
    for name, values in features.items():
        shapes = [(len(lrs), values.shape[1], classes), (len(lrs), 1, classes)]
        start = torch.empty(shapes[0][1:]).normal_(std=0.01, generator=random).to(device).expand(shapes[0]).clone()
        speeds = [torch.zeros(shape, device=device) for shape in shapes]
        state[name] = (torch.from_numpy(values), [start, torch.zeros(shapes[1], device=device)], speeds)
    order = torch.empty(0, dtype=torch.long)
    for step in range(config.steps):
        while len(order) < min(config.batch, len(labels)):
            order = torch.cat([order, torch.randperm(len(labels), generator=random)])
        rows, order = order[: config.batch], order[config.batch :]
        cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
        truth = torch.nn.functional.one_hot(target[rows].to(device), classes).float()
        for values, parts, speeds in state.values():
            x = values[rows].float().to(device)
            error = (torch.baddbmm(parts[1], x.expand(len(lrs), *x.shape), parts[0]).softmax(2) - truth) / len(rows)
            for part, speed, slope in zip(parts, speeds, (x.T @ error, error.sum(1, keepdim=True)), strict=True):
                speed.mul_(0.9).add_(slope)  # torch's SGD with momentum
                part.sub_(rates * cosine * speed)
    return {name: tuple(parts) for name, (_, parts, _) in state.items()}


def apply(weights: tuple[torch.Tensor, torch.Tensor], features: np.ndarray) -> Iterator[tuple[slice, torch.Tensor]]:
    """Logits float32[G, n, C], on the CPU, of features float[N, F], n rows at a time."""
    step = max(1, BLOCK // (len(weights[0]) * weights[0].shape[2]))
    for start in range(0, len(features), step):
        rows = slice(start, start + step)
        with full(), torch.inference_mode():
            x = torch.from_numpy(features[rows]).float().to(weights[0].device)
            logits = torch.baddbmm(weights[1], x.expand(len(weights[0]), *x.shape), weights[0]).nan_to_num().cpu()
        yield rows, logits
