"""Your own pictures: a folder for each class, with or without folders train, val and test above them.

    photos/cat/1.jpg  photos/dog/1.jpg …                         → split here: stratified by class, drawn by `seed`
    photos/train/cat/1.jpg  photos/test/cat/9.jpg …              → as they lie; what is missing is taken from train

Every picture is opened once (and that remembered, so the next start is quick). Rows hold paths; nothing is copied.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from adapt.data.config import ClassesConfig
from adapt.data.places import existing
from adapt.plug import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset

    from adapt.data.problems import Report


class Config(ClassesConfig):
    """Where the pictures lie, and how they are split."""

    source: str = "folder"
    """This file."""
    path: str
    """A folder of class folders, or of train, val and test folders of class folders."""
    test_from: Literal["train", "val"] = "train"
    """Where a missing test comes from: a share of train; or the folder val, and then validation is a share of train."""
    unlabelled_path: str | None = None
    """A folder of pictures without labels, at any depth: the split `unlabelled`."""

    def check_paths(self) -> None:
        """The folders must be there."""
        existing(self.path, "data.path")
        if self.unlabelled_path:
            existing(self.unlabelled_path, "data.unlabelled_path")


def load(config: Config):
    """Read the folder.

    Returns:
        `Splits` with train and, where there are any, validation, test (id: the path below the folder, image, label) and unlabelled
        (id, image).

    Raises:
        UserError: no folder, no pictures, a single class; with `on_error: stop`, pictures or classes that cannot be used.
    """
    from adapt.data.scan import many_objects

    with many_objects():
        return _loaded(config)


def _loaded(config: Config):
    from adapt.data.check import check_folder
    from adapt.data.problems import Report
    from adapt.data.split import Splits, by_split, limited, placed

    root = existing(config.path, "data.path")
    report, rows = check_folder(root, "data.path", follow=config.follow_links)
    other, others = Report(), {"id": [], "digest": []}
    if config.unlabelled_path:
        other_root = existing(config.unlabelled_path, "data.unlabelled_path")
        other, others = check_folder(other_root, "data.unlabelled_path", "unlabelled", config.follow_links)
    if config.on_error == "stop" and (report.severe or other.severe):
        raise Report(problems=report.severe + other.severe).error("data.path")
    rows = _called(config, rows, report)
    names = _classes(config, rows, report)
    split, origin, torn = placed(config, *(rows[name] for name in ("id", "split", "digest", "class")))
    parts = by_split(_table(root, rows, names), split)
    if others["id"]:
        parts["unlabelled"] = _table(other_root, others)
    problems = report.problems + other.problems + _leaks(rows, split, others) + torn
    origin |= {"unlabelled": repr(config.unlabelled_path)}
    return Splits(limited(config, parts), origin, Report(report.pictures + other.pictures, problems))


def _called(config: Config, rows: dict[str, list], report: Report) -> dict[str, list]:
    """The rows with their classes' names after `data.classes`; those of classes that are left out are counted in the report."""
    from adapt.data.check import chosen
    from adapt.data.listing import kept_names, left_out

    found = sorted(set(rows["class"]) - {None})
    kept, numbers = kept_names(found, config.classes)
    called = {None: None} | {name: kept[number] for name, number in zip(found, numbers, strict=True) if number is not None}
    report.problems += left_out(name for name in rows["class"] if name not in called)
    rows = chosen(rows, [name in called for name in rows["class"]])
    return rows | {"class": [called[name] for name in rows["class"]]}


def _classes(config: Config, rows: dict[str, list], report: Report) -> list[str]:
    """Names of the classes; raises a `UserError` when there are fewer than two."""
    names = sorted(set(rows["class"]) - {None})
    if len(names) > 1:
        return names
    if rows["id"] and not names:
        raise UserError(
            f"data.path: the pictures lie in {config.path!r} itself. Put each into a folder named after its class; "
            "pictures without a class go to data.unlabelled_path."
        )
    have = f"only one class, {names[0]!r}," if names else "no class with a picture that can be read"
    reason = f" The first problem: {report.severe[0]}." if report.severe else ""
    raise UserError(f"data.path: {have} in {config.path!r}. A classifier needs two class folders or more.{reason}")


def _table(root: Path, rows: dict[str, list], names: list[str] | None = None) -> Dataset:
    """Rows as a table; pictures are paths.

    Args:
        names: of the classes; none: the rows have none.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from datasets import ClassLabel, Dataset, DatasetInfo, Features, Value

    from adapt.vision.pictures import RGB

    ids = pa.array(rows["id"], pa.string())
    paths = pc.binary_join_element_wise(os.path.join(root, ""), ids, "")
    columns = {"id": ids, "image": pa.StructArray.from_arrays([pa.nulls(len(ids), pa.binary()), paths], ["bytes", "path"])}
    features = Features(id=Value("string"), image=RGB())
    if names is not None:
        numbers = {name: number for number, name in enumerate(names)}
        columns["label"] = pa.array((numbers[name] for name in rows["class"]), pa.int64())
        features["label"] = ClassLabel(names=names)
    return Dataset(pa.table(columns).cast(features.arrow_schema), DatasetInfo(features=features))


def _leaks(rows: dict[str, list], split: list[str], others: dict[str, list]) -> list:
    """Unlabelled pictures that validation or test have too."""
    from adapt.data.problems import Problem

    held_out = {digest: name for digest, name, place in zip(rows["digest"], rows["id"], split, strict=True) if place != "train"}
    return [
        Problem(name, "unlabelled", "leak", f"same bytes as {held_out[digest]!r}")
        for name, digest in zip(others["id"], others["digest"], strict=True)
        if digest in held_out
    ]
