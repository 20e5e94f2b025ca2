"""Anything that `datasets.load_dataset` reads: a hub id, Parquet or CSV files, a folder of images, a folder of `save_to_disk`.

    data: {source: hub, path: ethz/food101, splits: {test: validation}}
    data: {source: hub, path: "photos/*.parquet", caption: text}
    data: {source: hub, path: "coco/*.parquet", boxes: xywh}
    data: {source: hub, path: scenes, segmentation: annotation, background: null}
    data: {source: hub, path: shards/train-0001.tar, image: jpg, label: cls}

A folder of images with metadata.jsonl beside them is read with its annotations, as the documentation of `datasets` has them:

    {"file_name": "0001.png", "objects": {"bbox": [[302.0, 109.0, 73.0, 52.0]], "categories": [0]}}

Objects are a struct of lists or a list of structs, with bbox or boxes; category, categories, label, labels or category_id; and, where
there are such, iscrowd or is_crowd, and segmentation: polygons or run lengths, as COCO has them. Pictures of class maps beside the
pictures are read as by `data.source=masks`. What is passed over is counted in `report`.
In WebDataset archives a `.cls` holds a class's number; names of classes go into `.txt`: label: txt.
Rows stay where `datasets` puts them, memory-mapped; a picture is decoded when its row is looked at. Nobody's code is run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from adapt.data.config import DrawnConfig, expression
from adapt.data.hub.files import local_files
from adapt.plug import UserError

if TYPE_CHECKING:
    from datasets import Dataset

    from adapt.data.split import Splits

Order = Literal["auto", "xyxy", "xywh", "cxcywh", "relative_xyxy", "relative_xywh", "relative_cxcywh"]


class Config(DrawnConfig):
    """A data set, and which of its columns and splits are ours."""

    source: str = "hub"
    """This file."""
    path: str
    """A hub id (owner/name), a file, a glob of files of one kind, or a folder."""
    subset: str | None = None
    """The data set's configuration, where it has several."""
    splits: dict[Literal["train", "validation", "test", "unlabelled"], str] = {}
    """Our split → theirs, slices and sums allowed: {train: 'train[:80%]', test: validation}; empty: by their own names."""
    image: str = "image"
    """Their column of pictures: encoded bytes, or paths inside the data set's own folder."""
    label: str | None = None
    """Their column of classes, names or numbers; none: `label`, if there is one."""
    caption: str | None = None
    """Their column of captions, a text or a list of texts; none: `caption`, if there is one."""
    objects: str | None = None
    """Their column of boxes and what is said of them; none: `objects`, if there is one, and if there is nothing else to learn or `boxes`
    says its order."""
    boxes: Order | None = "auto"
    """The order of the numbers of their boxes: left, top, right, bottom (xyxy); left, top, width, height (xywh, as COCO's); centre x,
    centre y, width, height (cxcywh); in pixels, or as shares of the picture from 0 to 1 (relative_…). auto: the only order in which all
    boxes lie on their pictures; if there are several, you are asked. null: boxes are not read."""
    masks: bool = True
    """Read the masks of objects, where there are any; false: boxes alone."""
    segmentation: str | None = None
    """Their column of class maps, pictures with a number for each pixel; none: `segmentation`, `label`, `annotation` or `mask`, if it
    holds pictures and there is nothing else to learn: no class, caption, object or answer."""
    background: int | None = 0
    """In class maps: the number of pixels that belong to nothing; null: there is none, and 0 is a class."""
    ignore: int | None = 255
    """In class maps: the number of pixels that nobody judged; null: there is none."""
    id2label: dict[int, str] = {}
    """Number → name of a class, of objects and in class maps; empty: as the data name them, or as id2label.json or classes.yaml in the
    folder does, or by their numbers."""
    classes: dict[str, str | None] = {}
    """Name of a class, of pictures or objects → another name, which may be that of another class: then they are joined; null leaves out
    what is of it."""
    validation: float | None = Field(None, ge=0, le=0.9)
    """Share of train for a missing validation split; none: .15 with classes, 0 without; by class if there are classes."""
    test: float | None = Field(None, ge=0, le=0.9)
    """Share of train for a missing test split; none: .15 with classes, 0 without."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of these shares, and of `limit`."""
    group: str | None = None
    """Their column of groups: the pictures of a patient, a video or a part, which are drawn into one split. Or a regular expression with
    a group in parentheses, to be found in the pictures' paths, or in the ids of those that have no path: `(patient\\d+)`."""
    on_error: Literal["stop", "skip"] = "stop"
    """Pictures, classes, boxes and masks that cannot be used: stop and name them, or leave their rows out and list them in `report`."""

    @field_validator("group")
    @classmethod
    def _grouping(cls, group: str | None) -> str | None:
        return expression(group) if group and "(" in group else group

    def pattern(self) -> str | None:
        """The expression of `group`, where it is none of a column's name."""
        return self.group if self.group and "(" in self.group else None

    def check_paths(self) -> None:
        """The files must be there, where the path cannot be a hub id."""
        local_files(self.path)


def load(config: Config) -> Splits:
    """Read the data set.

    Returns:
        `Splits` with train and, where there are any, validation, test, unlabelled: id, image, and of label, caption, objects (bbox
        float[N, 4] XYXY in pixels, category int[N], and of mask: COCO RLE, iscrowd int[N] what there is), segmentation (PNG: 0
        background, k + 1 the category k, 255 not judged), prefix, suffix what there is.

    Raises:
        UserError: it cannot be found or read; a column or split is missing; train and another split share rows; there is one class only,
            or one that training never saw; boxes are in another order than is said, or in one of several; with `on_error: stop`, rows
            that cannot be used.
    """
    from adapt.data.check import check_rows
    from adapt.data.hub.classes import renamed
    from adapt.data.hub.columns import ids_apart, standard, with_classes
    from adapt.data.hub.files import read
    from adapt.data.hub.maps import standard_maps
    from adapt.data.hub.objects import standard_objects
    from adapt.data.hub.splits import chosen, completed, named, origin
    from adapt.data.problems import Report
    from adapt.data.split import Splits, limited

    found, places = read(config)
    theirs, problems = named(config, found), []
    rows_of = chosen(config, found, theirs)
    apart = ids_apart(rows_of)
    parts = {ours: standard(rows, ours, config, places, problems, apart) for ours, rows in rows_of.items()}
    parts = with_classes(parts, config.on_error, problems)
    parts, shown = standard_maps(standard_objects(parts, config, problems), config, problems)
    parts = renamed(parts, config.classes, shown, problems)
    splits, torn = completed(config, parts)
    report = check_rows(splits)
    if report.severe:
        if config.on_error == "stop":
            raise report.error("data.path")
        splits, torn = completed(config, _without(parts, report))
    left = len({(problem.split, problem.id) for problem in problems if problem.severe})
    report = Report(report.pictures + left, problems + report.problems + torn)
    return Splits(limited(config, splits), origin(config, theirs, splits), report)


def _without(parts: dict[str, Dataset], report) -> dict[str, Dataset]:
    """Splits without the rows that cannot be used; those that were drawn from train have their rows there."""
    bad = {(problem.split if problem.split in parts else "train", problem.id) for problem in report.severe}
    kept = {
        split: rows.select([i for i, name in enumerate(rows["id"][:]) if (split, name) not in bad])
        for split, rows in parts.items()
    }
    if not len(kept["train"]):
        raise UserError(f"data.path: no row of train can be used. The first problem: {report.severe[0]}.")
    return {split: rows for split, rows in kept.items() if len(rows)}
