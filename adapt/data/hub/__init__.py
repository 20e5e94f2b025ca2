"""Anything that `datasets.load_dataset` reads: a hub id, Parquet or CSV files, a folder of images, WebDataset archives.

    data: {source: hub, path: ethz/food101, splits: {test: validation}}
    data: {source: hub, path: "photos/*.parquet", caption: text}
    data: {source: hub, path: "coco/*.parquet", boxes: xywh}
    data: {source: hub, path: shards/train-0001.tar, image: jpg, label: cls}

In WebDataset archives a `.cls` holds a class's number; names of classes go into `.txt`: label: txt.
Rows stay where `datasets` puts them, memory-mapped; a picture is decoded when its row is looked at. Nobody's code is run.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from adapt.contracts import SourceConfig
from adapt.data.places import expanded
from adapt.plug import UserError, counted

if TYPE_CHECKING:
    from datasets import Dataset

    from adapt.data.split import Splits

KINDS = {
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".arrow": "arrow",
}
OWN_NAMES = {"train": ("train", "training"), "validation": ("validation", "val", "valid", "dev"), "test": ("test", "testing")}


class Config(SourceConfig):
    """A data set, and which of its columns and splits are ours."""

    source: str = "hub"
    """This file."""
    path: str
    """A hub id (owner/name), a file, a glob of files of one kind, or a folder."""
    subset: str | None = None
    """The data set's configuration, where it has several."""
    splits: dict[Literal["train", "validation", "test", "unlabelled"], str] = {}
    """Our split → theirs, slices and sums allowed: {train: 'train[:80%]', test: validation}; empty: by their own names."""
    image: str = "image"
    """Their column of pictures: encoded bytes, or paths inside the data set's own folder."""
    label: str | None = None
    """Their column of classes, names or numbers; none: `label`, if there is one."""
    caption: str | None = None
    """Their column of captions, a text or a list of texts; none: `caption`, if there is one."""
    boxes: Literal["xyxy", "xywh"] | None = None
    """The order of their boxes, in pixels, where `objects` holds bbox and category and no masks of ours: left, top, right, bottom; or
    left, top, width, height, as COCO's; none: such objects are left out."""
    validation: float | None = Field(None, ge=0, le=0.9)
    """Share of train for a missing validation split; none: .15 with classes, 0 without; by class if there are classes."""
    test: float | None = Field(None, ge=0, le=0.9)
    """Share of train for a missing test split; none: .15 with classes, 0 without."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of these shares."""
    on_error: Literal["stop", "skip"] = "stop"
    """Pictures, classes, boxes and masks that cannot be used: stop and name them, or leave their rows out and list them in `report`."""

    def check_paths(self) -> None:
        """The files must be there, where the path cannot be a hub id."""
        _files(self.path)


def load(config: Config) -> Splits:
    """Read the data set.

    Returns:
        `Splits` with train and, where there are any, validation, test, unlabelled: id, image, and of label, caption, objects,
        prefix, suffix what there is.

    Raises:
        UserError: it cannot be found or read; a column or split is missing; train and another split share rows; there is one class only,
            or one that training never saw; with `on_error: stop`, rows that cannot be used.
    """
    from adapt.data.check import check_rows
    from adapt.data.hub.columns import standard, with_classes
    from adapt.data.hub.objects import standard_objects
    from adapt.data.problems import Report
    from adapt.data.split import Splits

    found, places = _read(config)
    theirs, problems = _theirs(config, found), []
    parts = {ours: standard(rows, ours, config, places, problems) for ours, rows in _choose(config, found, theirs).items()}
    parts = standard_objects(with_classes(parts, config.on_error, problems), config.boxes, config.on_error, problems)
    splits = _splits(config, parts)
    report = check_rows(splits)
    if report.severe:
        if config.on_error == "stop":
            raise report.error("data.path")
        splits = _splits(config, _without(parts, report))
    report = Report(report.pictures + len(problems), problems + report.problems)
    return Splits(splits, _origin(config, theirs, splits), report)


def _without(parts: dict[str, Dataset], report) -> dict[str, Dataset]:
    """Splits without the rows that cannot be used; those that were drawn from train have their rows there."""
    bad = {(problem.split if problem.split in parts else "train", problem.id) for problem in report.severe}
    kept = {
        split: rows.select([i for i, name in enumerate(rows["id"][:]) if (split, name) not in bad])
        for split, rows in parts.items()
    }
    if not len(kept["train"]):
        raise UserError(f"data.path: no row of train can be used. The first problem: {report.severe[0]}.")
    return {split: rows for split, rows in kept.items() if len(rows)}


def _splits(config: Config, parts: dict[str, Dataset]) -> dict[str, Dataset]:
    """Splits with classes, and the missing ones drawn from train."""
    from adapt.data.hub.columns import labelled
    from adapt.data.split import by_split, stratified

    parts = labelled(parts)
    train = parts["train"]
    missing = {name: _share(config, name, train) for name in ("validation", "test") if name not in parts}
    if any(missing.values()):
        labels = train["label"][:] if "label" in train.column_names else [0] * len(train)
        drawn = stratified(train["id"][:], labels, missing.get("validation", 0), missing.get("test", 0), config.seed)
        parts |= by_split(train, drawn)
    return {name: parts[name] for name in ("train", "validation", "test", "unlabelled") if name in parts}


def _share(config: Config, split: str, train: Dataset) -> float:
    """Of train, for a split that is missing."""
    share = config.values()[split]
    return (0.15 if "label" in train.column_names else 0.0) if share is None else share


def _origin(config: Config, theirs: dict[str, str], splits: dict[str, Dataset]) -> dict[str, str]:
    """Where each split comes from."""
    from adapt.data.split import percent

    train = f"their {theirs['train']!r}"
    drawn = {
        split: f"{percent(_share(config, split, splits['train']))} drawn from {train}, since there is no {split} split"
        for split in splits
        if split not in theirs
    }
    origin = {split: f"their {name!r}" for split, name in theirs.items()} | drawn
    return origin | ({"train": f"what is left of {train}"} if drawn else {})


def _read(config: Config) -> tuple[dict[str, Dataset], list]:
    """The data set's own splits, and the folders that paths in it may lead to."""
    from pathlib import Path

    from datasets import config as settings
    from datasets import load_dataset
    from huggingface_hub import constants

    from adapt import hardware

    files = _files(config.path)
    folder = expanded(config.path)
    try:
        if files:
            kind = files[0].suffix.lower()
            options = {"sep": "\t"} if kind == ".tsv" else {}
            rows = load_dataset(KINDS[kind], data_files={"train": [str(file) for file in files]}, **options)
            return dict(rows), sorted({file.parent for file in files})
        if folder.is_dir():
            return dict(load_dataset(str(folder.resolve()), config.subset)), [folder.resolve()]
        caches = constants.HF_HUB_CACHE, settings.HF_DATASETS_CACHE
        with hardware.hub():
            found = dict(load_dataset(config.path, config.subset))
        return found, [Path(cache).resolve() for cache in caches]
    except Exception as error:  # datasets raises its own, the hub's, pyarrow's and fsspec's errors
        raise _explain(config, error, local=bool(files) or folder.is_dir()) from None


def _files(path: str) -> list:
    """The files that a path or a glob means, absolute; none for a folder or a hub id.

    Raises:
        UserError: they are of several kinds, or of none that is known; or it can only be a local path, and nothing is there.
    """
    from glob import glob
    from pathlib import Path

    local = expanded(path)
    wild = bool(set(path) & set("*?["))
    found = [local] if local.is_file() or not wild else map(Path, sorted(glob(str(local), recursive=True)))
    files = [file.resolve() for file in found if file.is_file()]
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) > 1 or not set(kinds) <= set(KINDS):
        raise UserError(f"data.path: {path!r} has files {', '.join(kinds)}. Give files of one kind: {', '.join(KINDS)}.")
    hub_id = path.count("/") <= 1 and not path.startswith(("/", ".", "~")) and not wild and local.suffix.lower() not in KINDS
    if not files and not local.is_dir() and not hub_id:
        raise UserError(
            f"data.path: no file or folder {path!r}, looked in {Path.cwd()}. Check the path, or give a hub id: owner/name."
        )
    return files


def _explain(config: Config, error: Exception, local: bool) -> UserError:
    """One line on why `load_dataset` has failed."""
    from datasets.exceptions import DatasetNotFoundError

    cause = error.__cause__ or error
    text = f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
    if isinstance(error, ValueError) and "onfig" in str(error):
        return UserError(f"data.subset: {config.subset!r}: {' '.join(str(error).split())[:400]}")
    if local:
        if config.path.endswith(".tar") and "invalid literal for int()" in text:
            value = text.partition("base 10: b")[2] or "text"
            return UserError(
                f"data.path: a .cls in {config.path!r} holds {value}, and must hold a class's number, such as 3. Put "
                "names of classes into .txt, and set data.label=txt."
            )
        return UserError(f"data.path: {config.path!r} cannot be read ({text}). Check the files, or give them as Parquet.")
    if isinstance(error, DatasetNotFoundError):
        why = "the hub has no such data set, or it is private (then: hf auth login)"
    elif isinstance(error, ConnectionError | OSError):
        why = "the hub cannot be reached (no network, or HF_HUB_OFFLINE is set)"
    else:
        why = f"the hub's data set cannot be read ({text})"
    return UserError(
        f"data.path: {config.path!r}: there is no file or folder here, and {why}. Give a local path, or another hub id."
    )


def _theirs(config: Config, found: dict[str, Dataset]) -> dict[str, str]:
    """Our split → their name, or the slices of theirs that it is."""
    own = {ours: next((name for name in theirs if name in found), None) for ours, theirs in OWN_NAMES.items()}
    return config.splits or {ours: name for ours, name in own.items() if name}


def _choose(config: Config, found: dict[str, Dataset], theirs: dict[str, str]) -> dict[str, Dataset]:
    """The rows of our splits."""
    have = ", ".join(f"{name} ({counted(len(rows), 'row')})" for name, rows in found.items())
    if not config.splits:
        chosen = {ours: found[name] for ours, name in theirs.items()}
    else:
        ranges = {ours: _ranges(ours, name, found, have) for ours, name in theirs.items()}
        _refuse_overlap(ranges)
        chosen = {ours: _rows(found, part) for ours, part in ranges.items()}
    if "train" not in chosen:
        raise UserError(f"data.splits: which is train? Write data.splits={{train: NAME}}. Have: {have}.")
    for ours, rows in chosen.items():
        if not len(rows):
            raise UserError(f"data.splits.{ours}: {theirs[ours]!r} has no rows. Have: {have}.")
    return chosen


def _ranges(ours: str, theirs: str, found: dict[str, Dataset], have: str) -> list[tuple[str, int, int]]:
    """'train[:80%]+extra' → (split, from, to) for each part of the sum."""
    from datasets import ReadInstruction

    try:
        parts = ReadInstruction.from_spec(theirs).to_absolute({name: len(rows) for name, rows in found.items()})
    except (ValueError, AssertionError, KeyError, TypeError):
        raise UserError(
            f"data.splits.{ours}: {theirs!r} is not one of its splits. Have: {have}; slices: train[:80%]."
        ) from None
    return [(part.splitname, part.from_, part.to) for part in parts]


def _rows(found: dict[str, Dataset], parts: list[tuple[str, int, int]]) -> Dataset:
    from datasets import concatenate_datasets

    slices = [found[name].select(range(start, max(start, stop))) for name, start, stop in parts]
    return slices[0] if len(slices) == 1 else concatenate_datasets(slices)


def _refuse_overlap(ranges: dict[str, list[tuple[str, int, int]]]) -> None:
    """Raises a `UserError` when two of train, validation and test share rows."""
    for one, two in (("train", "validation"), ("train", "test"), ("validation", "test")):
        for (name, start, stop), (other, begin, end) in product(ranges.get(one, []), ranges.get(two, [])):
            first, last = max(start, begin), min(stop, end)
            if name == other and first < last:
                raise UserError(
                    f"data.splits: {one} and {two} share rows {first} to {last - 1} of {name!r}. "
                    f"Slices without common rows: {{{one}: '{name}[:80%]', {two}: '{name}[80%:]'}}."
                )
