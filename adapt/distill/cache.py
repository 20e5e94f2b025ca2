"""Teacher outputs on disk: computed once, by any number of processes, resumed at the last whole shard.

Item v·N + i is the output for view v of row i; the view's seed is `view_seed(seed, v, i)`, so the student sees the same pixels.
A shard is one `.npy` file, written to a temporary name and renamed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator

from adapt.contracts import Augment
from adapt.plug import UserError
from adapt.progress import progress
from adapt.run import atomic
from adapt.train.predict import finite
from adapt.train.views import Views
from adapt.vision.augment import augment
from adapt.vision.images import collate

SHARD = 1024
"""Items of a shard, at most; fewer where the pictures are large."""
OPEN = 128
"""Shards that are open at once: each takes a file descriptor, of which systems often allow 1,024."""


class Cache:
    """Memory-mapped outputs: all `shards`, of `size` items each but for the last."""

    def __init__(self, shards: list[Path], size: int, rows: int, name: str = "teacher"):
        self.shards, self.size, self.rows, self.name = shards, size, rows, name
        self.open: dict[int, np.ndarray] = {}

    def __call__(self, view: int, row: int) -> dict[str, torch.Tensor]:
        """The item's part of a batch."""
        shard, place = divmod(view * self.rows + row, self.size)
        if shard not in self.open:
            if len(self.open) == OPEN:
                self.open.pop(next(iter(self.open)))
            self.open[shard] = np.load(self.shards[shard], mmap_mode="r")
        return {self.name: torch.from_numpy(self.open[shard][place].copy())}


@torch.inference_mode()
def build(
    folder: Path,
    teacher: Callable,
    views: Views,
    augmentation: Augment | None,
    batch: int,
    accelerator: Accelerator,
    name: str = "teacher",
    place: tuple[int, int] = (0, 1),
) -> Cache:
    """Compute the shards that `folder` lacks; of the n processes on a disk, the r-th sees to every n-th.

    Args:
        folder: named by the caller after data, teacher, augmentation and seed, so that a stale cache is never read.
        teacher: images float[B, 3, H, W] 0–255 → float[B, …].
        views: the rows and how many views each has.
        augmentation: of the views; none: plain images.
        name: of the outputs in a batch.
        place: r and n.

    Raises:
        UserError: an output is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total, size = views.views * len(views), min(SHARD, 4 * batch)
    shards = [folder / f"{start // size:06d}.npy" for start in range(0, total, size)]
    lacking = [i for i, path in enumerate(shards) if not path.exists()]
    # by number, not by place among the lacking: another process may have begun already
    mine = [i for i in lacking if i % place[1] == place[0]]
    with progress(name, len(shards), len(shards) - len(lacking), accelerator.is_main_process) as tick:
        for shard in mine:
            parts = []
            for start in range(shard * size, min(total, (shard + 1) * size), batch):
                stop = min(start + batch, total, (shard + 1) * size)
                items = collate([_item(views, flat) for flat in range(start, stop)])
                images = items["image"].to(accelerator.device).float()
                if augmentation:
                    images = augment(images, items["seed"], augmentation)
                parts.append(teacher(images).float().cpu().numpy())
                if not finite(parts[-1]):
                    raise UserError(
                        f"{name}: what the teacher gives for one of the rows {start % len(views)} to {(stop - 1) % len(views)} is not "
                        "finite: it holds NaN or infinity. The training of the teacher has probably diverged: lower train.lr."
                    )
            with atomic(shards[shard]) as temporary, open(temporary, "wb") as file:
                np.save(file, np.concatenate(parts))
            tick()
    accelerator.wait_for_everyone()
    return Cache(shards, size, len(views), name)


def _item(views: Views, flat: int) -> dict:
    views.epoch, row = divmod(flat, len(views))
    item = views[row]
    return {name: item[name] for name in ("image", "seed")}
