"""Kinds of students; each opens from its own folder, without teacher, recipe or data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adapt.students.base import Student


def open_student(folder: str | Path) -> Student:
    """A student from its folder, such as `runs/…/student/NAME`; its `predictors()` answer as an exported file's do.

    Raises:
        UserError: there is no such folder, it holds no student, or its weights do not fit.
    """
    from adapt.students import base

    return base.open_student(Path(folder))
