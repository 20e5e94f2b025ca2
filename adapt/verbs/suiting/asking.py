"""A model asked about a set: what the number is made of, the asking itself, and what is kept of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from adapt import plug
from adapt.contracts import EvalConfig, Predictor
from adapt.evals import detection
from adapt.measures import METRICS
from adapt.plug import UserError
from adapt.provenance import of
from adapt.run import atomic
from adapt.suite import Set
from adapt.verbs import lineage, measuring
from adapt.verbs.guests import Guest
from adapt.verbs.suiting.models import LOGITS, Model, Opened
from adapt.verbs.suiting.sets import main_of, where

VERSION = 3
"""Raised when what is kept of a set becomes other."""
SAMPLES = 1000
"""Resamples of an interval."""
CLASSES = (*LOGITS, "detections")
"""Predictors whose answers are the data's own classes."""


def made_of(model: Model, one: Set, guest: Guest) -> dict[str, Any]:
    """What a set's numbers of a model come from; they are used again when it is all the same."""
    splits = sorted({split for config in guest.evals for split in lineage.read(config)})
    return {
        "version": VERSION,
        "model": model.made_of,
        "precision": model.session.precision,
        "data": {split: guest.fingerprints[split] for split in splits},
        "source": guest.source.version if guest.source else model.session.recipe.data.version,
        "words": {name: of(value) for name, value in guest.words.items()},
        "evals": {config.name: lineage.measured(config) for config in guest.evals},
        "metrics": one.metrics(),
    } | lineage.beside(guest.evals)


class Clock:
    """Seconds that a model's own functions took, and no decoding of pictures."""

    def __init__(self, opened: Opened, columns: Sequence[int] | None = None):
        self.opened, self.columns, self.seconds = opened, columns, 0.0

    def predictors(self, texts: list[str] | None = None) -> Mapping[str, Predictor]:
        """Those of the model; where it has classes of its own, its answers are about the set's, in their order."""
        have = self.opened.predictors(texts)
        return {name: Predictor(self._timed(name, each, texts), each.takes) for name, each in have.items()}

    def _timed(self, name: str, function: Callable, texts: list[str] | None) -> Callable:
        import torch

        def answer(*given: Any, **options: Any) -> Any:
            began = time.perf_counter()
            found = function(*given, **options)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.seconds += time.perf_counter() - began
            return in_order(name, found, self.columns) if self.columns and not texts else found

        return answer


def in_order(name: str, found: Any, columns: Sequence[int]) -> Any:
    """A predictor's answers about a model's own classes → about the set's, in their order.

    Args:
        name: the predictor.
        found: of class_logits float[N, C]; of semantic_logits float[N, 1 + C, h, w], the background first; of detections a list of rows,
            in which a `category` that is none of the set's becomes −1. Of others, anything, which stays as it is.
        columns: the places of the set's classes among the model's own.
    """
    import numpy as np

    if name == "class_logits":
        return found[:, list(columns)]
    if name == "semantic_logits":
        return found[:, [0, *(column + 1 for column in columns)]]
    if name == "detections":
        places = {column: number for number, column in enumerate(columns)}
        return [row | {"category": np.array([places.get(int(own), -1) for own in row["category"]], np.int64)} for row in found]
    return found


class Once:
    """What evals of one set ask, each question answered once: pictures are encoded once for all its metrics."""

    def __init__(self, predict: Callable[..., Any]):
        self.predict = predict
        self._known: dict[tuple, tuple[Any, Any]] = {}

    def __call__(self, dataset, name: str = "class_logits", texts: list | None = None, **options: Any) -> Any:
        if options:
            return self.predict(dataset, name, texts, **options)
        key = (id(dataset), name, None if texts is None else of(texts))
        if key not in self._known:
            self._known[key] = (dataset, self.predict(dataset, name, texts))  # the data set stays, and so does its id
        return self._known[key][1]


def unfit(opened: Opened, config: EvalConfig, guest: Guest) -> str:
    """Why a model cannot be asked what an eval asks of a set, in a sentence; empty: it can."""
    have = opened.predictors(None)
    if config.predictor not in have or (config.asks_texts and not opened.module.knows_texts):
        what = "texts of its own" if config.predictor in have else config.predictor
        return f"{config.name} asks about {what}, and this model answers {', '.join(have)}"
    blind = isinstance(config, detection.Config) and config.class_agnostic
    if config.predictor not in CLASSES or config.asks_texts or opened.classes is None or blind:
        return ""
    unknown = [label for label in guest.labels if label not in opened.classes]
    if not unknown:
        return ""
    return f"closed-set model: other classes: {len(unknown)} of {len(guest.labels)} are not its own, such as {unknown[0]!r}"


def ask(opened: Opened, one: Set, guest: Guest) -> tuple[dict[str, Any], dict[str, list]]:
    """Ask a model all that a set asks.

    Returns:
        what is kept of it, as `SET.json` has it, but for what it is compared with; and the table of the main metric's eval.

    Raises:
        UserError: it cannot be asked.
    """
    began, main = time.perf_counter(), main_of(one, guest.evals)
    clock = Clock(opened, _columns(opened, guest))
    predict = measuring.predictor(guest.session, opened.module, clock.predictors)
    predict = Once(predict) if len(guest.evals) > 1 else predict
    record: dict[str, Any] = {"metrics": {}, "intervals": {}, "notes": [], "figures": {}, "floor": None}
    results = {}
    with _words(opened, guest):
        for config in guest.evals:
            if why := unfit(opened, config, guest):
                record["notes"].append(f"not asked: {why}.")
                continue
            results[config.name] = measuring.evaluated(guest, config, predict, one.split, opened.module, opened.precision)
    for metric in one.metrics():
        for config in guest.evals:
            key, result = where(metric, config), results.get(config.name)
            if key and result and key in result.metrics:
                record["metrics"][metric] = result.metrics[key]
                if key in result.intervals:
                    record["intervals"][metric] = result.intervals[key]
    if one.metric not in record["metrics"]:
        raise UserError(f"{main.name} gave no {one.metric} of these data.")
    result = results[main.name]
    record["notes"] += [each.remark for each in results.values() if each.remark]
    if where(one.metric, main) == main.main:
        record["floor"] = result.floor
    for each in results.values():
        record["figures"] |= _corruptions(each.figures.get("robustness"))
    record["protocol"] = result.protocol | {"metric": one.metric}
    record |= {"pictures": len(guest.data[one.split]), "classes": len(guest.labels) or None}
    record |= {"seconds": round(time.perf_counter() - began, 3), "seconds_encoding": round(clock.seconds, 3)}
    return record, result.table


def _columns(opened: Opened, guest: Guest) -> list[int] | None:
    """The places of the set's classes among the model's own; none: it answers about any."""
    if opened.classes is None or not guest.labels:
        return None
    places = {name: number for number, name in enumerate(opened.classes)}
    return [places[label] for label in guest.labels] if all(label in places for label in guest.labels) else None


def _words(opened: Opened, guest: Guest):
    """The model asked about the set's classes; one with classes of its own is told none."""
    return guest.asked(opened.module) if opened.told and opened.classes is None else nullcontext()


def _corruptions(figure: Mapping[str, Any] | None) -> dict[str, Any]:
    """Accuracy by corruption and severity, how many pictures it is of, and top-1 on these as they are."""
    if not figure:
        return {}
    rows = zip(figure["corruptions"], figure["accuracy"], strict=True)
    levels = list(map(str, figure["severities"]))
    under = {name: dict(zip(levels, values, strict=True)) for name, values in rows}
    return {"corruptions": under, "clean": figure["clean"], "pictures": figure["pictures"]}


# ------------------------------------------------------------------------------------------------------------------- tables


def save(path: Path, table: Mapping[str, list]) -> None:
    """Keep the answers, by which models are compared on the same pictures."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic(path) as temporary:
        pq.write_table(pa.table(dict(table)), temporary)


def change(one: Set, evals: Sequence[EvalConfig], before: Path, after: Path) -> list[float] | None:
    """What the main metric gained on the same pictures, with its paired 95 % interval; none where answers do not tell."""
    import pyarrow.parquet as pq

    from adapt.evals import bootstrap, resampled

    if not (before.is_file() and after.is_file()):
        return None
    tables, main = [pq.read_table(path).to_pydict() for path in (before, after)], main_of(one, list(evals))
    if where(one.metric, main) == main.main:
        found = bootstrap.change(plug.load("evals", main.name), *tables)
        return None if found is None else list(found)
    known = [resampled.statistic(one.metric, table) for table in tables]
    alike = tables[0].get("id") and all(tables[0].get(name) == tables[1].get(name) for name in ("id", "picture"))
    return list(bootstrap.gain(*known, SAMPLES)) if alike and all(known) else None


def said(one: Set, record: Mapping[str, Any]) -> str:
    """A set's main number in a few words."""
    known = METRICS.get(one.metric)
    percent = known is None or known.fraction
    values = [record["metrics"][one.metric], *record["intervals"].get(one.metric, ())]
    shown = [f"{100 * value:.1f}" if percent else f"{value:.2f}" for value in values]
    ends = f" ({shown[1]}–{shown[2]})" if len(shown) == 3 else ""
    return f"{known.title if known else one.metric} {shown[0]}{' %' if percent else ''}{ends}"
