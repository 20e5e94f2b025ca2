"""LabelMe's files: a JSON beside each picture, with the rectangles, polygons and circles that were drawn on it.

    photos/1.jpg  photos/1.json  photos/2.jpg …              → split here, drawn by `seed`
    photos/train/1.jpg  photos/train/1.json  photos/val/…    → as they lie; what is missing is taken from train

    data: {source: labelme, path: photos}

Shapes of one label and one `group_id` are one thing. Points and lines are passed over, as are flags; pictures without a JSON are
`unlabelled`. The picture's file is read, never the copy that a JSON holds (`imageData`).
Format: github.com/wkentaro/labelme, `labelme/_label_file.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.data.config import AnnotatedConfig
from adapt.data.places import existing

if TYPE_CHECKING:
    from adapt.data.split import Splits


class Config(AnnotatedConfig):
    """Where the files lie, and how they are split."""

    source: str = "labelme"
    """This file."""
    path: str
    """The folder of the JSON files, at any depth; in folders train, val and test, where there are such."""
    images: str | None = None
    """The folder that the pictures' names in the files (`imagePath`) start from; none: each file's own."""

    def check_paths(self) -> None:
        """The folders must be there."""
        existing(self.path, "data.path")
        if self.images:
            existing(self.images, "data.images")


def load(config: Config) -> Splits:
    """Read the files.

    Returns:
        `Splits` with train and, where there are any, validation, test (id: the picture's path, image, objects: bbox float[N, 4] XYXY in
        pixels, category int[N], iscrowd int[N], and with any polygon or circle mask: COCO RLE) and unlabelled (id, image).

    Raises:
        UserError: no such folder, no file of LabelMe's; with `on_error: stop`, what cannot be used, by file and shape.
    """
    from adapt.data.annotated import load_listed
    from adapt.data.labelme.files import listed, read

    root = existing(config.path, "data.path")
    return load_listed(config, listed(root, existing(config.images, "data.images") if config.images else root, config), read)
