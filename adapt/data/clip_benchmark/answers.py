"""What a sample of the published layout is labelled with: its class, its classes, its captions; and the group that it is of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adapt.plug import UserError, counted

# what DataComp's evaluators know of the numbers beside the class: eval_utils/wilds_eval.py, fairness_eval.py of mlfoundations/datacomp (MIT)
FIELDS = {
    "fmow": ("region", "year", "y"),
    "iwildcam": ("location", "sequence", "year", "month", "day", "hour", "minute", "second", "y"),
    "camelyon17": ("hospital", "slide", "y"),
    "dollar_street": ("income", "income_meta", "region"),
    "geode": ("region", "country"),
}
"""A word of the set's name → its fields, in order; `income` is there called `income_ds`."""
# WILDS numbers FMoW's regions as they first occur (datasets/fmow_dataset.py), and prints them in this order; the last is of 4 of 22,108 pictures
VALUES = {("fmow", "region"): ("Asia", "Europe", "Africa", "Americas", "Oceania", "Other")}
"""Set and field → what its numbers mean; of others the number is the group."""


class Unlabelled(Exception):
    """A sample lacks what it should be labelled with; in words."""


class Answers:
    """Samples → what they are labelled with.

    Args:
        config: of the source.
        names: of the classes.

    Raises:
        UserError: nobody knows which number of the array `config.group` is.
    """

    def __init__(self, config, names: Sequence[str]):
        self.labels, self.names, self.group = config.labels, names, config.group
        self.places = {name: place for place, name in enumerate(names)}
        self.column, self.values = _column(config.path, config.group)

    def of(self, label: str | None, caption: list[str] | None, numbers: list[float] | None) -> Any:
        """The class (int), the classes (list[int]) or the captions (list[str]) of a sample.

        Raises:
            Unlabelled: it has none of that kind, or one that there is not.
        """
        if self.labels == "class":
            return self._class(label, "several classes (.npy)" if numbers else "captions (.txt)" if caption else "")
        if self.labels == "classes":
            if label is not None or numbers is None:
                other = "one class (.cls)" if label is not None else "captions (.txt)" if caption else ""
                raise Unlabelled(_instead("no classes (.npy)", other))
            return self._classes(numbers)
        if not caption:
            other = "one class (.cls)" if label is not None else "several classes (.npy)" if numbers else ""
            raise Unlabelled(_instead("no captions (.txt)", other))
        if self.labels == "choice" and len(caption) < 2:
            raise Unlabelled("one caption alone; to choose there must be two, the right one first")
        return caption

    def _class(self, label: str | None, other: str) -> int:
        if label is None:
            raise Unlabelled(_instead("no class (.cls)", other))
        number = int(label) if label.isdecimal() else self.places.get(label, -1)
        if not 0 <= number < len(self.names):
            raise Unlabelled(
                f"class {label[:60]!r}, but classnames.txt has {counted(len(self.names), 'line')}, for 0 to {len(self.names) - 1}"
            )
        return number

    def _classes(self, numbers: list[float]) -> list[int]:
        """Zeros and ones for each class, as CLIP_benchmark writes them; any other row of numbers are the classes' own."""
        if len(numbers) == len(self.names) and set(numbers) <= {0.0, 1.0}:
            return [place for place, there in enumerate(numbers) if there]
        if wrong := [number for number in numbers if not (number.is_integer() and 0 <= number < len(self.names))]:
            lines = counted(len(self.names), "line")
            raise Unlabelled(
                f".npy has {wrong[0]:g} among {counted(len(numbers), 'number')}, but classnames.txt has {lines}: write a 0 or 1 for each"
            )
        return sorted({int(number) for number in numbers})

    def of_group(self, numbers: list[float] | None) -> str:
        """The group of a sample.

        Raises:
            Unlabelled: nothing says it.
        """
        if numbers is None or self.column >= len(numbers):
            what = "no array (.npy)" if numbers is None else f"an array of {counted(len(numbers), 'number')}"
            raise Unlabelled(f"{what} beside its class, and {self.group!r} is its number {self.column}, from 0")
        number = numbers[self.column]
        known = number.is_integer() and 0 <= number < len(self.values)
        return self.values[int(number)] if known else f"{number:.15g}"


def _instead(lacks: str, other: str) -> str:
    return f"{lacks}, but {other}" if other else lacks


def _column(path: str, group: str | None) -> tuple[int, Sequence[str]]:
    """Which number of the array a group is, and what its values mean."""
    if group is None or group.isdecimal():
        return int(group or 0), ()
    name = path.rstrip("/").rpartition("/")[2]
    known = next((each for each in FIELDS if each in name), None)
    if known and group in FIELDS[known]:
        return FIELDS[known].index(group), VALUES.get((known, group), ())
    have = f"Have: {', '.join(FIELDS[known])}." if known else f"Fields are known of {', '.join(FIELDS)}, by the folder's name."
    raise UserError(
        f"data.group: nothing says where {group!r} is in the array beside a class. {have} Or write its position: data.group='0'."
    )
