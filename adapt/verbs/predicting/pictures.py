"""The pictures that are asked about: found in a stable order, looked at one by one, and what is wrong with those that cannot be used."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapt.data.places import expanded
from adapt.plug import UserError

LINE = 4096
"""Bytes of a line of a list, at most."""
MISSING = "give a folder, a picture, a glob in quotes such as images='photos/*.jpg', or a .txt file with a path a line"


@dataclass(frozen=True)
class Pictures:
    """Files below one folder."""

    root: Path
    """Absolute."""
    ids: list[str]
    """Paths below `root`, with /, each once."""
    problems: list[tuple[str, str, str]] = field(default_factory=list)
    """What was passed over: (id, kind, detail); kinds are the keys of `data.problems.KINDS`."""

    def digest(self) -> str:
        """Of the files' names, sizes and times of their last change: other pictures, or changed ones, have another."""
        total = hashlib.sha256()
        for name in self.ids:
            try:
                status = os.stat(self.root / name)
                known = (status.st_size, status.st_mtime_ns)
            except (OSError, ValueError):
                known = ()
            total.update(f"{name}\0{known}\n".encode())
        return total.hexdigest()[:16]


def found(images: str) -> Pictures:
    """The pictures of a folder, a glob, a list or a single file.

    Raises:
        UserError: there are none, or a list cannot be read.
    """
    from adapt.data.scan import walk
    from adapt.vision.pictures import SUFFIXES

    path = expanded(images)
    if path.is_dir():
        root = path.resolve()
        pictures = Pictures(root, *walk(root))
    elif path.is_file():
        pictures = _below(_listed(path) if path.suffix.lower() == ".txt" else [str(path)])
    elif glob.has_magic(images):
        names = sorted(set(glob.iglob(str(path), recursive=True)))
        pictures = _below(name for name in names if Path(name).suffix.lower() in SUFFIXES and Path(name).is_file())
    else:
        raise UserError(f"images: there is no {images!r}; {MISSING}.")
    if not pictures.ids:
        raise UserError(f"images: {images!r} has no pictures ({', '.join(SUFFIXES)}); {MISSING}.")
    return pictures


def _below(names: Iterable[str]) -> Pictures:
    """Files, in their order, below the folder that they share."""
    paths, problems = [], []
    for name in dict.fromkeys(os.path.abspath(name) for name in names):
        try:
            name.encode()
            paths.append(name)
        except UnicodeEncodeError:
            shown = os.fsencode(name).decode("utf-8", "backslashreplace")
            problems.append((shown, "unreadable", "the file's name is not UTF-8"))
    root = Path(os.path.commonpath([os.path.dirname(path) for path in paths])) if paths else Path.cwd()
    return Pictures(root, [Path(path).relative_to(root).as_posix() for path in paths], problems)


def _listed(path: Path) -> Iterator[str]:
    """The lines of a list, as paths; relative ones are below its folder.

    Raises:
        UserError: a line is too long or no text.
    """
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(LINE + 1):
            number += 1
            place = f"images: {path}, line {number}"
            if len(line) > LINE:
                raise UserError(f"{place}: longer than {LINE} bytes: no path. Write a path a line.")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise UserError(f"{place}: not UTF-8. Save the list as UTF-8, a path a line.") from None
            if "\0" in text:
                raise UserError(f"{place}: has a NUL character: no path. Write a path a line.")
            if text:
                yield str(path.parent / expanded(text))


# -------------------------------------------------------------------------------------------------------------- looked at


@dataclass(frozen=True)
class Looked:
    """A picture as the model takes it, or what is wrong with it."""

    number: int
    """Its place among the pictures, from 0."""
    id: str
    size: tuple[int, int] = (0, 0)
    """Width and height in pixels, turned as EXIF says."""
    prepared: Any = None
    problem: tuple[str, str] | None = None
    """Kind and detail."""
    tile: tuple[int, int, int, int] | None = None
    """Left, top, right, bottom in pixels, of a picture that is cut."""

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height of what the model sees: of the tile, or of the picture."""
        return self.size if self.tile is None else (self.tile[2] - self.tile[0], self.tile[3] - self.tile[1])


def look(pictures: Pictures, number: int, prepare: Callable[[Any], Any]) -> Looked:
    """Decode a picture and prepare it; the same that a training refuses is a problem here."""
    from adapt.data.problems import KINDS
    from adapt.data.scan import THIN, inspect
    from adapt.vision.pictures import open_picture, reason, rgb

    name = pictures.ids[number]
    value = {"path": str(pictures.root / name), "bytes": None}
    try:
        image = open_picture(value)
        if max(image.size) > THIN * min(image.size):
            return Looked(number, name, problem=("too thin", f"{image.width} × {image.height}"))
        picture = rgb(image)
    except Exception as error:  # decoders raise nearly anything on broken bytes
        severe = (problem for problem in inspect(value).problems if KINDS[problem[0]][0])
        return Looked(number, name, problem=next(severe, ("unreadable", reason(error))))
    return Looked(number, name, picture.size, prepare(picture))
