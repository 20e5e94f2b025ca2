"""The rows of a table: which columns are ours, and what is wrong with a row that cannot be used."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from adapt.data.listing import Listed, Listing, Places
from adapt.data.problems import Bad, Problem
from adapt.data.scan import SPLIT_FOLDERS
from adapt.plug import UserError, counted, nearest

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
PATHS = ("path", "image", "file", "filename")
LABELS = ("label", "class")
MANY = re.compile(r"(label|class)(s|es)?[ _.-]?\d*")
"""Columns that look like labels."""
LONGEST = 1 << 20
"""Bytes of a line; a longer one is no row of paths and labels, and is not read into memory."""
SHOWN = 80


def listed(file: Path, root: Path, config) -> Listing:
    """The pictures of the rows that can be used, not opened, and what is wrong with the others.

    Raises:
        UserError: the table cannot be read, or lacks a column.
    """
    unit = "row" if file.suffix.lower() == ".parquet" else "line"
    head, rows = _parquet(file) if unit == "row" else _text(file)
    columns = _columns(head, config, file)
    listing, paths, seen = Listing(root), Places(root, config.follow_links), {}
    others = [name for name in head if name not in columns.values()]
    if others:
        listing.problems.append(Problem(file.name, "", "passed over", f"the columns {', '.join(others)}"))
    places = {key: head.index(name) for key, name in columns.items()}
    for number, cells in rows:
        place = f"{file.name}, {unit} {number}"
        try:
            picture = _picture(cells, places, head, place, paths)
            if picture.file in seen:
                raise Bad("named twice", f"{picture.file!r} is in {unit} {seen[picture.file]} already")
        except Bad as bad:
            listing.problems.append(Problem(place, "", *bad.args))
            continue
        seen[picture.file] = number
        listing.pictures.append(picture)
    if not listing.pictures and not listing.problems:
        raise UserError(f"data.path: {file.name} has no rows below its head. Write a row for each picture.")
    given = {picture.split for picture in listing.pictures if picture.told}
    if given and not given & {"", "train"}:
        raise UserError(
            f"data.path: {config.path!r} has no picture for train, only for {min(given)}. Give some the split train."
        )
    listing.names = sorted({picture.label for picture in listing.pictures} - {None})
    listing.origin = {split: f"the rows {split} of {config.path!r}" for split in SPLIT_FOLDERS.values()} | {
        "": repr(config.path)
    }
    return listing


def _picture(cells: Sequence[str], places: dict[str, int], head: Sequence[str], place: str, paths: Places) -> Listed:
    """The picture of a row that can be used.

    Raises:
        Bad: it cannot.
    """
    if len(cells) != len(head):
        alone = next((words for mark, words in SEPARATORS.items() if len(cells) == 1 and mark in cells[0]), None)
        hint = f"; it is separated by {alone}, and the head is not" if alone else "; texts with a separator inside need quotes"
        raise Bad("bad row", f"{counted(len(cells), 'field')} instead of the head's {len(head)}{hint}")
    row = {key: cells[index].strip() for key, index in places.items()}
    if not row["path"]:
        raise Bad("bad row", f"the column {head[places['path']]!r} is empty")
    picture, label = paths.find(row["path"]), row["label"] or None
    split, group = _split(row, label, head, places), row.get("group", "")
    return Listed(picture, picture, split, label=label, group=group, place=place, told=label is not None)


def _split(row: dict[str, str], label: str | None, head: Sequence[str], places: dict[str, int]) -> str:
    if "split" not in row or label is None:
        return ""
    split = SPLIT_FOLDERS.get(row["split"].lower())
    if split is None:
        raise Bad("bad row", f"the column {head[places['split']]!r} is {row['split'][:SHOWN]!r}; write train, val or test")
    return split


def _columns(head: Sequence[str], config, file: Path) -> dict[str, str]:
    """Our name of a column → the table's.

    Raises:
        UserError: one is missing, or several could be meant.
    """
    twice = sorted({name for name in head if head.count(name) > 1})
    if twice:
        raise UserError(f"data.path: {file.name}, line 1: the column {twice[0]!r} is there twice. Rename one of the two.")
    plain = {name.lower(): name for name in head}
    path = _one(config.image, "image", [plain[name] for name in PATHS if name in plain], head, file, "path,label")
    labels = [name for name in head if MANY.fullmatch(name.lower()) and name != path]
    exact = [name for name in labels if name.lower() in LABELS]
    label = _one(config.label, "label", exact if len(labels) == len(exact) else labels, head, file, "path,label")
    rest = {key: plain.get(config.values()[key].lower()) for key in ("split", "group")}
    for key, name in rest.items():
        if name is None and key in config.model_fields_set and not (key == "group" and config.pattern()):
            raise UserError(
                f"data.{key}: {file.name} has no column {config.values()[key]!r}.{nearest(config.values()[key], head)}"
            )
    return {"path": path, "label": label} | {key: name for key, name in rest.items() if name}


def _one(asked: str | None, option: str, found: Sequence[str], head: Sequence[str], file: Path, example: str) -> str:
    """The column that is asked for, or the only one that it can be."""
    if asked is not None:
        if asked not in head:
            raise UserError(f"data.{option}: {file.name} has no column {asked!r}.{nearest(asked, head)}")
        return asked
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"data.{option}: {file.name} has several columns that could be it: {', '.join(found)}. A picture has one label; "
            f"name the column: data.{option}={found[0]}."
            if option == "label"
            else f"data.{option}: {file.name} has several columns of paths: {', '.join(found)}. Name one: data.{option}={found[0]}."
        )
    have = ", ".join(name[:SHOWN] for name in head[:20])
    raise UserError(
        f"data.{option}: {file.name}, line 1 names no column {' or '.join(PATHS if option == 'image' else LABELS)}. Have: {have}. "
        f"Begin the table with a head such as {example}, or name the column: data.{option}=NAME."
    )


# ------------------------------------------------------------------------------------------------------------------- read


def _text(file: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The head, and the other rows with their first lines' numbers; empty rows are passed over."""
    lines = _lines(file)
    blank, first = next(((number, line) for number, line in enumerate(lines) if line.strip()), (0, ""))
    if not first:
        raise UserError(f"data.path: {file.name} is empty. Begin it with a head such as path,label.")
    try:
        mark = max(SEPARATORS, key=lambda mark: len(next(csv.reader([first], delimiter=mark))))
        head = [name.strip() for name in next(csv.reader([first], delimiter=mark))]
    except csv.Error:
        why = "lines end in a carriage return alone" if "\r" in first.strip() else "a name of more than 131,072 characters"
        raise UserError(f"data.path: {file.name}, line {blank + 1}: {why}. Save the table anew.") from None
    while head and not head[-1]:  # spreadsheets leave separators behind the last column
        head.pop()

    def rows() -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(lines, delimiter=mark, strict=True)
        start = before = blank + 2
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise UserError(
                    f"data.path: {file.name}, line {start}: {error}. Close the quotes, or double those inside."
                ) from None
            if any(cell.strip() for cell in cells):
                while len(cells) > len(head) and not cells[-1].strip():
                    cells.pop()
                yield start, cells
            start = before + reader.line_num

    return head, rows()


def _lines(file: Path) -> Iterator[str]:
    """The lines of a text file, however they end; none is read that is longer than `LONGEST`.

    Raises:
        UserError: a line is too long, or no UTF-8.
    """
    with open(file, "rb") as stream:
        number = 0
        while data := stream.readline(LONGEST + 1):
            number += 1
            if len(data) > LONGEST:
                raise UserError(
                    f"data.path: {file.name}, line {number}: longer than {LONGEST:,} bytes. Give a table of paths and labels."
                )
            if number == 1 and data.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise UserError(f"data.path: {file.name} is UTF-16. Save it as UTF-8 (in Excel: CSV UTF-8).")
            try:
                text = data.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise UserError(f"data.path: {file.name}, line {number}: not UTF-8 text. Save the table as UTF-8.") from None
            if "\0" in text:
                raise UserError(f"data.path: {file.name}, line {number}: a zero byte. Give a text file.")
            yield text


def _parquet(file: Path) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The head, and the rows numbered from 1; missing values are empty texts."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        why = " ".join(str(error).split())[:150]
        raise UserError(f"data.path: {file.name} cannot be read as Parquet ({why}). Copy or write the file again.") from None
    head = list(table.schema_arrow.names)
    flat = [name for name in head if not pa.types.is_nested(table.schema_arrow.field(name).type)]
    if len(flat) < len(head) and not set(PATHS) & set(flat):
        raise UserError(f"data.path: {file.name} holds pictures, not their paths. Read it with data.source=hub.")

    def rows() -> Iterator[tuple[int, list[str]]]:
        number = 0
        try:
            for batch in table.iter_batches(columns=flat):
                for row in batch.to_pylist():
                    number += 1
                    yield number, ["" if row[name] is None else str(row[name]) for name in flat]
        except (pa.ArrowException, OSError, ValueError) as error:  # text that is no UTF-8
            why = " ".join(str(error).split())[:150]
            raise UserError(f"data.path: {file.name}, after row {number}: {why}. Copy or write the file again.") from None

    return flat, rows()
