"""Teacher outputs on disk: computed once, by any number of processes, resumed where they were killed.

    FOLDER/manifest.json      how many rows, views, rows of a block and blocks of a shard; and whether all of it has been made
    FOLDER/000000.npy         a shard: whole blocks, 64 MB or more of them while there are so many
    FOLDER/000001.npy.part    one that is being made: blocks are added at its end, so that a kill costs each process one block

A block is a run of rows with all their views, so each picture is decoded once: item v·n + i of a block of n rows is the output for view
v of its row i. The view's seed is `view_seed(seed, v, row)`, so the student sees the same pixels.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache, partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from accelerate import Accelerator

from adapt.ahead import ahead
from adapt.contracts import Augment, Packing
from adapt.plug import UserError, counted
from adapt.progress import progress
from adapt.run import atomic
from adapt.train.predict import Fewer, finite
from adapt.train.views import Views
from adapt.vision.augment import augment, view_seed

VERSION = 3
"""Raised when items lie elsewhere, or are computed otherwise; 2 had a file for 1,024 items."""
SHARD = 64_000_000
"""Bytes of a shard, at least, where a process has so many to make."""
OPEN = 128
"""Shards that are open at once: each takes a file descriptor, of which systems often allow 1,024."""
RUN = 16
"""Pictures that a thread decodes at a time."""
MANIFEST = "manifest.json"
HALF = Packing(lambda outputs: outputs.astype(np.float16), lambda item: item.astype(np.float32), {"disk": "fp16"})
"""Half the space: 11 bits of numbers that were computed with 8, in bf16; the loss changes by a small part of what that has changed."""


@dataclass(frozen=True)
class Layout:
    """Where items lie."""

    rows: int
    views: int
    block: int
    """Rows of a block, but for the last."""
    shard: int
    """Blocks of a shard, but for the last."""

    @property
    def shards(self) -> int:
        return -(-self.rows // (self.block * self.shard))

    def blocks(self, shard: int) -> list[range]:
        """The rows of each of its blocks."""
        starts = range(shard * self.shard * self.block, min(self.rows, (shard + 1) * self.shard * self.block), self.block)
        return [range(start, min(self.rows, start + self.block)) for start in starts]

    def items(self, shard: int) -> int:
        """How many it has."""
        return self.views * sum(map(len, self.blocks(shard)))

    def place(self, view: int, row: int) -> tuple[int, int]:
        """The item's shard, and its number there."""
        block, inside = divmod(row, self.block)
        shard, before = divmod(block, self.shard)
        rows = min(self.block, self.rows - block * self.block)
        return shard, before * self.block * self.views + view * rows + inside


class Cache:
    """Memory-mapped outputs."""

    def __init__(self, folder: Path, layout: Layout, name: str = "teacher", packing: Packing | None = None):
        self.folder, self.layout, self.name, self.packing = folder, layout, name, packing
        self.mapped = lru_cache(OPEN)(lambda shard: np.load(_path(folder, shard), mmap_mode="r"))  # threads may ask at once

    def __call__(self, view: int, row: int) -> dict[str, torch.Tensor]:
        """The item's part of a batch."""
        shard, place = self.layout.place(view, row)
        item = self.mapped(shard)[place]
        return {self.name: torch.from_numpy(self.packing.unpack(item) if self.packing else item.copy())}

    def __reduce__(self) -> tuple:
        return Cache, (self.folder, self.layout, self.name, self.packing)  # who unpickles it maps the files anew


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
    packing: Packing | None = None,
    instead: str = "",
) -> Cache:
    """Compute the shards that `folder` lacks; of the n processes on a disk, the r-th sees to every n-th.

    Args:
        folder: named by the caller after data, teacher, augmentation and seed, so that a stale cache is never read.
        teacher: images float[B, 3, H, W] 0–255 → float[B, …].
        views: the rows and how many views each has.
        augmentation: of the views; none: plain images.
        batch: pictures that the teacher gets at once; fewer, where the device's memory runs out.
        name: of the outputs in a batch.
        place: r and n.
        packing: how outputs lie on disk; none: as float32.
        instead: what is left to a user whose disk is too small.

    Raises:
        UserError: an output is not finite, the disk is too small, or another command fills the same folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    items = _Items(teacher, views, augmentation, batch, accelerator, name, packing)
    layout, lacking = _lacking(folder, items, place, instead)
    accelerator.wait_for_everyone()  # all have looked, before one of them begins
    if lacking and place[0] == 0:
        _note(folder, layout, False)
    blocks = sum(len(layout.blocks(shard)) for shard in range(layout.shards))
    missing = sum(len(layout.blocks(shard)) for shard in lacking)
    with progress(name, blocks, blocks - missing, accelerator.is_main_process) as tick:
        # by number, not by place among the lacking: another process may have begun already
        for shard in [shard for shard in lacking if shard % place[1] == place[0]]:
            _fill(folder, layout, shard, items, tick)
    accelerator.wait_for_everyone()
    if lacking and place[0] == 0 and all(_path(folder, shard).exists() for shard in range(layout.shards)):
        _note(folder, layout, True)
    return Cache(folder, layout, name, packing)


def _lacking(folder: Path, items: _Items, place: tuple[int, int], instead: str) -> tuple[Layout, list[int]]:
    """How the items lie, and the shards that are still to be made; the arguments are those of `build`."""
    views, said = items.views, print if items.speaks else str
    if not _manifest(folder, views)[0]:
        _ = items.one  # so long does it take that another command may have begun meanwhile
    layout, made = _manifest(folder, views)
    if layout:
        lacking = [shard for shard in range(layout.shards) if not _whole(folder, layout, shard, made, items.name, said)]
    else:
        layout = _layout(views, items.fewer.batch, items.one.nbytes, place[1])
        lacking = list(range(layout.shards))
        if place[0] == 0:
            _clear(folder)  # without a manifest nobody knows what these are
    if lacking:
        said(_room(folder, layout, lacking, items, instead))
    return layout, lacking


class _Items:
    """What the teacher says of blocks; the arguments are those of `build`."""

    def __init__(self, teacher, views: Views, augmentation, batch: int, accelerator: Accelerator, name: str, packing):
        self.teacher, self.views, self.augmentation, self.fewer = teacher, views, augmentation, Fewer(batch)
        self.device, self.name, self.packing = torch.device(accelerator.device), name, packing
        mixed = self.device.type != "cpu"  # bf16 on CPUs is slower, and these results are exact
        self.around = accelerator.autocast if mixed else nullcontext
        self.speaks = accelerator.is_main_process

    @cached_property
    def one(self) -> np.ndarray:
        """An item, of the type and shape that all have."""
        return next(self([range(1)]))[0]

    def __call__(self, blocks: Sequence[range]) -> Iterator[np.ndarray]:
        """The items of each block of rows, [views · n, …] as they lie on disk; beside a GPU, what comes next is decoded meanwhile."""
        runs = [rows[start : start + RUN] for rows in blocks for start in range(0, len(rows), RUN)]
        jobs = (partial(self._decoded, run) for run in runs)
        most = 2 * -(-max(map(len, blocks), default=0) // RUN)  # the next block, while this one is asked about
        # on a CPU the network has all cores, and is no faster for it
        with closing((job() for job in jobs) if self.device.type == "cpu" else ahead(jobs, most)) as decoded:
            for rows in blocks:
                images = torch.cat(list(islice(decoded, -(-len(rows) // RUN))))
                flat = [(view, place) for view in range(self.views.views) for place in range(len(rows))]
                size = self.fewer.batch  # which may become smaller meanwhile
                yield np.concatenate([self._said(images, rows, flat[at : at + size]) for at in range(0, len(flat), size)])

    def _decoded(self, rows: range) -> torch.Tensor:
        """The pictures of these rows, uint8 or float[n, 3, H, W]."""
        return torch.stack([item["image"] for item in self.views.items(list(rows))])

    def _said(self, images: torch.Tensor, rows: range, wanted: list[tuple[int, int]]) -> np.ndarray:
        """Of views (view, place among the rows)."""
        seen = images[[place for _, place in wanted]].to(self.device).float()
        if self.augmentation:
            seeds = torch.tensor([view_seed(self.views.seed, view, rows[place]) for view, place in wanted])
            seen = augment(seen, seeds, self.augmentation)
        said = self._asked(seen).float().cpu().numpy()
        numbers = [rows[place] for _, place in wanted]
        what = f"{self.name}: what the teacher gives for one of the rows {min(numbers)} to {max(numbers)}"
        if not finite(said):
            raise UserError(
                f"{what} is not finite: it holds NaN or infinity. The training of the teacher has probably diverged: lower train.lr."
            )
        packed = self.packing.pack(said) if self.packing else said
        if not finite(packed):
            raise UserError(f"{what} is too large for fp16. Set train.precision=fp32.")
        return packed

    def _asked(self, images: torch.Tensor) -> torch.Tensor:
        """The teacher's outputs."""

        def asked(some: torch.Tensor) -> torch.Tensor:
            with self.around():
                return self.teacher(some)

        parts = self.fewer(asked, images)
        return parts[0] if len(parts) == 1 else torch.cat(parts)


def _layout(views: Views, batch: int, size: int, processes: int) -> Layout:
    """Shards of `SHARD` bytes, but at least one for each process, as far as there are blocks.

    Args:
        size: of an item, bytes.
    """
    blocks = -(-len(views) // batch)
    enough = -(-SHARD // max(1, views.views * batch * size))
    return Layout(len(views), views.views, batch, max(1, min(enough, -(-blocks // processes))))


def _manifest(folder: Path, views: Views) -> tuple[Layout | None, bool]:
    """What the folder's manifest says: the layout, if it is of these rows and views; and whether all shards have been made."""
    try:
        known = json.loads((folder / MANIFEST).read_text())
        layout = Layout(**{name: int(known[name]) for name in ("rows", "views", "block", "shard")})
    except (OSError, ValueError, KeyError, TypeError):
        return None, False
    right = (layout.rows, layout.views) == (len(views), views.views) and layout.block > 0 and layout.shard > 0
    return (layout, known.get("whole") is True) if right else (None, False)


def _note(folder: Path, layout: Layout, whole: bool) -> None:
    with atomic(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(asdict(layout) | {"whole": whole}))


def _clear(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def _path(folder: Path, shard: int) -> Path:
    return folder / f"{shard:06d}.npy"


def _part(folder: Path, shard: int) -> Path:
    """Where a shard is made."""
    return folder / f"{shard:06d}.npy.part"


def _whole(folder: Path, layout: Layout, shard: int, made: bool, name: str, said: Callable) -> bool:
    """Is the shard there, with all its items? A line says when it has been, and is no longer."""
    path, why = _path(folder, shard), "cut short"
    try:
        if len(np.load(path, mmap_mode="r")) == layout.items(shard):
            return True
    except FileNotFoundError:
        why = "missing" if made else ""
    except (OSError, ValueError):
        pass
    if why:
        said(f"{name}: {path} is {why}; it is made again")
    return False


def _room(folder: Path, layout: Layout, lacking: list[int], items: _Items, instead: str) -> str:
    """How much the lacking shards take on disk; see `room`."""
    need = sum(layout.items(shard) for shard in lacking) * items.one.nbytes
    need -= sum(_part(folder, shard).stat().st_size for shard in lacking if _part(folder, shard).exists())
    what = f"{counted(layout.views, 'view')} of {counted(layout.rows, 'picture')}"
    return room(folder, items.name, f"the outputs for {what}", max(need, 0), instead or "Make room.")


def room(folder: Path, name: str, what: str, need: int, instead: str) -> str:
    """How much of a disk is going to be filled, in words.

    Args:
        name: who fills it.
        what: with what.
        need: bytes.
        instead: what is left to a user whose disk is too small.

    Raises:
        UserError: there is less.
    """
    have = shutil.disk_usage(folder).free
    if need > have:
        raise UserError(
            f"{name}: {what} need {need / 1e9:,.1f} GB more in {folder}, whose disk has {have / 1e9:,.1f} GB free. {instead}"
        )
    return f"{name}: {what} take {need / 1e6:,.1f} MB on disk"


def _fill(folder: Path, layout: Layout, shard: int, items: _Items, tick: Callable[[], None]) -> None:
    """Make a shard, or go on where a kill stopped it."""
    part, blocks = _part(folder, shard), layout.blocks(shard)
    with alone(part) as file:
        sizes = [layout.views * len(rows) * items.one.nbytes for rows in blocks]
        done = _done(file, (layout.items(shard), *items.one.shape), items.one.dtype, sizes)
        for _ in range(done):
            tick()
        for block in items(blocks[done:]):
            file.write(block.tobytes())
            file.flush()
            tick()
        os.fsync(file.fileno())
        os.replace(part, _path(folder, shard))  # while it is still ours


@contextmanager
def alone(path: Path) -> Iterator[BinaryIO]:
    """A file, open for reading and appending, that one command at a time fills.

    Raises:
        UserError: another does.
    """
    with open(path, "ab+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{path}: another command is filling it. Wait until that has ended.") from None
        yield file


def _done(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype, sizes: list[int]) -> int:
    """Whole blocks of a shard that a kill has left; what is behind them is cut off, and a new file gets the head of an array.

    Args:
        file: open for appending.
        shape: of the shard.
        sizes: of its blocks, bytes.
    """
    buffer = BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, description)
    head = buffer.getvalue()
    file.seek(0)
    if file.read(len(head)) != head:
        file.truncate(0)
        file.write(head)
        file.flush()
    ends = [len(head), *(len(head) + np.cumsum(sizes)).tolist()]
    have = os.fstat(file.fileno()).st_size
    done = sum(end <= have for end in ends) - 1
    file.truncate(ends[done])
    return done
