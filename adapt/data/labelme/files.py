"""LabelMe's files: which there are, and what their shapes mean."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from adapt.data.listing import Listed, Listing, Places, passed_over
from adapt.data.objects import Objects
from adapt.data.outlines import Shape, circle, joined, numeric, polygon, rectangle
from adapt.data.problems import Bad, Problem
from adapt.data.reading import read_json
from adapt.data.scan import SPLIT_FOLDERS, walk
from adapt.plug import UserError

THINGS = {"rectangle": 2, "circle": 2, "polygon": 3}
"""Shapes that are read → the fewest points of each."""
MARKS = {"point": "points", "points": "points", "line": "lines", "linestrip": "lines"}
"""Shapes that are passed over, and what they are called."""


def listed(root: Path, images: Path, config) -> Listing:
    """The pictures with what is drawn on them, those without a file too; and what is wrong with the others.

    Raises:
        UserError: there is no file of LabelMe's.
    """
    listing, places, counts, seen = Listing(images), Places(images, config.follow_links), Counter(), {}
    for file in json_files(root, config.follow_links):
        name = file.relative_to(root).as_posix()
        try:
            content = read_json(file)
            if not (isinstance(content, dict) and {"shapes", "imagePath"} & content.keys()):
                counts["JSON files that are not LabelMe's"] += 1
                continue
            picture = _picture(content, file, root, places, bool(config.images), counts)
            if picture.file in seen:
                raise Bad("named twice", f"{picture.file!r} is the picture of {seen[picture.file]!r} already")
        except Bad as bad:
            listing.problems.append(Problem(name, _split(name), *bad.args))
            continue
        seen[picture.file] = name
        listing.made_of.append(file)
        listing.pictures.append(picture)
    if not listing.pictures and not listing.problems:
        raise UserError(f"data.path: no JSON file of LabelMe's in {str(root)!r} (an object with imagePath and shapes).")
    listing.names = sorted({thing["label"] for picture in listing.pictures for thing in picture.key}) or ["object"]
    beside = {Path(problem.id).with_suffix("").as_posix() for problem in listing.problems}
    pictures, wrong = walk(images, config.follow_links)
    listing.problems += [Problem(name, _split(name), *rest) for name, *rest in wrong]
    listing.problems += passed_over(config.path, counts)
    others = [name for name in pictures if name not in seen and Path(name).with_suffix("").as_posix() not in beside]
    listing.pictures += [Listed(name, name, "", told=False) for name in others]
    listing.origin = {split: f"{split} in {config.path!r}" for split in SPLIT_FOLDERS.values()} | {"": repr(config.path)}
    return listing


def read(objects: Objects) -> None:
    """Add the things on the pictures that can be opened; a box among outlines is its own mask."""
    numbers, objects.fill = {name: number for number, name in enumerate(objects.classes)}, True
    for row, picture in enumerate(objects.pictures):
        parts: dict = defaultdict(list)
        for number, thing in enumerate(picture.key or ()):
            group = thing["group"]
            parts[number if group is None else (thing["label"], str(group))].append(thing)
        for things in parts.values():
            where = f"{picture.place}, {things[0]['place']}"
            try:
                shape = joined([_shape(thing, objects.sizes[row]) for thing in things], objects.sizes[row])
                objects.add(row, numbers[things[0]["label"]], where, shape.box, shape.mask)
            except Bad as bad:
                objects.wrong(row, where, bad)


def json_files(root: Path, follow: bool = False) -> list[Path]:
    """The JSON files below a folder, sorted; hidden ones are no data, nor links that lead out of it, unless they are followed."""
    found = (file for file in root.rglob("*.json") if not any(part.startswith(".") for part in file.relative_to(root).parts))
    return sorted(file for file in found if file.is_file() and (follow or file.resolve().is_relative_to(root)))


def _split(name: str) -> str:
    return SPLIT_FOLDERS.get(name.split("/")[0].lower(), "") if "/" in name else ""


def _picture(content: dict, file: Path, root: Path, places: Places, elsewhere: bool, counts: Counter) -> Listed:
    """A file's picture, whose key is the list of its shapes.

    Args:
        elsewhere: the pictures lie in another folder than the files; there, the last part of a picture's path alone will do.

    Raises:
        Bad: it has not the form.
    """
    path, shapes = content.get("imagePath"), content.get("shapes")
    if not isinstance(path, str) or not path:
        raise Bad("bad annotation", f"imagePath must be the picture's name, got {str(path)[:60]!r}")
    if not isinstance(shapes, list):
        raise Bad("bad annotation", f"shapes must be a list, got {str(shapes)[:60]!r}")
    name = file.relative_to(root).as_posix()
    things = []
    for number, shape in enumerate(shapes):
        counts["flags"] += _flags(shape)
        if isinstance(shape, dict) and (mark := MARKS.get(str(shape.get("shape_type")))):
            counts[mark] += 1
        else:
            things.append(_checked(shape, number))
    counts["flags"] += _flags(content)
    drawn = content.get("imageWidth"), content.get("imageHeight")
    size = drawn if all(type(side) is int for side in drawn) else None
    try:
        picture = places.find(path, "" if elsewhere else file.parent.relative_to(root).as_posix())
    except Bad:
        if not elsewhere:
            raise
        picture = places.find(path.replace("\\", "/").rpartition("/")[2])
    return Listed(picture, picture, _split(name), things, size, place=name)


def _flags(thing: Any) -> int:
    """How many flags are set."""
    flags = thing.get("flags") if isinstance(thing, dict) else None
    return sum(map(bool, flags.values())) if isinstance(flags, dict) else 0


def _checked(shape: Any, number: int) -> dict:
    """A shape with its place, if it has the form of one that is read.

    Raises:
        Bad: it has not; with its number, which counts from 0 as the list does.
    """
    if not isinstance(shape, dict):
        raise Bad("bad annotation", f"shape {number} must be an object, got {str(shape)[:60]!r}")
    label, points, kind = shape.get("label"), shape.get("points"), str(shape.get("shape_type") or "polygon")
    place = f"shape {number} ({str(label)[:40]!r})"
    if not isinstance(label, str) or not label.strip():
        raise Bad("bad annotation", f"{place}: label must be a text")
    if kind not in THINGS:
        raise Bad("bad annotation", f"{place}: shape_type {kind[:40]!r} cannot be read; draw a {', '.join(THINGS)}")
    if not (isinstance(points, list) and all(isinstance(point, list) and len(point) == 2 for point in points)):
        raise Bad("bad annotation", f"{place}: points must be a list of x and y, in pixels")
    if not all(numeric(number) for point in points for number in point):
        raise Bad("bad annotation", f"{place}: points must be numbers, got {str(points)[:60]}")
    least = THINGS[kind]
    if len(points) < least or (kind != "polygon" and len(points) != least):
        raise Bad("bad annotation", f"{place}: a {kind} of {len(points)} points; it needs {least}")
    return {"label": label.strip(), "points": points, "kind": kind, "group": shape.get("group_id"), "place": place}


def _shape(thing: dict, size: tuple[int, int]) -> Shape:
    if thing["kind"] == "polygon":
        return polygon(thing["points"], size)
    one, two = thing["points"]
    return circle(one, two, size) if thing["kind"] == "circle" else rectangle([*one, *two])
