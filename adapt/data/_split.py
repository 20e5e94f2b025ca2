"""Splits that are functions of a seed and of what is split."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

SPLITS = ("train", "validation", "test")


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


def by_split(dataset, split: Sequence[str]):
    """Rows of a `datasets.Dataset` → a `DatasetDict` of the splits that have rows."""
    from datasets import DatasetDict

    rows = {name: [i for i, value in enumerate(split) if value == name] for name in SPLITS}
    return DatasetDict({name: dataset.select(indices) for name, indices in rows.items() if indices})
