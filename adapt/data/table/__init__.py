"""A table of your own pictures: CSV, TSV or Parquet, a row a picture.

    path,label,split,group
    images/1.jpg,cat,train,anna            the separator may be , ; or a tab
    images/2.jpg,"dog, small",test,ben
    images/3.jpg,,,                        without a label: the split `unlabelled`

    data: {source: table, path: labels.csv}
    data: {source: table, path: labels.csv, images: photos, label: species}

Split is train, val or test; without that column it is drawn by `seed`, a class at a time, and the pictures of one group stay together.
Pictures lie in the table's own folder, or in `images`. Other columns are passed over, and named in the report.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import field_validator

from adapt.data.config import ClassesConfig, expression
from adapt.data.places import existing, expanded, file_of
from adapt.plug import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from adapt.data.split import Splits

SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")


class Config(ClassesConfig):
    """Where the table and the pictures lie, and what its columns are called."""

    source: str = "table"
    """This file."""
    path: str
    """The table: a .csv, .tsv or .parquet file with a head of column names."""
    images: str | None = None
    """The folder that the pictures' paths start from; none: the table's own."""
    image: str | None = None
    """The column of the pictures' paths; none: path, image, file or filename."""
    label: str | None = None
    """The column of classes; none: label or class."""
    split: str = "split"
    """The column of splits, where there is one: train, val or test."""
    group: str = "group"
    """The column of groups, where there is one: the pictures of a patient, a video or a part, which are drawn into one split. Or a
    regular expression with a group in parentheses, to be found in the paths: `(patient\\d+)`."""

    @field_validator("group")
    @classmethod
    def _grouping(cls, group: str) -> str:
        return expression(group) if "(" in group else group

    def pattern(self) -> str | None:
        """The expression of `group`, where it is none of a column's name."""
        return self.group if "(" in self.group else None

    def check_paths(self) -> None:
        """The table and the pictures' folder must be there."""
        _table(self.path)
        if self.images:
            existing(self.images, "data.images")


def load(config: Config) -> Splits:
    """Read the table.

    Returns:
        `Splits` with train and, where there are any, validation, test (id: the picture's path below its folder, image, label) and
        unlabelled (id, image).

    Raises:
        UserError: no such table, no column of paths or of labels, several of either, a single class; with `on_error: stop`, rows or
            pictures that cannot be used, each by its line.
    """
    from adapt.data.annotated import load_listed
    from adapt.data.table.rows import listed

    file = _table(config.path)
    root = existing(config.images, "data.images") if config.images else file.parent
    return load_listed(config, listed(file, root, config), lambda objects: None)


def _table(path: str) -> Path:
    """The table that `data.path` names, absolute.

    Raises:
        UserError: there is none, or it is of another kind.
    """
    wanted = f"a file: {', '.join(SUFFIXES)}"
    file = file_of(path, wanted)
    if (suffix := expanded(path).suffix).lower() not in SUFFIXES:
        raise UserError(f"data.path: {path!r} ends in {suffix!r}. Give {wanted}.")
    return file
