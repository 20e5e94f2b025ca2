"""The one split of a data set that is only measured, as it is published, with its pictures."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow.compute as pc
from datasets import Dataset, Image

from adapt.data.config import MeasuredConfig
from adapt.data.hub.files import read
from adapt.plug import UserError
from adapt.vision.pictures import RGB


def only(config: MeasuredConfig, columns: Sequence[str]) -> Dataset:
    """The split test of a data set, or its only one.

    Args:
        columns: that it must have.

    Raises:
        UserError: it cannot be found or read, has several splits and no test, or lacks a column.
    """
    found, _ = read(config)
    rows = found.get("test") or (next(iter(found.values())) if len(found) == 1 else None)
    if rows is None:
        raise UserError(f"data.path: {config.path!r} has no split test. Have: {', '.join(found) or 'none'}.")
    if lacks := [name for name in columns if name not in rows.column_names]:
        raise UserError(
            f"data.path: {config.path!r} has no column {lacks[0]!r}. Have: {', '.join(rows.column_names)}. "
            f"{config.source} needs {', '.join(columns)}."
        )
    return rows


def pictures(rows: Dataset, name: str) -> Dataset:
    """A column of pictures alone, as `image`.

    Raises:
        UserError: it holds none, or paths in their place.
    """
    if not isinstance(rows.features[name], Image):
        raise UserError(f"data.path: column {name!r} holds no pictures, but {rows.features[name]}.")
    held = pc.struct_field(rows.select_columns([name]).with_format("arrow")[:].column(name), "bytes")
    if held.null_count:
        raise UserError(
            f"data.path: {held.null_count:,} rows of column {name!r} hold no picture, or a path. Write the data set again with save_to_disk "
            "or to_parquet, which put the pictures into it."
        )
    rows = rows.select_columns([name])
    return (rows if name == "image" else rows.rename_column(name, "image")).cast_column("image", RGB())
