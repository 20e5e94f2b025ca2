"""Boxes, masks and maps of any source's rows: how many there are, and what is wrong with them; in numpy, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from adapt.prompting.tokens import overlap
from adapt.vision.held import standing, wrong_boxes, wrong_masks

if TYPE_CHECKING:
    from datasets import Dataset

    from adapt.contracts import Input

TINY = 4.0
"""Pixels of the model's input, or of the picture where no model is known: a box whose shorter side has fewer shows no model anything."""
SPECK = 1e-4
"""Share of the picture: a smaller box is tiny as well, where no model is known."""
TWICE = 0.9
"""An IoU above this: two boxes of one class are of one thing."""
BATCH = 1000


@dataclass(frozen=True)
class Found:
    """Something wrong with an object of a row."""

    split: str
    row: int
    object: int
    """Its number among the row's objects."""
    problem: str
    """A key of `problems.KINDS`."""
    detail: str


@dataclass
class Objects:
    """The objects of a split."""

    each: np.ndarray
    """Objects of each picture without regions of crowds, int64[N]."""
    categories: np.ndarray
    """Of each object, int64[M]."""
    crowds: int
    """Regions of crowds."""
    found: list[Found]


@dataclass
class Boxes:
    """The M objects of a batch of rows."""

    bbox: np.ndarray
    """float64[M, 4] XYXY, pixels."""
    row: np.ndarray
    """int64[M], within the batch, rising."""
    number: np.ndarray
    """int64[M], within the row."""
    category: np.ndarray
    """int64[M]."""
    crowd: np.ndarray
    """bool[M]."""
    masks: list[dict | None] = field(default_factory=list)
    """COCO RLE, M or none at all."""


def objects_of(split: str, rows: Dataset, sizes: np.ndarray, names: list[str], seen: Input | None) -> Objects:
    """Count and check the objects of a split.

    Args:
        rows: with `objects`.
        sizes: width and height of the pictures, int[N, 2]; 0 where unknown.
        names: of the categories.
        seen: how a model sees pictures; none: no model is known.
    """
    each, categories, crowds, found = [], [], 0, []
    table = rows.select_columns(["objects"]).with_format("arrow")
    for start, part in zip(range(0, len(rows), BATCH), table.iter(batch_size=BATCH), strict=True):
        boxes, own = _boxes(part["objects"]), sizes[start : start + BATCH]
        each.append(np.bincount(boxes.row[~boxes.crowd], minlength=len(part)))
        categories.append(boxes.category[~boxes.crowd])
        crowds += int(boxes.crowd.sum())
        around = own[boxes.row]
        checks = (
            wrong_boxes(boxes.bbox, around, boxes.number),
            _small(boxes, around, seen),
            _twice(boxes, names),
            wrong_masks(boxes.masks, around, boxes.number),
        )
        for check in checks:
            found += [
                Found(split, start + int(boxes.row[i]), int(boxes.number[i]), problem, detail) for i, problem, detail in check
            ]
    found.sort(key=lambda one: (one.row, one.object))
    return Objects(np.concatenate(each).astype(int), np.concatenate(categories).astype(int), crowds, found)


def _boxes(column: pa.ChunkedArray) -> Boxes:
    """The objects of a batch of rows; a row of none has none."""
    column = column.combine_chunks()
    names = {field.name for field in column.type}
    bbox = pc.struct_field(column, "bbox")
    counts = pc.fill_null(pc.list_value_length(bbox), 0).to_numpy(zero_copy_only=False).astype(int)
    values = pc.list_flatten(pc.list_flatten(bbox)).to_numpy(zero_copy_only=False).astype(float).reshape(-1, 4)

    def of(name: str, missing: Any) -> np.ndarray:
        values = pc.list_flatten(pc.struct_field(column, name)) if name in names else pa.array([])
        return (
            pc.fill_null(values, missing).to_numpy(zero_copy_only=False)
            if len(values) == counts.sum()
            else np.full(counts.sum(), missing)
        )

    starts = np.cumsum(counts) - counts
    masks = pc.list_flatten(pc.struct_field(column, "mask")).to_pylist() if "mask" in names else []
    return Boxes(
        values,
        np.repeat(np.arange(len(counts)), counts),
        np.arange(counts.sum()) - np.repeat(starts, counts),
        of("category", -1).astype(int),
        of("iscrowd", 0).astype(bool),
        masks if len(masks) == counts.sum() else [],
    )


# ------------------------------------------------------------------------------------------------------------------- checks


def _small(boxes: Boxes, sizes: np.ndarray, seen: Input | None) -> Iterator[tuple[int, str, str]]:
    """Boxes that are too small to be seen: number, problem, detail; `sizes`: of each one's picture, int[M, 2]."""
    left, top, right, bottom = boxes.bbox.T
    small, shown = _tiny(right - left, bottom - top, *sizes.T, seen)
    for i in np.flatnonzero(standing(boxes.bbox, sizes)[1] & small & ~boxes.crowd):
        place = ", ".join(f"{value:g}" for value in boxes.bbox[i])
        yield i, "tiny box", f"object {boxes.number[i]}: {place}; {shown(i)}"


def _tiny(
    wide: np.ndarray, high: np.ndarray, width: np.ndarray, height: np.ndarray, seen: Input | None
) -> tuple[np.ndarray, Callable[[int], str]]:
    """Which boxes of these sides are tiny on pictures of these sides, bool[M]; and in words, how large one is."""
    if seen is None:
        small = (np.minimum(wide, high) < TINY) | (wide * high < SPECK * width * height)
        return small, lambda i: f"{wide[i]:.3g} × {high[i]:.3g} pixels"
    across, down = scales(seen, np.maximum(width, 1), np.maximum(height, 1))
    across, down = wide * across, high * down
    small = (np.minimum(across, down) < TINY) & (width > 0)
    return small, lambda i: f"{across[i]:.2g} × {down[i]:.2g} pixels of the model's input"


def scales(seen: Input, width: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By what a model's input scales pictures of these sides, across and down."""
    if seen.resize is None:
        return np.ones(len(width)), np.ones(len(width))
    if seen.resize == "longest":
        scale = max(seen.size) / np.maximum(width, height)
        return scale, scale
    if isinstance(seen.resize, int):
        scale = seen.resize / np.minimum(width, height)
        return scale, scale
    return seen.resize[1] / width, seen.resize[0] / height


def _twice(boxes: Boxes, names: list[str]) -> Iterator[tuple[int, str, str]]:
    """Boxes of one class that lie on each other."""
    edges = np.flatnonzero(np.diff(boxes.row, prepend=-1, append=-1))
    for start, end in pairwise(edges):
        things = start + np.flatnonzero(~boxes.crowd[start:end])
        category = boxes.category[things]
        for label in np.flatnonzero(np.bincount(category + 1) > 1) - 1:
            own = things[category == label]
            for first in range(0, len(own), 256):  # of thousands of boxes, not all pairs at once
                shared = overlap(boxes.bbox[own[first : first + 256]], boxes.bbox[own])
                for one, other in zip(*np.nonzero(shared > TWICE), strict=True):
                    if other < first + one:
                        a, b = boxes.number[own[other]], boxes.number[own[first + one]]
                        name = names[label] if 0 <= label < len(names) else "no class"
                        yield own[first + one], "object twice", f"objects {a} and {b}: {name!r}, IoU {shared[one, other]:.2f}"
