"""What sources of columns do with rows: leave some out, ready them for another column, look at their pictures from outside."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from datasets import Dataset, Image

from adapt.data.problems import Problem, Report
from adapt.data.scan import upright_size
from adapt.plug import UserError
from adapt.vision.pictures import cache_folder, digest, open_picture

TURNED = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""What a PNG has where it can say that it is to be turned."""


def without(rows: Dataset, split: str, bad: dict[int, Sequence[tuple[str, str]]], problems: list[Problem]) -> Dataset:
    """The rows but for the bad ones, whose kinds and details are added to the problems.

    Raises:
        UserError: all are bad.
    """
    if not bad:
        return rows
    ids = rows["id"][:]
    found = [Problem(ids[row], split, *wrong) for row, several in bad.items() for wrong in several]
    if len(bad) == len(rows):
        raise UserError(f"data.path: no row of {split} can be used. The first problem: {found[0]}.")
    problems += found
    return rows.select([row for row in range(len(rows)) if row not in bad])


def refuse(parts: dict[str, Dataset], bad: dict[str, dict[int, Sequence[tuple[str, str]]]], on_error: str) -> None:
    """Raises a `UserError`, with `stop`, that names all rows of which something is wrong: split → row → kinds and details."""
    found = []
    for split, rows in bad.items() if on_error == "stop" else ():
        ids = parts[split]["id"][:] if rows else []
        found += [Problem(ids[row], split, *wrong) for row, several in sorted(rows.items()) for wrong in several]
    if found:
        raise Report(len(found), found).error("data.path")


def flat(rows: Dataset) -> Dataset:
    """The rows as they are, in a file of our own cache where they are a selection: a column can be added to them."""
    if rows._indices is None:
        return rows
    place = cache_folder("hub") / f"{digest('flat', rows._fingerprint)}.arrow"
    place.parent.mkdir(parents=True, exist_ok=True)
    return rows.flatten_indices(cache_file_name=str(place))


def sides(value: dict | None) -> tuple[int, int]:
    """Width and height of a stored picture in pixels, turned as EXIF says, without decoding it; zeros if it cannot be opened."""
    with suppress(Exception), warnings.catch_warnings(action="ignore"):  # what is wrong is said when the pictures are checked
        data = Path(value["path"]).read_bytes() if value["bytes"] is None else value["bytes"]
        with open_picture({"bytes": data, "path": None}) as image:
            # Pillow decodes a whole PNG to look for a tag behind the pixels
            if image.format == "PNG" and not any(mark in data for mark in TURNED):
                return image.size
            return upright_size(image)
    return 0, 0


def digests(rows: Dataset) -> list[str]:
    """Of each picture's bytes; of a picture that cannot be read, its row's id."""
    found = []
    for part in rows.select_columns(["id", "image"]).cast_column("image", Image(decode=False)).iter(batch_size=100):
        for name, value in zip(part["id"], part["image"], strict=True):
            data = None
            with suppress(OSError, TypeError):
                data = Path(value["path"]).read_bytes() if value["bytes"] is None else value["bytes"]
            found.append(hashlib.blake2b(data, digest_size=16).hexdigest() if data else name)
    return found
