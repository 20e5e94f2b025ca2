"""Splits: as they lie or drawn by a seed, and where each came from."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict

from adapt.data.problems import Problem, Report
from adapt.data.scan import SPLIT_FOLDERS
from adapt.plug import UserError

SPLITS = ("train", "validation", "test")
HELD_OUT = ("validation", "test")
"""Splits that are drawn from train, when the data have none."""


class Splits(DatasetDict):
    """What a source returns: rows by split, where each split came from, and what was found wrong.

    Args:
        parts: split → rows; those without rows are left away.
        origin: split → a few words.
        report: what was found wrong or left out; none: nothing.
    """

    def __init__(self, parts: dict[str, Dataset], origin: dict[str, str], report: Report | None = None):
        super().__init__({split: rows for split, rows in parts.items() if len(rows)})
        self.origin = {split: origin[split] for split in self}
        self.report = report or Report()


def described(splits: Splits) -> list[dict[str, Any]]:
    """A row for each split: `split`, `pictures` (rows), `origin`, and `left_out`, how many problems left something out of it.

    What was left out before the splits were drawn counts for train, which they are drawn from.
    """
    left = [problem.split or "train" for problem in splits.report.severe]
    return [
        {"split": split, "pictures": len(rows), "origin": splits.origin[split], "left_out": left.count(split)}
        for split, rows in splits.items()
    ]


def stratified(keys: Sequence[str], labels: Sequence, validation: float, test: float, seed: int) -> list[str]:
    """A split for each key, by the order of the keys' hashes inside their label.

    Args:
        validation, test: shares of each label. A label with two keys or more has one in test (if `test` > 0) and one in train;
            a label's only key is in train.

    Returns:
        'train', 'validation' or 'test' for each key, in order.
    """
    groups: dict = defaultdict(list)
    for index, (key, label) in enumerate(zip(keys, labels, strict=True)):
        groups[label].append((hashlib.sha256(f"{seed}/{key}".encode()).digest(), index))
    split = ["train"] * len(keys)
    for group in groups.values():
        order = [index for _, index in sorted(group)]
        tests = min(max(1, round(test * len(order))), len(order) - 1) if test else 0
        validations = min(round(validation * len(order)), len(order) - tests - 1)
        for index in order[:tests]:
            split[index] = "test"
        for index in order[tests : tests + max(0, validations)]:
            split[index] = "validation"
    return split


def by_split(dataset: Dataset, split: Sequence[str]) -> dict[str, Dataset]:
    """Split → its rows; only splits that have rows."""
    names = np.asarray(split, object)
    rows = {name: np.flatnonzero(names == name) for name in (*SPLITS, "unlabelled")}
    return {name: dataset.select(indices) for name, indices in rows.items() if len(indices)}


def percent(share: float) -> str:
    """0.15 → '15 %'."""
    return f"{100 * share:.3g} %"


def drawn(
    config,
    names: Sequence[str],
    given: Sequence[str],
    digests: Sequence[str],
    labels: Sequence | None = None,
    groups: Sequence[str] | None = None,
    also: Iterable[str] = (),
) -> list[str]:
    """A split for each row: as given, or drawn from train, when there is none.

    Rows with the same bytes, and rows of a group, are drawn together: as the one with the least name, so that the order of the rows
    changes nothing.

    Args:
        config: with validation, test, seed.
        names: what the draw depends on, such as the pictures' paths.
        given: train, validation, test; '' says nothing, and is as train.
        digests: of the pictures' bytes.
        labels: the draw keeps their shares; none: rows have none.
        groups: rows of the same one stay together; none: there are none.
        also: further splits that the data have.
    """
    shares = missing(config, [*given, *also])
    if not any(shares.values()):
        return [split or "train" for split in given]
    pool = [i for i, split in enumerate(given) if split in ("", "train")]
    keys = _together(*([column[i] for i in pool] for column in (digests, groups or names)))
    first: dict[int, int] = {}
    for i, key in zip(pool, keys, strict=True):
        first[key] = min(first.get(key, i), i, key=lambda row: names[row])
    kinds = [labels[i] if labels else 0 for i in first.values()]
    chosen = dict(zip(first, stratified([names[i] for i in first.values()], kinds, **shares, seed=config.seed), strict=True))
    split = list(given)
    for i, key in zip(pool, keys, strict=True):
        split[i] = chosen[key]
    return split


def missing(config, given: Iterable[str]) -> dict[str, float]:
    """Validation and test → their shares of train; 0 for those that are given."""
    present = set(given)
    return {split: 0.0 if split in present else config.values()[split] for split in HELD_OUT}


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


def grouped(config, paths: Sequence[str]) -> list[str] | None:
    """What `group` finds in each path; the path itself where it finds nothing. None, if nobody asks for groups.

    Raises:
        UserError: it finds nothing in any.
    """
    pattern = config.pattern()
    if pattern is None:
        return None
    found = [re.search(pattern, path) for path in paths]
    if paths and not any(found):
        raise UserError(f"data.group: {pattern!r} is found in no path, such as {paths[0]!r}. Correct the expression.")
    return [match[1] if match else path for match, path in zip(found, paths, strict=True)]


def apart(groups: Sequence[str] | None, split: Sequence[str]) -> list[Problem]:
    """Groups that the data's own splits tear apart."""
    places: dict[str, set[str]] = defaultdict(set)
    for group, place in zip(groups or (), split, strict=False):
        places[group].add(place)
    return [
        Problem(group, "", "group in two splits", " and ".join(sorted(where)))
        for group, where in places.items()
        if len(where) > 1
    ]


def limited(config, parts: dict[str, Dataset]) -> dict[str, Dataset]:
    """At most `limit` rows of each split, in their order."""
    if config.limit is None:
        return parts
    kept = {}
    for split, rows in parts.items():
        order = sorted((hashlib.sha256(f"{config.seed}/{name}".encode()).digest(), i) for i, name in enumerate(rows["id"][:]))
        kept[split] = rows.select(sorted(i for _, i in order[: config.limit]))
    return kept


def placed(config, ids: list[str], given: list[str], digests: list[str], labels: list | None = None):
    """A split for each row of a folder, its folder's or drawn from train; where each split comes from; groups torn apart.

    Args:
        config: with path, test_from, and what `drawn` and `grouped` take.
        ids: paths below the folder; `given`: the split by the path, '' where it says nothing.
        labels: the draw keeps their shares.

    Raises:
        UserError: `test_from` names a folder that is not there, or is not needed; no path has a group.
    """
    folders = _folders(ids, given)
    if config.test_from == "val":
        if "test" in folders or "validation" not in folders:
            why = f"has the folder {folders['test']} already" if "test" in folders else "has no val folder"
            raise UserError(f"data.test_from: 'val', but {config.path!r} {why}. Leave data.test_from out.")
        given = ["test" if split == "validation" else split for split in given]
    groups = grouped(config, ids)
    split = drawn(config, ids, given, digests, labels, groups)
    return split, _origin(config, folders, missing(config, given)), apart(groups, split)


def _folders(ids: list[str], given: list[str]) -> dict[str, str]:
    """Split → the folder that it lies in, such as 'val/'."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, split in zip(ids, given, strict=True):
        if split:
            found[split].add(next(part for part in name.split("/") if SPLIT_FOLDERS.get(part.lower()) == split))
    return {split: " and ".join(f"{name}/" for name in sorted(names)) for split, names in found.items()}


def _origin(config, folders: dict[str, str], shares: dict[str, float]) -> dict[str, str]:
    """Where each split of a folder comes from."""
    source = folders.get("train", repr(config.path))
    origin = {"train": f"what is left of {source}" if any(shares.values()) else source}
    swapped = config.test_from == "val"
    for split, share in shares.items():
        if swapped and split == "test":
            origin[split] = folders["validation"]
        elif not share:
            origin[split] = folders.get(split, "")
        else:
            origin[split] = f"{percent(share)} {'of the groups ' if config.group else ''}drawn from {source}"
            if swapped:
                origin[split] += f", since {folders['validation']} is the test"
            else:
                origin[split] += f", no {split} folder" if folders else f", which has no {split} folder"
    if shares["test"] and "validation" in folders:
        origin["test"] += f"; {folders['validation']} could be the test: data.test_from=val"
    return origin
