"""LabelMe's files: which there are, and what their shapes mean."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from adapt.data.listed import Item, below, passed_over, read_json
from adapt.data.outlines import Shape, circle, joined, numeric, polygon, rectangle
from adapt.data.problems import Bad, Problem
from adapt.data.scan import SPLIT_FOLDERS, walk
from adapt.plug import UserError

THINGS = {"rectangle": 2, "circle": 2, "polygon": 3}
"""Shapes that are read → the fewest points of each."""
MARKS = {"point": "points", "points": "points", "line": "lines", "linestrip": "lines"}
"""Shapes that are passed over, and what they are called."""


def read(root: Path, images: Path, config) -> tuple[list[Item], list[Problem]]:
    """The pictures with what is drawn on them, those without a file too; and what is wrong with the others.

    Raises:
        UserError: there is no file of LabelMe's.
    """
    items, problems, counts, named, seen = [], [], Counter(), set(), {}
    for file in json_files(root):
        name = file.relative_to(root).as_posix()
        try:
            content = read_json(file)
            if not (isinstance(content, dict) and {"shapes", "imagePath"} & content.keys()):
                counts["JSON files that are not LabelMe's"] += 1
                continue
            item = _item(content, file, root, images, config, counts)
            named.add(item.picture)
            if item.picture in seen:
                raise Bad("named twice", f"{item.picture!r} is the picture of {seen[item.picture]!r} already")
        except Bad as bad:
            problems.append(Problem(name, _split(name), *bad.args))
            continue
        seen[item.picture] = name
        items.append(item)
    if not items and not problems:
        raise UserError(f"data.path: no JSON file of LabelMe's in {str(root)!r} (an object with imagePath and shapes).")
    pictures, wrong = walk(images)
    problems += [Problem(name, _split(name), *rest) for name, *rest in wrong]
    problems += passed_over(config.path, counts)
    beside = {Path(problem.id).with_suffix("").as_posix() for problem in problems if problem.severe}
    others = [name for name in pictures if name not in named and Path(name).with_suffix("").as_posix() not in beside]
    return items + [Item(name, name, name) for name in others], problems


def json_files(root: Path) -> list[Path]:
    """The JSON files below a folder, sorted; hidden ones and links that lead out of it are no data."""
    found = (file for file in root.rglob("*.json") if not any(part.startswith(".") for part in file.relative_to(root).parts))
    return sorted(file for file in found if file.is_file() and file.resolve().is_relative_to(root))


def _split(name: str) -> str:
    return SPLIT_FOLDERS.get(name.split("/")[0].lower(), "") if "/" in name else ""


def _item(content: dict, file: Path, root: Path, images: Path, config, counts: Counter) -> Item:
    """A file's picture and shapes.

    Raises:
        Bad: it has not the form.
    """
    path, shapes = content.get("imagePath"), content.get("shapes")
    if not isinstance(path, str) or not path:
        raise Bad("bad annotation", f"imagePath must be the picture's name, got {str(path)[:60]!r}")
    if not isinstance(shapes, list):
        raise Bad("bad annotation", f"shapes must be a list, got {str(shapes)[:60]!r}")
    name = file.relative_to(root).as_posix()
    picture = _picture(path, file, root, images, bool(config.images))
    things = []
    for number, shape in enumerate(shapes):
        counts["flags"] += _flags(shape)
        if isinstance(shape, dict) and (mark := MARKS.get(str(shape.get("shape_type")))):
            counts[mark] += 1
        else:
            things.append(_checked(shape, number))
    counts["flags"] += _flags(content)
    drawn = (content.get("imageWidth"), content.get("imageHeight"))
    return Item(picture, name, picture, _split(name), shapes=partial(_objects, things, drawn))


def _flags(thing: Any) -> int:
    """How many flags are set."""
    flags = thing.get("flags") if isinstance(thing, dict) else None
    return sum(map(bool, flags.values())) if isinstance(flags, dict) else 0


def _picture(path: str, file: Path, root: Path, images: Path, elsewhere: bool) -> str:
    """The picture's path below `images`; where that is another folder than the files', its last part alone will do."""
    if not elsewhere:
        return below(root, (file.parent.relative_to(root) / path.replace("\\", "/")).as_posix())
    try:
        return below(images, path)
    except Bad:
        return below(images, path.replace("\\", "/").rpartition("/")[2])


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


def _objects(things: list[dict], drawn: tuple, size: tuple[int, int]) -> list[Shape]:
    """The things on a picture of `size` (width, height).

    Raises:
        Bad: the shapes were drawn on a picture of another size, or one is off it.
    """
    if all(isinstance(side, int) for side in drawn) and drawn != size:
        raise Bad("bad annotation", f"drawn on a picture of {drawn[0]} × {drawn[1]}; the picture is {size[0]} × {size[1]}")
    parts: dict = defaultdict(list)
    for number, thing in enumerate(things):
        group = thing["group"]
        parts[number if group is None else (thing["label"], str(group))].append(_shape(thing, size))
    return [joined(each, size) for each in parts.values()]


def _shape(thing: dict, size: tuple[int, int]) -> Shape:
    try:
        if thing["kind"] == "polygon":
            return polygon(thing["label"], thing["points"], size)
        one, two = thing["points"]
        if thing["kind"] == "circle":
            return circle(thing["label"], one, two, size)
        return rectangle(thing["label"], [*one, *two], size)
    except Bad as bad:
        kind, detail = bad.args
        raise Bad(kind, f"{thing['place']}: {detail}") from None
