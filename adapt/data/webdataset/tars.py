"""Where the tars of a data set lie, which split each is of, and the names of the classes beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from itertools import islice
from os.path import abspath, commonpath
from pathlib import Path

from adapt.data.places import existing, expanded
from adapt.data.problems import Problem
from adapt.data.scan import SPLIT_FOLDERS
from adapt.plug import UserError, counted

MOST = 100_000
"""Tars of a data set."""
LONGEST = 1 << 24
"""Bytes of classnames.txt, and of what else is read beside the tars."""
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
NAMES, COUNT, KIND, TEMPLATES = "classnames.txt", "nshards.txt", "dataset_type.txt", "zeroshot_classification_templates.txt"
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
WANTED = "Give a tar, a folder of tars, a folder with train/, val/, test/ that have tars, or a pattern: 'shards/{000..009}.tar'"


@dataclass(frozen=True)
class Shard:
    """A tar of a data set."""

    path: Path
    name: str
    """Its path below the root, without `.tar`."""
    split: str
    """'' where neither its folder nor its name says it."""


def tars(path: str, follow: bool = False) -> tuple[Path, list[Shard], list[Problem]]:
    """What `data.path` means.

    Args:
        follow: links of a folder's tars that lead out of the folder.

    Returns:
        The folder that names start from, absolute; its tars, in the order of the numbers in their names; what is missing.

    Raises:
        UserError: there is none.
    """
    place = expanded(path)
    if place.is_dir():
        return _of_folder(place.resolve(), path, follow)
    named = [place] if place.is_file() else _pattern(path, str(place))
    there = [Path(abspath(file)) for file in named if file.is_file()]
    if not there:
        if not named:
            existing(path, "data.path")  # which says what is there instead
        raise UserError(f"data.path: no tar {str(named[0])!r}, looked in {Path.cwd()}. {WANTED}.")
    root = Path(commonpath([file.parent for file in there]))
    missing = [Problem(file.name, "", "unreadable", "the file is missing") for file in named if not file.is_file()]
    return root, _shards(root, there), missing


def _pattern(path: str, place: str) -> list[Path]:
    """The files that a pattern with braces, or with *, means."""
    if "{" in path:
        found = list(islice(_spelt(place), MOST + 1))
        if len(found) > MOST:
            raise UserError(f"data.path: {path!r} means more than {MOST:,} files. Correct the numbers in the braces.")
        return [Path(name) for name in found]
    return [Path(name) for name in glob(place)] if has_magic(path) else []


def _spelt(pattern: str) -> Iterator[str]:
    """`a{08..10}.tar` → a08.tar, a09.tar, a10.tar; `{a,b}.tar` → a.tar, b.tar; as a shell does."""
    braces = BRACES.search(pattern)
    if not braces:
        yield pattern
        return
    inside = RANGE.fullmatch(braces[1])
    if not inside and "," not in braces[1]:
        raise UserError(
            f"data.path: {{{braces[1]}}} in {pattern!r} must be a range such as {{000..009}}, or a list such as {{a,b}}."
        )
    width = max(map(len, inside.groups())) if inside and any(end[0] == "0" and len(end) > 1 for end in inside.groups()) else 1
    parts = (
        (f"{number:0{width}}" for number in range(int(inside[1]), int(inside[2]) + 1)) if inside else iter(braces[1].split(","))
    )
    for part in parts:
        yield from _spelt(pattern[: braces.start()] + part + pattern[braces.end() :])


def _of_folder(root: Path, typed: str, follow: bool) -> tuple[Path, list[Shard], list[Problem]]:
    splits = [item for item in sorted(root.iterdir()) if item.is_dir() and item.name.lower() in SPLIT_FOLDERS]
    places = [place for place in splits if any(place.glob("*.tar"))] or [root]
    files = [file for place in places for file in place.glob("*.tar") if file.is_file()]
    if not files:
        packed = [item.name for place in (root, *splits) for item in sorted(place.iterdir()) if item.name.endswith(PACKED)]
        hint = f" {packed[0]!r} is compressed: unpack it to a .tar first." if packed else ""
        raise UserError(f"data.path: no .tar in {typed!r}.{hint} {WANTED}.")
    outside = [] if follow else [file for file in files if not file.resolve().is_relative_to(root)]
    shards = _shards(root, [file for file in files if file not in outside])
    problems = [Problem(file.relative_to(root).as_posix(), "", "leads outside", f"to {file.resolve()}") for file in outside]
    return root, shards, problems + [problem for place in places for problem in _beside(root, place)]


def _shards(root: Path, files: list[Path]) -> list[Shard]:
    names = {file: file.relative_to(root).as_posix().removesuffix(".tar") for file in set(files)}
    return [Shard(file, name, _split(name)) for file, name in sorted(names.items(), key=lambda item: _order(item[1]))]


def _split(name: str) -> str:
    """test/0 → 'test'; imagenet-validation-07 → 'validation'; 00000 → ''."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS), "")


def _order(name: str) -> list[tuple[int, str]]:
    """2.tar before 10.tar."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.findall(r"\d{1,18}|\D+", name)]


def _beside(root: Path, place: Path) -> Iterator[Problem]:
    """Tars that a set says it has and has not, and files that are not read."""
    here = place.relative_to(root).as_posix().removeprefix(".")
    said, there = text(place / COUNT).strip(), len(list(place.glob("*.tar")))
    if said.isascii() and said[:18].isdecimal() and int(said[:18]) != there:
        where = f"{here}/{COUNT}".removeprefix("/")
        yield Problem(
            where,
            _split(here),
            "bad entry",
            f"it says {counted(int(said[:18]), 'tar')}, and there {'is' if there == 1 else 'are'} {there:,}",
        )
    known = {NAMES, COUNT, KIND}
    others = [item.name for item in place.iterdir() if item.is_file() and item.suffix != ".tar" and item.name not in known]
    others += [TEMPLATES] if place != root and (root / TEMPLATES).is_file() and here and _split(here) == "train" else []
    if TEMPLATES in others:
        others.remove(TEMPLATES)
        yield Problem(TEMPLATES, "", "passed over", "its lines can be given as prompts.templates")
    if others:
        yield Problem(
            here or ".", _split(here), "passed over", f"{counted(len(others), 'file')} beside the tars, such as {min(others)!r}"
        )


def text(file: Path) -> str:
    """A small file's text, empty where there is none.

    Raises:
        UserError: it is too large, or not UTF-8.
    """
    if not file.is_file():
        return ""
    with open(file, "rb") as stream:
        content = stream.read(LONGEST + 1)
    if len(content) > LONGEST:
        raise UserError(f"data.path: {file} has more than {LONGEST >> 20} MB. It must be a short text.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"data.path: {file} is not UTF-8 text. Write it again as UTF-8.") from None


def class_names(root: Path, shards: list[Shard]) -> tuple[list[str], list[Problem]]:
    """`numbered` of classnames.txt, beside the tars or in a folder above; nothing, where there is no such file."""
    places = dict.fromkeys([*(shard.path.parent for shard in shards), root, root.parent])
    file = next((place / NAMES for place in places if (place / NAMES).is_file()), None)
    return numbered(file) if file else ([], [])


def numbered(file: Path) -> tuple[list[str], list[Problem]]:
    """The lines of a list of classes, the number 0 first.

    A name that is there twice gets its number, since two classes cannot share one.

    Raises:
        UserError: it has an empty line.
    """
    lines = [line.strip() for line in text(file).rstrip().split("\n")]
    if lines == [""]:
        lines = []
    names: dict[str, int] = {}
    problems = []
    for number, name in enumerate(lines):
        if not name:
            raise UserError(f"data.path: {file}, line {number + 1} is empty. Write one class a line, the class 0 on the first.")
        own = name
        while own in names:
            own = f"{own} ({number})"
        if own != name:
            detail = f"line {number + 1} has {name!r} again, and is called {own!r}"
            problems.append(Problem(NAMES, "", "passed over", detail))
        names[own] = number
    return list(names), problems
