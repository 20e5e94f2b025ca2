"""The rows of all tars → classes and splits. Columns beside the pictures fit into memory; pictures stay on the disk."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Value, concatenate_datasets

from adapt.data.check import repeated
from adapt.data.listing import kept_names, left_out, single_class
from adapt.data.problems import LEFT_OUT, Problem, Report
from adapt.data.scan import Finding
from adapt.data.split import SPLITS, Splits, apart, drawn, grouped, limited, missing, percent
from adapt.data.webdataset.shard import kept
from adapt.data.webdataset.tars import Shard
from adapt.plug import UserError, counted
from adapt.progress import progress
from adapt.vision.pictures import cache_folder

UNSEEN, LEFT = ("unseen class", ""), (LEFT_OUT, "")
"""Of a sample whose class training never sees, or which `data.classes` leaves out."""
TOLD = (UNSEEN, LEFT)
"""What is reported once a class."""


@dataclass
class Gathered:
    """The samples of all tars."""

    table: Dataset
    """All rows as they lie on the disk. It is never cut down before its last column is there: that would copy the pictures."""
    rows: list[int]
    """Those of its rows that can be used."""
    names: list[str] = field(default_factory=list)
    """Of the classes; empty: there are none."""

    def values(self, name: str) -> list:
        """A column of the rows that can be used."""
        return self.table.data.column(name).take(pa.array(self.rows, pa.int64())).to_pylist()

    def keep(self, good: Sequence[bool]) -> None:
        """Keep those of the rows."""
        self.rows = [row for row, kept in zip(self.rows, good, strict=True) if kept]


def gathered(config, shards: Sequence[Shard]) -> tuple[Gathered, Report]:
    """The samples of all tars that have a picture: id, image, label (a text), caption, digest, split; and what is wrong with the others.

    Raises:
        UserError: no tar is for train, or the disk has no room for the copy.
    """
    if given := sorted({shard.split for shard in shards}):
        if not {"", "train"} & set(given):
            raise UserError(
                f"data.path: {config.path!r} has tars for {' and '.join(given)} alone, and none for train. To draw a train and a test from "
                "a folder of them, name that folder itself in data.path."
            )
    else:
        raise UserError(
            f"data.path: no tar of {config.path!r} can be read. Those that are links are read with data.follow_links=true."
        )
    room(shards)
    tables = []
    with progress("read tars", len(shards)) as tick:
        for shard in shards:
            try:
                tables.append(kept(shard))
            except OSError as error:
                raise UserError(f"data.path: {shard.path} cannot be read: {error.strerror or error}.") from None
            tick()
    splits = np.repeat([shard.split for shard in shards], [len(table) for table in tables])
    table = concatenate_datasets(tables).add_column("split", splits, feature=Value("string"))
    problems = _problems(table)
    bad = {problem.id for problem in problems if problem.severe}
    samples = Gathered(table, np.flatnonzero(pc.is_valid(table.data.column("image")).to_numpy()).tolist())
    samples.keep([name not in bad for name in samples.values("id")])
    return samples, Report(len(table) - len(shards), problems)


def room(shards: Iterable[Shard]) -> None:
    """Raises a `UserError` when the disk of the cache has less room than all tars need, and has none of them yet."""
    place = cache_folder("webdataset")
    need = sum(shard.path.stat().st_size for shard in shards)
    above = next(folder for folder in (place, *place.parents) if folder.is_dir())
    have = shutil.disk_usage(above).free
    if not place.is_dir() and need > have:
        raise UserError(
            f"data.path: the tars have {need / 1e9:,.1f} GB, and are copied once into {place}, whose disk has {have / 1e9:,.1f} GB free. "
            "Make room, or name a folder on another disk: ADAPT_CACHE=FOLDER."
        )


def _problems(table: Dataset) -> list[Problem]:
    """What is wrong with samples and tars; what was passed over is summed over the tars of a split."""
    rows = np.flatnonzero(pc.greater(pc.list_value_length(table.data.column("problems")), 0).to_numpy())
    over: Counter[tuple[str, str]] = Counter()
    found = []
    for row in table.select_columns(["id", "split", "problems"]).select(rows):
        for problem in row["problems"]:
            if problem["kind"] == "passed over":
                over[row["split"], problem["detail"]] += problem["count"]
            else:
                found.append(Problem(row["id"], row["split"], problem["kind"], problem["detail"]))
    return found + [Problem("tars", split, "passed over", f"{number:,} {what}") for (split, what), number in over.items()]


# ---------------------------------------------------------------------------------------------------------------- classes


def classified(config, samples: Gathered, names: list[str], report: Report) -> None:
    """Keep the samples with a class, where there are classes, and make `label` a `ClassLabel`; else those with captions, where there are
    such. What is left out is added to the report.

    Raises:
        UserError: nothing is left, or there is a single class; with `on_error: stop`, what would be left out.
    """
    labels, ids, splits = (samples.values(name) for name in ("label", "id", "split"))
    captioned = [row is not None for row in samples.values("caption")]
    if any(label is not None for label in labels):
        samples.names, wrong = _known(config, labels, splits, names, report)
    elif config.classes:
        raise UserError("data.classes: no sample has a class (.cls, or label in .json). Leave the option out.")
    elif any(captioned):
        wrong = [None if there else ("bad entry", "no caption") for there in captioned]
    else:
        wrong = [None] * len(ids)
        _refuse_vectors(config, report)
    report.problems += [
        Problem(name, split, *why) for name, split, why in zip(ids, splits, wrong, strict=True) if why and why not in TOLD
    ]
    if config.on_error == "stop" and report.severe:
        raise report.error("data.path")
    good = [why is None for why in wrong]
    samples.keep(good)
    if not samples.rows:
        reason = f" The first problem: {report.severe[0]}." if report.severe else " They hold no samples."
        raise UserError(f"data.path: no sample of {config.path!r} can be used.{reason}")
    told = sum(there for there, kept in zip(captioned, good, strict=True) if kept)
    if told < len(samples.rows):
        if told:
            detail = f"captions of {told:,} samples, which {counted(len(samples.rows) - told, 'sample')} lack"
            report.problems.append(Problem("tars", "", "passed over", detail))
        samples.table = samples.table.remove_columns("caption")
    _code(config, samples, [label for label, kept in zip(labels, good, strict=True) if kept])


def _refuse_vectors(config, report: Report) -> None:
    """Raises a `UserError` where samples have arrays in the place of classes."""
    arrays = next((problem for problem in report.problems if problem.detail.endswith(" files .npy")), None)
    if arrays:
        raise UserError(
            f"data.path: the samples of {config.path!r} have neither a class (.cls) nor captions (.txt), but arrays ({arrays.detail}): "
            "several classes a picture cannot be learnt here. Write one class a picture into .cls."
        )


def _known(
    config, labels: list, splits: list[str], names: list[str], report: Report
) -> tuple[list[str], list[tuple[str, str] | None]]:
    """The classes' names after `data.classes`; and for each row why its class cannot be used, none where it can. `labels` become names."""
    reads = {label: _read(label, names) for label in set(labels)}
    have = names or sorted({name for name in reads.values() if isinstance(name, str)}, key=_order)
    kept, numbers = kept_names(have, config.classes)
    called = {name: LEFT if number is None else kept[number] for name, number in zip(have, numbers, strict=True)}
    report.problems += left_out(reads[label] for label in labels if called.get(reads[label]) == LEFT)
    means = {label: called[name] if isinstance(name, str) else name for label, name in reads.items()}
    wrong = [means[label] if isinstance(means[label], tuple) else None for label in labels]
    labels[:] = [label if why else means[label] for label, why in zip(labels, wrong, strict=True)]
    told = [(label, split) for label, split, why in zip(labels, splits, wrong, strict=True) if not why]
    seen = {label for label, split in told if split in ("", "train")}
    report.problems += [Problem(label, split, "unseen class") for label, split in sorted(set(told)) if label not in seen]
    report.problems += [Problem(name, "train", "unused class") for name in (kept if names else []) if name not in seen]
    wrong = [why or (None if label in seen else UNSEEN) for label, why in zip(labels, wrong, strict=True)]
    return kept if names else [name for name in kept if name in seen], wrong


def _read(label: str | None, names: list[str]) -> str | tuple[str, str]:
    """The name of a class that a sample gives by its name or number; or a kind and a detail of what is wrong with it."""
    if label is None:
        return "no class", ""
    if label.startswith("-") and label[1:].isdecimal():
        return "no class", f"its number is {label}"
    if not names or label in names:
        return label
    if label.isdecimal() and int(label) < len(names):
        return names[int(label)]
    return "unknown category", f"{label[:60]!r}; classnames.txt has {counted(len(names), 'line')}"


def _order(name: str) -> tuple[bool, int, str]:
    """Numbers by their size, before words."""
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name


def _code(config, samples: Gathered, labels: list[str]) -> None:
    """Make `label` a number among the names; of rows that are not used it is none."""
    samples.table = samples.table.remove_columns("label")
    if not samples.names:
        return
    if len(set(labels)) < 2:
        raise single_class(labels[0], config.path)
    places = {name: place for place, name in enumerate(samples.names)}
    numbers = np.full(len(samples.table), -1)
    numbers[samples.rows] = [places[label] for label in labels]
    samples.table = samples.table.add_column("label", numbers, feature=ClassLabel(names=samples.names))


# ----------------------------------------------------------------------------------------------------------------- splits


def splits(config, samples: Gathered, report: Report) -> Splits:
    """The samples by split, as the tars say or drawn from train, equal pictures together; pictures that are there twice are reported."""
    ids, given, digests = (samples.values(name) for name in ("id", "split", "digest"))
    labels = samples.values("label") if samples.names else [None] * len(ids)
    if not {"", "train"} & set(given):
        raise UserError(
            f"data.path: no sample for train in {config.path!r} can be used. The first problem: {report.severe[0]}."
        )
    seen: dict = {}
    for name, split, digest, label in zip(ids, given, digests, labels, strict=True):
        report.problems += repeated(seen, Finding(digest, None, []), name, split or "train", label)
    present, shares, groups = set(given) - {""}, missing(config, given), grouped(config, ids)
    places = drawn(config, ids, given, digests, labels, groups)
    report.problems += apart(groups, places)
    columns = [name for name in ("id", "image", "label", "caption") if name in samples.table.column_names]
    table = samples.table.select_columns(columns)
    parts = {
        name: table.select([row for row, place in zip(samples.rows, places, strict=True) if place == name]) for name in SPLITS
    }
    source = f"the tars of {config.path!r}" + (" for train" if present else "")
    origin = {
        name: f"{percent(share)} {'of the groups ' if groups else ''}drawn from {source}"
        for name, share in shares.items()
        if share
    }
    origin |= dict.fromkeys(present, f"as given in {config.path!r}")
    origin["train"] = f"what is left of {source}" if any(shares.values()) else source
    return Splits(limited(config, parts), origin, report)
