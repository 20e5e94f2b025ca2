"""Boxes, masks and captions in COCO's JSON, one file or a folder of them.

    data: {source: coco, path: COCO}             # annotations/instances_train2017.json … and train2017/ …; captions_….json too
    data: {source: coco, path: photos}           # train.json, val.json, test.json, their pictures beside them or in images/
    data: {source: coco, path: roboflow}         # train/_annotations.coco.json, valid/…, test/…, pictures beside them
    data: {source: coco, path: photos/all.json}  # one file: split here, drawn by `seed`

Polygons become masks as pycocotools draws them; run lengths stay as they are; crowds stay crowds. Keypoints are passed over.
Categories are told by their names: the numbers may have gaps, and two categories of one name are one. A row's id is the picture's path
below the folder, and `image_id` the number it has in the file; a picture that a file names twice has `path#image_id`. Captions join the
instances of a split; two files of instances that have one picture are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.data.config import AnnotatedConfig

if TYPE_CHECKING:
    from adapt.data.split import Splits


class Config(AnnotatedConfig):
    """Where the annotations and the pictures lie, and how they are split."""

    source: str = "coco"
    """This file."""
    path: str
    """A JSON, or a folder that has `annotations/`, files such as train.json, or folders with a JSON each."""
    images: str | None = None
    """The folder that file names start from, absolute or below that of `path`; none: beside the JSON, `images`, or the split's name."""


def load(config: Config) -> Splits:
    """Read the files.

    Returns:
        `Splits` with train and, where there are any, validation and test: id, image, image_id, objects (bbox float[N, 4] XYXY in pixels,
        category int[N], iscrowd int[N], and mask: COCO RLE, where the annotations have masks), caption (list of texts), where every
        picture has one.

    Raises:
        UserError: no such file, or no JSON; two files of one kind have the same picture of a split; with `on_error: stop`, pictures or
            annotations that cannot be used.
    """
    from adapt.data.annotated import load_listed
    from adapt.data.coco.annotations import Reader

    reader = Reader(config)
    return load_listed(config, reader.listing, reader.read)
