"""What a data set is: a digest of its pictures, the names of its classes and all that is true of them."""

from __future__ import annotations

import hashlib
import json

from adapt.provenance import digests
from adapt.vision.classes import class_names

TRUTH = ("id", "label", "caption", "objects", "count", "prefix", "suffix", "answers")
TRUTH += ("labels", "group", "pair", "cue", "associated")
"""Columns that a fingerprint covers beside the pictures."""


def fingerprint(rows) -> str:
    """Of a data set's ids, encoded pictures, the names of its classes and all that is true of it; the same on every machine.

    Args:
        rows: a `datasets.Dataset` with the standard columns.

    Returns:
        16 hex digits.
    """
    from datasets import Image

    pictures = [name for name in ("image", "segmentation") if name in rows.column_names]
    kept = rows.select_columns([*pictures, *(name for name in TRUTH if name in rows.column_names)])
    for name in pictures:
        kept = kept.cast_column(name, Image(decode=False))
    total = hashlib.sha256(json.dumps(class_names(rows.features)).encode())
    written = json.JSONEncoder(sort_keys=True).encode
    for part in kept.iter(batch_size=1000):
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
