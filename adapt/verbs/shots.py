"""Shots: what few labels buy. Methods × labelled pictures a class × draws of them, in one table and one plot.

Each cell is kept when it is finished, under a name of all that it was made of: a killed sweep goes on with the same command, and what
changed is made again. Everything that frozen encoders make of the pictures is computed once, for all cells.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapt import plug
from adapt.contracts import MethodConfig
from adapt.plug import UserError, counted, nearest
from adapt.provenance import changed
from adapt.records import Guard
from adapt.report import shots as page
from adapt.report.gallery import FITTED
from adapt.verbs import guards
from adapt.verbs.session import Session
from adapt.verbs.shooting import samples, summary
from adapt.verbs.shooting.cell import FOLDER, Cell, Plan, Reference, learnt, planned
from adapt.verbs.shooting.pool import Part, Pool, halves, words
from adapt.verbs.shooting.request import ZERO_SHOT, Request


@dataclass
class Swept:
    """What a sweep leaves behind."""

    path: Path
    """The run folder; all of it lies in its `shots/`."""
    document: dict[str, Any]
    """`shots.json`: rows, counts, guards."""

    @property
    def ok(self) -> bool:
        """No promise is broken."""
        return all(guard["state"] != guards.BROKEN for guard in self.document["guards"])

    @property
    def table(self):
        """The rows as a pandas `DataFrame`: method, shots, and for each score its mean, sd and change with its interval, 0–1."""
        import pyarrow as pa

        return pa.Table.from_pylist([page.flat(row) for row in self.document["rows"]]).to_pandas()

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        return FITTED + page.shown(self.document)


def shots(session: Session, request: Request) -> Swept:
    """Learn and measure every cell that is not kept yet, and sum them up.

    Raises:
        UserError: the data have no labels or too few under `strict`, a method does not fit the family, or the file of draws is wrong.
    """
    pool, known = Pool(session), _knows_classes(session)
    parts = _parts(pool, request)
    plans = _plans(session, request, parts, known)
    draws = _draws(pool, request)
    lacking = _counted(pool, parts[0], draws, session.recipe.strict)
    if not any(drawn.validation for drawn in draws.values()):
        session.say("shots: there are no validation pictures, so nothing is chosen by them: the last weights stand")
    cells = [planned(pool, parts[0], request, plan, key, drawn) for plan in plans for key, drawn in draws.items()]
    session.run.begin(session.recipe)
    session.run.write_text(f"{FOLDER}/samples.jsonl", samples.written(draws))
    reference = Reference(pool) if known else None
    if reference:
        start = [f"{100 * reference.right(part, pool.tested(part)).mean():.1f} %{part.where}" for part in parts]
        session.say(f"zero-shot: {', '.join(start)}")
    records = _swept(pool, cells, parts, reference)
    document = _document(pool, request, plans, parts, records, reference, lacking)
    session.run.write_json(f"{FOLDER}/shots.json", document)
    page.build(session.run.path)
    session.record("shots", base=session.base, cells=sorted(cell.name for cell in cells))
    return Swept(session.run.path, document)


# ---------------------------------------------------------------------------------------------------- before anything is encoded


def _knows_classes(session: Session) -> bool:
    """Can the model as it comes be asked about the classes?"""
    return "class_logits" in session.family.predictors()


def _parts(pool: Pool, request: Request) -> tuple[Part, ...]:
    """The classes that are asked about among each other; the first are learnt."""
    if not request.base_to_new:
        return (Part("all", pool.names, 0),)
    model = pool.session.recipe.model
    if not model.uses_words:
        raise UserError(f"base_to_new: {model.name!r} has no words for classes that it has not learnt. Leave it out.")
    if len(pool.names) < 2:
        raise UserError(f"base_to_new: the data have {counted(len(pool.names), 'class')}, which has no halves. Leave it out.")
    return halves(pool.names)


def _plans(session: Session, request: Request, parts: Sequence[Part], known: bool) -> list[Plan]:
    """The methods with their options: those of the recipe for its own method."""
    plans = []
    for method in request.methods:
        if method == ZERO_SHOT:
            if not known:
                fit = nearest(ZERO_SHOT, ("head", "lora", "full"))
                raise UserError(
                    f"methods: {ZERO_SHOT!r} is not for {session.recipe.model.name!r}, which has no class words.{fit}"
                )
            continue
        own = method == session.recipe.method.name
        if isinstance(method, str):
            method = session.recipe.method if own else plug.schema("methods", method)(name=method)
        asked = parts[:1] if method.only_learnt_classes else parts
        families = [_applied(session, method, words(session, part)) for part in asked]
        _alike(method, families)
        plans.append(Plan(method, own, families[0].frozen_features() is None))
    return plans


def _applied(session: Session, method: MethodConfig, told: Mapping[str, list[str]]):
    """A family that knows these classes, with the method on it.

    Raises:
        UserError: the method does not fit the family.
    """
    family, definition = session.loaded(), plug.load("methods", method.name)
    try:
        family.set_classes(**told)
        if method.places:
            definition.place(family, method, session.accelerator.device)
        definition.apply(family, method, session.data["train"])
        if "class_logits" not in family.predictors():
            raise UserError("it answers no classes.")
    except UserError as error:
        raise UserError(f"methods: {method.name!r} does not fit {session.recipe.model.name!r} here: {error}") from None
    return family


def _alike(method: MethodConfig, families: Sequence[Any]) -> None:
    """Can what is learnt beside some classes stand beside others?

    Raises:
        UserError: it is of another shape there, as CoOp's context is beside longer words.
    """
    shapes = [
        {name: tuple(value.shape) for name, value in family.named_parameters() if value.requires_grad} for family in families
    ]
    for other in shapes[1:]:
        odd = next((name for name in shapes[0] if shapes[0][name] != other.get(name)), None)
        if odd:
            here, there = shapes[0][odd], other.get(odd, ())
            least = next((min(pair) for pair in zip(here, there, strict=False) if pair[0] != pair[1]), 1)
            step = (
                f"Say methods='[{{name: {method.name}, tokens: {least}}}]'" if "tokens" in method.values() else "Leave it out"
            )
            raise UserError(
                f"base_to_new: what {method.name!r} learns is {' × '.join(map(str, here))} numbers beside the words of the base classes, and "
                f"{' × '.join(map(str, there))} beside those of the new ones. {step}."
            )


def _draws(pool: Pool, request: Request) -> dict[samples.Key, samples.Draw]:
    """The pictures of each (shots, seed); seeds follow the recipe's own: 1, 2, 3 where that is 0."""
    first = pool.session.recipe.seed + 1
    most = pool.session.recipe.data.values().get("shots")
    if most and most < max(request.shots):
        pool.session.say(f"shots: data.shots={most} leaves so many of each class to draw from; data.shots=null leaves all")
    keys = [(count, seed) for count in request.shots for seed in range(first, first + request.seeds)]
    if request.splits:
        return samples.read(request.splits, keys, pool.ids)
    return samples.draw(pool.ids, pool.labels, keys)


def _counted(pool: Pool, part: Part, draws: Mapping[samples.Key, samples.Draw], strict: bool) -> dict[int, dict[str, int]]:
    """Shots → class → its pictures, of the classes that have fewer.

    Raises:
        UserError: there are such, and `strict`.
    """
    lacking: dict[int, dict[str, int]] = {}
    for (count, _), drawn in draws.items():
        labels = pool.labelled(part, pool.chosen(part, drawn.train))
        lacking[count] = lacking.get(count, {}) | samples.fewer(labels.tolist(), part.classes, count)
    if strict:
        for count, classes in lacking.items():
            if classes:
                name, have = min(classes.items(), key=lambda pair: pair[1])
                raise UserError(
                    f"shots: {counted(len(classes), 'class')} of {len(part.classes)} with fewer than {count} training pictures, such as "
                    f"{name!r} with {have}. Take fewer shots, or set strict=false: then a class gives what it has."
                )
    return lacking


# --------------------------------------------------------------------------------------------------------------- the sweep


def _swept(pool: Pool, cells: Sequence[Cell], parts: Sequence[Part], reference: Reference | None) -> list[dict[str, Any]]:
    """What is kept of each cell, in their order; what is missing is made, with a line a cell."""
    session = pool.session
    folder = session.run.path / FOLDER / "cells"
    kept = {cell.name: _kept(folder / f"{cell.name}.json") for cell in cells}
    missing = [cell for cell in cells if kept[cell.name] is None]
    if len(missing) < len(cells):
        session.say(f"shots: {len(cells) - len(missing)} of {counted(len(cells), 'cell')} finished before")
    _tell_changes(session, folder, missing)
    importlib.import_module("adapt.train.loop")  # its libraries take seconds, which are no cell's
    took: dict[str, list[float]] = {}
    for number, cell in enumerate(missing, 1):
        start = time.perf_counter()
        try:
            record = learnt(pool, cell, parts, reference)
        except UserError as error:
            raise UserError(f"{cell.method.name}, {counted(cell.shots, 'shot')}, seed {cell.seed}: {error}") from None
        session.run.write_json(f"{FOLDER}/cells/{cell.name}.json", record)
        kept[cell.name] = record
        took.setdefault(cell.method.name, []).append(time.perf_counter() - start)
        left = _left(missing[number:], took)
        session.say(f"[{number} of {len(missing)}] {_said(record, parts[0])}{left}")
    return [kept[cell.name] for cell in cells]


def _kept(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _tell_changes(session: Session, folder: Path, missing: Sequence[Cell]) -> None:
    """Why cells are made that have been made before, of something else: a line a method."""
    told = set()
    for cell in missing:
        others = sorted(folder.glob(f"{cell.place}-????????.json"), key=lambda path: path.stat().st_mtime)
        before = _kept(others[-1]) if others else None
        names = changed(before["made_of"], cell.made_of) if before else []
        if names and (cell.method.name, *names) not in told:
            told.add((cell.method.name, *names))
            session.say(f"{cell.method.name}: learnt again: {', '.join(names)} changed")


def _said(record: Mapping[str, Any], part: Part) -> str:
    """A finished cell in a line."""
    value = record["metrics"][part.name]["top1"]
    note = ", no better than zero-shot on validation" if summary.stopped(record) else ""
    place = f"{record['method']}, {counted(record['shots'], 'shot')}, seed {record['seed']}"
    return f"{place}: {100 * value:.1f} %{part.where}{note}; {record['seconds']:.1f} s"


def _left(cells: Sequence[Cell], took: Mapping[str, Sequence[float]]) -> str:
    """How long the other cells will take, by those of the same method, or by all."""
    if not cells:
        return ""
    usual = float(np.mean([value for values in took.values() for value in values]))
    seconds = sum(float(np.mean(took[cell.method.name])) if cell.method.name in took else usual for cell in cells)
    told = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    return f"; about {told} left"


# ----------------------------------------------------------------------------------------------------------------- the table


def _document(
    pool: Pool,
    request: Request,
    plans: Sequence[Plan],
    parts: Sequence[Part],
    records: Sequence[Mapping[str, Any]],
    reference: Reference | None,
    lacking: Mapping[int, Mapping[str, int]],
) -> dict[str, Any]:
    """`shots.json`: all that the table, the plot and `--json` show."""
    tested = {part.name: pool.tested(part) for part in parts}
    counts = {name: len(places) for name, places in tested.items()}
    start = {part.name: reference.right(part, tested[part.name]) for part in parts} if reference else None
    rows = [summary.zero_shot(start) | {"title": "zero-shot"}] if start else []
    for plan in plans:
        for count in request.shots:
            own = [record for record in records if (record["method"], record["shots"]) == (plan.method.name, count)]
            why = plan.method.only_learnt_classes if len(parts) > 1 else ""
            rows.append(summary.row(own, start, counts, request.stop) | {"title": plan.method.title, "no_new": why})
    promise: Guard | None = summary.guard(rows)
    return {
        "shots": list(request.shots),
        "seeds": request.seeds,
        "classes": {part.name: len(part.classes) for part in parts},
        "pictures": counts,
        "stop": request.stop,
        "cap": request.cap,
        "fewer": {str(count): dict(classes) for count, classes in lacking.items()},
        "data": pool.fingerprints,
        "rows": rows,
        "guards": [promise.model_dump()] if promise else [],
    }
