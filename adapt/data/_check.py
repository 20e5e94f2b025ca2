"""What is wrong with a data set, found before anything learns from it.

    report = check("photos")                      # a folder, a `Dataset` or a `DatasetDict`
    report.write("problems.csv")                  # or .json

Severe problems stop a training or leave the picture out (`data.on_error`); the others are only told.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from datasets import ClassLabel, Dataset, DatasetDict, Image
from PIL import Image as Picture

from adapt.data._images import SUFFIXES, cache_folder, digest, open_picture, reason, unrle
from adapt.plug import UserError
from adapt.run import atomic
from adapt.train.progress import progress

# problem → (is it severe, what to do)
KINDS = {
    "unreadable": (True, "replace the file by one that opens in an image viewer, or delete it"),
    "truncated": (True, "copy or download the file again, or delete it"),
    "zero-size": (True, "copy or download the file again, or delete it"),
    "decompression bomb": (True, "scale the picture down, or delete it"),
    "leads outside": (True, "copy the file into the folder in place of the link"),
    "empty class": (True, "put pictures in it, or delete the class"),
    "unseen class": (True, "put pictures of the class in train, or delete it here"),
    "box off the image": (True, "clip the box to the image"),
    "box reversed": (True, "write boxes as left, top, right, bottom with left < right and top < bottom"),
    "mask off the image": (True, "make the mask as large as its image, and not empty"),
    "no class": (True, "put the picture in the folder of its class"),
    "two classes": (False, "the same picture has two classes: delete the wrong one"),
    "leak": (False, "the same picture is in two splits: delete it in one, or the test is too kind"),
    "duplicate": (False, "delete one of the two, if its weight should not be doubled"),
    "wrong mode": (False, "nothing: it is converted to RGB when read"),
    "turned": (False, "nothing: it is turned as its EXIF tag says when read"),
    "many frames": (False, "nothing: the first frame is used"),
    "link": (False, "links to folders are not followed: copy the folder to its place"),
}


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one picture, object or class."""

    id: str
    split: str
    problem: str
    detail: str = ""

    @property
    def severe(self) -> bool:
        """It stops a training."""
        return KINDS[self.problem][0]

    @property
    def todo(self) -> str:
        """What to do about it."""
        return KINDS[self.problem][1]

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.split + ': ' if self.split else ''}{self.id}: {self.problem}{detail}; {self.todo}"


@dataclass
class Report:
    """All that was found."""

    pictures: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def severe(self) -> list[Problem]:
        """What stops a training, or is left out with `on_error: skip`."""
        return [problem for problem in self.problems if problem.severe]

    def counts(self) -> dict[str, int]:
        """Problem → how often, the most frequent first."""
        return dict(Counter(problem.problem for problem in self.problems).most_common())

    def rows(self) -> list[dict]:
        """One dictionary a problem: id, split, problem, detail, severe, todo."""
        return [asdict(problem) | {"severe": problem.severe, "todo": problem.todo} for problem in self.problems]

    def write(self, path: str | Path) -> Path:
        """Write the list as CSV, or as JSON if the name ends so."""
        path = Path(path)
        with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            if path.suffix == ".json":
                json.dump({"pictures": self.pictures, "problems": self.rows()}, file, indent=1, ensure_ascii=False)
            else:
                writer = csv.DictWriter(file, ["id", "split", "problem", "detail", "severe", "todo"])
                writer.writeheader()
                writer.writerows(self.rows())
        return path

    def error(self, place: str, most: int = 10) -> UserError:
        """The severe problems, one a line, as the error that stops."""
        severe = self.severe
        lines = [f"{place}: {problem}." for problem in severe[:most]]
        if len(severe) > most:
            lines.append(f"{place}: … and {len(severe) - most} more; `adapt doctor data.path=…` lists all.")
        lines.append("data.on_error: skip leaves these out.")
        return UserError("\n".join(lines))


def check(data: str | Path | Dataset | DatasetDict) -> Report:
    """Look at every picture, box, mask and class.

    Args:
        data: a folder of pictures, in class folders or not, or rows with the standard columns.

    Raises:
        UserError: the folder is missing or has no pictures.
    """
    if isinstance(data, str | Path):
        return _check_folder(folder(data, "data"))
    splits = data if isinstance(data, dict) else {"": data}
    report = Report()
    seen: dict = {}
    with progress("check", sum(len(rows) for rows in splits.values())) as tick:
        for split, rows in splits.items():
            for problem in _check_rows(split, rows, seen):
                report.problems.append(problem)
                # wait: ticks are counted per picture below
            report.pictures += len(rows)
            tick()
    report.problems += _check_classes(splits)
    return report
