"""A column of objects, as the data have it → an Arrow file of the cache: read once, row by row, in the data's own numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, Features, Image, LargeList, List, Value
from datasets.arrow_writer import ArrowWriter

from adapt.data.check import picture_stamps
from adapt.data.hub.rows import sides
from adapt.data.outlines import numbers, numeric, polygons, run_lengths, short
from adapt.data.problems import Bad
from adapt.progress import progress
from adapt.vision.pictures import cache_folder, cached, digest

NAMES = {
    "bbox": ("bbox", "boxes"),
    "category": ("category", "categories", "label", "labels", "category_id"),
    "iscrowd": ("iscrowd", "is_crowd"),
    "mask": ("segmentation",),
}
"""Our field of objects → theirs, the first that is there."""
VERSION = 2
"""To be raised when objects are read otherwise, so that kept ones are read again."""


@dataclass(frozen=True)
class Fields:
    """The fields of their objects."""

    names: dict[str, str]
    """Our field → theirs."""
    over: tuple[str, ...]
    """Fields that are not read."""
    classes: tuple[str, ...] | None
    """The categories' names, where the data have them."""
    texts: bool
    """Are categories names, not numbers?"""


def fields_of(feature, masks: bool) -> Fields | None:
    """What a column of objects has, a struct of lists or a list of structs; none: no boxes or no categories."""
    listed = isinstance(feature, List | LargeList)
    inner = feature.feature if listed else feature
    if not isinstance(inner, dict):
        return None
    have = {name: each if listed else _inside(each) for name, each in inner.items()}
    names = {ours: next((name for name in theirs if name in have), "") for ours, theirs in NAMES.items()}
    names = {ours: theirs for ours, theirs in names.items() if theirs and (masks or ours != "mask")}
    if not {"bbox", "category"} <= names.keys():
        return None
    category = have[names["category"]]
    texts = isinstance(category, Value) and "string" in category.dtype
    whole = isinstance(category, ClassLabel) or (isinstance(category, Value) and "int" in category.dtype)
    number = _inside(have[names["bbox"]])
    if not (texts or whole) or not isinstance(number, Value) or not number.dtype.startswith(("float", "int", "uint")):
        return None
    over = tuple(name for name in have if name not in names.values())
    classes = tuple(category.names) if isinstance(category, ClassLabel) and category.names else None
    return Fields(names, over, classes, texts)


def _inside(feature) -> Any:
    """What a list holds."""
    return feature.feature if isinstance(feature, List | LargeList) else None


# -------------------------------------------------------------------------------------------------------------------- read


def gathered(rows: Dataset, split: str, fields: Fields, known: dict[int, str]) -> Dataset:
    """The objects of each row as the data have them, memory-mapped; a row with something wrong has none, and says what."""
    held = dict(enumerate(fields.classes)) if fields.classes else known
    key = digest(VERSION, rows._fingerprint, picture_stamps({split: rows}), fields, sorted(held))
    text = Value("string")
    features = Features(
        bbox=List(List(Value("float64"), length=4)),
        category=List(text if fields.texts else Value("int64")),
        iscrowd=List(Value("int8")),
        mask=List(text),
        width=Value("int32"),
        height=Value("int32"),
        problems=[{"kind": text, "detail": text}],
    )

    def build(path: Path) -> None:
        plain = rows.select_columns(["image", "objects"]).cast_column("image", Image(decode=False))
        with ArrowWriter(path=str(path), features=features) as writer, progress("read objects", len(rows)) as tick:
            for part in plain.iter(batch_size=100):
                for image, value in zip(part["image"], part["objects"], strict=True):
                    writer.write(_row(value, sides(image), fields, held))
                    tick()
            writer.finalize()

    return cached(cache_folder("hub") / f"{key}.arrow", build)


def _row(value: Any, size: tuple[int, int], fields: Fields, held: dict[int, str]) -> dict:
    """The objects of a row, and what is wrong with them.

    Args:
        size: of the picture; zeros: it cannot be opened, and then its objects are no matter.
        held: number → name of all classes, where these are known.
    """
    columns = _lists(value, fields)
    found: dict[str, list] = {"bbox": [], "category": [], "iscrowd": [], "mask": []}
    problems = []
    counts = {len(each) for each in columns.values()}
    if len(counts) > 1:
        what = ", ".join(f"{len(each)} {fields.names[ours]}" for ours, each in columns.items())
        problems.append({"kind": "box unreadable", "detail": f"{what}: not as many of each"})
        columns = {}
    for number, each in enumerate(zip(*columns.values(), strict=True) if all(size) else ()):
        try:
            for name, item in _object(dict(zip(columns, each, strict=True)), size, fields.texts, held).items():
                found[name].append(item)
        except Bad as bad:
            kind, detail = bad.args
            problems.append({"kind": kind, "detail": f"object {number}: {detail}" if detail else f"object {number}"})
    if problems:
        found = {name: [] for name in found}
    return found | {"width": size[0], "height": size[1], "problems": problems}


def _lists(value: Any, fields: Fields) -> dict[str, list]:
    """Our field → a value for each object, of a struct of lists or a list of structs; a field that a row has not is left away."""
    if isinstance(value, list):
        return {ours: [(each or {}).get(theirs) for each in value] for ours, theirs in fields.names.items()}
    found = {ours: (value or {}).get(theirs) for ours, theirs in fields.names.items()}
    optional = {ours for ours in ("iscrowd", "mask") if found.get(ours) is None}
    return {ours: list(each or []) for ours, each in found.items() if ours not in optional}


def _object(one: dict[str, Any], size: tuple[int, int], texts: bool, held: dict[int, str]) -> dict[str, Any]:
    """An object that can be used.

    Raises:
        Bad: it cannot.
    """
    category, crowd = one["category"], one.get("iscrowd") or 0
    box = numbers(one["bbox"], 4)
    if not all(map(numeric, box)):
        raise Bad("box unreadable", short(box))
    if category is None or (held and not texts and category not in held):
        have = ", ".join(map(str, list(held)[:5]))
        raise Bad("unknown category", f"{short(category)}; the data have {have} …" if held else "none")
    if crowd not in (0, 1):
        raise Bad("bad entry", f"iscrowd {short(crowd)}, and it can be 0 or 1")
    return {"bbox": box, "category": category, "iscrowd": int(crowd), "mask": _mask(one.get("mask"), size)}


def _mask(drawn: Any, size: tuple[int, int]) -> str | None:
    """Polygons or run lengths → COCO's compressed run lengths; none, where there are none.

    Raises:
        Bad: they are not of the picture, or none.
    """
    if isinstance(drawn, dict):
        counts = drawn.get("counts")
        if counts is None and drawn.get("size") is None:
            return None
        if isinstance(counts, bytes):
            counts = counts.decode("ascii", "replace")
        return run_lengths({"size": drawn.get("size"), "counts": counts}, size)["counts"]
    if not drawn:
        return None
    if not isinstance(drawn, list):
        raise Bad("bad polygon", short(drawn))
    return polygons(drawn if isinstance(drawn[0], list) else [drawn], size)["counts"]
