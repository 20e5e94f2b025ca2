"""Which rows, in which order, under which seeds: everything a function of (seed, epoch, step), so nothing needs saving.

Pictures are decoded in threads while the network works, batches ahead of it; who decodes, and when, changes no bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from adapt import hardware
from adapt.ahead import ahead, threads
from adapt.vision.augment import view_seed

KEPT = 1 << 29
"""Bytes of prepared pictures that stay in memory, of all processes of a machine together: small sets are decoded once."""
BEFORE = 2
"""Jobs for each thread that are begun before their turn."""
RUN = 16
"""Rows of a job, at most: fewer than a batch, so that threads share it, and enough that looking them up costs little."""
ON_GPU = 16
"""Threads of a process that decode for a GPU, at most; for a CPU there are fewer, since the network needs its cores too."""

Done = TypeVar("Done")
Joined = TypeVar("Joined")


class Views:
    """Rows of a `datasets.Dataset` as items of a family; when training, each carries the seed of its random view.

    Args:
        seed: of the random views; none: no views, as in evaluation.
        views: how many views a row has; epoch e shows view e modulo `views`; 0: a new one in every epoch.
        extra: (view, row number) → what is added to an item, such as a teacher's output for just this view.
        keep: bytes of prepared rows that may stay in memory; none: this process's share of `KEPT`.
    """

    def __init__(
        self,
        rows,
        preprocess: Callable[[dict, bool], dict],
        seed: int | None,
        views: int = 0,
        extra=None,
        keep: int | None = None,
    ):
        self.rows, self.preprocess, self.seed, self.views, self.extra = rows, preprocess, seed, views, extra
        self.epoch = 0
        self.keep = KEPT // hardware.processes() if keep is None else keep
        self._kept: dict[int, dict[str, Any]] = {}
        self._keeping = Lock()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.items([number])[0]

    def items(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """A batch's rows as items, in their order."""
        missing = [number for number in numbers if number not in self._kept]
        found = dict(zip(missing, self._prepared(missing), strict=True)) if missing else {}
        return [self._item(number, found[number] if number in found else self._kept[number]) for number in numbers]

    def _prepared(self, numbers: list[int]) -> Iterator[dict[str, Any]]:
        """Rows that are looked up in the Arrow table at once; what fits stays in memory."""
        columns = self.rows[numbers]
        for number, values in zip(numbers, zip(*columns.values(), strict=True), strict=True):
            item = self.preprocess(dict(zip(columns, values, strict=True)), self.seed is not None)
            size = _bytes(item)
            with self._keeping:
                if size <= self.keep and number not in self._kept:
                    self.keep -= size
                    self._kept[number] = item
            yield item

    def _item(self, index: int, item: dict[str, Any]) -> dict[str, Any]:
        item = dict(item)
        if self.seed is not None:
            view = self.epoch % self.views if self.views else self.epoch
            item["seed"] = view_seed(self.seed, view, index)
            if self.extra:
                item |= self.extra(view, index)
        return item


def _bytes(item: dict[str, Any]) -> int:
    """What an item takes in memory, about."""
    return 500 + sum(value.nbytes if isinstance(value, Tensor | np.ndarray) else 100 for value in item.values())


def order(seed: int, epoch: int, rows: int, batch: int) -> np.ndarray:
    """Row numbers of one epoch: int64[steps, batch]; the remainder is left out, a set smaller than a batch is repeated."""
    permutation = np.random.default_rng([seed, epoch]).permutation(rows)
    steps = max(1, rows // batch)
    return np.resize(permutation, steps * batch).reshape(steps, batch)


def batches(
    views: Views, steps: Iterable[Sequence[int]], collate: Callable, workers: int | str = "auto"
) -> Iterator[dict[str, Any]]:
    """The batches of one process.

    Args:
        steps: the numbers of its rows, for each batch.
        workers: see `streamed`.
    """
    return joined(views.items, steps, partial(_batch, collate), workers)


def _batch(collate: Callable, items: list[dict[str, Any]]) -> dict[str, Any]:
    batch = collate(items)
    if torch.cuda.is_available():  # copied to the GPU while it works
        batch = {name: value.pin_memory() if isinstance(value, Tensor) else value for name, value in batch.items()}
    return batch


def joined(
    work: Callable[[list[int]], list[Done]],
    steps: Iterable[Sequence[int]],
    join: Callable[[list[Done]], Joined],
    workers: int | str = "auto",
) -> Iterator[Joined]:
    """What `join` makes of each step's rows. Threads work on a few rows at a time, so that they share even a single step.

    One step is joined before its turn, and no more rows than one has are begun beside it, or `BEFORE` a thread where steps are small.

    Args:
        work: numbers of rows → a result for each.
        workers: see `streamed`.
    """
    steps, number = list(steps), decoders(workers)
    run = min(RUN, max(1, max(map(len, steps), default=1) // max(1, BEFORE * number)))
    jobs = (partial(work, list(map(int, step[at : at + run]))) for step in steps for at in range(0, len(step), run))
    with closing(streamed(jobs, number)) as runs:
        joins = (partial(_joined, join, runs, -(-len(step) // run)) for step in steps)
        with closing(streamed(joins, min(1, number))) as found:
            yield from found


def _joined(join: Callable[[list[Done]], Joined], runs: Iterator[list[Done]], count: int) -> Joined:
    return join([one for part in islice(runs, count) for one in part])


def streamed(jobs: Iterable[Callable[[], Done]], workers: int | str = "auto") -> Iterator[Done]:
    """The jobs' results, in their order, done in threads before their turn.

    Args:
        workers: threads; 0: each job in its turn; auto: a core each, shared by the processes of this machine.
    """
    number = decoders(workers)
    if not number:
        yield from (job() for job in jobs)
        return
    with closing(ahead(jobs, BEFORE * number, number)) as results:
        yield from results


def decoders(workers: int | str) -> int:
    """How many threads a number or auto means; see `streamed`."""
    if workers != "auto":
        return int(workers)
    return threads(hardware.processes(), **({"most": ON_GPU} if torch.cuda.is_available() else {}))
