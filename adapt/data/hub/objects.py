"""Other people's objects → ours: boxes float[N, 4] XYXY in pixels, categories with names."""

from __future__ import annotations

from datasets import ClassLabel, Dataset, List, Value

from adapt.data.hub.columns import without
from adapt.data.problems import Problem
from adapt.plug import UserError
from adapt.vision.pictures import BOXES, MASKS


def ours(feature) -> bool:
    """Are these objects as our own sources write them, with masks in run lengths?"""
    return isinstance(feature, dict) and feature.get("mask") == MASKS


def standard_objects(
    parts: dict[str, Dataset], order: str | None, on_error: str, problems: list[Problem]
) -> dict[str, Dataset]:
    """Splits whose column `objects`, where there is one, has bbox and category as ours; a split without boxes that can be read loses it.

    Args:
        parts: splits, some with a column `objects`; those that are `ours` stay as they are.
        order: of the numbers of a box: xyxy, xywh, or none: nobody said, and boxes are not read.
        on_error: stop, or skip: rows whose boxes cannot be read are left out and added to `problems`.

    Raises:
        UserError: the column does not hold lists of boxes and of categories, or, with `stop`, holds another number of each.
    """
    foreign = {
        split: rows for split, rows in parts.items() if "objects" in rows.column_names and not ours(rows.features["objects"])
    }
    if not foreign:
        return parts
    if order is None:
        print(
            "data: the column objects is there, but not in the standard form with masks in run lengths, and is left out. "
            f"It holds {_short(foreign)}. If that is bbox (in pixels) and category: data.boxes=xyxy (left, top, right, bottom) "
            "or data.boxes=xywh (left, top, width, height)."
        )
        return parts | {split: rows.remove_columns("objects") for split, rows in foreign.items()}
    for split, rows in foreign.items():
        foreign[split] = without(rows, split, _wrong(rows, split, on_error), problems)
    read = {split: _read(rows, order) for split, rows in foreign.items()}
    named = next(iter(foreign.values())).features["objects"]["category"].feature
    names = named.names if isinstance(named, ClassLabel) else None
    values = sorted({value for rows in read.values() for row in rows for value in row["category"]})
    label = ClassLabel(names=names or [str(value) for value in values] or ["object"])
    if not names:
        places = {value: place for place, value in enumerate(values)}
        read = {
            split: [row | {"category": [places[value] for value in row["category"]]} for row in rows]
            for split, rows in read.items()
        }
    crowds = any("iscrowd" in row for rows in read.values() for row in rows)
    if crowds:  # in all splits or in none
        read = {split: [{"iscrowd": [0] * len(row["bbox"])} | row for row in rows] for split, rows in read.items()}
    feature = {"bbox": BOXES, "category": List(label)} | ({"iscrowd": List(Value("int8"))} if crowds else {})
    return parts | {
        split: foreign[split].remove_columns("objects").add_column("objects", rows, feature=feature)
        for split, rows in read.items()
    }


def _wrong(rows: Dataset, split: str, on_error: str) -> dict[int, tuple[str, str]]:
    """Row number → kind and detail of what is wrong with its boxes."""
    feature = rows.features["objects"]
    parts = [feature.get(name) for name in ("bbox", "category")] if isinstance(feature, dict) else [None, None]
    boxes, categories = (part.feature if isinstance(part, List) else None for part in parts)
    numbers = boxes.feature if isinstance(boxes, List) else None
    kinds = [getattr(each, "dtype", "") for each in (numbers, categories)]
    if not kinds[0].startswith(("float", "int")) or not kinds[1].startswith(("int", "uint", "string", "large_string")):
        raise UserError(
            f"data.boxes: objects of {split} must hold bbox, four numbers each, and category, numbers or names. It holds {feature}."
        )
    bad = {}
    for number, row in enumerate(rows["objects"][:]):
        bbox, category, crowds = _pair(row)
        counts = [len(each) for each in (bbox, category, crowds) if each is not None]
        if len(set(counts)) > 1 or any(len(box) != 4 for box in bbox) or None in category:
            more = "" if crowds is None else f" and {len(crowds)} iscrowd"
            what = f"{len(bbox)} boxes and {len(category)} categories{more}, or a box that is not four numbers"
            if on_error == "stop":
                raise UserError(
                    f"data.boxes: row {number} of {split} has {what}. Correct it; data.on_error=skip leaves it out."
                )
            bad[number] = ("box unreadable", what)
    return bad


def _read(rows: Dataset, order: str) -> list[dict]:
    """Each row's boxes XYXY and categories as they are, and iscrowd, if there is such."""
    found = []
    for row in rows["objects"][:]:
        bbox, category, crowds = _pair(row)
        if order == "xywh":
            bbox = [[left, top, left + width, top + height] for left, top, width, height in bbox]
        more = {} if crowds is None else {"iscrowd": [int(crowd or 0) for crowd in crowds]}
        found.append({"bbox": bbox, "category": category} | more)
    return found


def _pair(row: dict | None) -> tuple[list, list, list | None]:
    """bbox, category and, if there is such, iscrowd (COCO's: a region of many things) of a row."""
    objects = row or {}
    return list(objects.get("bbox") or []), list(objects.get("category") or []), objects.get("iscrowd")


def _short(foreign: dict[str, Dataset], most: int = 200) -> str:
    text = str(next(iter(foreign.values())).features["objects"])
    return text[:most] + (" …" if len(text) > most else "")
