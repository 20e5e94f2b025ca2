"""Halves of the labelled pictures, successive halving, and intervals of many candidates at once.

Half of the pictures choose; the other half confirm. In each round of the halving the looks that remain are judged on more pictures, each by its
best candidate, and half of them go on: a round costs about what the one before it did.

Source: Jamieson and Talwalkar 2016, Non-stochastic Best Arm Identification, §3 (successive halving), arXiv:1502.07943.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np

FIRST = 24
"""Pictures of the first round, at least."""
KEPT = 4
"""Looks in the last round, at most, unless there are too few pictures for as many rounds."""


def halves(pictures: Sequence[str], labels: Sequence[int], most: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows that choose, and of those that confirm, in an order of chance; no picture is in both.

    Args:
        pictures: for each row the name of its picture; rows of one picture stay together.
        labels: for each row its class, which both halves get alike; of things in boxes all 0.
        most: pictures, at most.
    """
    rows: dict[str, list[int]] = {}
    for number, name in enumerate(pictures):
        rows.setdefault(name, []).append(number)
    drawn = {name: hashlib.sha256(f"workbench/{seed}/{name}".encode()).digest() for name in rows}
    chosen = sorted(rows, key=drawn.__getitem__)[:most]
    by_class = sorted(chosen, key=lambda name: (labels[rows[name][0]], drawn[name]))
    parts = (by_class[::2], by_class[1::2])
    first, second = (
        np.array([row for name in sorted(part, key=drawn.__getitem__) for row in rows[name]], np.int64) for part in parts
    )
    return first, second


def rounds(looks: int, pictures: int) -> list[tuple[int, int]]:
    """(looks, pictures) of each round: half of the looks go on to twice the pictures, until `KEPT` are judged on all of them."""
    wanted = math.ceil(math.log2(looks / KEPT)) if looks > KEPT else 0
    possible = int(math.log2(pictures / FIRST)) if pictures >= FIRST else 0
    count = min(wanted, possible)
    return [(math.ceil(looks / 2**k), math.ceil(pictures / 2 ** (count - k))) for k in range(count + 1)]


def intervals(hits: np.ndarray, sizes: np.ndarray, samples: int = 1000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Of many candidates at once the share of hits, float[K], and its 95 % percentile interval over pictures, float[K, 2].

    Args:
        hits: float[P, K], what each picture brings.
        sizes: float[P], the things on each.
    """
    count = len(sizes)
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), samples).astype(np.float32)
    drawn = (weights @ hits.astype(np.float32)) / np.maximum(weights @ sizes.astype(np.float32), 1)[:, None]
    return hits.sum(0) / sizes.sum(), np.percentile(drawn, [2.5, 97.5], axis=0).T
