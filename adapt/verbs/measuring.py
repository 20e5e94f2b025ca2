"""Numbers: evals on predictors, entries and guards in `metrics.json`, tables in `predictions/`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapt import plug
from adapt.plug import UserError
from adapt.provenance import changed
from adapt.run import atomic
from adapt.verbs import lineage
from adapt.verbs.guards import floored

BATCH = 256
BEFORE = {"adapted": "zero-shot", "merged": "adapted"}
"""Entry → the one that it is compared with."""
TIMED = ("latency", "latency_torch", "size_bytes")
"""Facts of an entry that other words or other data do not change."""


class Numbers:
    """The measuring part of a `Stage`."""

    def predictor(self, module, predictors: Callable[..., dict] | None = None) -> Callable[..., Any]:
        """What evals ask: (data set, name="class_logits", texts=None, **options) → float32[N, …], or a list of N results.

        Args:
            module: a family or a student.
            predictors: others than the module's own, such as those of an exported file.
        """
        from adapt.train.predict import predict

        def run(dataset, name: str = "class_logits", texts: list[str] | None = None, **options: Any):
            function = (predictors or module.predictors)(texts)[name]
            return predict(function, module, dataset, BATCH, self.accelerator, title="evaluate", name=name, **options)

        return run

    def validate(self, module) -> float:
        """The main metric, on the validation split, of the first eval that the module can be asked."""
        config = self._first(module)
        return self._quickly(config, module).metrics[plug.load("evals", config.name).MAIN]

    def _first(self, module):
        return next(iter(self.offered(module)), self.recipe.evals[0])

    def selection(self, module) -> str:
        """By what the best weights of a training are chosen; empty: the last are kept."""
        return lineage.selection(self._first(module)) if self.selects else ""

    def _quickly(self, config, module):
        """An eval on the validation split, without what only a report needs."""
        quick = config.model_copy(update=getattr(plug.load("evals", config.name), "QUICK", {}))
        return self.evaluated(quick, self.predictor(module), "validation", module)

    def validated(self, name: str, module) -> dict[str, Any]:
        """The first eval's main metric on the validation split, as a record that is kept: value, floor, pictures, change."""
        if known := self.kept_validation(name):
            return known
        made, kept = lineage.validation(self, name), self.metrics().get("validation", {})
        config = self.recipe.evals[0]
        target, result = plug.load("evals", config.name), self._quickly(config, module)
        self.run.begin(self.recipe)
        record = {"value": result.metrics[target.MAIN], "floor": result.floor, "pictures": len(self.data["validation"])}
        if result.table:
            self._save_table(f"{name} validation", result.table)
            record |= self._change(BEFORE.get(name), result.table, target, " validation")
        self._save(validation=kept | {name: record | {"made_of": made}})
        return record

    def kept_validation(self, name: str) -> dict[str, Any] | None:
        """The record that `validated` has kept, if it is still of what it was made of."""
        record = self.metrics().get("validation", {}).get(name)
        return record if record and self.selects and not changed(record["made_of"], lineage.validation(self, name)) else None

    def offered(self, module, predictors: Callable[..., dict] | None = None) -> list:
        """The recipe's evals that a module can be asked: it offers their predictor, and knows texts where they ask about texts."""
        have = (predictors or module.predictors)(None)
        targets = ((config, plug.load("evals", config.name)) for config in self.recipe.evals)
        return [
            config
            for config, target in targets
            if target.PREDICTOR in have and (not getattr(target, "TEXTS", False) or hasattr(module, "text_embedding"))
        ]

    def evaluated(self, config, predict: Callable, split: str, module):
        """One eval of a family or student; an eval with a `bank_split` gets these rows beside the measured ones."""
        for name in (split, getattr(config, "bank_split", split)):
            if name not in self.data:
                raise UserError(f"evals: no split {name!r} in the data. Have: {', '.join(self.data)}.")
        more = {"bank": self.data[config.bank_split]} if hasattr(config, "bank_split") else {}
        return plug.load("evals", config.name).evaluate(
            config, predict, self.data[split], self._protocol(split, module), **more
        )

    def measure(self, name: str, title: str, module, predictors: Callable[..., dict] | None = None, **facts: Any) -> dict:
        """Run the recipe's evals, as far as the module can; the entry goes into `metrics.json`, the table into `predictions/`.

        Args:
            module: a family or a student.
            predictors: others than the module's own, such as those of an exported file.
            facts: noted in the entry; `against`, the entry that it is compared with; `notes`, sentences that are shown under the table.
        """
        from adapt.data.split import described
        from adapt.evals.metrics import collapse

        self.run.begin(self.recipe)
        entry: dict[str, Any] = {"name": name, "title": title, "metrics": {}, "intervals": {}, "notes": []} | facts
        entry["left_out"] = len(self.data.report.severe)
        made = lineage.entry(self, name, facts.get("file"))
        have, predict = (predictors or module.predictors)(None), self.predictor(module, predictors)
        pictures: list[tuple[str, Any]] = []
        tabled = False
        for config in self.offered(module, predictors):
            target = plug.load("evals", config.name)
            result = self.evaluated(config, predict, config.split, module)
            entry["metrics"] |= result.metrics
            entry["intervals"] |= result.intervals
            entry = result.figures | entry  # the first eval's are drawn
            if "main" not in entry:
                entry |= {"main": target.MAIN, "split": config.split, "protocol": result.protocol, "floor": result.floor}
                entry |= {"pictures": len(self.data[config.split]), "collapse": collapse(result.table)}
                note = floored(target.MAIN, result.metrics[target.MAIN], result.floor)
                entry["notes"] = [*entry["notes"], *filter(None, (entry["collapse"], note))]
            if result.table and not tabled:
                tabled = True
                self._save_table(name, result.table, self.data[config.split])
                entry |= self._change(facts.get("against", BEFORE.get(name)), result.table, target)
            pictures += result.pictures
        if pictures:
            self._save_pictures(name, pictures)
        if speed := getattr(module, "tokens_per_second", 0):
            entry["metrics"]["tokens_per_second"] = round(speed, 1)
        if not entry["metrics"]:
            lacking = ", ".join(plug.load("evals", config.name).PREDICTOR for config in self.recipe.evals)
            raise UserError(f"evals: {title} offers {', '.join(have)}, and the recipe's evals ask for {lacking}.")
        old = self.entry(name) or {}
        same = not {"base", "model", "adapter", "method", "student", "file"} & set(changed(old.get("made_of", {}), made))
        timed = {fact: old[fact] for fact in TIMED if fact in old and same}  # the same network: what was timed holds
        entries = [one for one in self.entries() if one["name"] != name] + [timed | entry | {"made_of": made}]
        self._save(entries=entries, splits=described(self.data))
        return self.entry(name)

    def _protocol(self, split: str, module) -> dict[str, Any]:
        from adapt.models.base import Family

        by_name = isinstance(module, Family) and module.asked_by_name
        return (
            self.words
            | {
                "data": self.fingerprints[split],
                "input": {name: module.input.get(name) for name in ("size", "resize", "interpolation", "crop")},
            }
            | ({"asked_by_name": True} if by_name else {})
        )

    def _save_table(self, name: str, table: dict[str, list], rows=None) -> None:
        """The predictions, with pictures of the surest mistakes among `rows`, where answers are right or wrong."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self.run.writes:
            return
        pictures: list[bytes | None] = [None] * len(table["id"])
        if rows is not None:
            wrong = (i for i, right in enumerate(table.get("correct", [])) if not right)
            sure = table.get("confidence", [0] * len(pictures))
            place = {name: row for row, name in enumerate(rows["id"])}  # a table may leave rows out
            for i in sorted(wrong, key=lambda i: -sure[i])[:24]:
                pictures[i] = _thumbnail(rows[place[table["id"][i]]]["image"])
        with atomic(self._table(name)) as path:
            pq.write_table(pa.table(table | {"thumbnail": pictures}), path)

    def _save_pictures(self, name: str, pictures: list[tuple[str, Any]]) -> None:
        """What an eval drew, with its captions in the file names' order."""
        if not self.run.writes:
            return
        with atomic(self.run.path / "pictures" / name.replace(" ", "_")) as folder:
            folder.mkdir(parents=True)
            for number, (_, picture) in enumerate(pictures):
                picture.save(folder / f"{number:02d}.png")
            (folder / "captions.json").write_text(json.dumps([caption for caption, _ in pictures], ensure_ascii=False))

    def _table(self, name: str) -> Path:
        return self.run.path / "predictions" / f"{name.replace(' ', '_')}.parquet"

    def _change(self, before: str | None, table: dict[str, list], target, split: str = "") -> dict[str, Any]:
        """Against what it came from, on the same samples: the difference of the main metric with its paired 95 % interval."""
        if before is None:
            return {}
        found = self.processes.share(self._difference(f"{before}{split}", table, target) if self.run.writes else None)
        return {"change": found, "against": before} if found else {}

    def _difference(self, before: str, table: dict[str, list], target) -> tuple[float, float, float] | None:
        import pyarrow.parquet as pq

        from adapt.evals.bootstrap import change

        old = self._table(before)
        return change(target, pq.read_table(old).to_pydict(), table) if old.exists() else None

    def metrics(self) -> dict[str, Any]:
        return self.run.read_json("metrics.json", {"entries": [], "guards": []})

    def entries(self) -> list[dict]:
        return self.metrics()["entries"]

    def entry(self, name: str) -> dict | None:
        return next((entry for entry in self.entries() if entry["name"] == name), None)

    def _save(self, **changes: Any) -> None:
        self.run.write_json("metrics.json", self.metrics() | changes)
        self.accelerator.wait_for_everyone()

    def measured(self, name: str) -> bool:
        """Is there an entry of this name that is still of what it was made of? A line says why not, where it must be made again."""
        old = self.entry(name)
        if old is None:
            return False
        names = changed(old["made_of"], lineage.entry(self, name, old.get("file")))
        if names and name not in self._told:
            self._told.add(name)
            self.say(f"{old['title']}: measured again: {', '.join(names)} changed")
        return not names

    def main(self, entry: dict) -> float:
        """The metric by which guards compare."""
        return entry["metrics"][entry["main"]]

    def comparable(self, *entries: dict) -> bool:
        """Do these entries stand by the same metric of the same eval?"""
        return len({(entry["main"], entry["protocol"].get("eval")) for entry in entries}) == 1

    def title(self, name: str) -> str:
        """How the model is called in tables, before or after its adaptation."""
        family, method = plug.load("models", self.recipe.model.name), plug.load("methods", self.recipe.method.name)
        if name != "zero-shot":
            return f"{family.TITLE} + {method.TITLE}"
        return f"zero-shot {family.TITLE}{method.placed(self.recipe.method) if method.PLACES else ''}"

    def say(self, text: str) -> None:
        """A line for the user, once, whatever the number of processes."""
        self.accelerator.print(text)

    def update(self, name: str, **facts: Any) -> None:
        """Add facts to an entry."""
        self._save(entries=[entry | facts if entry["name"] == name else entry for entry in self.entries()])

    def drop_files(self) -> None:
        """Forget the numbers and promises of the student's exported files: it has other weights now."""
        files = {entry["name"] for entry in self.entries() if "file" in entry and entry["student"] == self.called}
        entries = [entry for entry in self.entries() if entry["name"] not in files]
        guards = [
            guard for guard in self.metrics()["guards"] if not any(guard["name"].startswith(f"{name} ") for name in files)
        ]
        self._save(entries=entries, guards=guards)

    def guard(self, guard: dict[str, str]) -> None:
        """Note whether a promise is kept; see `adapt/guards.py`."""
        guards = {old["name"]: old for old in self.metrics()["guards"]} | {guard["name"]: guard}
        self._save(guards=list(guards.values()))


def _thumbnail(image) -> bytes:
    """A PIL image → PNG bytes, at most 96 pixels a side."""
    import io

    small = image.copy()
    small.thumbnail((96, 96))
    out = io.BytesIO()
    small.save(out, "PNG")
    return out.getvalue()
