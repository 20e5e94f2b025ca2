"""Anyone's columns → the standard columns of a sample, without copying a picture."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Image, List, Value

from adapt.data.hub.rows import flat, without
from adapt.data.listing import passed_over
from adapt.data.problems import Problem
from adapt.data.split import SPLITS
from adapt.plug import UserError, nearest
from adapt.vision.pictures import RGB

TEXTS = ("string", "large_string")
MAPS = ("segmentation", "label", "annotation", "mask")
"""Columns of pictures that are class maps, where there is nothing else to learn."""


def standard(rows: Dataset, split: str, config, places: list[Path], problems: list[Problem], apart: bool) -> Dataset:
    """A split with our columns alone: id, image (RGB when looked at), of label, caption, objects, segmentation, prefix, suffix what there
    is; and group, where groups are asked for.

    Args:
        config: of `hub`: their names for columns; and `on_error`.
        places: folders that paths to pictures may lead to; the first is where relative paths start.
        problems: what is left out or passed over is added to it.
        apart: are their ids those of one split alone? Else the split stands before each, for an id must mean one picture.
    """
    kept = _kept(rows, split, config)
    ids, named_by = _ids(rows, split)
    if split != "unlabelled":
        others = [name for name in rows.column_names if name not in (*kept.values(), named_by, config.group)]
        problems += passed_over(split, {f"the column {name}": _there(rows, name) for name in others})
    groups = _groups(rows, split, ids, config, places)
    rows = rows.select_columns(list(kept.values())).rename_columns({theirs: ours for ours, theirs in kept.items()})
    rows = rows.add_column("id", ids if apart else [f"{split}/{name}" for name in ids])
    rows = rows.add_column("group", groups) if groups else rows
    rows = _pictures(rows, split, config, places, problems)
    caption = rows.features.get("caption")
    if caption is not None and not is_text(caption) and not (isinstance(caption, List) and is_text(caption.feature)):
        raise UserError(f"data.caption: {kept['caption']!r} holds {caption}. Name a column of texts, or of lists of texts.")
    return rows.select_columns(["id", *kept, *(["group"] if groups else [])])


def _kept(rows: Dataset, split: str, config) -> dict[str, str]:
    """Our column → theirs; raises a `UserError` when one that is named is missing, or is named twice."""
    names = {"image": config.image}
    if split != "unlabelled":
        names |= {"label": config.label, "caption": config.caption, "objects": config.objects, "prefix": None, "suffix": None}
        if config.segmentation and config.objects:
            raise UserError("data.segmentation and data.objects both say what is on the pictures. Leave one of the two out.")
        if config.segmentation:
            names.pop("objects")
            names["segmentation"] = config.segmentation
        if config.label is None and isinstance(rows.features.get("label"), Image):
            names.pop("label")
    kept: dict[str, str] = {}
    for ours, theirs in names.items():
        if (theirs or ours) in rows.column_names:
            if theirs in kept.values():
                raise UserError(
                    f"data.{ours}: {theirs!r} is already one of our other columns. Have: {', '.join(rows.column_names)}."
                )
            kept[ours] = theirs or ours
        elif theirs is not None:
            pictures = [name for name, feature in rows.features.items() if isinstance(feature, Image)]
            hint = f" Pictures are in: {', '.join(pictures)}." if ours in ("image", "segmentation") and pictures else ""
            raise UserError(f"data.{ours}: no column {theirs!r} in {split}.{hint}{nearest(theirs, rows.column_names)}")
    return kept | (_class_map(rows, split, config.image) if set(kept) == {"image"} and split != "unlabelled" else {})


def _class_map(rows: Dataset, split: str, image: str) -> dict[str, str]:
    """The column of class maps, where it is the only one that it can be: `segmentation` → theirs."""
    found = [name for name in MAPS if name != image and isinstance(rows.features.get(name), Image)]
    if len(found) > 1:
        raise UserError(
            f"data.segmentation: {split} has several columns that could be class maps: {', '.join(found)}. "
            f"Name one: data.segmentation={found[0]}."
        )
    return {"segmentation": found[0]} if found else {}


def _there(rows: Dataset, name: str) -> int:
    """In how many rows a column holds something."""
    return len(rows) - rows.data.column(name).null_count


def is_text(feature) -> bool:
    """Is it a column of texts?"""
    return isinstance(feature, Value) and feature.dtype in TEXTS


def _ids(rows: Dataset, split: str) -> tuple[list[str], str | None]:
    """Their own ids, if they are all different, and the column that they are from; else split/number."""
    for name in ("id", "__key__"):
        if name in rows.column_names:
            ids = [str(value) for value in rows[name][:]]
            if len(set(ids)) == len(ids):
                return ids, name
    return [f"{split}/{row}" for row in range(len(rows))], None


def ids_apart(rows_of: dict[str, Dataset]) -> bool:
    """Is no id of theirs in two of train, validation and test? Many data sets number each split from 0.

    Unlabelled pictures may be those of another split on purpose.
    """
    names = [name for split in SPLITS if split in rows_of for name in _ids(rows_of[split], split)[0]]
    return len(set(names)) == len(names)


def _groups(rows: Dataset, split: str, ids: list[str], config, places: list[Path]) -> list[str] | None:
    """What `group` is to look at in each row: the value of a column, or the picture's path; '' for nothing. None: nobody asks."""
    if config.group is None or split == "unlabelled":
        return None
    if config.pattern():
        return [path or name for path, name in zip(_paths(rows, config.image, places), ids, strict=True)]
    feature = rows.features.get(config.group)
    if feature is None:
        raise UserError(
            f"data.group: no column {config.group!r} in {split}.{nearest(config.group, rows.column_names)} "
            "An expression needs a group in parentheses: (patient[0-9]+)."
        )
    if not isinstance(feature, Value | ClassLabel):
        raise UserError(f"data.group: {config.group!r} holds {feature}. Name a column of texts or numbers.")
    return ["" if value is None else str(value) for value in rows[config.group][:]]


def _paths(rows: Dataset, column: str, places: list[Path]) -> list[str | None]:
    """Where each picture lies: below the first of the folders, if it does; none where it is bytes without a name."""
    stored, feature = rows.data.column(column), rows.features[column]
    if not isinstance(feature, Image) and not is_text(feature):
        return [None] * len(rows)
    paths = (stored if is_text(feature) else pc.struct_field(stored, "path")).to_pylist()
    start = f"{places[0].as_posix()}/"
    return [path and Path(path).as_posix().removeprefix(start) for path in paths]


def _pictures(rows: Dataset, split: str, config, places: list[Path], problems: list[Problem]) -> Dataset:
    """The columns `image`, as `RGB`, and `segmentation` without rows whose pictures cannot be found.

    Raises:
        UserError: a column holds no pictures; with `on_error: stop`, paths that lead outside or nowhere.
    """
    feature = rows.features["image"]
    if is_text(feature):
        paths = [os.path.join(places[0], path or "") for path in rows["image"][:]]
        column = pa.StructArray.from_arrays([pa.nulls(len(paths), pa.binary()), pa.array(paths)], ["bytes", "path"])
        rows = rows.remove_columns("image").add_column("image", column, feature=Image())
    try:
        rows = rows.cast_column("image", RGB())
    except (ValueError, TypeError, pa.ArrowException):
        have = ", ".join(rows.column_names)
        raise UserError(f"data.image: {config.image!r} holds {feature}, not pictures. Have: {have}.") from None
    bad = _not_there(rows, split, "image", config.image, config.on_error, places)
    if "segmentation" in rows.column_names:
        if not isinstance(rows.features["segmentation"], Image):
            held = rows.features["segmentation"]
            raise UserError(f"data.segmentation: it holds {held}. Name a column of pictures with a number for each pixel.")
        named = config.segmentation or "segmentation"
        bad = _not_there(rows, split, "segmentation", named, config.on_error, places) | bad
    return without(rows, split, bad, problems)


def _not_there(rows: Dataset, split: str, column: str, named: str, on_error: str, places: list[Path]) -> dict[int, list]:
    """Row number → kind and detail, where a column names a picture that is not there, or elsewhere."""
    stored = rows.data.column(column)
    bare = np.flatnonzero(pc.is_null(pc.struct_field(stored, "bytes")).to_numpy())
    found = zip(bare.tolist(), pc.struct_field(stored, "path").take(pa.array(bare)).to_pylist(), strict=True)
    bad = {row: [wrong] for row, path in found if (wrong := _wrong_path(path, places))}
    if bad and on_error == "stop":
        many = f"There are {len(bad)} such rows in {split}. " if len(bad) > 1 else ""
        raise UserError(
            f"data.{column}: {named!r} {next(iter(bad.values()))[0][1]}. {many}Paths start from {places[0]} and must stay in it. "
            "data.on_error=skip leaves such rows out."
        )
    return bad


def _wrong_path(path: str | None, places: list[Path]) -> tuple[str, str] | None:
    """Kind and detail of what is wrong with the path to a picture; none when it can be read."""
    if path is None:
        return "unreadable", "has a row without a picture"
    if not os.path.isfile(path):
        return "unreadable", f"names {path!r}, which is not a file"
    if not any(Path(path).resolve().is_relative_to(place) for place in places):
        return "leads outside", f"names a picture elsewhere: {path!r} lies outside {places[0]}"
    return None


def with_classes(parts: dict[str, Dataset], on_error: str, problems: list[Problem]) -> dict[str, Dataset]:
    """Splits whose rows have a class each, where train has classes; the others are left out and added to the problems.

    Raises:
        UserError: rows without a class, with `on_error: stop`; a split without any class; a column that holds no classes.
    """
    if "label" not in parts["train"].column_names:
        return parts
    kept = dict(parts)
    for split, rows in parts.items():
        if split == "unlabelled":
            continue
        values = _values(rows, split)
        lacking = [row for row, value in enumerate(values) if value is None or (isinstance(value, int) and value < 0)]
        if lacking and (on_error == "stop" or len(lacking) == len(values)):
            raise UserError(
                f"data.label: {len(lacking)} of {len(values)} rows of {split} have no class. Name another split with data.splits"
                + ("." if len(lacking) == len(values) else ", or leave these rows out with data.on_error=skip.")
            )
        kept[split] = without(rows, split, {row: [("no class", "")] for row in lacking}, problems)
    return kept


def labelled(parts: dict[str, Dataset]) -> dict[str, Dataset]:
    """Splits whose labels are `ClassLabel`s of the same names, all of them seen in train.

    Args:
        parts: `with_classes`.

    Raises:
        UserError: a single class, or a class that train has not.
    """
    if "label" not in parts["train"].column_names:
        return parts
    values = {split: class_values(rows) for split, rows in parts.items() if split != "unlabelled"}
    seen = set(values["train"])
    if len(seen) < 2:
        raise UserError(f"data.label: train has only one class, {values['train'][0]!r}. A classifier needs two or more.")
    own = parts["train"].features["label"]
    label = own if isinstance(own, ClassLabel) else ClassLabel(names=sorted(seen, key=by_number))
    labelled = dict(parts)
    for split, names in values.items():
        if unseen := sorted(set(names) - seen, key=by_number):
            raise UserError(
                f"data.label: {split} has classes that train never saw: {_some(unseen)}. Name other splits; "
                "if rows are sorted by class, use shares (data.validation, data.test), not slices."
            )
        if parts[split].features["label"] != label:
            index = {name: number for number, name in enumerate(label.names)}
            numbers = np.array([index[name] for name in names])
            coded = flat(parts[split]).remove_columns("label").add_column("label", numbers, feature=label)
            labelled[split] = coded.select_columns(parts[split].column_names)
    return labelled


def _values(rows: Dataset, split: str) -> list:
    """What stands in the column `label`, names or numbers."""
    feature = rows.features.get("label")
    if feature is None:
        raise UserError(f"data.label: train has classes and {split} has none. Name another split with data.splits.")
    if not (isinstance(feature, ClassLabel) or is_text(feature) or (isinstance(feature, Value) and "int" in feature.dtype)):
        raise UserError(f"data.label: it holds {feature}. Name a column of class names or of class numbers.")
    return rows["label"][:]


def class_values(rows: Dataset) -> list[str]:
    """The class of each row."""
    feature, values = rows.features["label"], rows["label"][:]
    return [feature.names[value] for value in values] if isinstance(feature, ClassLabel) else [str(value) for value in values]


def by_number(name: str) -> tuple[bool, int, str]:
    """Numbers by their size, before words."""
    number = name.isdecimal()
    return not number, int(name) if number else 0, name


def _some(names: list[str], most: int = 5) -> str:
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
