"""What a careful colleague would say of a result: a promise is kept, broken, or not shown by so few pictures.

A guard is {name, state, message}. A loss beyond what is allowed is broken, whatever its interval; one within it is kept only when its
whole 95 % interval is.
"""

from __future__ import annotations

from adapt.plug import counted
from adapt.records import Guard

KEPT, NOT_SHOWN, BROKEN = "kept", "not shown", "broken"
Change = tuple[float, float, float]
"""Difference, and the ends of its paired 95 % interval."""


def loss(
    name: str,
    before: float,
    after: float,
    allowed: float,
    change: Change | None = None,
    pictures: int = 0,
    floor: float = 0.0,
    advice: str = "",
) -> Guard:
    """May `after` stand in the place of `before`?

    Args:
        before, after: the main metric, 0–1.
        allowed: the largest loss, 0–1.
        change: of after − before.
        pictures: how many were measured.
        floor: of the metric: what one constant answer reaches.
        advice: what to do when it is broken.
    """
    limit = f"at most {_points(allowed)} points may be lost" if allowed else "no loss is allowed"
    said = f"{_percent(before)} before, {_percent(after)} after{_interval(change)}; {limit}."
    if before - after > allowed + 1e-9:
        return _guard(name, BROKEN, f"{said} {advice}".strip())
    if before <= floor:
        why = f"{_percent(floor)}, what one constant answer reaches" if floor else "0 %"
        return _guard(
            name, NOT_SHOWN, f"{said} The reference itself is at the metric's floor ({why}), so it has nothing to lose."
        )
    if change is not None and change[1] < -allowed - 1e-9:
        return _guard(name, NOT_SHOWN, f"{said} {_noise(change, pictures)}")
    return _guard(name, KEPT, said)


def contradicted(guard: Guard, change: Change | None, split: str) -> Guard:
    """The guard of a choice by validation, in the light of the change on the measured split."""
    if guard.state == BROKEN or change is None or change[0] >= 0:
        return guard
    text = f"{guard.message} On the {split} split, however, it changes by {100 * change[0]:+.1f} points{_ends(change)}"
    if change[2] < 0:
        return _guard(guard.name, BROKEN, f"{text}: validation is contradicted. Its pictures may not be like those of {split}.")
    return _guard(guard.name, NOT_SHOWN, f"{text}, which is within noise.")


def fallen(name: str, before: float, after: float, change: Change | None, pictures: int, advice: str) -> Guard:
    """Has something that was not to change fallen? Broken when its whole paired interval is below zero, kept when none of it is.

    Args:
        before, after: a score, 0–1.
        change: of after − before; none: there is no interval, and any fall is one.
        pictures: how many were measured.
        advice: what to do when it is broken.
    """
    said = f"{_percent(before)} before, {_percent(after)} after{_interval(change)}."
    low, high = change[1:] if change else (after - before, after - before)
    if high < 0:
        return _guard(name, BROKEN, f"{said} {advice}")
    if low < 0:
        return _guard(name, NOT_SHOWN, f"{said} {_noise(change, pictures)}" if change else said)
    return _guard(name, KEPT, said)


def varied(name: str, collapse: str) -> Guard:
    """Do the answers vary? `collapse`: how they do not, in a sentence; empty: they do."""
    if collapse:
        return _guard(
            name, BROKEN, f"{collapse}. Lower the learning rate, or look at the labels and at the balance of the classes."
        )
    return _guard(name, KEPT, "")


def faster(name: str, before: float, after: float, advice: str) -> Guard:
    """Is the second latency, ms, below the first?"""
    said = f"{before:.2f} ms in fp32, {after:.2f} ms in int8, one thread."
    return _guard(name, KEPT, said) if after < before else _guard(name, BROKEN, f"{said} {advice}")


def floored(metric: str, value: float, floor: float) -> str:
    """A note on a metric that is no better than one constant answer; empty when it is."""
    if value > floor:
        return ""
    what = f"one constant answer reaches {_percent(floor)}" if floor else "nothing was right"
    return f"{metric} is at its floor: {_percent(value)}, and {what}."


def _noise(change: Change, pictures: int) -> str:
    half = (change[2] - change[1]) / 2
    return f"Within noise: {counted(pictures, 'picture')} cannot show less than ±{_points(half)} points."


def _interval(change: Change | None) -> str:
    return "" if change is None else f" ({100 * change[0]:+.1f} points{_ends(change)})"


def _ends(change: Change) -> str:
    return f", {100 * change[1]:+.1f} to {100 * change[2]:+.1f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return f"{100 * value:.1f}"


def _guard(name: str, state: str, message: str) -> Guard:
    return Guard(name=name, state=state, message=message)
