"""Lines of sentences that mean one of the things on a picture, in two shapes; see `adapt/data/jsonl/__init__.py`."""

from __future__ import annotations

from typing import Any

from adapt.data.outlines import inside, numbers
from adapt.data.problems import Bad, Problem

UNNAMED = "thing"
"""The class of things without a category."""


def is_one(line: dict[str, Any]) -> bool:
    """Does a line bring sentences about boxes, and not a question and its answer?"""
    return "referring" in line or "sentences" in line


def read(line: dict[str, Any]) -> dict[str, Any]:
    """A line's things, (box XYXY in pixels, name) each, its sentences, each with the number of the thing that it means, and its
    proposals, boxes XYXY, or none.

    Raises:
        Bad: something is missing or of another type.
    """
    if "referring" in line:
        objects = line.get("objects")
        if not isinstance(objects, dict) or not isinstance(objects.get("bbox"), list):
            raise Bad("bad line", "'referring' needs 'objects': {bbox: [[left, top, right, bottom], …]}")
        boxes = [numbers(box, 4) for box in objects["bbox"]]
        names = objects.get("category") or [UNNAMED] * len(boxes)
        meant = [_meant(each, len(boxes)) for each in _listed(line, "referring")]
    else:
        left, top, wide, high = numbers(line.get("bbox"), 4)  # as COCO and RefCOCO write it
        boxes, names = [[left, top, left + wide, top + high]], [line.get("category", UNNAMED)]
        meant = [(_sentence(each), 0) for each in _listed(line, "sentences")]
    if len(names) != len(boxes) or not all(isinstance(name, str) and name.strip() for name in names):
        raise Bad("bad line", f"'category' must be a name for each of the {len(boxes)} boxes, got {str(names)[:60]}")
    proposals = [numbers(box, 4) for box in _listed(line, "proposals")] if "proposals" in line else None
    return {"things": list(zip(boxes, names, strict=True)), "referring": meant, "proposals": proposals}


def joined(lines: list[dict], file: str) -> tuple[list[dict], list[Problem]]:
    """Lines about sentences, those of one picture as one row; of things with the same box and name there is one. Others stay as they are.

    Returns:
        and what is wrong with boxes, by line; a line with such a box is left out.
    """
    rows: list[dict] = []
    known: dict[str, dict] = {}
    problems = []
    for line in lines:
        if line["things"] is None:
            rows.append(line)
            continue
        try:
            things = [(tuple(inside(box, line["size"])), name) for box, name in line["things"]]
            proposals = [inside(box, line["size"]) for box in line["proposals"] or []]
        except Bad as bad:
            problems.append(Problem(f"{file}, line {line['number']}", line["split"], *bad.args))
            continue
        if line["image"] not in known:
            known[line["image"]] = line | {"things": [], "referring": [], "proposals": []}
            rows.append(known[line["image"]])
        row = known[line["image"]]
        row["things"] += [thing for thing in dict.fromkeys(things) if thing not in row["things"]]
        row["proposals"] += [box for box in proposals if box not in row["proposals"]]
        meant = [(sentence, row["things"].index(things[place])) for sentence, place in line["referring"]]
        row["referring"] += [pair for pair in meant if pair not in row["referring"]]
    return rows, problems


def _listed(line: dict[str, Any], key: str) -> list:
    if not isinstance(line[key], list) or not line[key]:
        what = "boxes" if key == "proposals" else "sentences"
        raise Bad("bad line", f"{key!r} must be a list of {what}, got {str(line[key])[:60]!r}")
    return line[key]


def _sentence(value: Any) -> str:
    """A sentence, or RefCOCO's {sent: …, raw: …}."""
    text = value.get("sent", value.get("raw")) if isinstance(value, dict) else value
    if not isinstance(text, str) or not text.strip():
        raise Bad("bad line", f"a sentence must be a text, or {{sent: a text}}, got {str(value)[:60]!r}")
    return text


def _meant(value: Any, count: int) -> tuple[str, int]:
    """{sentence: …, object: …} → the sentence, and the number of its thing, counted from 0."""
    if not isinstance(value, dict) or type(value.get("object")) is not int:
        raise Bad("bad line", f"'referring' holds {{sentence: a text, object: the number of its box}}, got {str(value)[:60]!r}")
    if not 0 <= value["object"] < count:
        raise Bad("bad line", f"{str(value.get('sentence'))[:60]!r} means object {value['object']} of {count}, counted from 0")
    return _sentence(value.get("sentence")), value["object"]


def column(referring: list[tuple[str, int]] | None) -> list[dict[str, Any]] | None:
    """As a row has it."""
    return None if referring is None else [{"sentence": sentence, "object": place} for sentence, place in referring]


def picture(line: dict[str, Any]) -> str:
    """The picture's name, `image` or RefCOCO's `file_name`."""
    name = line.get("image", line.get("file_name"))
    if not isinstance(name, str):
        raise Bad("bad line", f"'image' must be a text, got {str(name)[:60]!r}; have: {', '.join(line)}")
    return name
