"""What can be wrong with data, what to do about it, and the list of what was found.

Severe problems stop a training or leave the picture out (`data.on_error`); the others are only reported.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from adapt.plug import UserError, counted
from adapt.run import atomic
from adapt.vision.depth import REFUSED

LEFT_OUT = "class left out"
# problem → (is it severe, what to do)
KINDS = {
    "unreadable": (True, "copy or download the file again (a picture must open in an image viewer), or delete it"),
    "truncated": (True, "copy or download the file again, or delete it"),
    "zero-size": (True, "copy or download the file again, or delete it"),
    "decompression bomb": (True, "scale the picture down, or delete it"),
    "too thin": (True, "crop the picture, or delete it"),
    "leads outside": (
        True,
        "copy the file into the folder; links of folder and masks are followed with data.follow_links=true",
    ),
    "linked class or split": (True, "set data.follow_links=true, or copy the folder to this place"),
    "no class": (True, "give the picture a class; in a folder of classes, move it into the folder of its class"),
    "empty class": (True, "give the class pictures, or delete it"),
    "unseen class": (True, "give the class pictures in train, or delete it here"),
    "bad line": (
        True,
        "write one JSON object on each line, with the texts image, prefix and suffix (or image, objects and referring), or delete it",
    ),
    "no picture": (True, "correct the name, or name the pictures' folder in data.images"),
    "wrong locations": (
        True,
        "write four for each box, each 0000 to 1023: top, left, bottom, right, with top < bottom and left < right, then its name, and ';' "
        "between objects: <loc0256><loc0128><loc0767><loc0512> cat",
    ),
    "box unreadable": (True, "give each box four numbers and a category"),
    "box reversed": (True, "write boxes as left, top, right, bottom with left < right and top < bottom"),
    "box off the image": (True, "clip the box to the image"),
    "mask off the image": (True, "give the mask the height and width of its image, and at least one pixel"),
    "no mask": (True, "draw a mask for the picture, or move the picture away"),
    "unreadable mask": (True, "save the mask as a grey, palette or 16-bit PNG with a number for each pixel"),
    "grey mask": (True, "threshold the mask at 128 and set data.ignore=null, or number its objects"),
    "mask of another size": (True, "scale the mask to its picture, nearest neighbour"),
    "unknown class": (True, "name the number in classes.yaml, or correct the mask"),
    "empty mask": (False, "nothing to do, if there is really nothing in the picture"),
    "mask alone": (False, "add its picture, or delete the mask"),
    "two classes": (False, "delete it in the wrong class"),
    "leak": (False, "delete it in one of the splits, or the score will be too high"),
    "duplicate": (False, "delete one of the two, unless it should count twice"),
    "passed over": (False, "nothing to do, unless it was meant to be read"),
    "unused class": (False, "nothing to do, if no picture of it is expected"),
    "wrong mode": (False, "nothing to do: converted to RGB when read"),
    "16 bit": (
        False,
        "nothing to do, unless it is dark: the upper 8 bits are read; where only the lower ones are used, multiply the values when "
        "saving, those of 12 bit by 16",
    ),
    "fourth channel": (False, "nothing to do, if the first three are red, green and blue: the fourth is not read"),
    "turned": (False, "nothing to do: turned upright when read"),
    "many frames": (False, "nothing to do: the first frame is used"),
    "link": (False, "links to folders are not followed: set data.follow_links=true, or copy the folder to this place"),
    "link in a circle": (False, "nothing to do: it leads to a folder that it lies in, and is not followed"),
}
KINDS |= {kind: (True, todo) for kind, todo in REFUSED.items()}
# the same of annotation files, tables and labelling tools' exports
ANNOTATED = {
    "bad row": (True, "correct the row, or delete it"),
    "bad annotation": (True, "correct it in the labelling tool and export again, or delete the picture's annotation"),
    "named twice": (True, "delete one of the two"),
    "web address": (True, "copy the picture into a folder, name that in data.images, and write the picture's path below it"),
    "group in two splits": (False, "move all pictures of the group into one split, or the score will be too high"),
    "boxes as masks": (False, "nothing to do, if the whole box may count as the thing; else draw outlines for these too"),
    "polygon off the image": (True, "clip the polygon to the image"),
    "bad polygon": (True, "give each polygon three points or more, as x, y, x, y …, in finite numbers"),
    "bad run lengths": (True, "write the mask with pycocotools again: mask.encode of an array in Fortran order"),
    "mask without pixels": (True, "draw the mask again, or delete the object"),
    "object without mask": (True, "draw its mask, or read boxes alone with data.masks=false"),
    "unknown category": (True, "correct the number, or add the class to the list of classes"),
    "annotation of no picture": (True, "correct the image_id, or delete the annotation"),
    "id twice": (True, "give each picture an id of its own"),
    "picture twice": (True, "name each picture once, in one split"),
    "missing picture": (True, "copy the picture to this place, or correct its name"),
    "picture of another size": (True, "annotate the picture as it is now, or put back the one that was annotated"),
    "bad entry": (True, "correct it, or delete it"),
    "bad label": (True, "write class, centre x, centre y, width, height, or class and polygon; all but the class from 0 to 1"),
    "four corners": (
        False,
        "nothing to do, if they are outlines: write task: segment into the yaml; oriented boxes lose their angle, since each is read as its "
        "outline and an upright box around it",
    ),
    "unsafe tar": (True, "get it again from a place that you trust, or pack it again from the plain files alone"),
    "unreadable annotations": (True, "copy or write the file again"),
    "order of boxes": (False, "nothing to do, if the boxes lie on their things; else say it in data.boxes"),
    "no labels": (False, "nothing to do, if there is really nothing in the picture"),
    LEFT_OUT: (False, "nothing to do: data.classes says so"),
    "passed over": (False, "nothing to do, if it is not needed"),
}
# what only `adapt doctor data` looks for, in the rows of any source: see `verbs/doctoring`
LOOKED = {
    "tiny box": (False, "nothing to do, if the thing is so small; else correct the box, or give the model larger pictures"),
    "object twice": (False, "delete one of the two, unless there are two such things at this place"),
    "map of one value": (False, "nothing to do, if the whole picture is of one class; else draw the map again"),
    "odd size": (False, "nothing to do, if pictures of such a size are expected"),
    "near leak": (False, "look at both: if they show the same, delete one, or the score will be too high"),
    "near duplicate": (False, "nothing to do, if small changes of a picture are wanted; else delete one of the two"),
    "doubtful label": (False, "look at the picture: correct its class, or keep it"),
}
KINDS |= ANNOTATED | LOOKED


class Bad(Exception):
    """What cannot be used: a key of `KINDS`, and a detail."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one picture, object or class."""

    id: str
    split: str
    problem: str
    """A key of `KINDS`."""
    detail: str = ""

    @property
    def severe(self) -> bool:
        """It stops a training, or leaves the picture out."""
        return KINDS[self.problem][0]

    @property
    def todo(self) -> str:
        """What to do about it."""
        return KINDS[self.problem][1]

    def __str__(self) -> str:
        where = f"{self.split}: " if self.split and not self.id.startswith((f"{self.split}/", f"{self.split}.")) else ""
        return f"{where}{self.id!r}: {self.problem}{f' ({self.detail})' if self.detail else ''}; {self.todo}"


@dataclass
class Report:
    """All that was found."""

    pictures: int = 0
    """How many were looked at."""
    problems: list[Problem] = field(default_factory=list)

    @property
    def severe(self) -> list[Problem]:
        """What stops a training; with `data.on_error: skip`, what was left out."""
        return [problem for problem in self.problems if problem.severe]

    def counts(self) -> dict[str, int]:
        """Problem → how often, the most frequent first."""
        return dict(Counter(problem.problem for problem in self.problems).most_common())

    def summary(self) -> str:
        """How many pictures, problems and severe problems, in words."""
        problems, severe = len(self.problems), len(self.severe)
        looked = counted(self.pictures, "picture")
        return (
            f"{looked}, {counted(problems, 'problem')}, {severe or 'none'} of them severe"
            if problems
            else f"{looked}, no problem"
        )

    def rows(self) -> list[dict]:
        """A dictionary a problem: id, split, problem, detail, severe, todo."""
        return [asdict(problem) | {"severe": problem.severe, "todo": problem.todo} for problem in self.problems]

    def write(self, path: str | Path) -> Path:
        """Write the list as CSV, or as JSON when the name ends in .json."""
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
        """The severe problems, one a line, to be raised; `place` is the field of the recipe."""
        severe = self.severe
        lines = [f"{place}: {problem}." for problem in severe[:most]]
        if len(severe) > most:
            lines.append(
                f"{place}: … and {len(severe) - most} more; see them all with: adapt doctor data, and the same recipe and overrides"
            )
        if len(severe) == 1:
            return UserError(f"{lines[0]} data.on_error=skip would leave it out.")
        return UserError("\n".join([*lines, "data.on_error=skip would leave all these out."]))
