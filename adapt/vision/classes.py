"""Classes of pictures, objects and pixels: their names, and the numbers that are none."""

from __future__ import annotations

IGNORE = 255
"""In a map of classes: a pixel that is neither learnt nor judged."""
UNLABELLED = -1
"""In a batch: a picture without a label."""


def class_names(features) -> list[str]:
    """The names of a data set's classes: those of `label`, else of `labels`, else of the objects' `category`; empty without any."""
    label = features.get("label")
    if label is not None:
        return list(label.names)
    return _listed(features.get("labels")) or category_names(features)


def category_names(features) -> list[str]:
    """The names of the objects' categories; empty where the data set does not know them.

    Args:
        features: of a data set; `category` is a list of `ClassLabel` or of integers, in either way that datasets writes lists.
    """
    objects = features.get("objects")
    return _listed(objects.get("category") if isinstance(objects, dict) else None)


def _listed(kind) -> list[str]:
    """The names of a feature that is a list of `ClassLabel`, in either way that datasets writes lists; of any other none."""
    kind = kind[0] if isinstance(kind, list) else getattr(kind, "feature", kind)
    return list(getattr(kind, "names", None) or [])
