"""What the four numbers of a box mean: as it is said, or the only order in which all boxes lie on their pictures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adapt.data.problems import Problem
from adapt.plug import UserError, counted

PLAIN = ("xywh", "xyxy", "cxcywh")
RELATIVE = "relative_"
"""Before the name of an order whose numbers are shares of the picture's width and height."""
HALF = 0.5
"""Pixels by which a box may leave its picture: rounding, as `check` has it."""
WORDS = {
    "xywh": "left, top, width, height",
    "xyxy": "left, top, right, bottom",
    "cxcywh": "centre x, centre y, width, height",
}
SHARE = 1.001
"""Numbers up to this can be shares of a picture."""


def corners(boxes: np.ndarray, order: str, sizes: np.ndarray) -> np.ndarray:
    """Boxes float64[M, 4] in an order → XYXY, pixels.

    Args:
        sizes: width and height of each box's picture, pixels, [M, 2].
    """
    one, two, three, four = boxes.T
    match order.removeprefix(RELATIVE):
        case "xywh":
            found = np.stack([one, two, one + three, two + four], 1)
        case "cxcywh":
            found = np.stack([one - three / 2, two - four / 2, one + three / 2, two + four / 2], 1)
        case _:
            found = boxes
    return found * np.tile(sizes, 2) if order.startswith(RELATIVE) else found


def decided(asked: str, boxes: np.ndarray, sizes: np.ndarray, called: Callable[[int], str]) -> tuple[str, list[Problem]]:
    """The order of all boxes of a data set, and a line for the report where the data have decided it.

    Args:
        asked: auto, or the order that is said.
        boxes: float64[M, 4]; `sizes`: of their pictures, int[M, 2], zeros where unknown; `called`: how messages call the box of a number.

    Raises:
        UserError: boxes do not lie on their pictures in this order, and all do in another; with auto: no order fits all, or several do
            and give different boxes.
    """
    if not len(boxes):
        return asked if asked != "auto" else "xyxy", []
    shares = bool(boxes.max() <= SHARE)
    likely = [f"{RELATIVE}{name}" for name in PLAIN] if shares else list(PLAIN)
    good = {order: _fits(boxes, order, sizes) for order in dict.fromkeys([*likely, *([asked] if asked != "auto" else [])])}
    fitting = [order for order in likely if good[order].all()]
    whole = bool((boxes == boxes.round()).all())  # 0 0 1 1 may be a pixel
    if asked != "auto":
        meant = asked in likely or (shares and whole)
        if fitting and not (good[asked].all() and meant):
            raise _contradicted(asked, boxes, good[asked], fitting, called)
        return asked, []
    if not fitting:
        raise _none(boxes, good, called)
    first = corners(boxes, fitting[0], sizes)
    differs = [np.flatnonzero((corners(boxes, order, sizes) != first).any(1)) for order in fitting[1:]]
    if any(map(len, differs)):
        raise _several(boxes, fitting, called, next(int(rows[0]) for rows in differs if len(rows)))
    said = f"{fitting[0]} ({_words(fitting[0])}), the only order that fits {_every(boxes)}"
    print(f"data: boxes are taken as {said}. The same by name: data.boxes={fitting[0]}")
    return fitting[0], [Problem("objects", "", "order of boxes", said)]


def _fits(boxes: np.ndarray, order: str, sizes: np.ndarray) -> np.ndarray:
    """Which boxes have an area and lie on their pictures in this order, bool[M]."""
    left, top, right, bottom = corners(boxes, order, np.where(sizes > 0, sizes, 1)).T
    width, height = np.where(sizes > 0, sizes, np.inf).T
    return (
        (left < right) & (top < bottom) & (left >= -HALF) & (top >= -HALF) & (right <= width + HALF) & (bottom <= height + HALF)
    )


def _contradicted(
    asked: str, boxes: np.ndarray, good: np.ndarray, fitting: list[str], called: Callable[[int], str]
) -> UserError:
    wrong = np.flatnonzero(~good)
    if len(wrong):
        what = (
            f"as {asked} ({_words(asked)}), {len(wrong):,} of {counted(len(boxes), 'box')} are reversed or leave their pictures"
        )
    else:
        wrong, what = [0], f"the numbers of {_every(boxes)} are 0 to 1, and {asked} is in pixels"
    others = " or ".join(f"data.boxes={order} ({_words(order)})" for order in fitting)
    return UserError(f"data.boxes: {what}, such as {called(wrong[0])}: {_shown(boxes[wrong[0]])}. All fit with {others}.")


def _none(boxes: np.ndarray, good: dict[str, np.ndarray], called: Callable[[int], str]) -> UserError:
    best = max(good, key=lambda order: good[order].sum())
    wrong = int(np.flatnonzero(~good[best])[0])
    shown = "; ".join(f"{order} fits {int(fits.sum()):,}" for order, fits in good.items())
    return UserError(
        f"data.boxes: no order fits {_every(boxes)}: {shown}. A box that is not {best}: {_shown(boxes[wrong])} of {called(wrong)}. "
        f"Correct such boxes; or say the order, data.boxes={best}, and data.on_error=skip leaves out pictures with boxes that leave "
        "them; or data.boxes=null: boxes are not read."
    )


def _several(boxes: np.ndarray, fitting: list[str], called: Callable[[int], str], row: int) -> UserError:
    ways = " or ".join(f"data.boxes={order} ({_words(order)})" for order in fitting)
    return UserError(
        f"data.boxes: the numbers of a box, such as {_shown(boxes[row])} of {called(row)}, can be read in {len(fitting)} ways that "
        f"fit {_every(boxes)}. Say which: {ways}; or data.boxes=null: boxes are not read."
    )


def _words(order: str) -> str:
    return WORDS[order.removeprefix(RELATIVE)] + (", 0 to 1" if order.startswith(RELATIVE) else "")


def _every(boxes: np.ndarray) -> str:
    return f"all {len(boxes):,} boxes" if len(boxes) > 1 else "the only box"


def _shown(box: np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in box)
