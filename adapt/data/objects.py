"""Pictures and the objects on them on their way into Arrow: boxes and masks are checked one at a time and kept in flat columns."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Features, List, Value
from datasets.arrow_writer import ArrowWriter

from adapt.data.listing import Listed, Listing
from adapt.data.outlines import inside, whole
from adapt.data.problems import LEFT_OUT, Bad, Problem
from adapt.plug import counted
from adapt.vision.masks import box as around
from adapt.vision.masks import unrle
from adapt.vision.pictures import MASKS, RGB

EXACT = List(List(Value("float64"), length=4))
"""Boxes float[N, 4] XYXY, pixels; in double precision, so that a box of a file is the same when written again."""
BATCH = 5000
"""Pictures, or masks, that go into Arrow at once."""


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
        self.fill = False
        """Where other objects have masks, a box is its own mask, and not refused."""
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
                raise Bad("box unreadable", "no box")
            left, top, right, bottom = inside(around(unrle(mask)) if box is None else box, self.sizes[row])
        except Bad as wrong:
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

    def wrong(self, row: int, where: str, wrong: Bad) -> None:
        """Note what is wrong with an object of a row."""
        kind, detail = wrong.args
        picture = self.pictures[row]
        self.problems.append(Problem(picture.id, picture.split, kind, f"{where}: {detail}" if detail else where))

    def _fill(self, codes: pa.Array) -> pa.Array:
        """Boxes as masks, where objects have none."""
        filled = codes.to_pylist()
        for index, code in enumerate(filled):
            if code is None:
                filled[index] = whole(self._boxes[4 * index : 4 * index + 4], self.sizes[self._rows[index]])["counts"]
        self.problems.append(Problem("objects", "", "boxes as masks", f"{counted(codes.null_count, 'box')} among outlines"))
        return pa.array(filled, pa.large_string())

    def _flush(self) -> None:
        self._chunks.append(pa.array(self._codes, pa.large_string()))
        self._codes.clear()

    def write(self, path: Path) -> None:
        """Write a row for each picture as an Arrow file: id, image, objects, and the further columns."""
        self._flush()
        codes = pa.concat_arrays(self._chunks)
        self._chunks.clear()
        masked = codes.null_count < len(codes)
        if masked and codes.null_count and self.fill:
            codes = self._fill(codes)
        elif masked and codes.null_count:
            for row, where in self._lacking.items():
                self.wrong(row, where, Bad("object without mask", ""))
        for category, number in sorted(self._left_out.items()):
            self.problems.append(Problem(self.classes[category], "", LEFT_OUT, counted(number, "object")))
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
