"""Other people's objects → ours: boxes float[N, 4] XYXY in pixels, categories with names, masks as COCO RLE.

What depends on all rows, the order of the numbers and the names of the categories, is done here with whole columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Features, List, Value

from adapt.data.hub.annotations import Fields, fields_of, gathered
from adapt.data.hub.orders import corners, decided
from adapt.data.hub.rows import flat, refuse, without
from adapt.data.hub.words import numbered
from adapt.data.listing import passed_over
from adapt.data.outlines import short
from adapt.data.problems import Problem
from adapt.plug import UserError
from adapt.vision.pictures import BOXES, MASKS, digest

OTHERS = ("label", "caption", "suffix")
"""Columns beside which objects are read only if somebody asks for them, in `data.objects` or `data.boxes`."""
BATCH = 1000


def ours(feature) -> bool:
    """Are these objects as our own sources write them, with masks in run lengths?"""
    return isinstance(feature, dict) and feature.get("mask") == MASKS


def standard_objects(parts: dict[str, Dataset], config, problems: list[Problem]) -> dict[str, Dataset]:
    """Splits whose column `objects`, where there is one, has bbox, category and, where there are such, mask and iscrowd as ours; objects
    that are not read are taken out.

    Args:
        parts: splits, some with a column `objects`; those that are `ours` stay as they are.
        config: of `hub`: boxes, masks, id2label, on_error.
        problems: what is left out or passed over is added to it.

    Raises:
        UserError: the order of boxes is not the one that is said, or one of several; the column holds no boxes and categories, though
            their order is said; with `on_error: stop`, objects that cannot be used.
    """
    foreign = {
        split: rows for split, rows in parts.items() if "objects" in rows.column_names and not ours(rows.features["objects"])
    }
    if not foreign:
        return parts
    fields = {split: fields_of(rows.features["objects"], config.masks) for split, rows in foreign.items()}
    beside = [name for name in OTHERS if name in parts["train"].column_names]
    unasked = bool(beside) and config.boxes == "auto" and config.objects is None
    if config.boxes is None or unasked or not all(fields.values()):
        return parts | _left_out(foreign, config, beside if unasked and all(fields.values()) else [], problems)
    known = numbered(config)
    if config.id2label:
        fields = {split: replace(one, classes=None) for split, one in fields.items()}
    tables = {split: gathered(rows, split, fields[split], known) for split, rows in foreign.items()}
    bad = {split: _wrong(table) for split, table in tables.items()}
    masked = _masked(tables, bad)
    refuse(foreign, bad, config.on_error)
    order, said = decided(config.boxes, *_flat_boxes(foreign, tables))
    names, places = _classes(fields, tables, known)
    crowds = any("iscrowd" in field.names for field in fields.values())  # in all splits or in none
    feature = {"bbox": BOXES, "category": List(ClassLabel(names=names))} | ({"mask": MASKS} if masked else {})
    feature |= {"iscrowd": List(Value("int8"))} if crowds else {}
    problems += said
    read = {}
    for split, rows in foreign.items():
        count = sum(len(pc.list_flatten(part["bbox"])) for part in _batches(tables[split]))
        problems += passed_over(split, {f"{name} of objects": count for name in fields[split].over})
        column = _column(tables[split], order, places[split], feature)
        key = digest(rows._fingerprint, tables[split]._fingerprint, order, names, masked, crowds)
        added = flat(rows).remove_columns("objects").add_column("objects", column, feature=feature, new_fingerprint=key)
        read[split] = without(added, split, bad[split], problems)
    return parts | read


def _left_out(foreign: dict[str, Dataset], config, beside: list[str], problems: list[Problem]) -> dict[str, Dataset]:
    """The splits without objects, which is said; raises a `UserError` where somebody has said how boxes are to be read.

    Args:
        beside: columns that could be learnt as well, where objects are left out for these.
    """
    split, rows = next(iter(foreign.items()))
    held = short(rows.features["objects"], 200)
    if config.boxes not in (None, "auto"):
        raise UserError(
            f"data.boxes: objects of {split} must hold bbox or boxes, four numbers each, and category, categories, label, labels or "
            f"category_id, numbers or names. It holds {held}."
        )
    if config.boxes is None:
        why = "and left out, since data.boxes is null."
    elif beside:
        why = f"beside {' and '.join(beside)}, and left out. To read it: data.objects=objects, or their order in data.boxes."
    else:
        why = f"but has no boxes with categories, and is left out. It holds {held}."
    name = config.objects or "objects"
    print(f"data: the column {name} is there, {why}")
    for split, rows in foreign.items():
        problems += passed_over(split, {f"the column {name}": len(rows)})
    return {split: rows.remove_columns("objects") for split, rows in foreign.items()}


# ---------------------------------------------------------------------------------------------------------------- columns


def _batches(table: Dataset) -> Iterator[dict[str, pa.Array]]:
    """The columns of some rows at a time."""
    for part in table.with_format("arrow").iter(batch_size=BATCH):
        yield {name: part[name].combine_chunks() for name in part.column_names}


def _wrong(table: Dataset) -> dict[int, list[tuple[str, str]]]:
    """Row number → kinds and details of what is wrong with its objects."""
    rows = np.flatnonzero(pc.greater(pc.list_value_length(table.data.column("problems")), 0).to_numpy())
    found = table.select_columns(["problems"]).select(rows)["problems"][:]
    return {int(row): [(each["kind"], each["detail"]) for each in several] for row, several in zip(rows, found, strict=True)}


def _masked(tables: dict[str, Dataset], bad: dict[str, dict[int, list]]) -> bool:
    """Has any object a mask? Then those that have none are wrong."""
    lacking: dict[str, list[tuple[int, int]]] = {}
    some = False
    for split, table in tables.items():
        start = 0
        for part in _batches(table):
            values, owner = pc.list_flatten(part["mask"]), pc.list_parent_indices(part["mask"]).to_numpy()
            bare = np.flatnonzero(pc.is_null(values).to_numpy(zero_copy_only=False))
            some |= len(bare) < len(values)
            first = np.searchsorted(owner, owner[bare])
            lacking.setdefault(split, []).extend(zip((start + owner[bare]).tolist(), (bare - first).tolist(), strict=True))
            start += len(part["mask"])
    for split, objects in lacking.items() if some else ():
        for row, number in objects:
            bad[split].setdefault(row, []).append(("object without mask", f"object {number}"))
    return some


def _flat_boxes(foreign: dict[str, Dataset], tables: dict[str, Dataset]) -> tuple[np.ndarray, np.ndarray, Callable[[int], str]]:
    """All boxes float64[M, 4], the sizes of their pictures int[M, 2], and how messages call a box of a number."""
    boxes, sizes, rows, ids = [np.zeros((0, 4))], [np.zeros((0, 2), int)], [np.zeros(0, int)], []
    for split, table in tables.items():
        start = len(ids)
        ids += foreign[split]["id"][:]
        for part in _batches(table):
            owner = pc.list_parent_indices(part["bbox"]).to_numpy()
            boxes.append(_numbers(part["bbox"]))
            sizes.append(np.stack([part["width"].to_numpy(), part["height"].to_numpy()], 1)[owner])
            rows.append(start + owner)
            start += len(part["bbox"])
    row = np.concatenate(rows)
    return np.concatenate(boxes), np.concatenate(sizes), lambda number: repr(ids[row[number]])


def _numbers(bbox: pa.Array) -> np.ndarray:
    return pc.list_flatten(pc.list_flatten(bbox)).to_numpy().reshape(-1, 4)


def _classes(fields: dict[str, Fields], tables: dict[str, Dataset], known: dict[int, str]):
    """The names of all categories; and for each split, the values that its categories have and the number among the names of each."""
    values = {split: _seen(table) for split, table in tables.items()}
    named = {split: dict(enumerate(one.classes)) if one.classes else known for split, one in fields.items()}
    if len({one.texts for one in fields.values()}) > 1:
        raise UserError("data.objects: categories are names in one split and numbers in another. Write them in one way.")
    every = sorted({value for seen in values.values() for value in seen})
    first = [name for held in named.values() for name in held.values()]
    names = list(dict.fromkeys(first or map(str, every))) or ["object"]
    numbers = {name: number for number, name in enumerate(names)}
    places = {}
    for split, held in named.items():
        pairs = held if held and not fields[split].texts else {value: str(value) for value in values[split]}
        for name in pairs.values():  # of a split without names beside one that has some
            numbers.setdefault(name, len(numbers))
        places[split] = list(pairs), [numbers[name] for name in pairs.values()]
    return list(numbers), places


def _seen(table: Dataset) -> list:
    """The different values of the categories."""
    found = [pc.unique(pc.list_flatten(part["category"])).to_pylist() for part in _batches(table)]
    return sorted({value for part in found for value in part})


def _column(table: Dataset, order: str, places: tuple[Sequence, Sequence[int]], feature: dict) -> pa.ChunkedArray:
    """The objects of all rows as ours."""
    kind = Features(objects=feature).arrow_schema.field("objects").type
    keys, numbers = places
    chunks = []
    for part in _batches(table):
        owner = pc.list_parent_indices(part["bbox"]).to_numpy()
        sizes = np.stack([part["width"].to_numpy(), part["height"].to_numpy()], 1)[owner]
        boxes = corners(_numbers(part["bbox"]), order, sizes).astype(np.float32)
        categories = pc.list_flatten(part["category"])
        index = pc.index_in(categories, pa.array(keys, categories.type)).to_numpy(zero_copy_only=False)
        flat_columns = {
            "bbox": pa.FixedSizeListArray.from_arrays(pa.array(boxes.ravel()), 4),
            "category": pa.array(np.asarray(numbers, np.int64)[index.astype(int)]),
            "mask": _codes(pc.list_flatten(part["mask"]), sizes) if "mask" in feature else None,
            "iscrowd": pc.list_flatten(part["iscrowd"]),
        }
        counts = pc.list_value_length(part["bbox"]).to_numpy()
        offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
        lists = [pa.ListArray.from_arrays(offsets, flat_columns[name]) for name in feature]
        chunks.append(pa.StructArray.from_arrays(lists, list(feature)).cast(kind))
    return pa.chunked_array(chunks, kind)


def _codes(counts: pa.Array, sizes: np.ndarray) -> pa.StructArray:
    """Run lengths as COCO RLE."""
    size = pa.FixedSizeListArray.from_arrays(pa.array(sizes[:, ::-1].astype(np.int32).ravel()), 2)
    return pa.StructArray.from_arrays([size, counts], ["size", "counts"])
