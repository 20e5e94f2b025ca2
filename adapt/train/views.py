"""Which rows, in which order, under which seeds: everything a function of (seed, epoch, step), so nothing needs saving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from adapt.vision.augment import view_seed


class Views(Dataset):
    """Rows of a `datasets.Dataset` as items of a family; when training, each carries the seed of its random view.

    Args:
        seed: of the random views; none: no views, as in evaluation.
        views: how many views a row has; epoch e shows view e modulo `views`; 0: a new one in every epoch.
        extra: (view, row number) → what is added to an item, such as a teacher's output for just this view.
    """

    def __init__(self, rows, preprocess: Callable[[dict, bool], dict], seed: int | None, views: int = 0, extra=None):
        self.rows, self.preprocess, self.seed, self.views, self.extra = rows, preprocess, seed, views, extra
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._item(int(index), self.rows[int(index)])

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        """A batch at once: one look-up in the Arrow table instead of one a row."""
        columns = self.rows[indices]
        samples = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return [self._item(index, sample) for index, sample in zip(indices, samples, strict=True)]

    def _item(self, index: int, sample: dict[str, Any]) -> dict[str, Any]:
        item = self.preprocess(sample, self.seed is not None)
        if self.seed is not None:
            view = self.epoch % self.views if self.views else self.epoch
            item["seed"] = view_seed(self.seed, view, index)
            if self.extra:
                item |= self.extra(view, index)
        return item


def order(seed: int, epoch: int, rows: int, batch: int) -> np.ndarray:
    """Row numbers of one epoch: int64[steps, batch]; the remainder is left out, a set smaller than a batch is repeated."""
    permutation = np.random.default_rng([seed, epoch]).permutation(rows)
    steps = max(1, rows // batch)
    return np.resize(permutation, steps * batch).reshape(steps, batch)


def batches(views: Views, rows: np.ndarray, collate: Callable, workers: int, rank: int, world: int) -> Iterator[dict]:
    """The batches of this process: every `world`-th row of each step's batch, beginning with `rank`.

    Args:
        rows: int64[steps, batch], from `order`.
    """
    mine = [step[rank::world].tolist() for step in rows]
    return iter(DataLoader(views, batch_sampler=mine, collate_fn=collate, num_workers=workers))
