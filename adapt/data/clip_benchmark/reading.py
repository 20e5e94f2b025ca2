"""The samples of a split → rows, all of them or none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, List, Value, concatenate_datasets

from adapt.data.clip_benchmark import Found
from adapt.data.clip_benchmark.answers import Answers, Unlabelled
from adapt.data.clip_benchmark.places import TEXTS, check, names, root, shards
from adapt.data.problems import KINDS, Problem, Report
from adapt.data.split import Splits
from adapt.data.webdataset.rows import room
from adapt.data.webdataset.shard import kept, told
from adapt.data.webdataset.tars import NAMES, Shard, numbered
from adapt.plug import UserError, counted
from adapt.progress import progress

SAID = ("id", "label", "caption", "numbers", "problems")
TRAIN = "train"


@dataclass
class Read:
    """What the samples of a split say."""

    rows: list[int] = field(default_factory=list)
    """Those of the table that are samples and can be used."""
    values: list[Any] = field(default_factory=list)
    """Their classes, lists of classes, or captions."""
    groups: list[str] = field(default_factory=list)
    samples: int = 0
    wrong: list[Problem] = field(default_factory=list)
    """What cannot be used: samples, or tars."""
    over: Counter[str] = field(default_factory=Counter)
    """Members that were passed over."""

    def why(self) -> str:
        """What cannot be used, in one line; empty: nothing."""
        if not self.samples and not self.wrong:
            return "data.path: its tars hold no samples."
        if not self.wrong:
            return ""
        more = f" The same or other things are wrong with {counted(len(self.wrong) - 1, 'other')}." if self.wrong[1:] else ""
        return f"data.path: {self.wrong[0]}.{more}"


def found(config, split: str) -> Found:
    """Count what headers and labels of a split say.

    Raises:
        UserError: as `places.check`.
    """
    tars, answers = _opened(config, split)
    with progress("look at tars", len(tars)) as tick:
        parts = []
        for shard in tars:
            parts.append(_kept(shard, told))
            tick()
    read = _read(concatenate_datasets(parts), answers, split)
    return _counted(config, read, answers)


def _counted(config, read: Read, answers: Answers) -> Found:
    if config.labels == "class":
        return Found(read.samples, list(answers.names), len(set(read.values)), 0, read.why())
    if config.labels == "classes":
        return Found(
            read.samples, list(answers.names), len({each for several in read.values for each in several}), 0, read.why()
        )
    return Found(read.samples, [], 0, sum(map(len, read.values)), read.why())


def splits(config) -> Splits:
    """The split, and train where it is asked for and there; what cannot be used stops it.

    Raises:
        UserError: as `load`.
    """
    asked = [config.split] + ([TRAIN] if config.train and config.split != TRAIN else [])
    place = root(config.path, _patterns(asked))
    asked = [split for split in asked if split == config.split or (place / split).is_dir()]
    for split in asked:
        if why := found(config, split).why:  # before gigabytes are copied
            raise UserError(why)
    parts, problems, pictures = {}, [], 0
    for split in asked:
        parts[split], read = _rows(config, split)
        pictures += read.samples
        problems += [Problem("tars", split, "passed over", f"{number:,} {what}") for what, number in read.over.items()]
    problems += numbered(place / NAMES)[1]
    return Splits(parts, dict.fromkeys(asked, f"as given in {config.path!r}"), Report(pictures, problems))


def _rows(config, split: str) -> tuple[Dataset, Read]:
    """The rows of a split: all of its samples."""
    tars, answers = _opened(config, split)
    room(tars)
    tables = []
    with progress(f"read tars of {split}", len(tars)) as tick:
        for shard in tars:
            tables.append(_kept(shard, lambda shard: kept(shard, strict=True)))
            tick()
    table = concatenate_datasets(tables)
    read = _read(table, answers, split, pictures=True)
    if why := read.why():
        raise UserError(why)
    return _columns(table, read, answers), read


def _columns(table: Dataset, read: Read, answers: Answers) -> Dataset:
    """The standard columns; rows that are no samples have nothing in them, and are cut off last: before, that would copy the pictures."""
    whole = table.select_columns(["id", "image"])

    def filled(values: Sequence, nothing: Any) -> list:
        column = [nothing] * len(table)
        for row, value in zip(read.rows, values, strict=True):
            column[row] = value
        return column

    if answers.labels == "class":
        numbers = np.array(filled(read.values, -1))
        whole = whole.add_column("label", numbers, feature=ClassLabel(names=list(answers.names)))
    elif answers.labels == "classes":
        whole = whole.add_column("labels", filled(read.values, []), feature=List(ClassLabel(names=list(answers.names))))
    else:
        whole = whole.add_column("caption", filled(read.values, []), feature=List(Value("string")))
    if answers.group is not None:
        whole = whole.add_column("group", filled(read.groups, None), feature=Value("string"))
    return whole.select(read.rows)


# ------------------------------------------------------------------------------------------------------------------- samples


def _patterns(names: Sequence[str]) -> list[str]:
    """Files of the hub's that are fetched for these splits."""
    return [*TEXTS, *(f"{split}/*" for split in names)]


def _opened(config, split: str) -> tuple[list[Shard], Answers]:
    """The tars of a split, and what is known of labels."""
    place = root(config.path, _patterns([split]))
    tars = check(config, place) if split == config.split else shards(place, split)
    return tars, Answers(config, names(config, place))


def _kept(shard: Shard, look) -> Dataset:
    try:
        return look(shard)
    except OSError as error:
        raise UserError(f"data.path: {shard.path} cannot be read: {error.strerror or error}.") from None


def _read(table: Dataset, answers: Answers, split: str, pictures: bool = False) -> Read:
    """What the samples of all tars say.

    Args:
        pictures: each sample must have one that can be decoded.
    """
    read = Read()
    there = table.data.column("image").is_valid().to_pylist() if pictures else [True] * len(table)
    columns = [table.data.column(name).to_pylist() for name in SAID]
    for row, (name, label, caption, numbers, problems) in enumerate(zip(*columns, strict=True)):
        severe = [problem for problem in problems if KINDS[problem["kind"]][0] and problem["kind"] != "too thin"]
        read.wrong += [Problem(name, split, problem["kind"], problem["detail"]) for problem in severe]
        if name.endswith(".tar"):  # the tar's own row
            read.over.update({each["detail"]: each["count"] for each in problems if each["kind"] == "passed over"})
            continue
        read.samples += 1
        if severe or not there[row]:
            continue
        try:
            value = answers.of(label, caption, numbers)
            group = answers.of_group(numbers) if answers.group is not None else ""
        except Unlabelled as why:
            read.wrong.append(Problem(name, split, "bad entry", str(why)))
            continue
        read.rows.append(row)
        read.values.append(value)
        read.groups.append(group)
    return read
