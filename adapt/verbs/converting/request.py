"""What `adapt convert` is asked for, as it is typed."""

from __future__ import annotations

from dataclasses import dataclass

from adapt.overrides import taken
from adapt.plug import UserError, nearest
from adapt.verbs.doctoring.request import of_recipe

HELP = """adapt convert data.path=PATH|recipe=NAME to=FORMAT out=FOLDER [data.KEY=… …]

  to=coco          boxes, masks as RLE, captions: annotations/*.json, images/.
                   What is COCO's already is copied word by word: ids, areas,
                   supercategories, polygons and what else stands there
  to=yolo          boxes: labels/SPLIT, images/SPLIT, data.yaml
  to=voc           boxes: Annotations/, JPEGImages/, ImageSets/Main; in pixels
  to=labelstudio   boxes or classes: tasks.json with annotations, images/
  to=png           a class a pixel: images/SPLIT, masks/SPLIT, classes.yaml
  to=csv           classes: labels.csv with path, label and split, images/
  to=folder        classes: SPLIT/CLASS/

  pictures=link    hard links to the pictures, which need no room, and copies
                   on another disk; pictures=copy: copies in any case

All that `data` takes holds: data.classes='{cat: animal, dog: null}',
data.limit=100, data.group=…, data.seed=1, data.on_error=skip. Splits are as
given, or drawn. What a format cannot hold is said, with a count."""
FORMATS = ("coco", "yolo", "voc", "labelstudio", "png", "csv", "folder")
OWN = ("to", "out", "pictures")
KNOWN = (*OWN, "data.path", "recipe", "run")


@dataclass(frozen=True)
class Request:
    """What is asked for, beside the data."""

    to: str
    """One of `FORMATS`."""
    out: str
    """A new or empty folder."""
    copy: bool = False
    """Copy the pictures; else they are hard links, where the disk can have them."""
    recipe: bool = False
    """Are the data those of a recipe or a run? Else of `data.path`, or `data`."""


def parse(arguments: list[str]) -> Request:
    """Take the verb's own arguments out of the others, which are those of the data or of a recipe.

    Raises:
        UserError: one is missing, repeated, or not what it takes.
    """
    given = taken(arguments, OWN)
    for name, example in (("to", "to=coco"), ("out", "out=FOLDER")):
        if not given.get(name):
            raise UserError(f"{name}: missing. Write {example}. Formats: {', '.join(FORMATS)}.")
    if given["to"] not in FORMATS:
        raise UserError(f"to: there is no format {given['to']!r}.{nearest(given['to'], FORMATS)}")
    pictures = given.get("pictures", "link")
    if pictures not in ("link", "copy"):
        raise UserError(f"pictures: {pictures!r} is not link or copy.")
    return Request(given["to"], given["out"], pictures == "copy", of_recipe(arguments, "convert", KNOWN))
