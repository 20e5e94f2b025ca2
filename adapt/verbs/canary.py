"""The canary: other data that an adaptation must not forget, measured before and after it.

A canary is a list of sets, each with data, words and evals of its own. Its score is the mean of their main metrics. What is compared is
compared on the same pictures, with a paired interval; a score, its parts and their tables lie in the run folder, like an entry's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from adapt import plug
from adapt.plug import UserError
from adapt.provenance import changed
from adapt.run import atomic
from adapt.verbs import guards, kept, lineage, measuring, scores
from adapt.verbs.guests import Guest, guests, placed

if TYPE_CHECKING:
    from adapt.verbs.session import Session

SAMPLES = 1000
"""Resamples of an interval."""
CLASSES = ("class_logits", "semantic_logits")
"""Predictors whose answers are the data's own classes."""
Change = guards.Change
ALONE = "the adapted model is a classifier of its own classes only, and this set has other classes. Methods lora and full can be measured."


@dataclass
class Part:
    """What one eval of one set says of a model."""

    name: str
    metric: str
    split: str
    value: float
    """0–1."""
    floor: float
    pictures: int
    definition: ModuleType
    """The eval, for its `statistic`."""
    table: dict[str, list]

    @property
    def statistic(self):
        return self.definition.statistic(self.table)

    def record(self) -> dict[str, Any]:
        """As `metrics.json` has it."""
        return {"name": self.name, "metric": self.metric, "split": self.split, "value": self.value, "pictures": self.pictures}


# -------------------------------------------------------------------------------------------------------------- measuring


def score(session: Session, family, sets: Sequence[Guest], choosing: bool = False) -> list[Part]:
    """What each eval of each set says of the family; a set whose classes it cannot answer about is left out, and a line says so.

    Args:
        choosing: on the splits by which something is chosen, not on those that are reported.

    Raises:
        UserError: an eval cannot be asked of the model.
    """
    parts = []
    for guest in sets:
        for config in guest.evals:
            name = guest.called if len(guest.evals) == 1 else f"{guest.called} {config.name}"
            with guest.asked(family):
                if not _fits(guest, family, config):
                    _once(session, f"canary: {name} is left out: {ALONE}")
                    continue
                split = guest.chosen_by(config) if choosing else config.split
                if choosing and split == config.split:
                    _once(
                        session,
                        f"canary: {name} has no validation split: what is chosen by it is reported on the same pictures.",
                    )
                try:
                    result = measuring.evaluated(guest, config, measuring.predictor(session, family), split, family)
                except UserError as error:
                    raise UserError(placed(guest.place, error)) from None
            facts = (result.metrics[config.main], result.floor, len(guest.data[split]))
            parts.append(Part(name, config.main, split, *facts, plug.load("evals", config.name), result.table))
    return parts


def _fits(guest: Guest, family, config) -> bool:
    """Does the family answer about the set's classes?

    Raises:
        UserError: it does not offer what the eval asks for, or the data have no classes to ask about.
    """
    if not config.higher_is_better:
        raise UserError(
            f"{guest.place}.evals: {config.name} is better when {config.main} is lower, so no share of it can be kept."
        )
    have = family.predictors(None)
    if config.predictor not in have or (config.asks_texts and not family.knows_texts):
        raise UserError(
            f"{guest.place}.evals: {config.name} asks for {config.predictor}, which this model does not offer. "
            f"Have: {', '.join(have)}."
        )
    if config.predictor not in CLASSES:
        return True
    if not guest.labels:
        raise UserError(f"{guest.place}.data: these data have no classes, which {config.name} asks about.")
    return guest.labels == guest.session.labels or not family.own_classes_alone


def _once(session: Session, text: str) -> None:
    if text not in session.told:
        session.told.add(text)
        session.say(text)


def mean(parts: Sequence[Part]) -> float:
    """The canary's score, 0–1."""
    return float(np.mean([part.value for part in parts]))


def resampled(readings: Sequence[Sequence[Part]]) -> np.ndarray | None:
    """The score in resamples of the canary's pictures, float[samples, R] of R models; what is drawn is drawn for all of them alike.

    Sets of the same things in the same order (ids are alike behind their first part) are drawn together: by how much one set's pictures
    happen to be hard, so are the others'. None: an eval does not say which pictures it was right on.
    """
    from adapt.evals.bootstrap import draws

    try:
        columns = [[part.statistic for part in models] for models in zip(*readings, strict=True)]
    except KeyError:
        return None
    things = [[name.partition("/")[2] for name in part.table["id"]] for part in readings[0]]
    if len(things) > 1 and all(each == things[0] and each[0] for each in things):
        every = draws([statistic for column in columns for statistic in column], SAMPLES)
        return every.reshape(SAMPLES, len(columns), len(readings)).mean(1)
    return np.stack([draws(column, SAMPLES, seed) for seed, column in enumerate(columns)], 1).mean(1)


def interval(parts: Sequence[Part]) -> tuple[float, float] | None:
    """95 % interval of the score."""
    values = resampled([parts])
    return None if values is None else _ends(values[:, 0])


def change(before: Sequence[Part], after: Sequence[Part]) -> Change | None:
    """What the score gained, with its paired 95 % interval; of the parts that both have."""
    shared = [part.name for part in after if part.name in {other.name for other in before}]
    one, two = ([part for part in parts if part.name in shared] for parts in (before, after))
    values = resampled([one, two]) if shared else None
    return None if values is None else (mean(two) - mean(one), *_ends(values[:, 1] - values[:, 0]))


def _ends(values: np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


# ----------------------------------------------------------------------------------------------------------------- the run


def judge(session: Session) -> None:
    """Has the adapted model fallen below the model as it came? Measured, as far as it is not up to date, and guarded."""
    if not session.recipe.canary:
        return
    before = measured(session, "zero-shot", session.as_it_comes)
    after = measured(session, "adapted", lambda: kept.adapted(session))
    if before is None or after is None:
        return
    advice = "adapt merge scale=sweep looks for the share of the way that forgets little; a lower train.lr or fewer epochs forget less."
    name = "adapted has not fallen below zero-shot on the canary"
    pair = _compared({"before": before, "after": after})
    scores.guard(session, guards.fallen(name, *pair.values(), after["change"], after["pictures"], advice))


def held(session: Session, family, keep: float | None) -> None:
    """Measure the merged model on the canary, on the splits that have chosen nothing.

    Args:
        keep: the share of zero-shot's score that it must have, for the guard; none: nobody has asked.
    """
    before, after = measured(session, "zero-shot", session.as_it_comes), measured(session, "merged", lambda: family)
    if keep is None or not before or not after:
        return
    value, now = _compared({"before": before, "after": after}).values()
    facts = (
        after["change"],
        after["pictures"],
        before["floor"],
        "Sweep with a higher keep=, or give the canary more pictures.",
    )
    allowed = (1 - keep) * value
    scores.guard(session, guards.loss("merged keeps enough of the canary", value, now, allowed, *facts))


def measured(session: Session, name: str, model: Callable[[], Any]) -> dict | None:
    """The canary's record of `zero-shot`, `adapted` or `merged`, measured where it is not up to date; it goes into the entry too.

    Args:
        model: gives the family, when it is to be measured.

    Returns:
        value, interval, floor, pictures, parts; change from zero-shot; none: the model can be asked about no set of it.
    """
    sets, records = guests(session), scores.metrics(session).get("canary", {})
    made = lineage.canary(session, name, sets)
    record = records.get(name)
    if record is None or changed(record["made_of"], made):
        session.run.begin(session.recipe)
        if not (parts := score(session, model(), sets)):
            return None
        record = {"value": mean(parts), "interval": interval(parts), "floor": float(np.mean([part.floor for part in parts]))}
        record |= {"pictures": sum(part.pictures for part in parts), "parts": [part.record() for part in parts]}
        _save(session, name, parts)
        if name != "zero-shot":
            record["change"] = session.processes.share(_against(session, parts) if session.run.writes else None)
        current = {other: one for other, one in records.items() if one["made_of"]["sets"] == made["sets"]}
        scores.save(session, canary=current | {name: record | {"made_of": made}})
        for other in records.keys() - current.keys():
            _show(session, other, {"parts": []})
    _show(session, name, record)
    return record


def _show(session: Session, name: str, record: dict[str, Any]) -> None:
    """Put the score and its parts among an entry's metrics, in the place of what was there."""
    if entry := scores.entry(session, name):
        shown = {f"canary {part['name']}": part["value"] for part in record["parts"]}
        shown |= {"canary": record["value"]} if shown else {}
        ends = {"canary": record["interval"]} if shown and record["interval"] else {}
        scores.update(session, name, metrics=_without(entry["metrics"]) | shown, intervals=_without(entry["intervals"]) | ends)


def _without(named: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in named.items() if not name.startswith("canary")}


def reported(session: Session, names: Sequence[str]) -> dict[str, float]:
    """The scores of those of the models `names` that have been measured, over the parts that all of them have."""
    records = scores.metrics(session).get("canary", {})
    return _compared({name: records[name] for name in names if name in records}) if session.recipe.canary else {}


def _compared(records: dict[str, dict]) -> dict[str, float]:
    """Scores over the parts that all of the records have; none, if there is no such part."""
    values = {name: {part["name"]: part["value"] for part in record["parts"]} for name, record in records.items()}
    shared = set.intersection(*map(set, values.values())) if values else set()
    return {name: float(np.mean([own[part] for part in own if part in shared])) for name, own in values.items() if shared}


def _file(session: Session, name: str, part: str) -> Path:
    return session.run.path / "predictions" / f"canary_{name}_{part.replace(' ', '_')}.parquet"


def _save(session: Session, name: str, parts: Sequence[Part]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for part in parts if session.run.writes else ():
        if part.table:
            with atomic(_file(session, name, part.name)) as path:
                pq.write_table(pa.table(part.table), path)


def _against(session: Session, parts: Sequence[Part]) -> Change | None:
    """The change from zero-shot, by the tables that it has left."""
    import pyarrow.parquet as pq

    before = []
    for part in parts:
        file = _file(session, "zero-shot", part.name)
        table = pq.read_table(file).to_pydict() if file.exists() else {}
        if not table or table["id"] != part.table["id"]:
            return None
        old = replace(part, table=table)
        statistic = old.statistic
        before.append(replace(old, value=float(statistic(np.ones((1, statistic.pictures)))[0])))
    return change(before, parts)
