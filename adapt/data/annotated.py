"""Pictures with boxes and masks that annotation files name: what `coco`, `yolo` and `voc` share.

A source lists the pictures and the classes (`Listing`), and reads the objects of those that can be opened (`read`). What is done here
is the same for all: looking at the pictures, keeping the rows, leaving out what is wrong, splits, groups, limits.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from adapt.contracts import SourceConfig
from adapt.data.listing import Listed, Listing, kept_names, present
from adapt.plug import UserError

if TYPE_CHECKING:
    from adapt.data.objects import Objects
    from adapt.data.problems import Problem, Report
    from adapt.data.scan import Finding
    from adapt.data.split import Splits

DRAWING = {"validation", "test", "seed", "group", "limit", "on_error"}
"""Options that change no row."""
VERSION = 1
"""To be raised when rows are made otherwise, so that kept ones are made again."""


class AnnotatedConfig(SourceConfig):
    """Base of the `Config` of `coco`, `yolo` and `voc`."""

    path: str
    """Where the annotations lie: a folder, or the file that describes it."""
    masks: bool = True
    """Read masks, where every object has one; false: boxes alone."""
    classes: dict[str, str | None] = {}
    """Name of a class → another name, which may be that of another class: then they are joined; null leaves its objects out."""
    validation: float = Field(0.15, ge=0, le=0.9)
    """Share of the pictures for validation, when the data have none; 0 = none."""
    test: float = Field(0.15, ge=0, le=0.9)
    """Share of the pictures for the test, when the data have none; 0 = none."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of the split and of `limit`, which depend on the rows' ids and on nothing else."""
    group: str | None = None
    """A regular expression; rows in whose id it finds the same first group are drawn into the same split: `(patient\\d+)`, `^(.*)_\\d+`.
    Then validation and test are shares of the groups."""
    limit: int | None = Field(None, ge=1)
    """The most rows of a split, drawn by `seed`; none: all."""
    follow_links: bool = False
    """Follow links to folders and files, also those that lead out of the folder; only regular files are opened."""
    on_error: Literal["stop", "skip"] = "stop"
    """Pictures, boxes and masks that cannot be used: stop and name them; or leave out the pictures they are of, whole, and list them in
    `report`."""

    @field_validator("group")
    @classmethod
    def _grouping(cls, pattern: str | None) -> str | None:
        try:
            groups = 1 if pattern is None else re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from None
        if not groups:
            raise ValueError("the expression needs a group in parentheses, such as (patient[0-9]+)")
        return pattern

    def check_paths(self) -> None:
        """The file or folder must be there."""
        present(self.path)


# ------------------------------------------------------------------------------------------------------------------ rows


def load_listed(config: AnnotatedConfig, listing: Listing, read: Callable[[Objects], None]) -> Splits:
    """The splits of listed pictures; what `read` adds is kept, so that files that have not changed are not read again.

    Args:
        read: adds the objects of the pictures that can be opened, and what is wrong with them.

    Raises:
        UserError: there is nothing that can be used; with `on_error: stop`, anything is wrong.
    """
    from adapt.data.problems import Report
    from adapt.data.split import Splits, by_split

    names = kept_names(listing.names, config.classes)
    good = _look(listing)
    table, found = _rows(config, listing, names, good, read)
    report = Report(len(listing.pictures), listing.problems + found)
    if config.on_error == "stop" and report.severe:
        raise report.error("data.path")
    bad = {problem.id for problem in report.severe}
    keep = [i for i, picture in enumerate(good) if picture.id not in bad]
    if not keep:
        raise _nothing(config, report)
    table = table.select(keep) if len(keep) < len(table) else table
    rows = list(good.items())
    ids, given, digests = table["id"][:], [rows[i][0].split for i in keep], [rows[i][1].digest for i in keep]
    split, origin = _drawn(config, listing.origin, ids, given, digests)
    report.problems += _groups_apart(config, ids, split)
    return Splits(_limited(config, by_split(table, split)), origin, report)


def _nothing(config: AnnotatedConfig, report: Report) -> UserError:
    first = f" The first problem: {report.severe[0]}." if report.severe else ""
    return UserError(f"data.path: no picture of {config.path!r} can be used.{first}")


def _look(listing: Listing) -> dict[Listed, Finding]:
    """The pictures that can be opened; what is wrong with any goes into the listing's problems."""
    from adapt.data.check import repeated
    from adapt.data.problems import Problem
    from adapt.data.scan import scan

    bad = {problem.id for problem in listing.problems if problem.severe}
    findings = scan(listing.root, list(dict.fromkeys(one.file for one in listing.pictures if one.id not in bad)))
    seen: dict = {}
    good = {}
    for picture in listing.pictures:
        if picture.id in bad:
            continue
        finding = findings[picture.file]
        wrong = [Problem(picture.id, picture.split, *problem) for problem in finding.problems]
        if finding.size and picture.size not in (None, finding.size):
            turned = " (turned by its EXIF tag)" if picture.size == finding.size[::-1] else ""
            detail = f"{_size(finding.size)}{turned}; the annotations say {_size(picture.size)}"
            wrong.append(Problem(picture.id, picture.split, "picture of another size", detail))
        listing.problems += [*wrong, *repeated(seen, finding, picture.id, picture.split, None)]
        if not any(problem.severe for problem in wrong):
            good[picture] = finding
    return good


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"


def _rows(config, listing: Listing, names, good: dict[Listed, Finding], read) -> tuple[Any, list[Problem]]:
    """A row for each picture, memory-mapped, and what is wrong with the objects."""
    from adapt.data.objects import Objects
    from adapt.data.problems import Problem
    from adapt.provenance import stamp
    from adapt.run import atomic
    from adapt.vision.pictures import cache_folder, cached, digest

    files = [(str(path), *stamp(path)) for path in listing.made_of]
    pictures = [(one.id, one.file, one.split, finding.digest) for one, finding in good.items()]
    options = config.model_dump_json(exclude=DRAWING)
    key = digest(VERSION, config.version, str(listing.root), options, names, files, pictures)
    folder = cache_folder("annotated")
    notes = folder / f"{key}.json"

    def build(path: Path) -> None:
        objects = Objects(listing, list(good), [finding.size for finding in good.values()], names, config.masks)
        read(objects)
        objects.write(path)
        with atomic(notes) as temporary:
            temporary.write_text(json.dumps(list(map(astuple, objects.problems))))

    if not notes.is_file():
        with suppress(FileNotFoundError):
            (folder / f"{key}.arrow").unlink()
    table = cached(folder / f"{key}.arrow", build)
    return table, [Problem(*each) for each in json.loads(notes.read_text())]


# ---------------------------------------------------------------------------------------------------------------- splits


def _drawn(config, origin: dict[str, str], ids, given: list[str], digests) -> tuple[list[str], dict[str, str]]:
    """A split for each row, as given or drawn from train, and where each split comes from.

    Rows with the same bytes, and rows of a group, are drawn together.
    """
    from adapt.data.split import percent, stratified

    present = set(given)
    if not present & {"", "train"}:
        if len(present) > 1:
            raise UserError(f"data.path: {config.path!r} has {' and '.join(sorted(present))}, and nothing to train on.")
        origin, given, present = origin | {"": origin[given[0]]}, [""] * len(given), {""}
    shares = {split: 0.0 if split in present else config.values()[split] for split in ("validation", "test")}
    keys = _together(_groups(config, ids), digests)
    called: dict[int, str] = {}  # each by its least id, so that the order of the rows changes nothing
    for key, name, place in zip(keys, ids, given, strict=True):
        if place in ("", "train"):
            called[key] = min(name, called.get(key, name))
    drawn = dict(zip(called, stratified(list(called.values()), [0] * len(called), **shares, seed=config.seed), strict=True))
    split = [drawn[key] if place in ("", "train") else place for key, place in zip(keys, given, strict=True)]
    source = " and ".join(dict.fromkeys(origin[name] for name in ("train", "") if name in present))
    told = {"train": f"what is left of {source}" if any(shares.values()) else source}
    for name, share in shares.items():
        of = " of the groups" if config.group else ""
        told[name] = f"{percent(share)}{of} drawn from {source}, which has no {name}" if share else origin.get(name, "")
    return split, told


def _groups(config, ids: Sequence[str]) -> list[str]:
    """What `group` finds in each id; the id itself where it finds nothing.

    Raises:
        UserError: it finds nothing in any.
    """
    if config.group is None:
        return list(ids)
    found = [re.search(config.group, name) for name in ids]
    if not any(found):
        raise UserError(f"data.group: {config.group!r} is found in no id, such as {ids[0]!r}. Correct the expression.")
    return [f"group {match[1]}" if match else name for match, name in zip(found, ids, strict=True)]


def _together(*columns: Sequence[str]) -> list[int]:
    """For each row, the first of all rows that it is to stay with: those with the same value in any of the columns, and theirs."""
    first = list(range(len(columns[0])))

    def root(i: int) -> int:
        while first[i] != i:
            first[i] = i = first[first[i]]
        return i

    for column in columns:
        seen: dict[str, int] = {}
        for i, value in enumerate(column):
            a, b = root(seen.setdefault(value, i)), root(i)
            first[max(a, b)] = min(a, b)
    return [root(i) for i in range(len(first))]


def _groups_apart(config, ids: Sequence[str], split: Sequence[str]) -> list[Problem]:
    """Groups that the data's own splits tear apart."""
    from adapt.data.problems import Problem

    if config.group is None:
        return []
    places: dict[str, set[str]] = defaultdict(set)
    for group, place in zip(_groups(config, ids), split, strict=True):
        places[group].add(place)
    return [
        Problem(group, "", "leak", f"in {' and '.join(sorted(where))}") for group, where in places.items() if len(where) > 1
    ]


def _limited(config, parts: dict[str, Any]) -> dict[str, Any]:
    """At most `limit` rows of each split, in their order."""
    if config.limit is None:
        return parts
    kept = {}
    for split, rows in parts.items():
        order = sorted((hashlib.sha256(f"{config.seed}/{name}".encode()).digest(), i) for i, name in enumerate(rows["id"][:]))
        kept[split] = rows.select(sorted(i for _, i in order[: config.limit]))
    return kept
