"""What `adapt doctor data` is asked, as it is typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapt.overrides import taken
from adapt.plug import UserError, nearest

HELP = """adapt doctor suite=NAME|FILE.yaml data.path=TREE

  Set by set: there, missing, broken (and why), of other counts than the suite
  expects, or of class names that its words do not know. Headers and labels are
  read, and no picture; what was read is remembered until a tar changes

adapt doctor data data.path=PATH|recipe=NAME|run=FOLDER [key=value …]

  write=FILE.csv   the whole list of problems; FILE.json: the same as JSON
  sheet=FILE.html  the contact sheet: counts, classes, pictures with their
                   boxes and masks, doubtful labels, pictures that look alike.
                   By default doctor/NAME-HASH.html; sheet=none draws none
  noise=true       doubtful labels too: a linear probe on frozen features of
                   the recipe's model (without a recipe: of dinov2-tiny) is
                   asked about pictures that it has not learnt from

What it looks for, beside what each source refuses:

  tiny box         the shorter side is below 4 pixels of the model's input;
                   without a recipe: below 4 pixels of the picture, or the box
                   below 1/10,000 of it
  object twice     two boxes of one class on one picture, IoU above 0.9
  map of one value, empty mask    nothing, or one class, all over
  odd size         the longer side 4 times that of the median picture, or a
                   quarter of it; or sides 4 times apart
  near leak        a picture of one split that looks like one of another:
                   of 64 bits of the perceptual hash 4 or fewer differ. Mirrored
                   and turned pictures are not found
  near duplicate   the same within train

Exit status 2: there are severe problems, or training would refuse the data; or
a set of the suite is not as it expects."""
OWN = ("write", "sheet", "noise")
KNOWN = ("data.path", "noise", "recipe", "run", "sheet", "write")
NONE = "none"


@dataclass(frozen=True)
class Request:
    """What is asked for, beside the data."""

    write: str | None = None
    """The list's file."""
    sheet: str | None = None
    """The contact sheet's file; `none`: there is to be none; not given: `doctor/NAME-HASH.html`."""
    noise: bool = False
    """Are labels to be doubted?"""
    recipe: bool = False
    """Are the data those of a recipe or a run? Else of `data.path`, or `data`."""


def parse(arguments: list[str]) -> Request:
    """Take the verb's own arguments out of the others, which are those of the data or of a recipe.

    Raises:
        UserError: one is repeated, or not what it takes; no data are named.
    """
    given = taken(arguments, OWN)
    noise = given.get("noise", "false")
    if noise not in ("true", "false"):
        raise UserError(f"noise: {noise!r} is not true or false.")
    sheet = given.get("sheet")
    if sheet is not None and sheet != NONE and Path(sheet).suffix.lower() not in (".html", ".htm"):
        raise UserError(
            f"sheet: {sheet!r} does not end in .html. The contact sheet is a page: write sheet=FILE.html, or sheet=none."
        )
    if "write" in given and not given["write"]:
        raise UserError("write: no file. Write write=problems.csv.")
    return Request(given.get("write"), sheet, noise == "true", of_recipe(arguments, "doctor data", KNOWN))


def of_recipe(arguments: Sequence[str], verb: str, known: Sequence[str]) -> bool:
    """Is a recipe or a run named, in what is left of a verb's arguments? Else they are of `data` alone.

    Args:
        known: what the verb takes, for messages.

    Raises:
        UserError: no data are named, or something else beside them.
    """
    names = [one.partition("=")[0] for one in arguments]
    if {"recipe", "run"} & set(names):
        return True
    if not {"data", "data.path", "data.source"} & set(names):
        raise UserError(f"{verb}: which pictures? Write data.path=FOLDER, or recipe=NAME.")
    if unknown := sorted(name for name in names if name.split(".")[0] != "data"):
        raise UserError(f"{verb}: {unknown[0]!r} is unknown without recipe=.{nearest(unknown[0], known)}")
    return False
