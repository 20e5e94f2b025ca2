"""A teacher's labels on disk: found once, by all processes, resumed where they were killed.

    FOLDER/000000.arrow             a shard: the labels of some thousand rows, without their pictures
    FOLDER/parts/000001/003.arrow   what is found of a shard that is not whole yet, for some dozen rows: a kill costs each process one
    FOLDER/manifest.json            how many rows, and how many at a time when it began; and whether all has been made
    FOLDER/lock                     held by the command that labels

Parts are dealt to the processes one by one, so that all have work until the end; then the first process of a disk joins them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from accelerate import Accelerator
from datasets import Dataset, concatenate_datasets

from adapt.distill.cache import alone, room
from adapt.plug import counted
from adapt.progress import progress
from adapt.run import atomic
from adapt.train.views import streamed

VERSION = 3
"""Raised when rows lie elsewhere."""
PART = 32
"""Rows of a part, about: so many, at most, are asked about again after a kill."""
SHARD = 256
"""Parts of a shard."""
MANIFEST = "manifest.json"


class Labels:
    """Where the labels of rows lie.

    Args:
        batch: rows that are labelled together, so that a part has a multiple of it.
    """

    def __init__(self, folder: Path, rows: int, batch: int = 1):
        self.folder, self.rows, self.batch = folder, rows, batch
        self.each = batch * -(-PART // batch)
        self.parts = -(-rows // self.each)
        self.shards = -(-self.parts // SHARD)

    def shard(self, number: int) -> Path:
        return self.folder / f"{number:06d}.arrow"

    def part(self, number: int) -> Path:
        shard, place = divmod(number, SHARD)
        return self.folder / "parts" / f"{shard:06d}" / f"{place:03d}.arrow"

    def parts_of(self, shard: int) -> range:
        return range(shard * SHARD, min(self.parts, (shard + 1) * SHARD))

    def of(self, part: int) -> range:
        """Its rows."""
        return range(part * self.each, min(self.rows, (part + 1) * self.each))

    def lacking(self) -> tuple[list[int], list[int]]:
        """Shards that are not whole; and of these, the parts that are not."""
        shards = [
            one for one in range(self.shards) if not _whole(self.shard(one), sum(len(self.of(p)) for p in self.parts_of(one)))
        ]
        parts = [part for one in shards for part in self.parts_of(one)]
        return shards, [part for part in parts if not _whole(self.part(part), len(self.of(part)))]

    def note(self, whole: bool) -> None:
        with atomic(self.folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps({"rows": self.rows, "batch": self.batch, "whole": whole}))

    def join(self, shard: int) -> None:
        """Make one file of a shard's parts."""
        files = [self.part(part) for part in self.parts_of(shard)]
        _write(self.shard(shard), [Dataset.from_file(str(file)) for file in files])
        shutil.rmtree(files[0].parent)


def build(
    folder: Path,
    label: Callable[[Dataset], Dataset],
    rows: Dataset,
    accelerator: Accelerator,
    batch: int = 1,
    place: tuple[int, int] = (0, 1),
) -> Dataset:
    """The rows with their labels; those that `folder` lacks are found, by the r-th of n processes on a disk every n-th part.

    Args:
        folder: named by the caller after data, teacher and options, so that stale labels are never read.
        label: see `contracts.Lesson`.
        batch: rows that `label` looks at together.
        place: r and n.

    Raises:
        UserError: by its first part, the disk is too small; or another command fills the same folder.
    """
    said = print if accelerator.is_main_process else str
    labels, shards, parts = _lacking(folder, len(rows), batch, place, said)
    accelerator.wait_for_everyone()  # all have looked, before one of them begins
    joins = bool(shards) and place[0] == 0
    if joins:
        labels.note(False)
    with alone(folder / "lock") if joins else nullcontext():
        with progress("teacher", labels.parts, labels.parts - len(parts), accelerator.is_main_process) as tick:
            # by place among the lacking: all have seen the same
            for number, part in enumerate(parts[place[0] :: place[1]]):
                _write(labels.part(part), [_labelled(label, rows.select(labels.of(part)))])
                tick()
                if not number and len(parts) > 1:
                    said(_room(labels, parts, part))
        accelerator.wait_for_everyone()
        if joins:
            for shard in shards:
                labels.join(shard)
            labels.note(True)
    if place[0] == 0:
        shutil.rmtree(folder / "parts", ignore_errors=True)  # a kill may have left those of a shard that is whole
    accelerator.wait_for_everyone()
    found = concatenate_datasets([Dataset.from_file(str(labels.shard(one))) for one in range(labels.shards)])
    pictures = rows.select_columns([name for name in ("id", "image") if name in rows.column_names])
    if pictures._indices is not None:  # else columns cannot stand beside them, or the labels would be copied too
        pictures = pictures.flatten_indices()
    return concatenate_datasets([pictures, found], axis=1)


def _lacking(
    folder: Path, rows: int, batch: int, place: tuple[int, int], said: Callable
) -> tuple[Labels, list[int], list[int]]:
    """How the labels lie, the shards that are still to be made, and the parts of these that are still to be found."""
    labels, whole = _manifest(folder, rows)
    if labels is None:
        if place[0] == 0:
            shutil.rmtree(folder, ignore_errors=True)  # without a manifest nobody knows of which rows these are
        labels = Labels(folder, rows, batch)
        return labels, list(range(labels.shards)), list(range(labels.parts))
    shards, parts = labels.lacking()
    for path in map(labels.shard, shards):
        if whole or path.exists():
            said(f"teacher: {path} is {'cut short' if path.exists() else 'missing'}; it is made again")
    return labels, shards, parts


def _manifest(folder: Path, rows: int) -> tuple[Labels | None, bool]:
    """What the folder's manifest says: how the labels lie, if they are of so many rows; and whether all have been made."""
    try:
        known = json.loads((folder / MANIFEST).read_text())
        # with the batch that it began with: with another, parts have other rows
        labels = Labels(folder, rows, int(known["batch"]))
        return (labels, known["whole"] is True) if known["rows"] == rows else (None, False)
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        return None, False


def samples(rows: Dataset) -> Iterator[dict[str, Any]]:
    """Rows one after another, decoded in threads a few pictures ahead: for an objective's `label`, whose teacher works meanwhile."""
    jobs = (partial(rows.__getitem__, number) for number in range(len(rows)))
    return streamed(jobs)


def _room(labels: Labels, parts: list[int], first: int) -> str:
    """How much the lacking parts take on disk if all are as large as the first, and the shard that is made while they are there.

    What is found in a picture is not known before: so this is asked when one part has been written.

    Raises:
        UserError: there is less; what has been found stays.
    """
    size = labels.part(first).stat().st_size
    pictures = sum(len(labels.of(part)) for part in parts) - len(labels.of(first))
    what = f"the labels of {counted(pictures, 'more picture')}, judged by the first {len(labels.of(first))},"
    need = size * (len(parts) - 1 + len(labels.parts_of(0)))
    return room(labels.folder, "teacher", what, need, "Make room, then start again: what has been found stays.")


def _labelled(label: Callable[[Dataset], Dataset], rows: Dataset) -> Dataset:
    found = label(rows)
    assert len(found) == len(rows), "an objective labels each of its rows"
    return found


def _whole(path: Path, rows: int) -> bool:
    """Is the file there, with so many rows?"""
    try:
        return len(Dataset.from_file(str(path))) == rows
    except (OSError, pa.ArrowInvalid):
        return False


def _write(path: Path, parts: list[Dataset]) -> None:
    """Tables one after another into a file, whole or not at all."""
    schema = parts[0].features.arrow_schema
    with atomic(path) as temporary, open(temporary, "wb") as file:
        with pa.ipc.new_stream(file, schema) as stream:
            for part in parts:
                stream.write_table(part.with_format("arrow")[:].cast(schema))
        file.flush()
        os.fsync(file.fileno())
