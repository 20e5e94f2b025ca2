"""COCO's files written again, for the pictures that are kept: every entry word by word, but for classes that the user renames, and for
file names where two pictures have the same. So ids, areas, supercategories, polygons, run lengths, keypoints and what else a file has stay
as they are."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from adapt.data.coco.annotations import HEAD, Reader
from adapt.data.coco.files import Part
from adapt.data.coco.stream import elements, head
from adapt.data.outlines import short
from adapt.plug import UserError

LONG = ("images", "annotations")


def write_again(config, place: Path, kept: Mapping[str, tuple[str, str]]) -> None:
    """Write `instances_SPLIT.json`, and `captions_SPLIT.json` where there are captions in files of their own.

    Args:
        config: of the source `coco`.
        kept: id of each row that is kept → the word for its split, and its new file name.

    Raises:
        UserError: two files give the same id to pictures of one split.
    """
    reader = Reader(config)
    place.mkdir(parents=True, exist_ok=True)
    for kind in ("instances", "captions"):
        parts = [part for part in reader.parts if part.path.stem.startswith("captions") == (kind == "captions")]
        for split in dict.fromkeys(split for split, _ in kept.values()):
            mine = {name: file for name, (own, file) in kept.items() if own == split}
            some = [part for part in parts if any(one.id in mine for one in reader.pictures(part))]
            if some:
                with open(place / f"{kind}_{split}.json", "w", encoding="utf-8") as file:
                    _write(file, reader, some, mine, config)


def file_names(config) -> dict[str, str]:
    """Row's id → its file name as COCO's files have it; empty where that cannot stay: two rows have the same, or it leaves its folder."""
    reader = Reader(config)
    found: dict[str, str] = {}
    for part in reader.parts:
        for one in head(part.path, HEAD)[1]["images"]:
            picture = reader.picture(part, one.get("id")) if isinstance(one, dict) else None
            if picture:
                found[picture.id] = one["file_name"]
    outside = any("\\" in name or name.startswith("/") or {"..", ".", ""} & {*name.split("/")} for name in found.values())
    return {} if outside or len(set(found.values())) < len(found) else found


def _write(file: TextIO, reader: Reader, parts: list[Part], mine: dict[str, str], config) -> None:
    """Write one file from those that its pictures stand in."""
    start, categories = {}, {}
    numbers: dict[Path, dict[Any, Any]] = {}
    for part in parts:
        rest, given = _rest(part)
        start = rest | start
        chosen, numbers[part.path] = _categories(given, config.classes)
        for one in chosen:
            if categories.setdefault(one["id"], one)["name"] != one["name"]:
                raise _twice("category", one["id"], parts)
    file.write("{")
    for name, value in (start | {"categories": list(categories.values())}).items():
        file.write(f"{json.dumps(name)}: {json.dumps(value)},\n")
    file.write('"images": [')
    _list(file, _all_images(reader, parts, mine))
    file.write('],\n"annotations": [')
    _list(file, (one for part in parts for one in _annotations(reader, part, mine, numbers[part.path], config.masks)))
    file.write("]}\n")


def _rest(part: Part) -> tuple[dict[str, Any], list[dict]]:
    """What a file has beside pictures and annotations, such as `info` and `licenses`; and its categories."""
    counts, _ = head(part.path, HEAD)
    lists: dict[str, list] = {name: [] for name in ("categories", *counts) if counts.get(name) and name not in LONG}
    others: dict[str, Any] = {name: [] for name in counts if name not in (*lists, *LONG)}
    for name, element in elements(part.path, lists, others=others):
        lists[name].append(element)
    categories = lists.pop("categories", [])
    return others | lists, categories


def _categories(given: list[dict], classes: Mapping[str, str | None]) -> tuple[list[dict], dict[Any, Any]]:
    """The categories that are kept; and for each id the one that it becomes, none where it is left out."""
    kept, numbers, first = [], {}, {}
    changed = {*classes, *classes.values()}
    for one in given:
        name = one["name"].strip()
        new = classes.get(name, name)
        if new is None:
            numbers[one["id"]] = None
            continue
        joined = first.setdefault(new, one["id"]) if name in changed else one["id"]
        numbers[one["id"]] = joined
        if joined == one["id"]:
            kept.append(one if new == name else one | {"name": new})
    return kept, numbers


def _images(reader: Reader, part: Part, mine: dict[str, str]) -> Iterator[tuple[Any, str, dict]]:
    """The pictures of a file that are kept: id, the row's id, the entry."""
    for _, one in elements(part.path, {"images"}):
        picture = reader.picture(part, one.get("id")) if isinstance(one, dict) else None
        if picture and picture.id in mine:
            yield one["id"], picture.id, one


def _all_images(reader: Reader, parts: list[Part], mine: dict[str, str]) -> Iterator[dict]:
    """The entries of the pictures, each once, with their new file names.

    Raises:
        UserError: two have the same id.
    """
    seen: dict[Any, str] = {}
    for part in parts:
        for number, name, one in _images(reader, part, mine):
            if seen.setdefault(number, name) != name:
                raise _twice("image", number, parts)
            yield one | {"file_name": mine[name]}


def _annotations(
    reader: Reader, part: Part, mine: dict[str, str], numbers: dict[Any, Any], masks: bool
) -> Iterator[dict[str, Any]]:
    """The annotations of the pictures that are kept, of classes that are kept."""
    for _, one in elements(part.path, {"annotations"}):
        picture = reader.picture(part, one.get("image_id")) if isinstance(one, dict) else None
        if picture is None or picture.id not in mine:
            continue
        if "category_id" in one:
            number = numbers[one["category_id"]]
            if number is None:
                continue
            one = one if number == one["category_id"] else one | {"category_id": number}
        yield one if masks or "segmentation" not in one else one | {"segmentation": []}


def _list(file: TextIO, items: Iterator[dict]) -> None:
    for number, one in enumerate(items):
        file.write((",\n" if number else "\n") + json.dumps(one))


def _twice(what: str, number: Any, parts: list[Part]) -> UserError:
    names = " and ".join(part.path.name for part in parts)
    return UserError(
        f"data.path: {what} id {short(number)} means different things in {names}, which go into one file. Convert them one by one: "
        f"data.path={parts[0].path.name}."
    )
