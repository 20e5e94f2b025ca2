"""What `adapt predict` is asked for, as it is typed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from adapt.overrides import taken
from adapt.plug import UserError, nearest
from adapt.recipe import Recipe

HELP = """adapt predict run=runs/NAME-HASH images=FOLDER|GLOB|LIST.txt [to=FORMAT] …
adapt predict file=FILE.onnx images=FOLDER|GLOB|LIST.txt [to=FORMAT] …

  to=jsonl         one JSON object a picture; every model. By default
  to=csv           classes and words: path, label, probability
  to=coco          boxes, masks as RLE: dataset.json and results.json
  to=yolo          boxes: labels/, links in images/, scores.csv, data.yaml
  to=voc           boxes: Annotations/, whole pixels counted from 1, and links
                   in JPEGImages/
  to=labelstudio   boxes, classes: tasks.json with pre-annotations
  to=png           a class a pixel: masks/, classes.yaml

  out=FOLDER       where the files go; by default answers/NAME-HASH
  by=student       who answers: adapted, student, zero-shot, or the NAME of a
                   student. By default the student, else the adapted model
  score=0.3        boxes: those that are less sure are left out
  all=true         classes: the probability of each class too
  text='…'         PaliGemma, Florence-2: what to ask of every picture
  batch=32         pictures at a time
  tile=1024        boxes, a class a pixel: cut larger pictures into tiles of so
                   many pixels a side, and join the answers; up to 536 million
                   pixels a picture. Things larger than the overlap stay in
                   pieces
  overlap=0.2      the share of a tile's side that its neighbours see too

A folder is searched with the folders in it. A list has a path a line, below
the list's own folder. Pictures that cannot be read are in problems.csv.
The same command goes on after a kill; with another to= it writes that format
from the same answers. previews/ has the 24 least sure pictures."""
FORMATS = ("jsonl", "csv", "coco", "yolo", "voc", "labelstudio", "png")
OWN = ("images", "to", "out", "by", "score", "all", "text", "batch", "tile", "overlap", "file")


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    images: str
    """A folder, a picture, a glob, or a text file with a path a line."""
    to: str = "jsonl"
    """A key of `writers.WRITERS`."""
    out: str | None = None
    by: str | None = None
    """Who answers: adapted, student, zero-shot, or a student's name; none: the best there is."""
    file: str | None = None
    """An exported file, that answers without a run folder."""
    score: float | None = None
    """Of boxes, the least score that is kept; none: 0.3."""
    all: bool = False
    """Of classes, keep each one's probability."""
    text: str | None = None
    """What is asked of every picture, by models that answer in words."""
    batch: int = 32
    tile: int | None = None
    """The side in pixels of the tiles that larger pictures are cut into; none: they stay whole."""
    overlap: float | None = None
    """The share of a tile's side that its neighbours see too; none: 0.2."""


def parse(arguments: list[str]) -> Request:
    """Take the verb's own arguments out of the others, which are a recipe's.

    Raises:
        UserError: an argument is missing, repeated, unknown, or not what it takes.
    """
    given = taken(arguments, OWN)
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if not equals:
            raise UserError(f"{argument!r} has no name before it. Write key=value, such as images=photos.")
        if "." not in name and name not in (*Recipe.model_fields, "recipe", "run"):
            raise UserError(f"{name}: predict has no such option.{nearest(name, [*OWN, 'run', 'recipe'])}")
    if not given.get("images"):
        raise UserError("images: missing. Write images=FOLDER, images='photos/*.jpg' or images=LIST.txt.")
    if "file" in given and (arguments or "by" in given):
        other = arguments[0] if arguments else f"by={given['by']}"
        raise UserError(f"{other}: an exported file answers alone. Leave it out, or leave file= out.")
    if given.get("to", "jsonl") not in FORMATS:
        raise UserError(f"to: there is no format {given['to']!r}.{nearest(given['to'], FORMATS)}")
    words = {name: given[name] for name in ("images", "to", "out", "by", "text", "file") if given.get(name)}
    return Request(**words, **_values(given))


def _values(given: dict[str, str]) -> dict[str, float | int | bool]:
    """The options that are no words."""
    values: dict[str, float | int | bool] = {}
    for name, read, right, words in (
        ("score", float, lambda value: math.isfinite(value) and 0 <= value <= 1, "a number from 0 to 1"),
        ("batch", int, lambda value: 1 <= value <= 4096, "a whole number from 1 to 4096"),
        ("tile", int, lambda value: 32 <= value <= 8192, "a whole number of pixels from 32 to 8192"),
        ("overlap", float, lambda value: math.isfinite(value) and 0 <= value <= 0.9, "a number from 0 to 0.9"),
        ("all", {"true": True, "false": False}.__getitem__, lambda value: True, "true or false"),
    ):
        if name in given:
            try:
                values[name] = read(given[name])
                if not right(values[name]):
                    raise ValueError
            except (ValueError, KeyError):
                raise UserError(f"{name}: {given[name]!r} is not {words}.") from None
    return values


def place(request: Request, digest: str) -> Path:
    """The folder for the answers to a question of this digest."""
    if request.out:
        return Path(request.out).expanduser()
    stem = Path(request.images).name if Path(request.images).exists() else Path(request.images).parent.name
    name = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in Path(stem).stem).strip("_")[:40]
    return Path("answers") / f"{name or 'pictures'}-{digest[:8]}"
