"""What is wrong with a data set, found before anything learns from it.

report = check("photos")                      # a folder, a `Dataset` or a `DatasetDict`
report.write("problems.csv")                  # or .json

"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple
from itertools import compress, repeat
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, DatasetDict, Image

from adapt.data.places import existing
from adapt.data.problems import Problem, Report
from adapt.data.scan import SPLIT_FOLDERS, VERSION, Finding, layout, looked, quiet, scan, walk
from adapt.plug import UserError
from adapt.progress import progress
from adapt.provenance import stamp
from adapt.run import atomic
from adapt.vision.held import wrong_boxes, wrong_masks
from adapt.vision.pictures import cache_folder, digest

FEW = 16
"""Rows whose pictures are looked at before their turn: these may be bytes, and in memory."""


def check(data: str | Path | Dataset | DatasetDict, follow: bool = False) -> Report:
    """Look at every picture, box, mask and class.

    Args:
        data: a folder of pictures, in class folders or not, or rows with the standard columns.
        follow: the folder's links; see `walk`.

    Raises:
        UserError: the folder is missing or has no pictures.
    """
    if isinstance(data, str | Path):
        return check_folder(existing(data, "data.path"), "data.path", follow=follow)[0]
    return _looked_at(data if isinstance(data, dict) else {"": data})[0]


def _looked_at(splits: dict[str, Dataset]) -> tuple[Report, bool]:
    """`check` of rows; and whether all their pictures could be read."""
    report, unread = Report(), []
    seen: dict = {}
    with progress("check pictures", sum(map(len, splits.values()))) as tick, quiet():
        for split, rows in splits.items():
            report.pictures += len(rows)
            report.problems += _rows(split, rows, seen, unread, tick)
    report.problems += _classes(splits)
    return report, not unread


def check_rows(splits: DatasetDict) -> Report:
    """`check` of rows; those that have not changed since the last time, and could all be read, are not opened again."""
    prints = [(name, rows._fingerprint) for name, rows in splits.items()]
    memory = cache_folder("scans") / f"{digest(VERSION, prints, picture_stamps(splits))}.json"
    try:
        known = json.loads(memory.read_text())
        return Report(known["pictures"], [Problem(*each) for each in known["problems"]])
    except (OSError, ValueError):
        report, whole = _looked_at(splits)
    if not whole:
        return report
    with (
        suppress(UserError, OSError),
        atomic(memory) as temporary,
    ):  # a memory that cannot be written costs time and nothing else
        temporary.write_text(json.dumps({"pictures": report.pictures, "problems": list(map(astuple, report.problems))}))
    return report


def picture_stamps(splits: dict[str, Dataset], name: str = "image") -> list[tuple]:
    """What changes when a picture file that rows name in a column does: the paths, and what `stamp` has of each."""
    files: set[str] = set()
    for rows in splits.values():
        column = rows.data.column(name)
        bare, paths = pc.is_null(pc.struct_field(column, "bytes")), pc.struct_field(column, "path")
        if rows._indices is not None:  # of a selection the column still has all rows
            chosen = rows._indices.column(0)
            bare, paths = bare.take(chosen), paths.take(chosen)
        files |= set(paths.filter(bare).to_pylist())
    return [(path, *stamp(path)) for path in sorted(files)]


def check_folder(root: Path, place: str, split: str = "", follow: bool = False) -> tuple[Report, dict[str, list]]:
    """Look at a folder of pictures.

    Args:
        root: absolute.
        place: the field of the recipe, for messages.
        split: that all pictures belong to; then folders inside mean nothing. By default they are splits and classes.
        follow: links; see `walk`.

    Returns:
        What is wrong, and columns of the pictures that can be used: id (path below `root`), split ('' when folders do not say),
        class (a folder's name, or none), digest of the bytes.

    Raises:
        UserError: there are no pictures.
    """
    ids, wrong = walk(root, follow)
    if not ids and not wrong:
        raise UserError(f"{place}: {str(root)!r} has no pictures (.jpg, .png, .webp, …). Give a folder that has some.")
    report = Report(0, [Problem(name, split, kind if split else _linked(name, kind), detail) for name, kind, detail in wrong])
    places, folders = ([(split, None)] * len(ids), []) if split else layout(root, ids, follow)
    data = {name: where for name, where in zip(ids, places, strict=True) if where[0] != "-"}
    report.pictures = len(data)
    findings = scan(root, list(data))
    seen: dict = {}
    rows: dict[str, list] = {"id": [], "split": [], "class": [], "digest": []}
    for name, (where, label) in data.items():
        finding = findings.pop(name)
        problems = [Problem(name, where, *problem) for problem in finding.problems]
        problems += repeated(seen, finding, name, where, label)
        if folders and label is None:
            problems.append(Problem(name, where, "no class"))
        report.problems += problems
        if not any(problem.severe for problem in problems):
            for column, value in zip(rows.values(), (name, where, label, finding.digest), strict=True):
                column.append(value)
    alive = set(zip(rows["split"], rows["class"], strict=True))
    known = {label for where, label in alive if where not in ("validation", "test")}
    for where, label in folders:
        if label not in known:
            kind = "unseen class" if (where, label) in alive else "empty class"
            report.problems.append(Problem(label, where, kind))
    return report, chosen(rows, [label in known for label in rows["class"]])


def chosen(columns: dict[str, list], keep: Sequence[bool]) -> dict[str, list]:
    """The columns of those rows that are to be kept."""
    return {name: list(compress(column, keep)) for name, column in columns.items()}


def _linked(name: str, kind: str) -> str:
    """A link that is not followed is worse where it stands for a class or a split: the data would be others without a word."""
    first, *rest = name.split("/")
    level = not rest or (len(rest) == 1 and first.lower() in SPLIT_FOLDERS)
    return "linked class or split" if kind == "link" and level else kind


def repeated(seen: dict, finding: Finding, name: str, split: str, label) -> Iterator[Problem]:
    """The problem, if the same bytes have been seen; else remember them."""
    if not finding.digest:
        return
    if finding.digest not in seen:
        seen[finding.digest] = (name, split, label)
        return
    other, where, what = seen[finding.digest]
    if where != split and {where, split} & {"validation", "test"}:
        yield Problem(name, split, "leak", f"same bytes as {other!r} in {where}")
    if what != label and what is not None and label is not None:
        yield Problem(name, split, "two classes", f"same bytes as {other!r}")
    elif where == split:
        yield Problem(name, split, "duplicate", f"same bytes as {other!r}")


def _rows(split: str, rows: Dataset, seen: dict, unread: list[str], tick: Callable[[], None]) -> Iterator[Problem]:
    """Problems of pictures, boxes and masks; rows whose pictures could not be read are added to `unread`."""
    names = [name for name in ("id", "label", "objects") if name in rows.column_names]
    said: Iterable[dict] = rows.select_columns(names) if names else repeat({}, len(rows))
    findings: Iterator[Finding] = repeat(Finding("", None, ()), len(rows))
    if "image" in rows.column_names:
        pictures = rows.select_columns("image").cast_column("image", Image(decode=False))
        findings = looked((row["image"] or {"bytes": None, "path": None} for row in pictures), FEW)
    for index, (row, finding) in enumerate(zip(said, findings, strict=True)):
        name = str(row.get("id") or f"{split or 'row'}/{index}")
        unread += [name] if finding.unread else []
        yield from (Problem(name, split, *problem) for problem in finding.problems)
        yield from repeated(seen, finding, name, split, row.get("label"))
        yield from (Problem(name, split, *problem) for problem in _objects(row.get("objects") or {}, finding.size))
        tick()


def _objects(objects: dict, size: tuple[int, int] | None) -> Iterator[tuple[str, str]]:
    """Kinds and details of wrong boxes float[N, 4] XYXY and masks (COCO RLE) on an image of `size` (width, height)."""
    boxes, masks = np.array(objects.get("bbox") or [], float).reshape(-1, 4), objects.get("mask") or []
    numbers = range(max(len(boxes), len(masks)))
    sizes = np.tile(size or (0, 0), (len(numbers), 1))
    yield from ((kind, detail) for _, kind, detail in wrong_boxes(boxes, sizes[: len(boxes)], numbers))
    yield from ((kind, detail) for _, kind, detail in wrong_masks(masks, sizes, numbers))


def _classes(splits: dict[str, Dataset]) -> Iterator[Problem]:
    """Classes that training does not see."""
    train = splits.get("train", splits.get(""))
    if train is None or not isinstance(train.features.get("label"), ClassLabel):
        return
    names = train.features["label"].names
    missing = set(range(len(names))) - set(train["label"][:])
    empty = set(missing)
    for split, rows in splits.items():
        here = missing & set(rows["label"][:]) if "label" in rows.column_names else set()
        yield from (Problem(names[label], split, "unseen class") for label in sorted(here))
        empty -= here
    yield from (Problem(names[label], "train", "unused class") for label in sorted(empty))
