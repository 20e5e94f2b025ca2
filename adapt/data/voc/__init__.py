"""Boxes in Pascal VOC's XML, a file a picture, with masks where there are PNGs of them.

    data: {source: voc, path: VOC2012}                      # Annotations/, JPEGImages/, ImageSets/Main/train.txt, val.txt …
    data: {source: voc, path: VOC2012, sets: Segmentation}  # the pictures that have masks, in SegmentationObject/
    data: {source: voc, path: photos}                       # train/a.jpg and train/a.xml, valid/…; or a.jpg and a.xml themselves

A difficult object becomes a crowd (`iscrowd`), so that it is neither learnt nor counted, as in VOC's own evaluation. VOC counts pixels from
1, and the last one belongs to the box: 1 to 10 is 0 to 10 here; see `first_pixel`. In SegmentationObject, number n is object n of the XML.
SegmentationClass alone is data for `source: masks`. Parts, poses and the like are passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from adapt.data.config import AnnotatedConfig

if TYPE_CHECKING:
    from adapt.data.split import Splits


class Config(AnnotatedConfig):
    """Where the XML files and the pictures lie, and how they are split."""

    source: str = "voc"
    """This file."""
    path: str
    """The folder that has `Annotations` and `JPEGImages`, or the XML files beside the pictures, in folders train, val and test or not."""
    images: str = "JPEGImages"
    """The folder of the pictures beside `Annotations`."""
    sets: str = "Main"
    """The folder in `ImageSets` whose lists train.txt, val.txt and test.txt are the splits."""
    first_pixel: Literal[0, 1] | None = None
    """The number of the first pixel: 1, as in VOC; 0, as some tools write; none: 0 where a box begins there, else 1."""


def load(config: Config) -> Splits:
    """Read the files.

    Returns:
        `Splits` with train and, where there are any, validation and test: id (the picture's path below the folder), image, objects (bbox
        float[N, 4] XYXY in pixels, category int[N], iscrowd int[N]: difficult ones; and mask: COCO RLE, where every picture has a PNG of
        them), and with masks, segmentation (PNG: 0 background, k + 1 the category k, 255 not judged).

    Raises:
        UserError: no XML in the folder; with `on_error: stop`, pictures or objects that cannot be used.
    """
    from adapt.data.annotated import load_listed
    from adapt.data.voc.files import Reader

    reader = Reader(config)
    return load_listed(config, reader.listing, reader.read)
