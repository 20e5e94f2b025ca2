"""Objects of pictures on their way into Arrow: boxes and masks are checked one at a time and kept in flat columns."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Features, List, Value
from datasets.arrow_writer import ArrowWriter
from pycocotools import mask as coco

from adapt.data.listing import Listed, Listing
from adapt.data.problems import Problem
from adapt.plug import counted
from adapt.vision.masks import box as around
from adapt.vision.masks import unrle
from adapt.vision.pictures import MASKS, RGB

EXACT = List(List(Value("float64"), length=4))
"""Boxes float[N, 4] XYXY, pixels; in double precision, so that a box of a file is the same when written again."""
ROUNDING = 1.0
"""Pixels: what lies outside the picture by less is clipped."""
BATCH = 5000
"""Pictures, or masks, that go into Arrow at once."""


class Wrong(Exception):
    """A kind of `problems.KINDS` and a detail."""


class Objects:
    """Objects of pictures, added in any order.

    Args:
        listing: what the source has listed; without classes, rows get no column of objects.
        pictures: of them, those that can be opened: the rows.
        sizes: their widths and heights, pixels.
        names: the classes' names; and for each class of the listing its number among them, none: it is left out.
        masks: are they to be read?
    """

    def __init__(self, listing: Listing, pictures: Sequence[Listed], sizes: Sequence[tuple[int, int]], names, masks: bool):
        self.root, self.pictures, self.sizes, self.masks = listing.root, pictures, sizes, masks
        self.names, self.numbers = names
        self.classes = listing.names
        self.problems: list[Problem] = []
        self.columns: dict[str, tuple[object, list]] = {}
        """Further columns: name → its feature and a value for each row."""
        self._left_out: Counter[int] = Counter()
        self._rows, self._categories, self._crowds, self._boxes = array("q"), array("q"), array("b"), array("d")
        self._codes: list[str | None] = []
        self._chunks: list[pa.Array] = []
        self._lacking: dict[int, str] = {}

    def add(self, row: int, category: int, where: str, box=None, mask: dict | None = None, crowd: bool = False) -> None:
        """Add an object; what is wrong with it goes into `problems`.

        Args:
            category: its number among the listing's classes.
            where: for messages, such as `annotation 17`.
            box: XYXY, pixels; none: around the mask.
            mask: COCO RLE of the picture's size, such as `polygons` and `run_lengths` make.
        """
        number = self.numbers[category]
        if number is None:
            self._left_out[category] += 1
            return
        try:
            if box is None and mask is None:
                raise Wrong("box unreadable", "no box")
            left, top, right, bottom = inside(around(unrle(mask)) if box is None else box, self.sizes[row])
        except Wrong as wrong:
            self.wrong(row, where, wrong)
            return
        self._rows.append(row)
        self._categories.append(number)
        self._crowds.append(bool(crowd))
        self._boxes.extend((left, top, right, bottom))
        if mask is None or not self.masks:
            self._lacking.setdefault(row, where)
            self._codes.append(None)
        else:
            self._codes.append(mask["counts"])
        if len(self._codes) == BATCH:
            self._flush()

    def wrong(self, row: int, where: str, wrong: Wrong) -> None:
        """Note what is wrong with an object of a row."""
        kind, detail = wrong.args
        picture = self.pictures[row]
        self.problems.append(Problem(picture.id, picture.split, kind, f"{where}: {detail}" if detail else where))

    def _flush(self) -> None:
        self._chunks.append(pa.array(self._codes, pa.large_string()))
        self._codes.clear()

    def write(self, path: Path) -> None:
        """Write a row for each picture as an Arrow file: id, image, objects, and the further columns."""
        self._flush()
        codes = pa.concat_arrays(self._chunks)
        self._chunks.clear()
        masked = codes.null_count < len(codes)
        if masked and codes.null_count:
            for row, where in self._lacking.items():
                self.wrong(row, where, Wrong("object without mask", ""))
        for category, number in sorted(self._left_out.items()):
            self.problems.append(Problem(self.classes[category], "", "class left out", counted(number, "object")))
        features = self._features(masked)
        rows = np.asarray(self._rows, np.int64)
        order = np.argsort(rows, kind="stable")
        ends = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(self.pictures)))])
        with ArrowWriter(path=str(path), features=features) as writer:
            for start in range(0, len(self.pictures), BATCH):
                stop = min(start + BATCH, len(self.pictures))
                chosen = order[ends[start] : ends[stop]]
                offsets = pa.array(ends[start : stop + 1] - ends[start], pa.int32())
                parts = self._objects(chosen, offsets, rows, codes if masked else None)
                writer.write_table(self._table(start, stop, parts, features))
            writer.finalize()

    def _features(self, masked: bool) -> Features:
        objects = {"bbox": EXACT, "category": List(ClassLabel(names=self.names))} | ({"mask": MASKS} if masked else {})
        more = {name: feature for name, (feature, _) in self.columns.items()}
        if self.names:
            more["objects"] = objects | {"iscrowd": List(Value("int8"))}
        return Features(id=Value("string"), image=RGB(), **more)

    def _objects(self, chosen: np.ndarray, offsets: pa.Array, rows: np.ndarray, codes: pa.Array | None) -> pa.StructArray:
        """The objects of some pictures: `chosen`, in the order of the pictures, which begin at `offsets`."""
        boxes = np.asarray(self._boxes).reshape(-1, 4)[chosen]
        columns = {
            "bbox": pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), 4),
            "category": pa.array(np.asarray(self._categories, np.int64)[chosen]),
        }
        if codes is not None:
            sides = np.asarray(self.sizes, np.int32).reshape(-1, 2)[rows[chosen], ::-1]
            size = pa.FixedSizeListArray.from_arrays(pa.array(sides.ravel()), 2)
            counts = codes.take(pa.array(chosen)).cast(pa.string())
            columns["mask"] = pa.StructArray.from_arrays([size, counts], ["size", "counts"])
        columns["iscrowd"] = pa.array(np.asarray(self._crowds, np.int8)[chosen])
        lists = [pa.ListArray.from_arrays(offsets, values) for values in columns.values()]
        return pa.StructArray.from_arrays(lists, list(columns))

    def _table(self, start: int, stop: int, objects: pa.StructArray, features: Features) -> pa.Table:
        some = self.pictures[start:stop]
        paths = pa.array([str(self.root / one.file) for one in some], pa.string())
        image = pa.StructArray.from_arrays([pa.nulls(len(some), pa.binary()), paths], ["bytes", "path"])
        columns = {"id": pa.array([one.id for one in some], pa.string()), "image": image, "objects": objects}
        schema = features.arrow_schema
        for name, (_, values) in self.columns.items():
            columns[name] = pa.array(values[start:stop], schema.field(name).type)
        return pa.table({name: columns[name] for name in schema.names}).cast(schema)


# ---------------------------------------------------------------------------------------------------------------- checks


def numbers(values, most: int | None = None) -> list[float]:
    """What JSON or a text gave as finite numbers.

    Raises:
        Wrong: it is no list of them, or not of `most`.
    """
    good = isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values)
    try:
        found = [float(value) for value in values] if good else []
    except OverflowError:
        found = [math.inf]
    if not good or (most and len(found) != most) or not all(map(math.isfinite, found)):
        raise Wrong("box unreadable" if most else "bad polygon", short(values))
    return found


def inside(box: Sequence[float], size: tuple[int, int]) -> list[float]:
    """A box XYXY in pixels, clipped where it leaves the picture by less than a pixel.

    Raises:
        Wrong: it is reversed, or leaves the picture.
    """
    left, top, right, bottom = box
    width, height = size
    shown = f"{left:g}, {top:g}, {right:g}, {bottom:g}"
    if not (left < right and top < bottom):
        raise Wrong("box reversed", shown)
    clipped = [max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))]
    far = max(abs(a - b) for a, b in zip(box, clipped, strict=True)) >= ROUNDING
    if far or not (clipped[0] < clipped[2] and clipped[1] < clipped[3]):
        raise Wrong("box off the image", f"{shown}; the image is {width} × {height}")
    return clipped


def polygons(parts: Iterable, size: tuple[int, int]) -> dict:
    """Polygons [x, y, x, y, …] in pixels, which are one object → its mask, COCO RLE, as pycocotools draws it.

    Raises:
        Wrong: one has fewer than three points, or leaves the picture by a pixel or more; they cover no pixel.
    """
    width, height = size
    checked = []
    for part in parts:
        points = numbers(part)
        if len(points) % 2:
            raise Wrong("bad polygon", f"{len(points)} numbers, which are no pairs")
        if len(points) < 6:
            raise Wrong("bad polygon", counted(len(points) // 2, "point"))
        xs, ys = points[::2], points[1::2]
        # far outside, its outline would be as long as the numbers say, in memory
        if min(*xs, *ys) <= -ROUNDING or max(xs) >= width + ROUNDING or max(ys) >= height + ROUNDING:
            shown = f"x {min(xs):g} to {max(xs):g}, y {min(ys):g} to {max(ys):g}"
            raise Wrong("polygon off the image", f"{shown}; the image is {width} × {height}")
        checked.append(points)
    code = coco.merge(coco.frPyObjects(checked, height, width)) if len(checked) > 1 else None
    return _filled(code or coco.frPyObjects(checked, height, width)[0])


def run_lengths(code: dict, size: tuple[int, int]) -> dict:
    """COCO RLE, compressed (a text) or not (a list of numbers) → compressed; what is so already stays as it is.

    Raises:
        Wrong: it is of another size than the picture, cannot be read, or covers no pixel.
    """
    width, height = size
    counts, sides = code.get("counts"), code.get("size")
    if sides != [height, width]:
        said = f"{short(sides[1])} × {short(sides[0])}" if isinstance(sides, list) and len(sides) == 2 else short(sides)
        raise Wrong("mask of another size", f"{said}; the picture is {width} × {height}")
    if isinstance(counts, list):
        if not all(type(count) is int and count >= 0 for count in counts) or sum(counts) != width * height:
            raise Wrong("bad run lengths", f"they must be whole numbers with the sum {width * height:,}")
        return _filled(coco.frPyObjects({"size": [height, width], "counts": counts}, height, width))
    try:
        drawn = unrle({"size": [height, width], "counts": counts}).any() if isinstance(counts, str) else None
    except (ValueError, MemoryError):
        drawn = None
    if drawn is None:
        raise Wrong("bad run lengths", short(counts))
    if not drawn:
        raise Wrong("mask without pixels", "")
    return {"size": [height, width], "counts": counts}


def _filled(code: dict) -> dict:
    if not coco.area(code):
        raise Wrong("mask without pixels", "")
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}


def short(value: object, most: int = 60) -> str:
    """A value as a message shows it."""
    text = repr(value)
    return text[:most] + (" …" if len(text) > most else "")
