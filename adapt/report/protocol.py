"""Where two numbers were not measured alike, in plain words: what is said beside them, and what forbids a difference between them.

    one = {"classes": ["cat", "dog"], "input": {"interpolation": "bilinear"}}
    two = {"classes": ["cat", "hound"], "input": {"interpolation": "bicubic"}}
    [each.words for each in apart(one, two)]    # ['other class names: 1 of 2', 'interpolation: bilinear against bicubic']

What a model brings with it (the size of its pictures, its precision, its logit scale) is said and forbids nothing: models differ in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapt.evals.result import differing

NAMES = {
    "ask": "categories that the model is given",
    "bank": "labelled pictures",
    "candidates": "boxes to choose from",
    "classes": "class names",
    "clicks": "number of clicks",
    "combine": "texts of a class combined by",
    "input crop": "crop",
    "input interpolation": "interpolation",
    "input resize": "resize",
    "input size": "size of the input",
    "largest": "size of the pictures",
    "logit_scale": "logit scale",
    "measured": "number of pictures",
    "named_by": "model that names masks",
    "negative_words": "words that are not on a picture",
    "negatives": "what is subtracted",
    "objects": "number of objects",
    "prefix": "question",
    "sentences": "sentences",
    "texts": "texts of the classes",
    "visual": "visual prompt",
}
"""How keys of a protocol are called; others by their names."""
OWN = ("input size", "logit_scale", "precision")
"""What a model brings with it."""
LATER = ("logit_scale", "metric", "precision")
"""Keys that numbers of older versions do not have: where one has it and the other does not, nothing is known."""
DIGESTS = ("data", "texts")
"""Keys whose values say nothing to a reader."""
OTHER = ("eval", "metric", "split")
"""Keys whose values are names of things."""
SHORT = 24
"""Characters of a value that is shown."""


@dataclass(frozen=True)
class Apart:
    """One thing in which two protocols differ."""

    key: str
    """Of the protocol; what is inside another has both: `input size`."""
    words: str
    """What a reader is told, such as `other class names: 3 of 101`."""

    @property
    def own(self) -> bool:
        """Is it what a model brings with it, so that numbers may be compared all the same?"""
        return self.key in OWN


def apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Apart]:
    """In what two protocols differ, the first's value before the second's; empty: the numbers were measured alike."""
    found = []
    for key in differing(dict(one), dict(other)):
        if key not in LATER or (key in one and key in other):
            found += _inside(key, one.get(key), other.get(key))
    return found


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """All in which two protocols differ, in one phrase; empty without any."""
    return "; ".join(each.words for each in apart(one, other))


def refused(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Why there is no difference between two numbers, in one phrase; empty: they may be compared."""
    return "; ".join(each.words for each in apart(one, other) if not each.own)


def resized(seen: Mapping[str, Any]) -> str:
    """How a picture is resized, whatever the size of the input: the `input` of a protocol → `shorter side`, `stretched`, …"""
    resize, size = seen.get("resize"), seen.get("size")
    if isinstance(resize, int) and size:
        return "shorter side" if resize == min(size) else f"shorter side, × {resize / min(size):.3g}"
    if isinstance(resize, list | tuple):
        return "stretched"
    return "longer side, padded" if resize == "longest" else "none" if resize is None else str(resize)


def _inside(key: str, one: Any, other: Any) -> list[Apart]:
    """A key with two values; of two mappings, each key in which they differ."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return [Apart(key, _words(key, one, other))]
    if key == "input":
        one, other = one | {"resize": resized(one)}, other | {"resize": resized(other)}
    names = [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
    return [each for name in names for each in _inside(f"{key} {name}", one.get(name), other.get(name))]


def _words(key: str, one: Any, other: Any) -> str:
    first, _, rest = key.partition(" ")
    name = (NAMES.get(key) or f"{NAMES.get(first, first)} {rest}").strip().replace("_", " ")
    if key in ("classes", "templates") and isinstance(one, list) and isinstance(other, list):
        return _lists(name, one, other)
    values = [_value(one), _value(other)]
    if key in DIGESTS or isinstance(one or other, dict) or max(map(len, values)) > SHORT:
        return f"other {name}"
    return f"{'other ' if key in OTHER else ''}{name}: {values[0]} against {values[1]}"


def _lists(name: str, one: list, other: list) -> str:
    """Two lists of words: how many there are, or how many are others, or that their order is another."""
    if len(one) != len(other):
        return f"other {name}: {len(one):,} against {len(other):,}"
    if sorted(one) == sorted(other):
        return f"other order of the {name}"
    return f"other {name}: {sum(a != b for a, b in zip(one, other, strict=True)):,} of {len(one):,}"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return (" × " if len(value) == 2 and all(isinstance(side, int) for side in value) else ", ").join(map(str, value))
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
