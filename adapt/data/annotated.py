"""Pictures that files list, with what is said of them: what `coco`, `yolo`, `voc`, `labelme`, `labelstudio` and `table` share.

A source lists the pictures and the classes (`Listing`), and reads the objects of those that can be opened (`read`). What is done here
is the same for all: looking at the pictures, keeping the rows, leaving out what is wrong, splits, groups, limits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path

from datasets import ClassLabel, Dataset

from adapt.data.check import repeated
from adapt.data.listing import Listed, Listing, kept_names, left_out, single_class
from adapt.data.objects import Objects
from adapt.data.problems import Problem, Report
from adapt.data.scan import Finding, many_objects, scan
from adapt.data.split import Splits, apart, by_split, drawn, grouped, limited, missing, percent
from adapt.plug import UserError
from adapt.provenance import stamp
from adapt.run import atomic
from adapt.vision.pictures import cache_folder, cached, digest

DRAWING = {"validation", "test", "seed", "group", "limit", "on_error"}
"""Options that change no row."""
VERSION = 2
"""To be raised when rows are made otherwise, so that kept ones are made again."""


@many_objects()
def load_listed(config, listing: Listing, read: Callable[[Objects], None]) -> Splits:
    """The splits of listed pictures; what `read` adds is kept, so that files that have not changed are not read again.

    Args:
        config: a `ClassesConfig`.
        read: adds the objects of the pictures that can be opened, and what is wrong with them.

    Raises:
        UserError: there is nothing that can be used, or a single class; with `on_error: stop`, anything is wrong.
    """
    labelled = any(picture.label is not None for picture in listing.pictures)
    names, numbers = kept_names(listing.names, config.classes)
    findings = _look(listing)
    pictures = (
        _of_classes(listing, list(findings), dict(zip(listing.names, numbers, strict=True))) if labelled else list(findings)
    )
    good = {picture: findings[picture] for picture in pictures}
    table, found = _rows(config, listing, (names, numbers), labelled, good, read)
    report = Report(len(listing.pictures), listing.problems + found)
    if config.on_error == "stop" and report.severe:
        raise report.error("data.path")
    _refuse_one_class(config, pictures)
    bad = {problem.id for problem in report.severe}
    keep = [i for i, picture in enumerate(pictures) if picture.id not in bad]
    if not any(pictures[i].told for i in keep):
        raise _nothing(config, report)
    table = table.select(keep) if len(keep) < len(table) else table
    kept = [pictures[i] for i in keep]
    split, origin, torn = _drawn(config, listing.origin, kept, [good[picture].digest for picture in kept])
    parts = limited(config, by_split(table, split))
    if "unlabelled" in parts:
        parts["unlabelled"] = parts["unlabelled"].select_columns(["id", "image"])
    return Splits(parts, origin, Report(report.pictures, report.problems + torn))


def _nothing(config, report: Report) -> UserError:
    first = f" The first problem: {report.severe[0]}." if report.severe else " No picture has a label."
    return UserError(f"data.path: no picture of {config.path!r} can be used.{first}")


def _look(listing: Listing) -> dict[Listed, Finding]:
    """The pictures that can be opened; what is wrong with any goes into the listing's problems."""
    bad = {problem.id for problem in listing.problems if problem.severe}
    findings = scan(listing.root, list(dict.fromkeys(one.file for one in listing.pictures if one.id not in bad)))
    seen: dict = {}
    good = {}
    for picture in listing.pictures:
        if picture.id in bad:
            continue
        finding = findings[picture.file]
        wrong = [picture.problem(*problem) for problem in finding.problems]
        if finding.size and picture.size not in (None, finding.size):
            turned = " (turned by its EXIF tag)" if picture.size == finding.size[::-1] else ""
            detail = f"{_size(finding.size)}{turned}; the annotations say {_size(picture.size)}"
            wrong.append(picture.problem("picture of another size", detail))
        listing.problems += [*wrong, *repeated(seen, finding, picture.id, picture.split, picture.label)]
        if not any(problem.severe for problem in wrong):
            good[picture] = finding
    return good


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"


def _of_classes(listing: Listing, pictures: Sequence[Listed], numbers: dict[str, int | None]) -> list[Listed]:
    """The pictures without a class or with one that is kept and that training sees; what is left out is noted."""
    left = [one.label for one in pictures if one.label is not None and numbers[one.label] is None]
    listing.problems += left_out(left)
    gone = set(left)
    pictures = [one for one in pictures if one.label not in gone]
    known = {numbers[one.label] for one in pictures if one.label is not None and one.split in ("", "train")}
    if not known:  # all are for one split, which is drawn from then
        known = {numbers[one.label] for one in pictures if one.label is not None}
    unseen = {(one.label, one.split): None for one in pictures if one.label is not None and numbers[one.label] not in known}
    listing.problems += [Problem(label, split, "unseen class") for label, split in sorted(unseen)]
    return [one for one in pictures if one.label is None or numbers[one.label] in known]


def _refuse_one_class(config, pictures: Sequence[Listed]) -> None:
    """Raises a `UserError`, when pictures have classes and all the same one."""
    found = {config.classes.get(one.label, one.label) for one in pictures if one.label is not None}
    if len(found) == 1:
        raise single_class(found.pop(), config.path)


# ------------------------------------------------------------------------------------------------------------------ rows


def _rows(config, listing: Listing, names, labelled: bool, good: dict[Listed, Finding], read) -> tuple[Dataset, list[Problem]]:
    """A row for each picture, memory-mapped, and what is wrong with the objects."""
    files = [(str(path), *stamp(path)) for path in listing.made_of]
    pictures = [(one.id, one.file, one.split, one.label, finding.digest) for one, finding in good.items()]
    options = config.model_dump_json(exclude=DRAWING)
    key = digest(VERSION, config.version, str(listing.root), options, names, files, pictures)
    folder = cache_folder("annotated")
    notes = folder / f"{key}.json"

    def build(path: Path) -> None:
        sizes = [finding.size for finding in good.values()]
        objects = Objects(listing, list(good), sizes, ([], []) if labelled else names, config.values().get("masks", True))
        if labelled:
            numbers = dict(zip(listing.names, names[1], strict=True)) | {None: None}
            objects.columns["label"] = (ClassLabel(names=names[0]), [numbers[one.label] for one in good])
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


def _drawn(
    config, origin: dict[str, str], pictures: Sequence[Listed], digests
) -> tuple[list[str], dict[str, str], list[Problem]]:
    """A split for each picture, as given or drawn from train; where each split comes from; groups that are torn apart.

    Raises:
        UserError: nothing is for train; `group` is found nowhere.
    """
    told = [i for i, picture in enumerate(pictures) if picture.told]
    given = [pictures[i].split for i in told]
    present = set(given)
    if not present & {"", "train"}:
        if len(present) > 1:
            raise UserError(f"data.path: {config.path!r} has {' and '.join(sorted(present))}, and nothing to train on.")
        origin, given, present = origin | {"": origin[given[0]]}, [""] * len(given), {""}
    paths = [pictures[i].file for i in told]
    own = [pictures[i].group for i in told]
    groups = [group or path for group, path in zip(own, paths, strict=True)] if any(own) else None
    groups = groups or grouped(config, paths)
    labels = [pictures[i].label for i in told]
    chosen = drawn(config, paths, given, [digests[i] for i in told], labels, groups)
    split = ["unlabelled"] * len(pictures)
    for i, place in zip(told, chosen, strict=True):
        split[i] = place
    shares = missing(config, given)
    source = " and ".join(dict.fromkeys(origin[name] for name in ("train", "") if name in present))
    words = {"train": f"what is left of {source}" if any(shares.values()) else source}
    for name, share in shares.items():
        of = " of the groups" if groups else ""
        words[name] = f"{percent(share)}{of} drawn from {source}, which has no {name}" if share else origin.get(name, "")
    return split, words | {"unlabelled": "the pictures of which nothing is said"}, apart(groups, chosen)
