"""A JSON file, one element of its lists at a time: a file of any size is read in little memory."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from adapt.plug import UserError
from adapt.provenance import stamp
from adapt.run import atomic
from adapt.vision.pictures import cache_folder, digest

WINDOW = 1 << 22
"""Characters that are read at once."""
MOST = 1 << 26
"""Characters of a single element; what is longer is refused."""
VERSION = 1
"""To be raised when more of a file is remembered."""
_SPACE = re.compile(r"[ \t\r\n]*")


class Stream:
    """A text file's JSON: `peek` and `value` go through it from its beginning.

    Args:
        path: UTF-8, with or without a byte order mark.
    """

    def __init__(self, path: Path):
        self.path = path
        self._file = path.open(encoding="utf-8-sig", newline="")
        self._decode = json.JSONDecoder().raw_decode
        self._text, self._at, self._over = "", 0, False
        self._lines, self._column = 1, 1  # where the window begins

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _more(self, characters: int) -> None:
        """Forget what is behind, and read on."""
        behind = self._text[: self._at]
        lines = behind.count("\n")
        self._column = len(behind) - behind.rfind("\n") if lines else self._column + len(behind)
        self._lines += lines
        try:
            new = self._file.read(characters)
        except UnicodeDecodeError as error:
            raise UserError(f"data.path: {self.path.name}: it is not UTF-8 ({error.reason}). Save it as UTF-8.") from None
        self._over = not new
        self._text, self._at = self._text[self._at :] + new, 0

    def peek(self) -> str:
        """The next character that is no space; empty at the end of the file."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()
            if self._at < len(self._text) or self._over:
                return self._text[self._at : self._at + 1]
            self._more(WINDOW)

    def skip(self, expected: str) -> str:
        """Go past the next character, which must be one of the expected."""
        found = self.peek()
        if not found or found not in expected:
            have = repr(found) if found else "the end of the file"
            raise self.error(f"{' or '.join(map(repr, expected))} is expected, and here is {have}", self._at)
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                found, end = self._decode(self._text, self._at)
                if end < len(self._text) or self._over:  # else it may go on: 12 of 123
                    self._at = end
                    return found
            except json.JSONDecodeError as error:
                if self._over:
                    raise self.error(error.msg, error.pos) from None
                if len(self._text) - self._at > MOST:
                    raise self.error(error.msg, error.pos) from None
            except RecursionError:
                raise self.error("lists in lists, too deep to be read", self._at) from None
            except ValueError as error:  # a number of thousands of digits
                raise self.error(str(error).partition(";")[0], self._at) from None
            self._more(max(WINDOW, len(self._text)))

    def error(self, reason: str, at: int) -> UserError:
        """What is wrong at a place of the window."""
        before = self._text[:at]
        lines = before.count("\n")
        column = at - before.rfind("\n") if lines else self._column + at
        where = f"{self.path.name}, line {self._lines + lines}, column {column}"
        return UserError(f"data.path: {where}: no JSON: {reason}. Correct it, or copy the file again.")


def elements(
    path: Path, wanted: Collection[str], counts: dict[str, int] | None = None, others: dict[str, Any] | None = None
) -> Iterator[tuple[str, Any]]:
    """The elements of a JSON object's lists: (key, element), in the order of the file.

    Args:
        wanted: the keys whose lists are told; another value of such a key is a mistake.
        counts: all keys are added to it, with the number of their elements.
        others: what is no list is added to it.

    Raises:
        UserError: the file is no JSON object, with line and column.
    """
    try:
        stream = Stream(path)
    except OSError as error:
        raise UserError(f"data.path: {path.name}: it cannot be read: {error.strerror}.") from None
    with stream:
        stream.skip("{")
        if stream.peek() == "}":
            return
        while True:
            key = stream.value()
            if not isinstance(key, str):
                raise UserError(f"data.path: {path.name}: {str(key)[:40]!r} stands where a key should.")
            stream.skip(":")
            number = 0
            if stream.peek() == "[":
                for element in _list(stream):
                    number += 1
                    if key in wanted:
                        yield key, element
            else:
                value = stream.value()
                if value is not None and key in wanted:
                    raise UserError(f"data.path: {path.name}: {key!r} must be a list.")
                if others is not None:
                    others[key] = value
            if counts is not None:
                counts[key] = counts.get(key, 0) + number
            if stream.skip(",}") == "}":
                return


def head(path: Path, kept: dict[str, tuple[str, ...]]) -> tuple[dict[str, int], dict[str, list]]:
    """All keys of a JSON object with the number of their elements, and the elements of some of its lists; remembered, so that a file
    that has not changed is not read.

    Args:
        kept: key → what is kept of its elements, where they are objects.
    """
    memory = cache_folder("annotated") / f"{digest(VERSION, kept, str(path), *stamp(path))}.head.json"
    try:
        counts, found = json.loads(memory.read_text())
        return counts, found
    except (OSError, ValueError):
        counts: dict[str, int] = {}
        lists: dict[str, list] = {key: [] for key in kept}
    for key, element in elements(path, kept, counts):
        good = isinstance(element, dict)
        lists[key].append({name: element[name] for name in kept[key] if name in element} if good else element)
    with (
        suppress(UserError, OSError),
        atomic(memory) as temporary,
    ):  # a memory that cannot be written costs time and nothing else
        temporary.write_text(json.dumps([counts, lists]))
    return counts, lists


def _list(stream: Stream) -> Iterator[Any]:
    """The elements of the list that comes next."""
    stream.skip("[")
    if stream.peek() == "]":
        stream.skip("]")
        return
    while True:
        yield stream.value()
        if stream.skip(",]") == "]":
            return
