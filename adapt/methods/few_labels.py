"""What the methods have in common that learn of few labels, on features that are computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from adapt.plug import UserError

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import nn

    from adapt.contracts import Family, TextSlot

Placed = TypeVar("Placed", bound="nn.Module")


def texts(family: Family, name: str) -> TextSlot:
    """The text tower of a family that has been told its classes.

    Raises:
        UserError: there is none, or the data have no labels.
    """
    if family.slots.text is None:
        raise UserError(
            f"method.name: {name!r} starts from the classes' words, and this family has no text tower. Use a family with one, such as "
            "clip, or method.name=head."
        )
    if not family.classes:
        raise UserError(f"method.name: {name!r} needs labelled data; this source has no labels. Use lora or full.")
    return family.slots.text


def labels(rows: Dataset) -> np.ndarray:
    """The rows' labels, int64[N]."""
    import numpy as np

    return np.asarray(rows["label"][:], np.int64)


def shots(rows: Dataset) -> int:
    """The pictures of the largest class."""
    import numpy as np

    return int(np.unique(labels(rows), return_counts=True)[1].max(initial=1))


def placed(family: Family, kind: type[Placed]) -> Placed:
    """The module of this kind that a method has put into a family."""
    return next(part for part in family.modules() if isinstance(part, kind))
