"""`data.classes` of a hub data set: classes of pictures and objects under other names, joined, or left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Features, List

from adapt.data.hub.columns import by_number, class_values
from adapt.data.hub.rows import flat
from adapt.data.listing import kept_names, left_out
from adapt.data.problems import Problem
from adapt.plug import UserError, counted, nearest
from adapt.vision.classes import category_names
from adapt.vision.pictures import digest


def renamed(
    parts: dict[str, Dataset], classes: dict[str, str | None], also: Sequence[str], problems: list[Problem]
) -> dict[str, Dataset]:
    """Splits whose pictures and objects have the classes that `data.classes` says; pictures and objects that it leaves out are gone.

    Args:
        parts: splits, with class maps already as `data.classes` says.
        also: the classes of these maps.
        problems: how many are left out is added to it.

    Raises:
        UserError: a name is none of the data's; nothing is left.
    """
    if not classes:
        return parts
    told = {split: rows for split, rows in parts.items() if "label" in rows.column_names}
    boxed = {
        split: rows
        for split, rows in parts.items()
        if "objects" in rows.column_names and "segmentation" not in rows.column_names
    }
    values = {split: class_values(rows) for split, rows in told.items()}
    labels = _label_names(told, values)
    things = list(dict.fromkeys(name for rows in boxed.values() for name in category_names(rows.features)))
    have = dict.fromkeys([*labels, *things, *also])
    for name in classes:
        if name not in have:
            raise UserError(f"data.classes: the data have no class {name!r}.{nearest(name, have)}")
    changed = {}
    if set(labels) & set(classes):
        changed |= _pictures(told, values, labels, classes, problems)
    if set(things) & set(classes):
        boxed = {split: changed.get(split, rows) for split, rows in boxed.items()}
        changed |= _objects(boxed, things, classes, problems)
    return parts | changed


def _label_names(told: dict[str, Dataset], values: dict[str, list[str]]) -> list[str]:
    """The classes of the pictures, in the order of the data."""
    own = [rows.features["label"] for rows in told.values()]
    if own and all(isinstance(feature, ClassLabel) for feature in own):
        return list(dict.fromkeys(name for feature in own for name in feature.names))
    return sorted({name for names in values.values() for name in names}, key=by_number)


def _known(names: Sequence[str], classes: dict[str, str | None]) -> tuple[list[str], list[int | None]]:
    return kept_names(names, {name: new for name, new in classes.items() if name in names})


def _pictures(
    told: dict[str, Dataset], values: dict[str, list[str]], names: list[str], classes, problems
) -> dict[str, Dataset]:
    """Splits with other classes of pictures, and without the pictures of those that are left out."""
    kept, numbers = _known(names, classes)
    place = dict(zip(names, numbers, strict=True))
    label, done, left = ClassLabel(names=kept), {}, []
    for split, rows in told.items():
        new = [place[name] for name in values[split]]
        left += [name for name, number in zip(values[split], new, strict=True) if number is None]
        coded = flat(rows).remove_columns("label").add_column("label", new, feature=label).select_columns(rows.column_names)
        stay = [row for row, number in enumerate(new) if number is not None]
        if not stay:
            raise UserError(f"data.classes leaves out all pictures of {split}. Leave a class of it in.")
        done[split] = coded if len(stay) == len(new) else coded.select(stay)
    problems += left_out(left)
    return done


def _objects(boxed: dict[str, Dataset], names: list[str], classes, problems) -> dict[str, Dataset]:
    """Splits with other classes of objects, and without the objects of those that are left out."""
    kept, numbers = _known(names, classes)
    place, left, done = dict(zip(names, numbers, strict=True)), Counter(), {}
    for split, rows in boxed.items():
        own = category_names(rows.features)
        new = np.array([-1 if place[name] is None else place[name] for name in own], np.int64)
        feature = rows.features["objects"] | {"category": List(ClassLabel(names=kept))}
        kind = Features(objects=feature).arrow_schema.field("objects").type
        whole = flat(rows)
        chunks = []
        for chunk in whole.data.column("objects").chunks:
            objects, gone = _taken(chunk, new, kind)
            chunks.append(objects)
            left.update({own[number]: count for number, count in enumerate(gone.tolist()) if count})
        column = pa.chunked_array(chunks, kind)
        key = digest(whole._fingerprint, kept, new.tolist())
        changed = whole.remove_columns("objects").add_column("objects", column, feature=feature, new_fingerprint=key)
        done[split] = changed.select_columns(rows.column_names)
    problems += [Problem(name, "", "class left out", counted(number, "object")) for name, number in sorted(left.items())]
    return done


def _taken(objects: pa.StructArray, new: np.ndarray, kind: pa.DataType) -> tuple[pa.StructArray, np.ndarray]:
    """The objects of some rows with the categories `new[old]`, without those that become -1; and how many of each category went."""
    lists = {field.name: pc.struct_field(objects, field.name) for field in kind}
    counts = pc.fill_null(pc.list_value_length(lists["category"]), 0).to_numpy(zero_copy_only=False).astype(int)
    old = pc.list_flatten(lists["category"]).to_numpy(zero_copy_only=False).astype(int)
    stay = new[old] >= 0
    owner = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(np.bincount(owner[stay], minlength=len(counts)))
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    columns = {name: pc.list_flatten(each).filter(pa.array(stay)) for name, each in lists.items() if name != "category"}
    columns["category"] = pa.array(new[old[stay]])
    arrays = [pa.ListArray.from_arrays(offsets, columns[field.name]) for field in kind]
    taken = pa.StructArray.from_arrays(arrays, [field.name for field in kind], mask=pc.is_null(objects)).cast(kind)
    return taken, np.bincount(old[~stay], minlength=len(new))
