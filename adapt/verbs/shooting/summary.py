"""What all cells say together: means over seeds, paired intervals against zero-shot, and whether a method fell below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adapt.records import Guard
from adapt.verbs import guards
from adapt.verbs.shooting.cell import unpacked

SAMPLES = 1000
"""Resamples of an interval."""
Right = Mapping[str, np.ndarray]
"""Part → which test pictures were right: bool[N], or bool[S, N] of S seeds."""


def stopped(record: Mapping[str, Any]) -> bool:
    """Was the training no better than zero-shot on validation?"""
    found = record["validation"]
    return bool(found) and found["before"] is not None and found["after"] <= found["before"]


def row(records: Sequence[Mapping[str, Any]], start: Right | None, counts: Mapping[str, int], stop: bool) -> dict[str, Any]:
    """A method at so many shots, over its seeds.

    Args:
        records: of its cells.
        start: of zero-shot; none: it cannot be asked.
        counts: part → its test pictures.
        stop: does zero-shot stand where a training was no better on validation?
    """
    parts = [part for part in counts if all(part in record["right"] for record in records)]
    raw = {part: np.stack([unpacked(record["right"][part], counts[part]) for record in records]) for part in parts}
    still = np.array([stop and start is not None and stopped(record) for record in records])
    chosen = {part: np.where(still[:, None], start[part][None], right) if start else right for part, right in raw.items()}
    first = records[0]
    return {
        "method": first["method"],
        "shots": first["shots"],
        "seeds": [record["seed"] for record in records],
        "pictures": round(float(np.mean([record["pictures"] for record in records])), 1),
        "stopped": int(still.sum()),
        "seconds": round(float(np.mean([record["seconds"] for record in records])), 2),
        "scores": scores(chosen, start),
        "trained": {name: values.tolist() for name, values in _values(raw).items()},
    }


def zero_shot(start: Right) -> dict[str, Any]:
    """The row of the model as it comes, whatever the shots."""
    same = {part: right[None] for part, right in start.items()}
    found = {name: {"mean": float(values[0]), "values": values.tolist()} for name, values in _values(same).items()}
    return {"method": "zero-shot", "shots": 0, "seeds": [], "pictures": 0, "stopped": 0, "seconds": 0.0, "scores": found}


def scores(right: Right, start: Right | None) -> dict[str, dict[str, Any]]:
    """Each score: mean and spread over seeds, the seeds' own values, and the change against zero-shot with its 95 % interval."""
    found: dict[str, dict[str, Any]] = {}
    before = _values({part: start[part][None] for part in right}) if start else {}
    spread = _resampled(right, start) if start else {}
    for name, values in _values(right).items():
        found[name] = {"mean": float(values.mean()), "values": values.tolist()}
        if len(values) > 1:
            found[name]["sd"] = float(values.std(ddof=1))
        if start:
            low, high = np.percentile(spread[name], [2.5, 97.5])
            found[name]["change"] = [float(values.mean() - before[name][0]), float(low), float(high)]
    return found


def _values(right: Right) -> dict[str, np.ndarray]:
    """Score → float[S], of the seeds."""
    return _named({part: own.mean(-1) for part, own in right.items()})


def _named(accuracy: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parts' accuracies, by the scores' names; with both halves, their harmonic mean (CoCoOp, arXiv:2203.05557 §4.1)."""
    if "all" in accuracy:
        return {"top1": accuracy["all"]}
    if len(accuracy) < 2:
        return dict(accuracy)
    total = accuracy["base"] + accuracy["new"]
    product = 2 * accuracy["base"] * accuracy["new"]
    return {**accuracy, "harmonic": np.divide(product, total, out=np.zeros_like(total), where=total > 0)}


def _resampled(right: Right, start: Right) -> dict[str, np.ndarray]:
    """Score → its change against zero-shot, float[SAMPLES]: pictures are drawn again, the same for both, and so are seeds."""
    from adapt.evals import bootstrap

    drawn = {}
    for number, (part, own) in enumerate(right.items()):
        statistics = [bootstrap.mean(values.astype(float)) for values in (start[part], *own)]
        drawn[part] = bootstrap.draws(statistics, SAMPLES, seed=number)  # [SAMPLES, 1 + S]
    seeds = len(next(iter(right.values())))
    weights = np.random.default_rng(len(drawn)).multinomial(seeds, np.full(seeds, 1 / seeds), SAMPLES) / seeds
    before = _named({part: values[:, 0] for part, values in drawn.items()})
    after = _named({part: values[:, 1:] for part, values in drawn.items()})
    return {name: (weights * after[name]).sum(1) - before[name] for name in after}


def below(row: Mapping[str, Any]) -> bool:
    """Is its mean below zero-shot's by more than its paired interval, in any score?"""
    return any(score.get("change", (0, 0, 0))[2] < 0 for score in row["scores"].values())


def guard(rows: Sequence[Mapping[str, Any]]) -> Guard | None:
    """The promise that labels do no harm; none where there is no zero-shot to compare with."""
    compared = [row for row in rows if any("change" in score for score in row["scores"].values())]
    if not compared:
        return None
    name = "no method's mean is below zero-shot by more than its paired interval"
    worse = [f"{row['method']} at {row['shots']} shots" for row in compared if below(row)]
    if not worse:
        return Guard(name=name, state=guards.KEPT)
    advice = "Try a lower train.lr, more shots, or stop=true."
    return Guard(name=name, state=guards.BROKEN, message=f"Below it: {', '.join(worse)}. {advice}")
