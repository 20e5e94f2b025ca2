"""Their splits and slices of them → ours; what is missing is drawn from train."""

from __future__ import annotations

from itertools import islice, product

from datasets import Dataset, ReadInstruction, concatenate_datasets

from adapt.data.hub.columns import labelled
from adapt.data.hub.files import OWN_NAMES
from adapt.data.hub.rows import digests
from adapt.data.problems import Problem
from adapt.data.split import HELD_OUT, SPLITS, apart, by_split, drawn, grouped, percent, stratified
from adapt.plug import UserError, counted


def completed(config, parts: dict[str, Dataset]) -> tuple[dict[str, Dataset], list[Problem]]:
    """Splits with the missing ones drawn from train, without the column `group`; and the groups that are in two of them.

    Args:
        parts: as `standard` makes them, with classes and objects of the same names.

    Raises:
        UserError: a single class, a class that train has not, or a group that is found nowhere.
    """
    parts = labelled(parts)
    train = parts["train"]
    shares = {name: _share(config, name, train) for name in HELD_OUT if name not in parts}
    groups = _groups(config, parts)
    torn = apart(*_flat(groups)) if groups else []
    if any(shares.values()):
        labels = train["label"][:] if "label" in train.column_names else [0] * len(train)
        ids = train["id"][:]
        if groups:
            own, have = config.model_copy(update=shares), [name for name in HELD_OUT if name in parts]
            places = drawn(own, ids, [""] * len(ids), digests(train), labels, groups["train"], also=have)
        else:
            places = stratified(ids, labels, shares.get("validation", 0), shares.get("test", 0), config.seed)
        parts |= by_split(train, places)
    splits = {name: parts[name] for name in (*SPLITS, "unlabelled") if name in parts}
    if groups:
        splits |= {name: rows.remove_columns("group") for name, rows in splits.items() if name != "unlabelled"}
    return splits, torn


def _groups(config, parts: dict[str, Dataset]) -> dict[str, list[str]] | None:
    """Split → the group of each row; a row that says nothing is a group of its own. None, if nobody asks for groups."""
    told = {split: rows for split, rows in parts.items() if "group" in rows.column_names}
    if not told:
        return None
    texts, _ = _flat({split: rows["group"][:] for split, rows in told.items()})
    names = [f"{split}/{name}" for split, rows in told.items() for name in rows["id"][:]]
    found = grouped(config, texts)
    # what an expression does not find is given back as it is, and may be there in several splits: 0.jpg
    alone = [not text if found is None else text == group for text, group in zip(texts, found or texts, strict=True)]
    groups = iter([name if own else group for own, name, group in zip(alone, names, found or texts, strict=True)])
    return {split: list(islice(groups, len(rows))) for split, rows in told.items()}


def _flat(columns: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    """Split → values: all values, and the split of each."""
    splits = [split for split, values in columns.items() for _ in values]
    return [each for values in columns.values() for each in values], splits


def _share(config, split: str, train: Dataset) -> float:
    """Of train, for a split that is missing."""
    share = config.values()[split]
    return (0.15 if "label" in train.column_names else 0.0) if share is None else share


def origin(config, theirs: dict[str, str], splits: dict[str, Dataset]) -> dict[str, str]:
    """Where each split comes from."""
    train, of = f"their {theirs['train']!r}", " of the groups" if config.group else ""
    taken = {
        split: f"{percent(_share(config, split, splits['train']))}{of} drawn from {train}, since there is no {split} split"
        for split in splits
        if split not in theirs
    }
    own = {split: f"their {name!r}" for split, name in theirs.items()}
    return own | taken | ({"train": f"what is left of {train}"} if taken else {})


def named(config, found: dict[str, Dataset]) -> dict[str, str]:
    """Our split → their name, or the slices of theirs that it is."""
    own = {ours: next((name for name in theirs if name in found), None) for ours, theirs in OWN_NAMES.items()}
    return config.splits or {ours: name for ours, name in own.items() if name}


def chosen(config, found: dict[str, Dataset], theirs: dict[str, str]) -> dict[str, Dataset]:
    """The rows of our splits."""
    have = ", ".join(f"{name} ({counted(len(rows), 'row')})" for name, rows in found.items())
    if not config.splits:
        rows_of = {ours: found[name] for ours, name in theirs.items()}
    else:
        ranges = {ours: _ranges(ours, name, found, have) for ours, name in theirs.items()}
        _refuse_overlap(ranges)
        rows_of = {ours: _rows(found, part) for ours, part in ranges.items()}
    if "train" not in rows_of:
        raise UserError(f"data.splits: which is train? Write data.splits={{train: NAME}}. Have: {have}.")
    for ours, rows in rows_of.items():
        if not len(rows):
            raise UserError(f"data.splits.{ours}: {theirs[ours]!r} has no rows. Have: {have}.")
    return rows_of


def _ranges(ours: str, theirs: str, found: dict[str, Dataset], have: str) -> list[tuple[str, int, int]]:
    """'train[:80%]+extra' → (split, from, to) for each part of the sum."""
    try:
        parts = ReadInstruction.from_spec(theirs).to_absolute({name: len(rows) for name, rows in found.items()})
    except (ValueError, AssertionError, KeyError, TypeError):
        raise UserError(
            f"data.splits.{ours}: {theirs!r} is not one of its splits. Have: {have}; slices: train[:80%]."
        ) from None
    return [(part.splitname, part.from_, part.to) for part in parts]


def _rows(found: dict[str, Dataset], parts: list[tuple[str, int, int]]) -> Dataset:
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
