"""Which pictures a draw has: so many of each class, by (shots, seed); drawn, or read from a file of ids, and written as one.

Each (shots, seed) is a draw of its own, as CoOp's `split_fewshot/shot_K-seed_S` files are (Zhou et al. 2022, arXiv:2109.01134): the
pictures of two shots need not be among those of four. Validation has min(shots, 4) pictures a class, as theirs. Those files are
pickles, which are never read; ours have a JSON object on each line:

    {"set": "train", "shots": 4, "seed": 1, "ids": ["cat/1.jpg", "dog/7.jpg"]}
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from adapt.plug import UserError, nearest
from adapt.recipe import read_text

SETS = ("train", "validation")
VALIDATED = 4
"""Validation pictures a class, at most (CoOp)."""
LOOKED_AT = 50_000
"""Ids among which the nearest to a wrong one is looked for."""
Key = tuple[int, int]
"""Shots and seed."""


@dataclass(frozen=True)
class Draw:
    """The pictures of one (shots, seed), by their ids, in order."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    """Empty where the data have no validation split."""


def draw(ids: Mapping[str, Sequence[str]], labels: Mapping[str, Sequence[int]], keys: Iterable[Key]) -> dict[Key, Draw]:
    """So many pictures of each class, by the order of their ids' hashes: other rows or another order of them change no draw.

    Args:
        ids, labels: of the splits `train` and, if there is one, `validation`; a label below 0 is none.
    """
    found = {}
    for shots, seed in keys:
        parts = {}
        for name, count in (("train", shots), ("validation", min(shots, VALIDATED))):
            order = sorted(
                (hashlib.sha256(f"{name}/{shots}/{seed}/{one}".encode()).digest(), one, label)
                for one, label in zip(ids.get(name, ()), labels.get(name, ()), strict=True)
                if label >= 0
            )
            taken: Counter[int] = Counter()
            chosen = []
            for _, one, label in order:
                taken[label] += 1
                if taken[label] <= count:
                    chosen.append(one)
            parts[name] = tuple(chosen)
        found[shots, seed] = Draw(**parts)
    return found


def read(path: str | Path, keys: Iterable[Key], ids: Mapping[str, Sequence[str]]) -> dict[Key, Draw]:
    """The draws of a file.

    Args:
        keys: those that are asked for.
        ids: split → ids of the data. Pictures of train and validation may be in either set; those of test in none.

    Raises:
        UserError: a line is no draw, a draw lacks, or an id is unknown, repeated, or of the test split.
    """
    split = {one: name for name, own in ids.items() for one in own}
    sets: dict[tuple[str, int, int], tuple[str, ...]] = {}
    for place, line in _lines(path):
        key = (line["set"], line["shots"], line["seed"])
        if key in sets:
            raise UserError(f"{place}: there is a line of {key[0]}, {key[1]} shots, seed {key[2]} before it. Keep one of them.")
        _known(place, line["ids"], split)
        sets[key] = tuple(line["ids"])
    found = {}
    for shots, seed in keys:
        if ("train", shots, seed) not in sets:
            have = sorted(f"{s} shots, seed {n}" for name, s, n in sets if name == "train")
            raise UserError(
                f"{path}: no line of train, {shots} shots, seed {seed}.{nearest(f'{shots} shots, seed {seed}', have)}"
            )
        train, validation = (sets.get((name, shots, seed), ()) for name in SETS)
        if both := sorted(set(train) & set(validation)):
            raise UserError(f"{path}: {both[0]!r} is in train and in validation of {shots} shots, seed {seed}. Keep it in one.")
        found[shots, seed] = Draw(train, validation)
    return found


def _lines(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and content of each line."""
    kinds = {"set": str, "shots": int, "seed": int, "ids": list}
    for number, text in enumerate(read_text(Path(path), "splits").splitlines(), 1):
        place = f"{path}, line {number}"
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        right = isinstance(line, dict) and all(type(line.get(name)) is kind for name, kind in kinds.items())
        if not (right and line["ids"] and all(isinstance(one, str) for one in line["ids"])):
            example = '{"set": "train", "shots": 4, "seed": 1, "ids": ["cat/1.jpg"]}'
            raise UserError(f"{place}: {text[:60]!r} is no draw. Write an object such as {example}.")
        if line["set"] not in SETS:
            raise UserError(f"{place}: set: {line['set']!r} is not train or validation.{nearest(line['set'], SETS)}")
        yield place, line


def _known(place: str, ids: Sequence[str], split: Mapping[str, str]) -> None:
    """Is each id one of the data, not of the test split, and there once?"""
    lacking = [one for one in ids if one not in split]
    if lacking:
        close = difflib.get_close_matches(lacking[0], islice(split, LOOKED_AT), n=1, cutoff=0.6)
        hint = f"Did you mean {close[0]!r}?" if close else f"An id of these data is {next(iter(split), '')!r}."
        more = f" (and {len(lacking) - 1:,} more)" if len(lacking) > 1 else ""
        raise UserError(f"{place}: the data have no picture {lacking[0]!r}{more}. {hint}")
    if tested := [one for one in ids if split[one] not in SETS]:
        raise UserError(f"{place}: {tested[0]!r} is of the {split[tested[0]]} split, from which nothing may be learnt.")
    if repeated := [one for one, count in Counter(ids).items() if count > 1]:
        raise UserError(f"{place}: {repeated[0]!r} is there twice. Name each picture once.")


def written(draws: Mapping[Key, Draw]) -> str:
    """Draws as a file has them."""
    lines = []
    for (shots, seed), drawn in sorted(draws.items()):
        for name, ids in (("train", drawn.train), ("validation", drawn.validation)):
            if ids:
                lines.append(json.dumps({"set": name, "shots": shots, "seed": seed, "ids": list(ids)}, ensure_ascii=False))
    return "\n".join(lines) + "\n"


def fewer(labels: Sequence[int], classes: Sequence[str], shots: int) -> dict[str, int]:
    """Class → its pictures, of the classes that have fewer than `shots`.

    Args:
        labels: of a draw's training pictures.
        classes: all names.
    """
    have = Counter(labels)
    return {name: have[number] for number, name in enumerate(classes) if have[number] < shots}
