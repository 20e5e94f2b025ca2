"""Which entry of a word list means which label of the data: by name, exactly where it can be; never by position unasked."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from adapt.plug import UserError, counted
from adapt.prompting.word_lists import Entry, WordList

SHOWN = 8
"""Names that a message shows of each difference."""


def matched(
    labels: Sequence[str], found: WordList, place: str, how: str, names: Sequence[Sequence[str]] | None = None
) -> tuple[list[int], list[str]]:
    """The number of each label's entry, and lines for the user.

    A label means the entry with its key; else the one that has it among its names; else the one whose key or name is spelled alike (case,
    blanks, `_` and `-` aside) and that no other label means. Labels that are numbers, 0 to n − 1, mean the n classes of a list in their
    order; of a mapping only where it is shipped, since its keys are the data set's.

    Args:
        place: the option, for messages.
        how: `name`, or `position`: the labels' order is the list's.
        names: what each label's class is called, by which the list may have it too; none: the list's own texts are such names.

    Raises:
        UserError: some labels have no entry; the message has what the data have and the list lacks, and the other way round.
    """
    entries = found.entries()
    if how == "position":
        return _by_position(labels, entries, place)
    heard = [(entry.key, *entry.texts) if names is None else (entry.key,) for entry in entries]
    known = {label: (label, *(names[i] if names else ())) for i, label in enumerate(labels)}
    exact = _exact(known, heard, shared=names is not None)
    spelled = _alike({label: known[label] for label in labels if label not in exact}, heard, set(exact.values()))
    meant = exact | spelled
    lacking = [label for label in labels if label not in meant]
    if lacking and found.ordered and sorted(map(_number, labels)) == list(range(len(entries))):
        numbers = list(map(_number, labels))
        return numbers, [
            f"{place}: labels are numbers and mean the list's classes in its order, {_pairs(labels, numbers, entries)}."
        ]
    used = set(meant.values())
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
    return [meant[label] for label in labels], notes


def _exact(known: Mapping[str, Sequence[str]], heard: Sequence[Sequence[str]], shared: bool) -> dict[str, int]:
    """Labels that are an entry's key, or are known by a name of one entry alone; `shared`: several may mean one entry."""
    by = _by_name(heard)
    times = Counter(key for key, *_ in heard)
    keys = {key: number for number, (key, *_) in enumerate(heard) if times[key] == 1}
    found = {label: keys[label] for label in known if label in keys}
    others = _one({label: names for label, names in known.items() if label not in found}, by)
    taken = set(found.values())
    return found | (others if shared else {label: number for label, number in _once(others).items() if number not in taken})


def _alike(known: Mapping[str, Sequence[str]], heard: Sequence[Sequence[str]], taken: set[int]) -> dict[str, int]:
    """Labels that are spelled like one free entry, and no other label is."""
    free = [() if number in taken else tuple(map(_plain, names)) for number, names in enumerate(heard)]
    return _once(_one({label: list(map(_plain, names)) for label, names in known.items()}, _by_name(free)))


def _by_name(heard: Sequence[Sequence[str]]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for number, names in enumerate(heard):
        for name in names:
            found.setdefault(name, set()).add(number)
    return found


def _one(known: Mapping[str, Sequence[str]], by: Mapping[str, set[int]]) -> dict[str, int]:
    """Label → its entry, for labels whose names are all of one entry, where they are of any."""
    meant = {label: set().union(*(by.get(name, set()) for name in names)) for label, names in known.items()}
    return {label: min(numbers) for label, numbers in meant.items() if len(numbers) == 1}


def _by_position(labels: Sequence[str], entries: Sequence[Entry], place: str) -> tuple[list[int], list[str]]:
    if len(labels) != len(entries):
        raise UserError(
            f"{place}: match=position needs as many classes as the data have: the list has {len(entries):,}, the data have {len(labels):,}."
        )
    numbers = list(range(len(labels)))
    return numbers, [f"{place}: matched by position, as asked: {_pairs(labels, numbers, entries)}."]


def _pairs(labels: Sequence[str], numbers: Sequence[int], entries: Sequence[Entry]) -> str:
    """The first three labels and the last, with what stands for them: the entries of these numbers."""
    said = [f"{label!r} is {entries[number].texts[0]!r}" for label, number in zip(labels, numbers, strict=True)]
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
