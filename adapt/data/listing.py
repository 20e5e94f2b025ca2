"""What files list before any picture is opened: pictures, what is said of them, classes, and where names in them lead."""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from adapt.plug import UserError, counted, nearest

if TYPE_CHECKING:
    from adapt.data.problems import Problem


_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""A file's name that needs no thought."""


@dataclass(frozen=True, eq=False)
class Listed:
    """A picture that a file names, or that lies beside one."""

    id: str
    """The row's id."""
    file: str
    """Path below the folder, with `/`."""
    split: str
    """As given; '' where nothing says it."""
    key: Any = None
    """How the source finds its annotations."""
    size: tuple[int, int] | None = None
    """Width and height as the annotations say, pixels."""
    label: str | None = None
    """Its class."""
    group: str = ""
    """Pictures of one group are drawn into one split; '' is a group of its own."""
    place: str = ""
    """Where it is said, for messages: 'labels.csv, line 3'."""
    told: bool = True
    """Has anybody looked at it? Otherwise it is `unlabelled`."""

    def problem(self, kind: str, detail: str = "") -> Problem:
        """What is wrong with it."""
        from adapt.data.problems import Problem

        return Problem(self.id, self.split, kind, ": ".join(filter(None, (self.place, detail))))


@dataclass
class Listing:
    """What a source has found before any picture was opened."""

    root: Path
    """The folder that pictures may not lie outside of, absolute."""
    pictures: list[Listed] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """The classes, of the pictures or of the things on them, in the order of the data."""
    problems: list[Problem] = field(default_factory=list)
    origin: dict[str, str] = field(default_factory=dict)
    """Given split, or '' → where it comes from, in a few words."""
    made_of: list[Path] = field(default_factory=list)
    """The annotation files; what else the rows depend on is in the pictures."""


class Places:
    """Where the names in annotation files lead: below a folder, or nowhere.

    Args:
        root: absolute, resolved.
        follow: links that lead outside are followed.
    """

    def __init__(self, root: Path, follow: bool = False):
        self.root, self.follow = root, follow
        self._inside = cache(lambda folder: Path(folder).resolve().is_relative_to(root))
        self._real = cache(lambda folder: posixpath.relpath(os.path.realpath(folder), root.as_posix()))

    def below(self, name: str, start: str = "") -> str | None:
        """A name in a file → the path below the root, with `/`; none when it leads out of it.

        Args:
            name: `/` and `\\` both separate; an absolute one is good if it lies below the root, by links to folders too.
            start: path below the root that relative names start from.
        """
        if _PLAIN.fullmatch(name) and _plain(start):  # nearly all are, and there are hundreds of thousands of them
            return f"{start}/{name}" if start else name
        name = name.strip().replace("\\", "/")
        if name.startswith("/") and "\0" not in name:
            name, start = self._from_root(name), ""
        path = posixpath.normpath(posixpath.join(start, name))
        outside = _out(path) or re.match(r"[A-Za-z]:", name) or "\0" in name
        return None if outside else path

    def _from_root(self, name: str) -> str:
        """An absolute name as a path from the root, which is resolved, while the name may come to it through a link."""
        path = posixpath.relpath(name, self.root.as_posix())
        if not _out(path):
            return path
        name = posixpath.normpath(name)
        with suppress(OSError, ValueError):  # a name that no file can have
            for folder in map(str, PurePosixPath(name).parents):
                if not _out(start := self._real(folder)):
                    return posixpath.join(start, posixpath.relpath(name, folder))
        return path

    def wrong(self, path: str) -> tuple[str, str] | None:
        """Kind and detail of what is wrong with the picture at a path below the root; none when it is a regular file there."""
        place = os.path.join(self.root, path)
        try:
            status = os.lstat(place)
            link = stat.S_ISLNK(status.st_mode)
            if not self.follow and not (self._inside(os.path.dirname(place)) and (not link or self._inside(place))):
                return "leads outside", f"to {os.path.realpath(place)}"
            if stat.S_ISREG((os.stat(place) if link else status).st_mode):
                return None
        except (OSError, ValueError):
            return "missing picture", f"no file {path!r}"
        return "missing picture", f"{path!r} is no regular file"

    def find(self, name: str, start: str = "") -> str:
        """A picture's path below the root, with `/`.

        Raises:
            Bad: it leads outside, is an address of the web, or no file.
        """
        from adapt.data.problems import Bad

        if "://" in name[:16]:
            raise Bad("web address", f"{name[:200]!r}; nothing is fetched")
        path = self.below(name, start)
        if path is None:
            raise Bad("leads outside", f"{name[:200]!r} lies outside {self.root}; data.images names another folder")
        wrong = self.wrong(path)
        if wrong and wrong[0] == "missing picture":
            raise Bad("no picture", f"no picture {name[:200]!r} in {self.root}")
        if wrong:
            raise Bad(*wrong)
        return path


def _out(path: str) -> bool:
    """Does a relative path lead out of where it starts?"""
    return path == ".." or path.startswith("../")


@cache
def _plain(folder: str) -> bool:
    """Is it a path below the root that needs no thought?"""
    return not folder or all(map(_PLAIN.fullmatch, folder.split("/")))


def kept_names(names: Sequence[str], classes: dict[str, str | None]) -> tuple[list[str], list[int | None]]:
    """The classes' names after `data.classes`, and for each of the data's names its number among them; none: left out.

    Raises:
        UserError: a name is none of the data's; no class is left.
    """
    for name in classes:
        if name not in names:
            raise UserError(f"data.classes: the data have no class {name!r}.{nearest(name, dict.fromkeys(names))}")
    new = [classes.get(name, name) for name in names]
    kept = list(dict.fromkeys(name for name in new if name is not None))
    if names and not kept:
        raise UserError("data.classes leaves out all classes of the data. Leave one in.")
    numbers = {name: number for number, name in enumerate(kept)}
    return kept, [None if name is None else numbers[name] for name in new]


def left_out(labels: Iterable[str], what: str = "picture") -> list[Problem]:
    """What is told of the pictures, or objects, that `data.classes` leaves out, by their labels."""
    from adapt.data.problems import LEFT_OUT, Problem

    return [Problem(name, "", LEFT_OUT, counted(number, what)) for name, number in sorted(Counter(labels).items())]


def single_class(name: str, path: str) -> UserError:
    """The error, where all pictures have the same class."""
    return UserError(f"data.path: only one class, {name!r}, in {path!r}. A classifier needs two or more.")


def printable(text: str) -> str:
    """A text that can be written: halves of characters, which JSON can spell, become question marks."""
    return text.encode("utf-8", "replace").decode("utf-8")


def passed_over(where: str, what: dict[str, int]) -> list[Problem]:
    """What a source has not read, with how often it was there: `{"keypoints": 12}`."""
    from adapt.data.problems import Problem

    return [Problem(where, "", "passed over", f"{name}: {counted(number, 'time')}") for name, number in what.items() if number]
