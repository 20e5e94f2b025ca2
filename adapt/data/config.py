"""Options that sources share: how splits are drawn, what classes are called, how much is read."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, field_validator

from adapt.contracts import SourceConfig


class DrawnConfig(SourceConfig):
    """Base of the `Config` of a source whose missing splits are drawn from train."""

    path: str
    """Where the data lie: a file or a folder."""
    validation: float = Field(0.15, ge=0, le=0.9)
    """Share of train for validation, when the data have none, of each class where pictures have one; 0 = none."""
    test: float = Field(0.15, ge=0, le=0.9)
    """Share of train for the test, when the data have none, of each class where pictures have one; 0 = none."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of the split and of `limit`, which depend on the pictures' paths and on nothing else."""
    group: str | None = None
    """A regular expression; pictures in whose path it finds the same first group are drawn into the same split: `(patient\\d+)`,
    `^(.*)_\\d+`. Then validation and test are shares of the groups."""
    limit: int | None = Field(None, ge=1)
    """The most pictures of a split, drawn by `seed`; none: all."""
    on_error: Literal["stop", "skip"] = "stop"
    """What cannot be used: stop and name it; or leave out the pictures it is of, whole, and list them in `report`."""

    @field_validator("group")
    @classmethod
    def _grouping(cls, pattern: str | None) -> str | None:
        return pattern if pattern is None else expression(pattern)

    def pattern(self) -> str | None:
        """The expression of `group`; none: there is none."""
        return self.group


class MeasuredConfig(SourceConfig):
    """Base of the `Config` of a hub's data set that is only measured, as it is published."""

    subset: ClassVar[None] = None
    """Of the hub's data set: it has none."""

    path: str
    """A hub id, or a folder of `save_to_disk` or of Parquet with the same columns."""

    def check_paths(self) -> None:
        """The folder must be there, where the path cannot be a hub id."""
        from adapt.data.hub.files import local_files

        local_files(self.path)


def expression(pattern: str) -> str:
    """The pattern, if it is a regular expression with a group.

    Raises:
        ValueError: it is none.
    """
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from None
    if not groups:
        raise ValueError("the expression needs a group in parentheses, such as (patient[0-9]+)")
    return pattern


def _texts(names: Any) -> Any:
    """{1: cat} → {'1': cat}: where the data have numbers alone, these are the classes' names, and YAML reads them as numbers."""
    return {_text(name): _text(other) for name, other in names.items()} if isinstance(names, dict) else names


def _text(name: Any) -> Any:
    return str(name) if type(name) is int else name


Renamed = Annotated[dict[str, str | None], BeforeValidator(_texts)]
"""Name of a class → its new name; none: left out."""


class ClassesConfig(DrawnConfig):
    """Base of the `Config` of a source whose pictures, or things on them, have classes."""

    classes: Renamed = {}
    """Name of a class → another name, which may be that of another class: then they are joined; null leaves out what is of it."""
    follow_links: bool = False
    """Follow links to folders and files, also those that lead out of the folder; only regular files are opened."""


class AnnotatedConfig(ClassesConfig):
    """Base of the `Config` of a source of boxes and masks."""

    path: str
    """Where the annotations lie: a folder, or the file that describes it."""
    masks: bool = True
    """Read masks, where there are any; false: boxes alone."""

    def check_paths(self) -> None:
        """The file or folder must be there."""
        from adapt.data.places import present

        present(self.path)
