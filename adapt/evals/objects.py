"""Objects with masks, as the rows of a data set have them: which rows have any, some rows at a time, and a table with a row an object."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from adapt.plug import UserError
from adapt.vision.masks import singles

CHUNK, PIXELS = 64, 2**26
"""Rows that are predicted at once, and pixels of all their masks: masks are not gathered in memory."""


def masked(rows: Sequence[dict | None], split: str) -> tuple[list[dict], list[int]]:
    """The objects of each row, without regions of crowds, and the numbers of the rows that have any with a mask.

    Args:
        rows: a data set's column `objects`.

    Raises:
        UserError: no row has.
    """
    objects = [singles(row or {}) for row in rows]
    chosen = [i for i, row in enumerate(objects) if row.get("mask")]
    if not chosen:
        raise UserError(f"evals: no row of the split {split!r} has masks. Name data with `objects.mask`.")
    return objects, chosen


def chunks(chosen: Sequence[int], objects: Sequence[dict]) -> Iterator[list[int]]:
    """Rows by their numbers, as many at once as `CHUNK` and `PIXELS` allow; at least one."""
    part: list[int] = []
    pixels = 0
    for i in chosen:
        own = len(objects[i]["mask"]) * math.prod(objects[i]["mask"][0]["size"])
        if part and (len(part) == CHUNK or pixels + own > PIXELS):
            yield part
            part, pixels = [], 0
        part.append(i)
        pixels += own
    yield part


def columns(
    ids: Sequence[str], chosen: Sequence[int], categories: Sequence[Sequence[int]], names: Sequence[str]
) -> dict[str, list]:
    """What a table says of each object of the chosen rows: `id#number`, its picture, its class.

    Args:
        ids: of all rows.
        categories: of each chosen row's objects.
        names: of the categories; empty: they have none.
    """
    rows = list(zip(chosen, categories, strict=True))
    return {
        "picture": [ids[i] for i, own in rows for _ in own],
        "id": [f"{ids[i]}#{n}" for i, own in rows for n in range(len(own))],
        "label": [names[c] if names else str(c) for _, own in rows for c in own],
    }
