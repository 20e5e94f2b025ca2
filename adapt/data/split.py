"""Splits: as they lie or drawn by a seed, and where each came from."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from datasets import Dataset, DatasetDict

from adapt.data.problems import Report
from adapt.data.scan import SPLIT_FOLDERS
from adapt.plug import UserError

SPLITS = ("train", "validation", "test")


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
    rows = {name: [i for i, value in enumerate(split) if value == name] for name in SPLITS}
    return {name: dataset.select(indices) for name, indices in rows.items() if indices}


def percent(share: float) -> str:
    """0.15 → '15 %'."""
    return f"{100 * share:.3g} %"


def placed(config, ids: list[str], given: list[str], digests: list[str], labels: list) -> tuple[list[str], dict[str, str]]:
    """A split for each row of a folder, its folder's or drawn from train; and where each split comes from.

    Rows with the same bytes are drawn together, so that none is on both sides.

    Args:
        config: with path, validation, test, test_from and seed.
        ids: paths below the folder; `given`: the split by the path, '' where it says nothing.
        labels: the draw keeps their shares.

    Raises:
        UserError: `test_from` names a folder that is not there, or is not needed.
    """
    folders = _folders(ids, given)
    if config.test_from == "val":
        if "test" in folders or "validation" not in folders:
            why = f"has the folder {folders['test']} already" if "test" in folders else "has no val folder"
            raise UserError(f"data.test_from: 'val', but {config.path!r} {why}. Leave data.test_from out.")
        given = ["test" if split == "validation" else split for split in given]
    present = set(given)
    pool = [i for i, split in enumerate(given) if split in ("", "train")]
    first = {digests[i]: i for i in reversed(pool)}
    shares = {split: 0 if split in present else config.values()[split] for split in ("validation", "test")}
    keys, kinds = [ids[i] for i in first.values()], [labels[i] for i in first.values()]
    drawn = dict(zip(first, stratified(keys, kinds, **shares, seed=config.seed), strict=True))
    split = [drawn[digest] if place in ("", "train") else place for digest, place in zip(digests, given, strict=True)]
    return split, _origin(config, folders, shares)


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
            origin[split] = f"{percent(share)} drawn from {source}"
            if swapped:
                origin[split] += f", since {folders['validation']} is the test"
            else:
                origin[split] += f", no {split} folder" if folders else f", which has no {split} folder"
    if shares["test"] and "validation" in folders:
        origin["test"] += f"; {folders['validation']} could be the test: data.test_from=val"
    return origin
