"""LabelMe's files: a JSON beside each picture, with the rectangles, polygons and circles that were drawn on it.

    photos/1.jpg  photos/1.json  photos/2.jpg …              → split here, drawn by `seed`
    photos/train/1.jpg  photos/train/1.json  photos/val/…    → as they lie; what is missing is taken from train

    data: {source: labelme, path: photos}

Shapes of one label and one `group_id` are one thing. Points and lines are passed over, as are flags; pictures without a JSON are
`unlabelled`. The picture's file is read, never the copy that a JSON holds (`imageData`).
Format: github.com/wkentaro/labelme, `labelme/_label_file.py`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adapt.contracts import SourceConfig
from adapt.data.places import existing


class Config(SourceConfig):
    """Where the files lie, and how they are split."""

    source: str = "labelme"
    """This file."""
    path: str
    """The folder of the JSON files, at any depth; in folders train, val and test, where there are such."""
    images: str | None = None
    """The folder that the pictures' names in the files (`imagePath`) start from; none: each file's own."""
    validation: float = Field(0.15, ge=0, le=0.9)
    """Share for validation, when there is no folder for it; 0 = none."""
    test: float = Field(0.15, ge=0, le=0.9)
    """Share for the test, when there is no folder for it; 0 = none."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of the split, which depends on the pictures' paths and on nothing else."""
    on_error: Literal["stop", "skip"] = "stop"
    """Files, shapes and pictures that cannot be used: stop and name them, or leave their pictures out and list them in `report`."""

    def check_paths(self) -> None:
        """The folders must be there."""
        existing(self.path, "data.path")
        if self.images:
            existing(self.images, "data.images")


def load(config: Config):
    """Read the files.

    Returns:
        `Splits` with train and, where there are any, validation, test (id: the picture's path, image, objects: bbox float[N, 4] XYXY in
        pixels, category int[N], and with any polygon or circle mask: COCO RLE) and unlabelled (id, image).

    Raises:
        UserError: no such folder, no file of LabelMe's; with `on_error: stop`, what cannot be used, by file and shape.
    """
    from adapt.data.labelme.files import read
    from adapt.data.listed import gathered

    root = existing(config.path, "data.path")
    images = existing(config.images, "data.images") if config.images else root
    items, problems = read(root, images, config)
    return gathered(config, images, items, problems)
