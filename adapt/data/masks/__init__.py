"""Your own pictures with a PNG mask beside each: class numbers, or instance numbers, a number a pixel.

    photos/images/a.jpg        photos/masks/a.png           → split here, drawn by `seed`
    photos/images/train/a.jpg  photos/masks/train/a.png     → as they lie; what is missing is taken from train
    photos/train/images/a.jpg  photos/train/masks/a.png     → the same
    photos/classes.yaml        {0: background, 1: cat, 2: dog, 255: ignore}, or a list of names from 0; without it the names are
                               the numbers that the masks have, 64 at most and no shades of grey

    data: {source: masks, path: photos}
    data: {source: masks, path: VOC2012, images: JPEGImages, masks: SegmentationClass}
    data: {source: masks, path: cells, kind: instance}
    data: {source: masks, path: city, kind: instance, divisor: 1000}      # 26003 is the third car: class 26

Grey, palette (Pascal VOC) and 16-bit PNGs are read. Masks are read once; the rows are kept in `$ADAPT_CACHE/masks`.

`data.classes` renames classes, joins those that get the same name (with kind class, they are one object then), and leaves out those that
get null: they are no objects, and their pixels become background, 0, as those of the boxes and polygons that other sources leave out. They
are judged: a model must learn that they are none of the classes. Pixels that nobody should judge have the number `data.ignore` in the masks.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adapt.data.config import ClassesConfig
from adapt.data.places import existing
from adapt.plug import UserError


class Config(ClassesConfig):
    """Where pictures and masks lie, and what a mask's numbers mean."""

    source: str = "masks"
    """This file."""
    path: str
    """The folder that has the folders `images` and `masks`, or train, val and test folders that have them."""
    images: str = "images"
    """The pictures' folder."""
    masks: str = "masks"
    """The masks' folder, with the same folders and names in it as that of the pictures, but `.png`."""
    suffix: str = ""
    """What a mask's name has after its picture's: `_mask` for a.jpg and a_mask.png."""
    kind: Literal["class", "instance"] = "class"
    """class: a pixel's number is its class, and each class is one object; instance: each number is an object of its own."""
    divisor: int | None = Field(None, ge=2)
    """With instances: number // divisor is the class (1000 in Cityscapes); none: all instances are of one class."""
    background: int = 0
    """The number of pixels that belong to nothing."""
    ignore: int | None = 255
    """The number of pixels that nobody judged; none: there is none."""
    test_from: Literal["train", "val"] = "train"
    """Where a missing test comes from: a share of train; or the folder val, and then validation is a share of train."""

    def check_paths(self) -> None:
        """The folder must be there."""
        existing(self.path, "data.path")


def load(config: Config):
    """Read the folder.

    Returns:
        `Splits` with train and, where there are any, validation and test: id (path below the folder), image, objects (bbox
        float[N, 4] XYXY in pixels, category int[N], mask: COCO RLE), segmentation (PNG: 0 background, k + 1 the category k, 255 not
        judged).

    Raises:
        UserError: no folder, no pictures, no mask that can be used; a classes.yaml that is none; `data.classes` names a class that the data
            have not, or leaves out all; with `on_error: stop`, pictures or masks that cannot be used.
    """
    from adapt.data.masks.files import classes, rows
    from adapt.data.masks.pairs import look, pairs
    from adapt.data.problems import Report
    from adapt.data.split import Splits, by_split, limited, placed

    root = existing(config.path, "data.path")
    found, problems = pairs(root, config)
    table = rows(root, config, look(root, found, problems), classes(root, config, found))
    report = Report(len(found), problems + _problems(table))
    if config.on_error == "stop" and report.severe:
        raise report.error("data.path")
    bad = {problem.id for problem in report.severe}
    keep = [i for i, name in enumerate(table["id"]) if name not in bad]
    if not keep:
        raise UserError(
            f"data.path: no picture in {config.path!r} has a mask that can be used. "
            f"The first problem: {report.problems[0] if report.problems else 'none'}."
        )
    table = table.select(keep)
    split, origin, torn = placed(config, table["id"][:], table["split"][:], table["digest"][:])
    if "train" not in split:
        raise UserError(f"data.path: {config.path!r} has no picture left for train. Lower data.validation and data.test.")
    parts = limited(config, by_split(table.remove_columns(["split", "digest", "problems"]), split))
    return Splits(parts, origin, Report(report.pictures, report.problems + torn))


def _problems(table) -> list:
    """What was found wrong when the masks were read; objects of classes that are left out are counted."""
    from collections import Counter

    from adapt.data.listing import left_out
    from adapt.data.problems import LEFT_OUT, Problem

    found = [
        Problem(row["id"], row["split"], problem["kind"], problem["detail"])
        for row in table.select_columns(["id", "split", "problems"])
        for problem in row["problems"]
    ]
    gone = Counter(problem.detail for problem in found if problem.problem == LEFT_OUT)
    return [problem for problem in found if problem.problem != LEFT_OUT] + left_out(gone, "object")
