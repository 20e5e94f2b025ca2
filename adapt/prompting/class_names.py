"""Which entry of a word list means which label of the data: by name, exactly where it can be; never by position unasked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from adapt.plug import UserError, counted
from adapt.prompting.word_lists import Entry

SHOWN = 8
"""Names that a message shows of each difference."""


def matched(labels: Sequence[str], entries: Sequence[Entry], place: str, how: str) -> tuple[list[int], list[str]]:
    """The number of each label's entry, and lines for the user.

    A label means the entry with its key; else the one entry that has it among its names; else the one entry whose key or name is
    spelled alike (case, blanks, `_` and `-` aside) and that no other label means. Labels that are numbers, 0 to n − 1, mean the list's n
    entries in their order.

    Args:
        place: the option, for messages.
        how: `name`, or `position`: the labels' order is the list's.

    Raises:
        UserError: some labels have no entry; the message has what the data have and the list lacks, and the other way round.
    """
    if how == "position":
        return _by_position(labels, entries, place)
    found = _exact(labels, entries)
    spelled = _alike([label for label in labels if label not in found], entries, set(found.values()))
    found |= spelled
    lacking = [label for label in labels if label not in found]
    if lacking and sorted(map(_number, labels)) == list(range(len(entries))):
        return list(map(_number, labels)), [
            f"{place}: labels are numbers and mean the list's classes in its order, {_pairs(labels, entries)}."
        ]
    used = set(found.values())
    spare = [entry.key for number, entry in enumerate(entries) if number not in used]
    if lacking:
        raise UserError(
            f"{place}: the names do not match the data. Of the data's, the list lacks {_some(lacking)}; of the list's, the data lack "
            f"{_some(spare)}.{_way_out(labels, entries)}"
        )
    notes = [f"{place}: of the list's names, the data lack {_some(spare)}. They are not used."] if spare else []
    if spelled:
        label, number = next(iter(spelled.items()))
        notes.append(
            f"{place}: {counted(len(spelled), 'label')} matched by spelling, such as {label!r} with {entries[number].key!r}."
        )
    return [found[label] for label in labels], notes


def _exact(labels: Sequence[str], entries: Sequence[Entry]) -> dict[str, int]:
    """Labels that are an entry's key, or a name of one entry alone."""
    keys: dict[str, int] = {}
    names: dict[str, set[int]] = {}
    for number, entry in enumerate(entries):
        for name in entry.texts:
            names.setdefault(name, set()).add(number)
        names.setdefault(entry.key, set()).add(number)
        keys.setdefault(entry.key, number)
    times = Counter(entry.key for entry in entries)
    found = {label: keys[label] for label in labels if times[label] == 1}
    taken = set(found.values())
    others = {label: min(names[label]) for label in labels if label not in found and len(names.get(label, ())) == 1}
    return found | {label: number for label, number in _once(others).items() if number not in taken}


def _alike(labels: Sequence[str], entries: Sequence[Entry], taken: set[int]) -> dict[str, int]:
    """Labels that are spelled like one free entry, and no other label is."""
    names: dict[str, set[int]] = {}
    for number, entry in enumerate(entries):
        if number not in taken:
            for name in (entry.key, *entry.texts):
                names.setdefault(_plain(name), set()).add(number)
    found = {label: min(names[_plain(label)]) for label in labels if len(names.get(_plain(label), ())) == 1}
    return _once(found)


def _by_position(labels: Sequence[str], entries: Sequence[Entry], place: str) -> tuple[list[int], list[str]]:
    if len(labels) != len(entries):
        raise UserError(
            f"{place}: match=position needs as many classes as the data have: the list has {len(entries):,}, the data have {len(labels):,}."
        )
    return list(range(len(labels))), [f"{place}: matched by position, as asked: {_pairs(labels, entries)}."]


def _pairs(labels: Sequence[str], entries: Sequence[Entry]) -> str:
    """The first three labels and the last, with what stands for them."""
    order = list(map(_number, labels)) if sorted(map(_number, labels)) == list(range(len(entries))) else range(len(labels))
    said = [f"{label!r} is {entries[number].texts[0]!r}" for label, number in zip(labels, order, strict=True)]
    return ", ".join(said if len(said) < 5 else [*said[:3], "…", said[-1]])


def _way_out(labels: Sequence[str], entries: Sequence[Entry]) -> str:
    return " If both are in the same order, write prompts.match=position." if len(labels) == len(entries) else ""


def _some(names: Sequence[str]) -> str:
    """How many names there are, and the first of them."""
    shown = ", ".join(map(repr, names[:SHOWN])) + (", …" if len(names) > SHOWN else "")
    return f"{len(names):,} ({shown})" if names else "none"


def _once(found: dict[str, int]) -> dict[str, int]:
    """Those labels whose entry is no other label's."""
    times = Counter(found.values())
    return {label: number for label, number in found.items() if times[number] == 1}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _number(label: str) -> int:
    return int(label) if label.isdecimal() and label.isascii() else -1
