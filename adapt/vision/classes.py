"""Classes of pictures, objects and pixels: their names, and the numbers that are none."""

from __future__ import annotations

IGNORE = 255
"""In a map of classes: a pixel that is neither learnt nor judged."""
UNLABELLED = -1
"""In a batch: a picture without a label."""


def class_names(features) -> list[str]:
    """The names of a data set's classes: those of `label` or `labels`, else of the objects' `category`; empty without any."""
    if features.get("label") is not None:
        return list(features["label"].names)
    return _names(features["labels"]) if features.get("labels") is not None else category_names(features)


def category_names(features) -> list[str]:
    """The names of the objects' categories; empty where the data set does not know them.

    Args:
        features: of a data set; `category` is a list of `ClassLabel` or of integers.
    """
    objects = features.get("objects")
    return _names(objects.get("category")) if isinstance(objects, dict) else []


def _names(several) -> list[str]:
    """The names in a list of `ClassLabel`, in either way that datasets writes lists; empty of other lists."""
    kind = several[0] if isinstance(several, list) else getattr(several, "feature", several)
    return list(getattr(kind, "names", None) or [])
