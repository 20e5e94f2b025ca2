"""The forgetting budget: of all scales, the one that gains most on the target and keeps enough of what the model knew.

What must be kept is a share of the canary's zero-shot score, where the recipe has a canary; else of the target's pictures that zero-shot
had right. Both are measured on the splits that choose (validation), so that those that are reported have chosen nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from adapt import plug
from adapt.plug import UserError
from adapt.verbs import canary, measuring, scores
from adapt.verbs.guests import guests

if TYPE_CHECKING:
    from adapt.models.base import Family
    from adapt.verbs.session import Session

SCALES = [i / 10 for i in range(11)]
KEEP = {"canary": 0.98, "target": 0.9}
"""What is kept, where nobody says how much."""
FIGURE = "forgetting.png"
MODELS = {"0": "zero-shot", "chosen": "merged", "1": "adapted"}
"""Scale → the entry of the model that has it."""


def sweep(session: Session, family: Family, move: Callable[[float], None], keep: float | None) -> dict[str, Any]:
    """Every scale, measured by the first eval on the validation split and by the canary, and the one that is chosen.

    Args:
        move: takes the family to a scale.
        keep: the share that must be kept; none: `KEEP`.

    Returns:
        metric, by (what must be kept: `canary` or `target`), keep, budget (the least score that is enough), chosen, and rows: scale,
        value, interval, change, kept (a share), and of a canary its score, interval and change from scale 0.

    Raises:
        UserError: there is nothing to choose by.
    """
    config = _asked(session)
    by = "canary" if session.recipe.canary else "target"
    keep = KEEP[by] if keep is None else keep
    rows, first = [], None
    for scale in SCALES:
        move(scale)
        result = measuring.evaluated(session, config, measuring.predictor(session, family), "validation", family)
        parts = canary.score(session, family, guests(session), choosing=True)
        first = first or (result, parts)
        rows.append({"scale": scale} | _row(config, by, first, (result, parts)))
        session.say(_line(rows[-1], config.main, by))
    budget = keep * (rows[0]["canary"] if by == "canary" else 1.0)
    found = {"metric": config.main, "by": by, "keep": keep, "budget": budget, "chosen": choose(rows, keep), "rows": rows}
    if by == "canary":
        found["sets"] = [part.record() for part in first[1]]
    session.say(_said(found))
    return found


def _asked(session: Session):
    """The eval that chooses.

    Raises:
        UserError: there is none, or no validation split.
    """
    if not session.recipe.evals or "validation" not in session.data:
        raise UserError("scale: sweep chooses by the first eval on the validation split; this recipe lacks one or the other.")
    return session.recipe.evals[0]


def _row(config, by: str, first: tuple, now: tuple) -> dict[str, Any]:
    """What one scale gains and keeps, against scale 0."""
    from adapt.evals.bootstrap import change

    (result0, parts0), (result, parts) = first, now
    row = {"value": float(result.metrics[config.main]), "interval": result.intervals.get(config.main)}
    row["change"] = change(plug.load("evals", config.name), result0.table, result.table) if result.table else None
    if by == "canary":
        if not parts0:
            raise UserError(
                "canary: none of its sets can be asked about here, so nothing can be kept. Give sets of the same classes."
            )
        if (zero := canary.mean(parts0)) <= 0:
            raise UserError(
                "canary: zero-shot scores 0 on it, so there is nothing to keep. Look at its data, classes and templates."
            )
        row |= {"canary": canary.mean(parts), "canary_interval": canary.interval(parts)}
        return row | {"canary_change": canary.change(parts0, parts), "kept": canary.mean(parts) / zero}
    if "correct" not in result.table:
        raise UserError(
            f"scale: sweep needs an eval that says which rows are right, or a canary; {config.name} does not. Give a number, or canary=."
        )
    before, right = (np.asarray(each.table["correct"], bool) for each in (result0, result))
    return row | {"kept": 1 - float((before & ~right).sum() / max(1, before.sum()))}


def choose(rows: Sequence[dict[str, Any]], keep: float) -> float:
    """The scale of the best value among those that keep enough; of equals the smallest."""
    return max((row for row in rows if row["kept"] >= keep - 1e-9), key=lambda row: (row["value"], -row["scale"]))["scale"]


def finish(session: Session, found: dict[str, Any]) -> None:
    """Put the sweep, and what came of the choice where it is reported, into `metrics.json` for the page, and draw it as a PNG."""
    from adapt.report import charts
    from adapt.report.entries import Sweep
    from adapt.report.table import label

    found = found | {"held": held(session, found["metric"])}
    scores.save(session, sweep=found)
    if session.run.writes:
        numbers = Sweep.model_validate_json(json.dumps(found))
        charts.forgetting(numbers, label(found["metric"]), session.run.path / FIGURE)
    if words := _held(found):
        session.say(words)


def held(session: Session, metric: str) -> dict[str, Any]:
    """What came of the choice on the splits that are reported.

    Returns:
        target and canary: scores at scale `0`, the `chosen` one and `1`, as far as they were measured; share: of the whole gain on the
        target, what the chosen scale has; kept: of the canary's score at scale 0.
    """
    entries = {scale: scores.entry(session, name) for scale, name in MODELS.items()}
    target = {scale: one["metrics"][metric] for scale, one in entries.items() if one and metric in one["metrics"]}
    known = canary.reported(session, list(MODELS.values()))
    known = {scale: known[name] for scale, name in MODELS.items() if name in known}
    found: dict[str, Any] = {"target": target, "canary": known}
    if len(target) == 3 and target["1"] > target["0"]:
        found["share"] = (target["chosen"] - target["0"]) / (target["1"] - target["0"])
    if {"0", "chosen"} <= known.keys() and known["0"] > 0:
        found["kept"] = known["chosen"] / known["0"]
    return found


# ------------------------------------------------------------------------------------------------------------------ words


def _line(row: dict[str, Any], main: str, by: str) -> str:
    text = f"scale {row['scale']:.1f}   validation {main} {row['value']:6.1%}"
    if by == "canary":
        return f"{text}   canary {row['canary']:6.1%}   keeps {row['kept']:6.1%}"
    return f"{text}   keeps {row['kept']:6.1%} of what zero-shot had right"


def _said(found: dict[str, Any]) -> str:
    """What was chosen, by what, and what `keep` means here."""
    share, chosen = f"{100 * found['keep']:g} %", f"scale {found['chosen']:g}"
    if found["by"] == "target":
        return (
            f"merge: {chosen}: the best {found['metric']} on validation of those that keep {share} of the pictures that zero-shot had right "
            "there. With a canary=, keep is a share of its zero-shot score instead."
        )
    sets = ", ".join(f"{part['name']} ({part['split']}, {part['pictures']:,} pictures)" for part in found["sets"])
    return (
        f"merge: {chosen}: the best {found['metric']} on validation of those that keep {share} of the canary's zero-shot score, "
        f"{found['rows'][0]['canary']:.1%}. The canary: {sets}."
    )


def _held(found: dict[str, Any]) -> str:
    """What came of the choice where it is reported."""
    held, parts = found["held"], []
    if "share" in held:
        parts.append(f"{held['share']:.0%} of the gain on the target")
    if "kept" in held:
        parts.append(f"{held['kept']:.1%} of zero-shot on the canary")
    return f"merge: on the reported splits, scale {found['chosen']:g} has {' and '.join(parts)}." if parts else ""
