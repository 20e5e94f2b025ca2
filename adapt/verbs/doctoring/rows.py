"""The rows of all splits: what they are, what they hold, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from adapt.plug import Plugin, UserError

if TYPE_CHECKING:
    from datasets import DatasetDict

    from adapt.contracts import Input
    from adapt.data.problems import Problem
    from adapt.verbs.doctoring.alike import Alike
    from adapt.verbs.doctoring.counts import Balance, Sizes
    from adapt.verbs.doctoring.noise import Noise
    from adapt.verbs.doctoring.objects import Objects
    from adapt.verbs.doctoring.pictures import Looks, Shared


@dataclass
class Seen:
    """What the rows of all splits are and hold."""

    splits: DatasetDict
    ids: dict[str, list[str]]
    looks: dict[str, Looks]
    objects: dict[str, Objects]
    """Of the splits that have some."""
    balances: list[Balance]
    """Of the pictures' classes and of the objects' categories, as far as there are any and they are not the same."""
    sizes: Sizes | None
    alike: list[Alike]
    noise: Noise | None
    problems: list[Problem] = field(default_factory=list)

    def rows(self) -> list[dict[str, Any]]:
        """A row a split, as `described` has it, with its numbers."""
        from adapt.data.split import described
        from adapt.verbs.doctoring.counts import measured, spread

        rows = []
        for row in described(self.splits):
            split = row["split"]
            sizes = measured({split: self.looks[split].size})
            row["sizes"] = asdict(sizes) if sizes else None
            if split in self.objects:
                each = self.objects[split].each
                row |= {"objects": int(each.sum()), "objects_each": spread(each), "crowds": self.objects[split].crowds}
            for balance in self.balances:
                if split in balance.counts:
                    row[f"{balance.what}_classes"] = dict(zip(balance.names, balance.counts[split].tolist(), strict=True))
            rows.append(row)
        return rows

    def sentences(self) -> list[str]:
        """What a user is told of them."""
        from adapt.verbs.doctoring.counts import objects_said

        lines = [line for balance in self.balances for line in balance.sentences()]
        lines += [objects_said(split, found.each, found.crowds) for split, found in self.objects.items()]
        return [*lines, *([str(self.sizes)] if self.sizes else []), *(self.noise.sentences() if self.noise else [])]

    def document(self) -> dict[str, Any]:
        """What JSON has beside problems and splits."""
        leaks = Counter("near_leaks" if one.leak else "near_duplicates" for one in self.alike)
        return {
            "sizes": asdict(self.sizes) if self.sizes else None,
            "alike": {name: leaks[name] for name in ("near_leaks", "near_duplicates")},
            "noise": self.noise.document(self.ids) if self.noise else None,
        }


def examined(splits: DatasetDict, noise: bool = False, model: Plugin | None = None, shared: Shared | None = None) -> Seen:
    """Look at the rows of all splits.

    Args:
        noise: are labels to be doubted?
        model: of the recipe, if there is one: by its input boxes are tiny, by its features labels doubtful.
        shared: looks at files that the source has opened.
    """
    from adapt.verbs.doctoring.alike import alike
    from adapt.verbs.doctoring.counts import measured
    from adapt.verbs.doctoring.noise import doubtful
    from adapt.verbs.doctoring.objects import objects_of
    from adapt.verbs.doctoring.pictures import looked
    from adapt.vision.classes import category_names

    looks = looked(splits, shared)
    with_objects = {split: rows for split, rows in splits.items() if "objects" in rows.column_names}
    sight = input_of(model) if model and with_objects else None
    objects = {
        split: objects_of(split, rows, looks[split].size, category_names(rows.features), sight)
        for split, rows in with_objects.items()
    }
    seen = Seen(
        splits,
        {split: _ids(split, rows) for split, rows in splits.items()},
        looks,
        objects,
        _balances(splits, objects),
        measured({split: one.size for split, one in looks.items()}),
        alike(looks),
        doubtful(splits, looks, model) if noise else None,
    )
    seen.problems = _problems(seen)
    return seen


def _ids(split: str, rows) -> list[str]:
    """A name for each row, as `check` gives it."""
    given = rows["id"][:] if "id" in rows.column_names else [None] * len(rows)
    return [str(name or f"{split}/{number}") for number, name in enumerate(given)]


def _balances(splits: DatasetDict, objects: dict[str, Objects]) -> list[Balance]:
    from adapt.verbs.doctoring.counts import Balance, of_numbers
    from adapt.vision.classes import category_names

    labelled = {split: rows for split, rows in splits.items() if "label" in rows.column_names}
    found = []
    for rows in list(labelled.values())[:1]:
        names = list(rows.features["label"].names)
        counts = {split: of_numbers(rows["label"][:], len(names)) for split, rows in labelled.items()}
        found.append(Balance("picture", names, counts))
    names = next((category_names(splits[split].features) for split in objects), [])
    if names and not (found and found[0].names == names):
        counts = {split: of_numbers(one.categories.tolist(), len(names)) for split, one in objects.items()}
        found.append(Balance("object", names, counts))
    return found


def _problems(seen: Seen) -> list[Problem]:
    """All that is wrong in the rows, as the list has it."""
    from adapt.data.problems import Problem

    def problem(split: str, row: int, kind: str, detail: str) -> Problem:
        return Problem(seen.ids[split][row], split, kind, detail)

    problems = [problem(one.split, one.row, one.problem, one.detail) for found in seen.objects.values() for one in found.found]
    for split, rows in seen.splits.items():
        if seen.sizes:
            problems += [problem(split, row, "odd size", why) for row, why in seen.sizes.odd(seen.looks[split].size)]
        if "segmentation" in rows.column_names:
            problems += [problem(split, *one) for one in _flat_maps(rows)]
    for one in seen.alike:
        told = f"looks like {seen.ids[one.other_split][one.other_row]!r} in {one.other_split}; {one.bits} of 64 bits differ"
        problems.append(problem(one.split, one.row, "near leak" if one.leak else "near duplicate", told))
    doubts = seen.noise.doubts if seen.noise else []
    return problems + [problem(one.split, one.row, "doubtful label", str(one)) for one in doubts]


def _flat_maps(rows) -> list[tuple[int, str, str]]:
    """Maps of classes that say nothing, or one class all over: row, problem, detail."""
    from adapt.verbs.doctoring.pictures import SEVERAL, single_values
    from adapt.vision.classes import IGNORE

    values = single_values(rows)
    return [
        (row, "empty mask", "") if value in (0, IGNORE) else (row, "map of one value", f"{value} all over")
        for row, value in enumerate(values.tolist())
        if value != SEVERAL
    ]


def input_of(model: Plugin) -> Input | None:
    """How a model sees pictures, without its weights; none where its checkpoint does not say so."""
    from transformers import AutoImageProcessor

    from adapt import hardware
    from adapt.contracts import Input
    from adapt.models.checkpoint import UNLOADABLE, image_input, resolve

    with suppress(UserError, LookupError, *UNLOADABLE):
        with hardware.hub():
            processor = AutoImageProcessor.from_pretrained(resolve(model.checkpoint)).to_dict()
        side = (processor.get("size") or {}).get("longest_edge")
        if side:
            return Input(size=(side, side), resize="longest", interpolation="bilinear", crop=None)
        return image_input(processor, model.values().get("image_size"))
    return None
