"""One look at each picture of a data set: its size, a digest of its bytes and a perceptual hash; remembered, so that a second look is
quick."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Image

from adapt.data.scan import Guest, upright_size
from adapt.progress import progress
from adapt.provenance import stamp
from adapt.vision.classes import IGNORE
from adapt.vision.pictures import cache_folder, open_picture, rgb

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from PIL import Image as Picture

VERSION = 1
"""To be raised when a look tells something else, so that what is remembered is looked at anew."""
FLAT = 8
"""Grey levels from the darkest to the brightest place: a picture with fewer has no pattern, and its hash says nothing."""
ENOUGH = 256
"""Pixels a side that a hash needs: a larger JPEG is decoded to no more than this."""
BATCH = 64
"""Pictures that are in memory at once."""
LOOK, SEVERAL = struct.Struct("<QiiQ?"), -1
NOTHING = (0, 0, 0, 0, False)
NONE: Mapping[str, tuple] = {}


@dataclass(frozen=True)
class Looks:
    """What was seen of the N pictures of a split, in their order."""

    digest: np.ndarray
    """Of the bytes, uint64[N]; 0: they cannot be read."""
    size: np.ndarray
    """Width and height in pixels, turned as EXIF says, int32[N, 2]; 0: it cannot be opened."""
    hash: np.ndarray
    """The 64 bits of `imagehash.phash`, uint64[N]."""
    clear: np.ndarray
    """Does the hash say anything? bool[N]; not of a picture that is one colour all over."""


class Shared:
    """Looks at the files that the source of the data opens anyway: `with also(shared.guest): load(…)`, then `looked(splits, shared)`."""

    def __init__(self):
        self.records: dict[str, tuple] = {}
        self.guest = Guest(self._see, ENOUGH)

    def _see(self, mark: list[int], data: bytes, image: Picture.Image, size: tuple[int, int]) -> None:
        with suppress(Exception):  # as in `seen`, which is asked then
            self.records[_key_of("look", mark)] = _record(data, image, size)


def looked(splits: DatasetDict, shared: Shared | None = None) -> dict[str, Looks]:
    """Look at all pictures; those that have not changed since the last time, or that were looked at just now, are not opened again."""
    with (
        progress("look at pictures", sum(map(len, splits.values()))) as tick,
        _remembering(LOOK, seen, tick, shared.records if shared else {}) as remembered,
    ):
        found = {split: list(remembered("look", rows, "image")) for split, rows in splits.items()}
    return {split: _columns(records) for split, records in found.items()}


def _columns(records: list[tuple]) -> Looks:
    digest, width, height, bits, clear = zip(*records, strict=True) if records else ((),) * 5
    size = np.stack([np.array(width, np.int32), np.array(height, np.int32)], 1)
    return Looks(np.array(digest, np.uint64), size, np.array(bits, np.uint64), np.array(clear, bool))


def single_values(rows: Dataset) -> np.ndarray:
    """Of each `segmentation`, the only value that it has, int64[N]; `SEVERAL` for one that has several, `IGNORE` where nothing is judged."""
    with (
        progress("look at maps", len(rows)) as tick,
        _remembering(struct.Struct("<q"), lambda data: (_single(data),), tick) as remembered,
    ):
        return np.array([value for (value,) in remembered("map", rows, "segmentation")], np.int64)


# ---------------------------------------------------------------------------------------------------------------- a picture


def seen(data: bytes) -> tuple[int, int, int, int, bool]:
    """A picture's bytes → a record: digest, width, height, hash, is the hash clear."""
    try:
        image = open_picture({"bytes": data})
        size = upright_size(image)
        image.draft("RGB", (ENOUGH, ENOUGH))
        return _record(data, image, size)
    except Exception:  # decoders raise nearly anything on broken bytes; the source's own look says what is wrong
        return _named(data), 0, 0, 0, False


def _record(data: bytes, image: Picture.Image, size: tuple[int, int]) -> tuple[int, int, int, int, bool]:
    return _named(data), *size, *perceptual(rgb(image))


def _named(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def perceptual(image: Picture.Image) -> tuple[int, bool]:
    """The perceptual hash of a picture as 64 bits, and whether it says anything."""
    import imagehash
    from PIL.Image import Resampling

    grey = image.convert("L").resize((32, 32), Resampling.LANCZOS)  # as imagehash does it
    low, high = grey.getextrema()
    bits = np.packbits(imagehash.phash(grey).hash)
    return int.from_bytes(bits.tobytes(), "big"), high - low >= FLAT


def _single(data: bytes) -> int:
    try:
        image = open_picture({"bytes": data})
        values = set(np.unique(np.asarray(image)).tolist()) - {IGNORE}
    except Exception:  # as above
        return SEVERAL
    return SEVERAL if len(values) > 1 else int(values.pop()) if values else IGNORE


# ------------------------------------------------------------------------------------------------------------------- memory


@contextmanager
def _remembering(
    form: struct.Struct, look: Callable[[bytes], tuple], tick: Callable[[], None], already: Mapping[str, tuple] = NONE
) -> Iterator[Callable]:
    """Yields a function (kind, rows, column) → a record a row; a memory that cannot be opened or written costs time and nothing else.

    Args:
        already: key → record of what need not be looked at, though it is not remembered.
    """
    memory = _opened()

    def known(key: str | None) -> tuple | None:
        with suppress(sqlite3.Error):
            found = memory.execute("SELECT look FROM looks WHERE key = ?", (key,)).fetchone() if key else None
            return form.unpack(found[0]) if found and len(found[0]) == form.size else None
        return None

    def keep(records: list[tuple[str, bytes]]) -> None:
        with suppress(sqlite3.Error):
            memory.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?)", records)
            memory.commit()

    def remembered(kind: str, rows: Dataset, column: str) -> Iterator[tuple]:
        plain = rows.select_columns([column]).cast_column(column, Image(decode=False))
        for part in plain.iter(batch_size=BATCH):
            values = [value or {} for value in part[column]]
            keys = [_key(kind, value) for value in values]
            records = [known(key) for key in keys]
            new = [i for i, record in enumerate(records) if record is None]
            for i in new:
                records[i] = already.get(keys[i])
            unseen = [i for i in new if records[i] is None]
            for i, record in zip(unseen, pool.map(partial(_looked_at, look), [values[i] for i in unseen]), strict=True):
                records[i] = record
            if new:
                keep([(keys[i], form.pack(*records[i])) for i in new if records[i] and keys[i]])
            for record in records:
                tick()
                yield record or (NOTHING if form is LOOK else (SEVERAL,))

    # warnings of large and of slightly broken files are no news here
    with closing(memory), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool, warnings.catch_warnings(action="ignore"):
        yield remembered


def _opened() -> sqlite3.Connection:
    place = cache_folder("looks.sqlite")
    table = "CREATE TABLE IF NOT EXISTS looks (key TEXT PRIMARY KEY, look BLOB)"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        memory = sqlite3.connect(place, timeout=10)
        memory.execute(table)
        memory.commit()
    except (OSError, sqlite3.Error):
        memory = sqlite3.connect(":memory:")
        memory.execute(table)
    return memory


def _key(kind: str, value: dict[str, Any]) -> str | None:
    """What changes when a stored picture does; none of no picture."""
    if value.get("bytes") is not None:
        return f"{kind} {VERSION} {hashlib.blake2b(value['bytes'], digest_size=16).hexdigest()}"
    try:
        return _key_of(kind, stamp(value["path"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _key_of(kind: str, mark: list[int]) -> str:
    """Of a file with this stamp."""
    return f"{kind} {VERSION} {':'.join(map(str, mark))}"


def _looked_at(look: Callable[[bytes], tuple], value: dict[str, Any]) -> tuple | None:
    data = value.get("bytes")
    with suppress(OSError, ValueError, TypeError, KeyError):
        return look(Path(value["path"]).read_bytes() if data is None else data)
    return None
