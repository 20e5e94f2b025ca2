"""A question about one picture, as `adapt prompt` takes it from a shell, and the files of its answer; see `adapt/verbs/prompt.py`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from html import escape
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.overrides import parse_yaml
from adapt.plug import UserError, nearest
from adapt.recipe import Recipe
from adapt.run import atomic

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image as Picture

HELP = """adapt prompt recipe=NAME image=FILE QUESTION [out=FILE.png] [overwrite=true]

What you can ask depends on the recipe's model:

  text='segment the red apple'    SAM and CLIP: the masks of what is named, the
                                  best first. Several things: text='apple; bus'
                                  Not these: without='green apple; leaf'
  point=40,60 outside=90,20       SAM: the mask at a point (x,y in pixels) and
                                  not at another; several: point='40,60; 50,70'
  box=20,30,80,90                 SAM: the mask in a box (left,top,right,bottom
                                  in pixels), and at points. jitter=8: the mask
                                  on which eight boxes near it agree most
  grid=16                         SAM: all masks, asked by 16 × 16 points
  box=20,30,80,90 text='cat, dog' CLIP, PaliGemma: which of the names is in the
                                  box; without text, of the data's classes
  text='the red apple' boxes='20,30,80,90; 5,5,40,60'
                                  CLIP, PaliGemma: which of the boxes is meant
  text='ants, bees; wasps'        CLIP: the share of each name. A name with a
                                  comma: text='[ants, "wasps, hornets"]'.
                                  Without text, and for an adapted DINOv2: the
                                  classes of the recipe's data
  example=FILE mask=FILE          DINOv2: what the mask marks on the example;
                                  the mask is not 0 there
  text='detect cat ; dog'         PaliGemma, Florence-2: the answer in words,
                                  and the boxes in it

The answer is printed and written: drawn on the picture (out=, by default
prompt.png), as a mask (prompt.mask.png: 255 inside, 0 outside), and in numbers
(prompt.json: masks as COCO RLE, boxes as left, top, right, bottom in pixels).
Existing files stay: without out= the next free name is taken (prompt-2.png);
with out= an existing file needs overwrite=true.

Other arguments are the recipe's: model.checkpoint=facebook/sam-vit-base."""
REPEATED = ("point", "outside")
"""What may be given several times."""
WORDS = ("image", "text", "without", "example", "mask")
COUNTS = {"jitter": 64, "grid": 256}
"""What is a number, and the most it may be."""
EMPTY = (int, Sequence)
"""What may be empty: numbers, texts and lists; a picture is none."""
SIDE = 256
"""Pixels of the longer side of an answer's picture in a notebook, at least; twice as many at most."""


@dataclass
class Question:
    """What is asked of a picture; which of these go together is the family's to say."""

    image: str | Path | Picture.Image | np.ndarray
    """A file; from Python also a picture, or an array uint8[H, W, 3]."""
    text: str | Sequence[str] = ""
    """Words: a thing ("segment the red apple"), a question ("detect cat ; dog"), or class names: a list, or apart by , or ;."""
    point: Sequence[tuple[float, float]] = ()
    """x, y in pixels, on the thing; several are of one thing."""
    outside: Sequence[tuple[float, float]] = ()
    """x, y in pixels, not on the thing."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom in pixels."""
    boxes: Sequence[tuple[float, float, float, float]] = ()
    """The same, two or more, of which one is meant by `text`."""
    without: str = ""
    """Words for what is not meant by `text`, apart by ; or ,."""
    jitter: int = 0
    """Ask with so many boxes, `box` and others like it; 0: with it alone."""
    grid: int = 0
    """Points along each side of the picture, each of which is asked for its masks; 0: none."""
    example: str | Path | Picture.Image | np.ndarray = ""
    """The same of another picture of the thing, with its `mask`."""
    mask: str | Path | Picture.Image | np.ndarray = ""
    """The same: not 0 where the example shows the thing; an array may be bool[H, W]."""

    def given(self) -> dict[str, object]:
        """The parts that are not empty, without the picture itself."""
        parts = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "image"}
        return {name: value for name, value in parts.items() if not (value is None or (isinstance(value, EMPTY) and not value))}

    def told(self) -> dict[str, object]:
        """The same for JSON: files by their names."""
        return {name: value if isinstance(value, EMPTY) else called(value) for name, value in self.given().items()}

    def names(self) -> list[str]:
        """The class names of `text`, each once.

        Raises:
            UserError: there is no name, or a part of a list is no word.
        """
        listed = self.text
        if isinstance(listed, str) and listed.strip().startswith("["):
            listed = parse_yaml(listed, "text")
        if isinstance(listed, str):
            listed = listed.replace(";", ",").split(",")
        names = [" ".join(str(name).split()) for name in listed if not isinstance(name, list | dict | None)]
        if len(names) < len(listed) or not any(names):
            raise UserError(f"text: {self.text!r} is not a list of names. Write text='ants, bees' or text='[ants, bees]'.")
        return list(dict.fromkeys(filter(None, names)))


OWN = (*(field.name for field in fields(Question)), "out", "overwrite")


def called(picture: str | os.PathLike | Picture.Image | np.ndarray) -> str:
    """A file's path; of a picture in memory, that it is one."""
    return str(picture) if isinstance(picture, str | os.PathLike) else "(a picture)"


def parse(arguments: list[str]) -> tuple[Question, Path]:
    """Take a question's own arguments out of those of a verb: the question, and the file that the drawn answer goes to.

    Raises:
        UserError: an argument is unknown, repeated or no number, or a file is there that would be overwritten.
    """
    given: dict[str, list[str]] = {}
    for argument in list(arguments):
        name, equals, value = argument.partition("=")
        if name in OWN and equals:
            arguments.remove(argument)
            given.setdefault(name, []).append(value)
        elif not equals:
            raise UserError(f"{argument!r} has no name before it. Write key=value, such as image=scene.png.")
        elif "." not in name and name not in (*Recipe.model_fields, "recipe", "run"):
            raise UserError(
                f"{name}: a question has no part of this name.{nearest(name, OWN)} Or a path into the recipe, such as model.checkpoint."
            )
    for name, values in given.items():
        if len(values) > 1 and name not in REPEATED:
            raise UserError(f"{name}: given {len(values)} times: {', '.join(map(repr, values))}. Give it once.")
    if not given.get("image", [""])[0]:
        raise UserError(
            "image: missing. Write adapt prompt recipe=NAME image=FILE text='segment the red apple'. All ways to ask: adapt help prompt"
        )
    question = Question(**{name: values[0] for name, values in given.items() if name in WORDS})
    for name, most in COUNTS.items():
        setattr(question, name, _count(name, given.get(name, ["0"])[0], most))
    for name in REPEATED:
        setattr(question, name, list(chain(*(_numbers(name, value, "x,y") for value in given.get(name, [])))))
    if boxes := [_numbers("box", value, "left,top,right,bottom") for value in given.get("box", [])]:
        if len(boxes[0]) > 1:
            raise UserError(f"box: {given['box'][0]!r} has {len(boxes[0])} boxes. Give one.")
        question.box = boxes[0][0]
    question.boxes = list(chain(*(_numbers("boxes", value, "left,top,right,bottom") for value in given.get("boxes", []))))
    return question, _place(question, given.get("out", [None])[0], given.get("overwrite", ["false"])[0])


def look(question: Question) -> None:
    """Look for the files of a question, before anything heavy is imported.

    Raises:
        UserError: one is missing.
    """
    for name, path in (("image", question.image), ("example", question.example), ("mask", question.mask)):
        if path and not Path(path).expanduser().exists():
            raise UserError(f"{name}: {path!r} is not a usable picture: unreadable (the file is missing). Give another file.")


def _count(name: str, text: str, most: int) -> int:
    """'8' → 8."""
    if not (text.isascii() and text.isdecimal() and int(text) <= most):
        raise UserError(f"{name}: {text[:40]!r} is not a number from 1 to {most}. Write {name}={min(8, most)}.")
    return int(text)


def _numbers(name: str, text: str, what: str) -> list[tuple[float, ...]]:
    """'1,2; 3,4' → [(1.0, 2.0), (3.0, 4.0)]; `what` names the numbers of a group."""
    groups = []
    for part in text.strip("; ").split(";"):
        try:
            groups.append(tuple(float(number) for number in part.split(",")))
        except ValueError:
            groups.append(())
        wanted = what.count(",") + 1
        if len(groups[-1]) != wanted or not all(map(math.isfinite, groups[-1])):
            example = ",".join(map(str, (20, 30, 80, 90)[:wanted]))
            raise UserError(f"{name}: {part.strip()!r} is not {wanted} numbers, {what} in pixels. Write {name}={example}.")
    return groups


# ------------------------------------------------------------------------------------------------------------------ files


@dataclass(repr=False)
class Answer:
    """What the model says of a picture."""

    lines: list[str]
    """To be printed."""
    found: dict[str, Any]
    """The same in numbers, for JSON: `masks` (rle, box XYXY in pixels, pixels, score), `objects` (name, box, score) or `classes`."""
    picture: Picture.Image | None = None
    """The picture with the answer drawn on it, if there is something to draw."""
    mask: np.ndarray | None = None
    """bool[H, W] in the picture's size, the best one; of a question for a mask."""

    def __str__(self) -> str:
        return "\n".join(self.lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """As a notebook shows it: the lines beside the drawn picture."""
        from adapt.report.gallery import figure

        drawn = figure(self.picture, "", min(max(*self.picture.size, SIDE), 2 * SIDE)) if self.picture else ""
        said = f'<pre style="flex:1 1 240px;white-space:pre-wrap;overflow-wrap:anywhere">{escape(str(self))}</pre>'
        return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{drawn}{said}</div>'

    def write(self, out: Path) -> list[str]:
        """Write what there is to `files(out)`, and say where it lies.

        Raises:
            UserError: a file cannot be written.
        """
        from PIL import Image

        drawn, mask, numbers = files(out)
        shape = None if self.mask is None else Image.fromarray(self.mask.astype("uint8") * 255)
        told = []
        for name, path, picture in (("Drawn", drawn, self.picture), ("Mask", mask, shape)):
            if picture is None:
                path.unlink(missing_ok=True)  # of an earlier answer, that may be overwritten
                continue
            with atomic(path) as temporary:
                picture.save(temporary, "PNG")
            told.append(f"{name}: {path}")
        with atomic(numbers) as temporary:
            temporary.write_text(
                json.dumps(self.found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", errors="replace"
            )
        return [*told, f"Numbers: {numbers}"]


def files(out: Path) -> tuple[Path, Path, Path]:
    """Where an answer goes: the drawn picture, the mask, the numbers."""
    return out, out.with_suffix(".mask.png"), out.with_suffix(".json")


def _place(question: Question, out: str | None, overwrite: str) -> Path:
    """The file for the drawn picture; neither it nor the files beside it are there, unless they may be overwritten.

    Raises:
        UserError: no such folder, no .png, or a file that must not be overwritten.
    """
    if overwrite not in ("true", "false"):
        raise UserError(f"overwrite: {overwrite!r} is not true or false. Write overwrite=true.")
    if out is None:
        names = chain(["prompt.png"], (f"prompt-{i}.png" for i in count(2)))
        path = next(path for path in map(Path, names) if overwrite == "true" or not _taken(path))
    else:
        path = Path(out).expanduser()
    if path.suffix.lower() != ".png" or any(file.is_dir() for file in files(path)):
        raise UserError(
            f"out: {str(path)!r} cannot be the name of a PNG file. Write, for example, out={path.stem or 'found'}.png."
        )
    if not path.parent.is_dir():
        raise UserError(f"out: no folder {str(path.parent)!r}. Give a file in a folder that exists.")
    asked = [Path(name).expanduser().resolve() for name in (question.image, question.example, question.mask) if name]
    for file in files(path):
        if file.resolve() in asked:
            raise UserError(f"out: {str(file)!r} is a file of the question itself. Give another name.")
    if (taken := _taken(path)) and overwrite == "false":
        raise UserError(f"out: {str(taken)!r} exists already. Give another name, or overwrite=true.")
    return path


def _taken(out: Path) -> Path | None:
    """The first file that is there already."""
    return next((file for file in files(out) if file.exists() or file.is_symlink()), None)
