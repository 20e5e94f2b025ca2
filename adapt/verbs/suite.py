"""Suite: many sets, each with its words and its metric, in one command that ends in one table.

Set by set, and model by model: what is finished is kept under all that it was made of, so that a killed suite goes on with the same
command. What cannot be measured is told in a line, and the rest is done. Models of any kind stand in one table: a checkpoint as it comes, an
adapted one, a student, an exported file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapt import literature
from adapt.measures import METRICS
from adapt.plug import UserError, counted
from adapt.progress import duration
from adapt.provenance import changed, of
from adapt.report import suite as page
from adapt.suite import Set
from adapt.verbs.guests import Guest
from adapt.verbs.session import Session
from adapt.verbs.suiting import asking, sets
from adapt.verbs.suiting.models import Model, Opened, costs, models
from adapt.verbs.suiting.request import Request

ALL = ""
"""In the place of a model's name: the set can be measured of none."""
LONGEST = 300
"""Characters of a failure that is told."""
SHOWN = 3
"""Reasons that are said again at the end, when each has been told in its turn."""
Place = tuple[str, str]
"""The names of a set and of a model."""


@dataclass
class Suited:
    """What a suite leaves behind."""

    path: Path
    """The run folder; all of it lies in its `suites/SUITE/`."""
    document: dict[str, Any]
    """`summary.json`: models, sets, results, what failed and what was left out."""
    seconds: float
    """That this call took."""
    encoding: float
    """Those of them in which a model's own functions worked."""

    @property
    def ok(self) -> bool:
        """Nothing failed."""
        return not self.document["failed"]

    def sentences(self) -> list[str]:
        """How long it took, and how much failed."""
        found = (
            [f"This call took {duration(self.seconds)}, of which encoding {duration(self.encoding)}."] if self.encoding else []
        )
        if failed := {one["set"] for one in self.document["failed"]}:
            found.append(f"{len(failed)} of {counted(len(self.document['sets']), 'set')} failed.")
        return found

    @property
    def table(self):
        """A pandas `DataFrame`, a row a set and model: metric, value, low and high (95 % interval), change and its interval."""
        import pyarrow as pa

        rows = []
        for one in self.document["results"]:
            low, high = one["intervals"].get(one["metric"], (None, None))
            change = one["change"] or (None, None, None)
            row = {name: one[name] for name in ("set", "model", "metric", "pictures", "classes", "seconds")}
            row |= {"value": one["metrics"][one["metric"]], "low": low, "high": high}
            rows.append(row | dict(zip(("change", "change_low", "change_high"), change, strict=True)))
        return pa.Table.from_pylist(rows).to_pandas()


def suite(session: Session, request: Request) -> Suited:
    """Measure every set of a suite that is not kept yet, of every model.

    Raises:
        UserError: a model cannot be had, or no set can be measured.
    """
    began, work = time.perf_counter(), Work(session, request)
    for one in request.suite.sets:  # what can be known before anything is encoded
        if not sets.fetched(one, request.tree):
            work.looked(one)
    if len(work.problems) == len(request.suite.sets):
        raise UserError(work.nothing())
    for name, why in work.problems.items():
        session.say(f"{name}: {why}")
    work.models = models(session, request)
    for model in work.models:
        work.measure(model)
    work.write()
    if not work.results:
        raise UserError(work.nothing(SHOWN))
    session.record(f"suite {request.suite.name}", base=session.base, models=[model.name for model in work.models])
    if session.run.writes:
        page.build(session.run.path, request.suite.name)
    return Suited(session.run.path, work.document(), time.perf_counter() - began, work.encoding)


class Work:
    """A suite at work: what is known of its sets and models so far."""

    def __init__(self, session: Session, request: Request):
        self.session, self.suite, self.tree = session, request.suite, request.tree
        self.folder = Path("suites") / request.suite.name
        self.models: list[Model] = []
        self.guests: dict[str, Guest] = {}
        """The sets that can be measured, as far as they have been looked at."""
        self.notes: dict[str, list[str]] = {}
        self.problems: dict[str, str] = {}
        """Set → why it cannot be measured."""
        self.results: dict[Place, dict[str, Any]] = {}
        self.failed: dict[Place, str] = {}
        self.left_out: dict[Place, str] = {}
        self.costs: dict[str, dict[str, Any]] = {}
        self.encoding = 0.0
        """Seconds that models have encoded for, in this call."""

    def looked(self, one: Set) -> Guest | None:
        """A set, read and checked; none: it cannot be measured, and a line says why."""
        if one.name not in self.guests and one.name not in self.problems:
            found, why = attempted(lambda: self._look(one))
            if found:
                self.guests[one.name], self.notes[one.name] = found
                for note in found[1]:
                    self.session.say(f"{one.name}: {note}")
            else:
                self.problems[one.name] = why
                if self.models:  # it was not known before the work began
                    self.session.say(f"{one.name}: {why}")
        return self.guests.get(one.name)

    def _look(self, one: Set) -> tuple[Guest, list[str]]:
        guest = sets.guest(self.session, one, self.tree)
        return guest, sets.look(one, guest)

    # ------------------------------------------------------------------------------------------------------- a model's turn

    def measure(self, model: Model) -> None:
        """Every set of a model: kept, measured, or left out; and what the model costs."""
        opened, closed, before = None, "", 0
        for number, one in enumerate(self.suite.sets, 1):
            if (found := self.looked(one)) is None:
                continue
            guest, place = found.beside(model.session), (one.name, model.name)
            made, why = attempted(lambda one=one, guest=guest: asking.made_of(model, one, guest))
            record = None if why else self._kept(place, made)
            if record is None and not why:
                if opened is None and not closed:
                    opened, closed = attempted(model.open)
                record, why = (None, closed) if closed else self._asked(place, one, guest, opened, made)
                told = why or record.get("left_out") or f"{asking.said(one, record)}; {record['seconds']:.1f} s"
                self.session.say(f"[{number} of {len(self.suite.sets)}] {model.title}, {one.name}: {told}")
            else:
                before += not why
            if why:
                self.failed[place] = why
            elif "left_out" in record:
                self.left_out[place] = record["left_out"]
            else:
                self.results[place] = self._compared(one, guest, place, record)
            self.write()
        if before:
            self.session.say(f"{model.title}: {counted(before, 'set')} finished before")
        if any(name == model.name for _, name in self.results):
            found, why = attempted(lambda: self._costs(model, opened))
            self.costs[model.name] = found or {}
            if why:
                self.session.say(f"{model.title}: what it costs is not known: {why}")
        model.session.forget()

    def _file(self, place: Place, ending: str) -> str:
        name, model = place
        return (self.folder / model / f"{name.replace('/', '--')}.{ending}").as_posix()

    def _kept(self, place: Place, made: Mapping[str, Any]) -> dict[str, Any] | None:
        """What is kept of a set and a model, if it is still of just this."""
        record = self.session.run.read_json(self._file(place, "json"))
        if record is None:
            return None
        if names := changed(record["made_of"], made):
            self.session.say(f"{', '.join(place)}: measured again: {', '.join(names)} changed")
            return None
        return record

    def _asked(self, place: Place, one: Set, guest: Guest, opened: Opened, made: Mapping[str, Any]) -> tuple[Any, str]:
        """The record of a set and a model, measured and kept; or why it failed."""
        record: dict[str, Any] = {"set": one.name, "model": place[1], "metric": one.metric, "made_of": made}
        if why := asking.unfit(opened, sets.main_of(one, guest.evals), guest):
            record["left_out"] = why
        else:
            found, why = attempted(lambda: asking.ask(opened, one, guest))
            if why:
                return None, why
            facts, table = found
            self.encoding += facts["seconds_encoding"]
            record |= facts | {"notes": [*self.notes[one.name], *facts["notes"]], "change": None, "against": None}
            if table and self.session.run.writes:
                asking.save(self.session.run.path / self._file(place, "parquet"), table)
        return self._write(place, record), ""

    def _compared(self, one: Set, guest: Guest, place: Place, record: dict[str, Any]) -> dict[str, Any]:
        """The record with its change from the first model's, computed where that one is another now."""
        first = (one.name, self.models[0].name)
        against = of(self.results[first]["made_of"]) if place != first and first in self.results else None
        if record["against"] != against:
            tables = [self.session.run.path / self._file(each, "parquet") for each in (first, place)]
            found = asking.change(one, guest.evals, *tables) if against and self.session.run.writes else None
            record = record | {"change": self.session.processes.share(found), "against": against}
            record = self._write(place, record)
        return record

    def _write(self, place: Place, record: dict[str, Any]) -> dict[str, Any]:
        """Keep a record; returns it as it will be read."""
        run, name = self.session.run.begin(self.session.recipe), self._file(place, "json")
        run.write_json(name, record)
        return run.read_json(name)

    def _costs(self, model: Model, opened: Opened | None) -> dict[str, Any]:
        """What a model costs, timed once."""
        name = (self.folder / model.name / "model.json").as_posix()
        kept = self.session.run.read_json(name)
        if kept is None or changed(kept["made_of"], model.made_of):
            one = next(one for one in self.suite.sets if one.name in self.guests)
            rows = self.guests[one.name].data[one.split]
            kept = costs(model, opened or model.open(), rows) | {"made_of": model.made_of}
            self.session.run.write_json(name, kept)
        return kept

    # ---------------------------------------------------------------------------------------------------------- the numbers

    def write(self) -> None:
        """`summary.json`, as far as it is known."""
        if self.results:
            self.session.run.write_json((self.folder / "summary.json").as_posix(), self.document())

    def document(self) -> dict[str, Any]:
        """All that table, page and `--json` show."""
        results = [
            {name: value for name, value in self.results[one.name, model.name].items() if name not in ("made_of", "against")}
            for one in self.suite.sets
            for model in self.models
            if (one.name, model.name) in self.results
        ]
        failed = [{"set": name, "model": ALL, "why": why} for name, why in self.problems.items()]
        failed += [{"set": name, "model": model, "why": why} for (name, model), why in self.failed.items()]
        return {
            "suite": self.suite.name,
            "about": self.suite.about,
            "seconds": round(sum(one["seconds"] for one in results), 2),
            "seconds_encoding": round(sum(one["seconds_encoding"] for one in results), 2),
            "models": [self._described(model) for model in self.models],
            "sets": [_shown(one) for one in self.suite.sets],
            "results": results,
            "failed": failed,
            "left_out": [{"set": name, "model": model, "why": why} for (name, model), why in self.left_out.items()],
            "published": self._published(),
        }

    def _described(self, model: Model) -> dict[str, Any]:
        cost = self.costs.get(model.name, {})
        known = {name: cost.get(name) for name in ("parameters", "milliseconds", "bytes")}
        return {"name": model.name, "title": model.title, "kind": model.kind} | known

    def _published(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Set → model → metric → the literature's figure, of models as they come that it knows."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for (name, called), record in self.results.items():
            model = next(model for model in self.models if model.name == called)
            for metric in record["metrics"] if literature.model(model.checkpoint) else ():
                for figure in literature.beside(model.checkpoint, name, metric)[:1]:
                    said = literature.remark(figure, sets.protocol(self.suite.set(name), self.guests[name], record["protocol"]))
                    known = {"value": figure.value, "where": figure.where, "remark": said}
                    found.setdefault(name, {}).setdefault(called, {})[metric] = known
        return found

    def nothing(self, most: int | None = None) -> str:
        """Why there is no number at all, a line a set; of `most`, and how many others there are."""
        lines = [f"{name}: {why}" for name, why in self.problems.items()]
        lines += [f"{name}, {model}: {why}" for (name, model), why in (self.failed | self.left_out).items()]
        away = self.tree is None and any(one.place for one in self.suite.sets)
        hint = " Without a network, say where they lie: data.path=TREE." if away else ""
        head = f"suite: no set of {self.suite.name} can be measured.{hint}"
        more = [f"And {counted(len(lines) - most, 'other')}, as said above."] if most and len(lines) > most else []
        return "\n".join([head, *lines[:most], *more])


def attempted(work: Callable[[], Any]) -> tuple[Any, str]:
    """What `work` gives; or why it could not be done, in a line: one set's failure is not the others'."""
    try:
        return work(), ""
    except UserError as error:
        first, *more = str(error).splitlines() or [""]
        return None, first + (f" (and {len(more)} more)" if more else "")
    except Exception as error:  # of a set's files and of its libraries, any
        if os.environ.get("ADAPT_DEBUG"):
            raise
        return None, " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST]


def _shown(one: Set) -> dict[str, Any]:
    """A set as the summary has it."""
    known = METRICS.get(one.metric)
    about = {"name": one.name, "title": one.title, "metric": one.metric, "also": one.also, "notes": one.notes}
    return about | {"higher_is_better": known is None or known.higher_is_better, "fraction": known is None or known.fraction}
