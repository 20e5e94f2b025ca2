"""Measuring: evals on predictors; an entry goes into `metrics.json`, its table into `predictions/`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import plug
from adapt.plug import UserError
from adapt.provenance import changed, of
from adapt.run import atomic
from adapt.verbs import boxes, lineage, naming, scores
from adapt.verbs.guards import floored

if TYPE_CHECKING:
    from torch import Tensor

    from adapt.verbs.session import Session

BATCH = {"cpu": 64}
"""Pictures at a time, by device; elsewhere 256. What a network computes of more leaves a CPU's caches."""
BEFORE = {"adapted": "zero-shot", "merged": "adapted"}
"""Entry → the one that it is compared with."""
TIMED = ("latency", "latency_torch", "size_bytes")
"""Facts of an entry that other words or other data do not change."""


def predictor(session: Session, module, predictors: Callable[..., dict] | None = None) -> Callable[..., Any]:
    """What evals ask: (data set, name="class_logits", texts=None, **options) → float32[N, …], or a list of N results.

    Args:
        module: a family or a student.
        predictors: others than the module's own, such as those of an exported file.
    """
    from adapt.train.predict import predict

    def run(dataset, name: str = "class_logits", texts: list[str] | None = None, **options: Any):
        function = (predictors or module.predictors)(texts)[name]
        batch = BATCH.get(session.accelerator.device.type, 256)
        given = {"title": "evaluate", "name": name, "workers": session.recipe.train.workers} | options
        return predict(function, module, dataset, batch, session.accelerator, **given)

    return run


def by_features(session: Session, module, rows, features: Tensor) -> Callable[..., Any]:
    """As `predictor`, but of `rows` the class logits are made of what a frozen encoder has made of them, float32[N, …]."""
    import torch

    from adapt.train.predict import finite

    asked = predictor(session, module)

    def run(dataset, name: str = "class_logits", texts: list[str] | None = None, **options: Any):
        if dataset is rows and name == "class_logits" and texts is None:
            batch = BATCH.get(session.accelerator.device.type, 256)
            module.eval()
            with torch.inference_mode():
                logits = torch.cat([module.feature_logits(part) for part in features.split(batch)]).float().cpu().numpy()
            if finite(logits):
                return logits  # else the pictures are asked, which names the row
        return asked(dataset, name, texts, **options)

    return run


def validate(session: Session, module, features: Tensor | None = None) -> float:
    """The main metric, on the validation split, of the first eval that the module can be asked.

    Args:
        features: of all pictures of this split, in their order, float32[N, …]; none: the pictures themselves are looked at.
    """
    config = _first(session, module)
    return _quickly(session, config, module, features).metrics[config.main]


def by_logits(session: Session, module) -> bool:
    """Are weights chosen by what class logits say, and by nothing else of the module?"""
    return _first(session, module).predictor == "class_logits"


def _first(session: Session, module):
    return next(iter(offered(session, module)), session.recipe.evals[0])


def selection(session: Session, module) -> str:
    """By what the best weights of a training are chosen; empty: the last are kept."""
    return lineage.selection(_first(session, module)) if session.selects else ""


def _quickly(session: Session, config, module, features: Tensor | None = None):
    """An eval on the validation split, without what only a report needs."""
    quick = config.model_copy(update=config.quick)
    known = features is not None
    asked = by_features(session, module, session.data["validation"], features) if known else predictor(session, module)
    return evaluated(session, quick, asked, "validation", module)


def validated(session: Session, name: str, module) -> dict[str, Any]:
    """The first eval's main metric on the validation split, as a record that is kept: value, floor, pictures, change."""
    if known := kept_validation(session, name):
        return known
    made, kept = lineage.validation(session, name), scores.metrics(session).get("validation", {})
    config = session.recipe.evals[0]
    definition, result = plug.load("evals", config.name), _quickly(session, config, module)
    session.run.begin(session.recipe)
    record = {"value": result.metrics[config.main], "floor": result.floor, "pictures": len(session.data["validation"])}
    if result.table:
        _save_table(session, f"{name} validation", result.table)
        record |= _change(session, BEFORE.get(name), result.table, definition, " validation")
    scores.save(session, validation=kept | {name: record | {"made_of": made}})
    return record


def kept_validation(session: Session, name: str) -> dict[str, Any] | None:
    """The record that `validated` has kept, if it is still of what it was made of."""
    record = scores.metrics(session).get("validation", {}).get(name)
    return record if record and session.selects and not changed(record["made_of"], lineage.validation(session, name)) else None


def offered(session: Session, module, predictors: Callable[..., dict] | None = None) -> list:
    """The recipe's evals that a module can be asked: it offers their predictor, and knows texts where they ask about texts."""
    have = (predictors or module.predictors)(None)
    return [
        config for config in session.recipe.evals if config.predictor in have and (module.knows_texts or not config.asks_texts)
    ]


def evaluated(session: Session, config, predict: Callable, split: str, module, precision: str | None = None):
    """One eval of a family or student; one that learns from labelled rows gets its bank beside the measured ones.

    Args:
        precision: of an exported file; none: the session's.
    """
    for name in filter(None, (split, config.bank)):
        if name not in session.data:
            raise UserError(f"evals: no split {name!r} in the data. Have: {', '.join(session.data)}.")
    bank = boxes.masked(session, config, session.data[config.bank]) if config.bank else None
    definition = plug.load("evals", config.name)
    rows, predict = boxes.masked(session, config, session.data[split]), naming.asked(session, config, predict)
    protocol = _protocol(session, split, module) | {"metric": config.main, "precision": precision or session.precision}
    return definition.evaluate(config, predict, rows, protocol, bank)


def measure(
    session: Session, name: str, title: str, module, predictors: Callable[..., dict] | None = None, **facts: Any
) -> dict:
    """Run the recipe's evals, as far as the module can; the entry goes into `metrics.json`, the table into `predictions/`.

    Args:
        module: a family or a student.
        predictors: others than the module's own, such as those of an exported file.
        facts: noted in the entry; `against`, the entry that it is compared with; `notes`, sentences under the table; `precision`, a file's.
    """
    from adapt.data.split import described
    from adapt.evals.metrics import collapse

    session.run.begin(session.recipe)
    entry: dict[str, Any] = {"name": name, "title": title, "metrics": {}, "intervals": {}, "notes": []} | facts
    entry["left_out"] = len(session.data.report.severe)
    made = lineage.entry(session, name, facts.get("file"))
    have, predict = (predictors or module.predictors)(None), predictor(session, module, predictors)
    pictures: list[tuple[str, Any]] = []
    tabled = False
    for config in offered(session, module, predictors):
        definition = plug.load("evals", config.name)
        result = evaluated(session, config, predict, config.split, module, facts.get("precision"))
        entry["metrics"] |= result.metrics
        entry["intervals"] |= result.intervals
        entry["notes"] = [*entry["notes"], *filter(None, (result.remark,))]
        entry = result.figures | entry  # the first eval's are drawn
        if "main" not in entry:
            entry |= {"main": config.main, "split": config.split, "protocol": result.protocol, "floor": result.floor}
            entry |= {"pictures": len(session.data[config.split]), "collapse": collapse(result.table)}
            note = floored(config.main, result.metrics[config.main], result.floor)
            entry["notes"] = [*entry["notes"], *filter(None, (entry["collapse"], note))]
        if result.table and not tabled:
            tabled = True
            _save_table(session, name, result.table, session.data[config.split])
            entry |= _change(session, _alike(session, entry, result.protocol), result.table, definition)
        pictures += result.pictures
    if pictures:
        _save_pictures(session, name, pictures)
    if module.tokens_per_second:
        entry["metrics"]["tokens_per_second"] = round(module.tokens_per_second, 1)
    if not entry["metrics"]:
        lacking = ", ".join(config.predictor for config in session.recipe.evals)
        raise UserError(f"evals: {title} offers {', '.join(have)}, and the recipe's evals ask for {lacking}.")
    old = scores.entry(session, name) or {}
    same = not {"base", "model", "adapter", "method", "student", "file"} & set(changed(old.get("made_of", {}), made))
    timed = {fact: old[fact] for fact in TIMED if fact in old and same}  # the same network: what was timed holds
    entries = [one for one in scores.entries(session) if one["name"] != name] + [timed | entry | {"made_of": made}]
    scores.save(session, entries=entries, splits=described(session.data))
    return scores.entry(session, name)


def _protocol(session: Session, split: str, module) -> dict[str, Any]:
    seen = {name: module.input.get(name) for name in ("size", "resize", "interpolation", "crop")}
    told = {"asked_by_name": True} if module.asked_by_name else {}
    told |= {"logit_scale": module.logit_scale} if module.logit_scale else {}
    words = {name: of(value) if name == "texts" else value for name, value in session.words.items()}  # texts may be thousands
    return words | {"data": session.fingerprints[split], "input": seen} | told


def _save_table(session: Session, name: str, table: dict[str, list], rows=None) -> None:
    """The predictions, with pictures of the surest mistakes among `rows`, where answers are right or wrong."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not session.run.writes:
        return
    pictures: list[bytes | None] = [None] * len(table["id"])
    if rows is not None:
        wrong = (i for i, right in enumerate(table.get("correct", [])) if not right)
        sure = table.get("confidence", [0] * len(pictures))
        place = {name: row for row, name in enumerate(rows["id"][:])}  # a table may leave rows out
        owner = table.get("row", table["id"])
        for i in sorted(wrong, key=lambda i: -sure[i])[:24]:
            pictures[i] = _thumbnail(rows[place[owner[i]]]["image"])
    with atomic(_table(session, name)) as path:
        pq.write_table(pa.table(table | {"thumbnail": pictures}), path)


def _save_pictures(session: Session, name: str, pictures: list[tuple[str, Any]]) -> None:
    """What an eval drew, with its captions in the file names' order."""
    if not session.run.writes:
        return
    with atomic(session.run.path / "pictures" / name.replace(" ", "_")) as folder:
        folder.mkdir(parents=True)
        for number, (_, picture) in enumerate(pictures):
            picture.save(folder / f"{number:02d}.png")
        (folder / "captions.json").write_text(json.dumps([caption for caption, _ in pictures], ensure_ascii=False))


def _table(session: Session, name: str) -> Path:
    return session.run.path / "predictions" / f"{name.replace(' ', '_')}.parquet"


def _alike(session: Session, entry: dict, protocol: dict[str, Any]) -> str | None:
    """The name of the entry to compare with, if it stands by the metric of this one: without a head a model has others.

    Args:
        entry: that is being made.
        protocol: of the eval that has left the table, which may not be the entry's first.
    """
    before = entry.get("against", BEFORE.get(entry["name"]))
    found = scores.entry(session, before) if before else None
    alike = found and scores.comparable(found, entry, {"main": entry["main"], "protocol": protocol})
    return before if alike else None


def _change(session: Session, before: str | None, table: dict[str, list], definition, split: str = "") -> dict[str, Any]:
    """Against what it came from, on the same samples: the difference of the main metric with its paired 95 % interval."""
    if before is None:
        return {}
    found = session.processes.share(_difference(session, f"{before}{split}", table, definition) if session.run.writes else None)
    return {"change": found, "against": before} if found else {}


def _difference(session: Session, before: str, table: dict[str, list], definition) -> tuple[float, float, float] | None:
    import pyarrow.parquet as pq

    from adapt.evals.bootstrap import change

    old = _table(session, before)
    return change(definition, pq.read_table(old).to_pydict(), table) if old.exists() else None


def _thumbnail(image) -> bytes:
    """A PIL image → PNG bytes, at most 96 pixels a side."""
    import io

    small = image.copy()
    small.thumbnail((96, 96))
    out = io.BytesIO()
    small.save(out, "PNG")
    return out.getvalue()
