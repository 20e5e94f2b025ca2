"""Label Studio's exports, JSON and JSON-MIN: classes of pictures, or boxes, outlines and brush strokes on them, and texts.

    choices → label        rectanglelabels, polygonlabels, brushlabels → objects        textarea → caption

    data: {source: labelstudio, path: export.json, images: media/upload}

An export is of pictures (choices) or of objects: what is there decides, and `kind` where both are. A picture's annotation is the first
that is ground truth, else the first; cancelled ones, predictions and other kinds of regions are passed over and counted. Pictures that
nobody has annotated are `unlabelled`. A box that is turned is refused. Pictures are found below `images` by their names in Label
Studio: /data/upload/3/1a2b3c4d-cat.jpg is 3/1a2b3c4d-cat.jpg, 1a2b3c4d-cat.jpg or cat.jpg there; /data/local-files/?d=a/cat.jpg is
a/cat.jpg or cat.jpg. Nothing is fetched from the web.
Format: labelstud.io/guide/export, labelstud.io/guide/task_format, labelstud.io/tags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from adapt.data.config import AnnotatedConfig
from adapt.data.places import existing, file_of

if TYPE_CHECKING:
    from adapt.data.split import Splits

WANTED = "the .json file that Label Studio has exported (JSON or JSON-MIN)"


class Config(AnnotatedConfig):
    """Where the export and the pictures lie, and what of it is read."""

    source: str = "labelstudio"
    """This file."""
    path: str
    """The exported .json file."""
    images: str | None = None
    """The folder of the pictures; none: the export's own."""
    image: str | None = None
    """The task's field that names the picture; none: image, or the only one that names any."""
    kind: Literal["auto", "choices", "objects"] = "auto"
    """What is read of an export that has both: the pictures' classes, or the things on them."""
    label: str | None = None
    """In JSON-MIN: the field of the class; none: choice, choices, label or class."""
    caption: str | None = None
    """In JSON-MIN: the field of the text; none: caption, text, transcription or description."""

    def check_paths(self) -> None:
        """The export and the pictures' folder must be there."""
        file_of(self.path, WANTED)
        if self.images:
            existing(self.images, "data.images")


def load(config: Config) -> Splits:
    """Read the export.

    Returns:
        `Splits` with train and, where there are any, validation, test (id: the task's; image, and of label, caption and objects what
        there is: bbox float[N, 4] XYXY in pixels, category int[N], iscrowd int[N], with any outline or stroke mask: COCO RLE) and
        unlabelled.

    Raises:
        UserError: no such file, or no export; choices and objects in one; with `on_error: stop`, tasks that cannot be used.
    """
    from adapt.data.annotated import load_listed
    from adapt.data.labelstudio.regions import read
    from adapt.data.labelstudio.tasks import listed

    file = file_of(config.path, WANTED)
    root = existing(config.images, "data.images") if config.images else file.parent
    return load_listed(config, listed(file, root, config), read)
