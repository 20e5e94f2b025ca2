"""What a data set is: a digest of its pictures, the names of its classes and all that is true of them.

A picture's file is read again when it has changed, see `provenance.digests`. Pictures that are bytes in memory-mapped files are not hashed
again as long as these files are the same, and the rows are chosen and changed as they were, which `datasets` tells by its own fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress

from adapt import hardware
from adapt.plug import UserError
from adapt.provenance import digests, of, settled, stamp
from adapt.run import atomic
from adapt.vision.classes import class_names
from adapt.vision.pictures import RGB

TRUTH = ("id", "label", "caption", "objects", "count", "prefix", "suffix", "answers")
TRUTH += ("labels", "group", "pair", "cue", "associated", "referring", "proposals")
"""Columns that a fingerprint covers beside the pictures."""
VERSION = 2
"""To be raised when a fingerprint is made otherwise, so that what is remembered is made anew."""


def fingerprint(rows) -> str:
    """Of a data set's ids, encoded pictures, the names of its classes and all that is true of it; the same on every machine.

    Args:
        rows: a `datasets.Dataset` with the standard columns.

    Returns:
        16 hex digits.
    """
    from datasets import Image

    pictures = [name for name in ("image", "segmentation") if name in rows.column_names]
    image = rows.features.get("image")
    draft = image.draft if isinstance(image, RGB) else None
    kept = rows.select_columns([*pictures, *(name for name in TRUTH if name in rows.column_names)])
    for name in pictures:
        kept = kept.cast_column(name, Image(decode=False))
    stamps = [stamp(file["filename"]) for file in rows.cache_files]
    if not stamps or not all(map(settled, stamps)) or _has_files(kept, pictures):
        return _made(kept, pictures, draft)
    key = of(VERSION, class_names(rows.features), rows.column_names, rows._fingerprint, stamps)
    place = hardware.cache_folder() / "fingerprints" / key
    with suppress(OSError):
        return place.read_text()
    found = _made(kept, pictures, draft)
    with (
        suppress(UserError, OSError),
        atomic(place) as temporary,
    ):  # a memory that cannot be written costs time and nothing else
        temporary.write_text(found)
    return found


def _has_files(rows, pictures: list[str]) -> bool:
    """Are there pictures of which the rows hold the path alone?"""
    import pyarrow.compute as pc

    for column in map(rows.data.column, pictures):
        sizes = pc.fill_null(pc.binary_length(pc.struct_field(column, "bytes")), 0)
        if pc.any(pc.and_(pc.equal(sizes, 0), pc.is_valid(pc.struct_field(column, "path")))).as_py():
            return True
    return False


def _made(rows, pictures: list[str], draft: int | None) -> str:
    """The fingerprint of rows with encoded pictures in these columns, and nothing else but `TRUTH`."""
    total = hashlib.sha256(json.dumps(class_names(rows.features)).encode())
    if draft:
        total.update(f"draft {draft}".encode())
    written = json.JSONEncoder(sort_keys=True).encode
    for part in rows.iter(batch_size=1000):
        images = {name: _pictures(part.pop(name)) for name in pictures}
        truth = [dict(zip(part, values, strict=True)) for values in zip(*part.values(), strict=True)]
        for i in range(len(next(iter([*images.values(), truth])))):
            total.update(written(truth[i] if truth else {}).encode())
            for digest in images.values():
                total.update(digest[i])
    return total.hexdigest()[:16]


def _pictures(column: list[dict | None]) -> list[bytes]:
    """SHA-256 of each picture's bytes; of no picture, of no bytes."""
    found = [row or {} for row in column]
    there = [i for i, row in enumerate(found) if not row.get("bytes") and row.get("path")]
    by_path = dict(zip(there, digests(found[i]["path"] for i in there), strict=True))
    return [by_path.get(i) or hashlib.sha256(row.get("bytes") or b"").digest() for i, row in enumerate(found)]
