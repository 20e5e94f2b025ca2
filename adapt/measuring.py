"""Numbers: evals on predictors, entries and guards in `metrics.json`, tables in `predictions/`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adapt import plug
from adapt.plug import UserError
from adapt.run import atomic

BATCH = 256


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
            return predict(function, module, dataset, BATCH, self.accelerator, title="evaluate", **options)

        return run

    def validate(self, module) -> float:
        """The main metric, on the validation split, of the first eval that the module can be asked."""
        config = next(iter(self.offered(module)), self.recipe.evals[0])
        target = plug.load("evals", config.name)
        quick = config.model_copy(update=getattr(target, "QUICK", {}))
        return self.evaluated(quick, self.predictor(module), "validation", module).metrics[target.MAIN]

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
        """
        self.run.begin(self.recipe)
        entry: dict[str, Any] = {
            "name": name,
            "title": title,
            "asked": self._asked(name),
            "metrics": {},
            "intervals": {},
        } | facts
        if report := getattr(self.data, "report", None):
            entry["left_out"] = len(report.severe)
        have, predict = (predictors or module.predictors)(None), self.predictor(module, predictors)
        pictures: list[tuple[str, Any]] = []
        tabled = False
        for config in self.offered(module, predictors):
            target = plug.load("evals", config.name)
            result = self.evaluated(config, predict, config.split, module)
            entry["metrics"] |= result.metrics
            entry["intervals"] |= result.intervals
            entry = result.figures | entry  # the first eval's are drawn
            entry.setdefault("main", target.MAIN)
            entry.setdefault("split", config.split)
            entry.setdefault("protocol", result.protocol)
            if result.table and not tabled:
                tabled = True
                self._save_table(name, result.table, self.data[config.split])
                entry |= self._change(name, result.table, target.MAIN)
            pictures += result.pictures
        if pictures:
            self._save_pictures(name, pictures)
        if speed := getattr(module, "tokens_per_second", 0):
            entry["metrics"]["tokens_per_second"] = round(speed, 1)
        if not entry["metrics"]:
            lacking = ", ".join(plug.load("evals", config.name).PREDICTOR for config in self.recipe.evals)
            raise UserError(f"evals: {title} offers {', '.join(have)}, and the recipe's evals ask for {lacking}.")
        entries = [old for old in self.entries() if old["name"] != name] + [entry]
        self._save(entries=entries)
        return entry

    def _protocol(self, split: str, module) -> dict[str, Any]:
        return self.words | {
            "data": self.fingerprints[split],
            "input": {name: module.input.get(name) for name in ("size", "resize", "interpolation", "crop")},
        }

    def _save_table(self, name: str, table: dict[str, list], rows) -> None:
        """The predictions, with pictures of the surest mistakes, where answers are right or wrong."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        wrong = (i for i, right in enumerate(table.get("correct", [])) if not right)
        pictures: list[bytes | None] = [None] * len(table["id"])
        sure = table.get("confidence", [0] * len(pictures))
        for i in sorted(wrong, key=lambda i: -sure[i])[:24]:
            pictures[i] = _thumbnail(rows[i]["image"])
        if self.run.writes:
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

    def _change(self, name: str, table: dict[str, list], main: str) -> dict[str, Any]:
        """Against what it came from, on the same samples: mean difference with its paired 95 % interval; empty without such."""
        import pyarrow.parquet as pq

        from adapt.evals._metrics import difference

        before = {
            "adapted": "zero-shot",
            "student": "labels" if self.measured("labels") else "adapted",
            "merged": "adapted",
        }.get(name)
        if name.endswith("fp32"):
            before = "labels" if self.measured("labels") else "adapted"
        elif name.endswith("int8"):
            before = name.replace("int8", "fp32")
        if before is None or not self._table(before).exists() or (self.entry(before) or {}).get("main") != main:
            return {}
        old = pq.read_table(self._table(before)).to_pydict()
        by = "correct" if "correct" in table else "score"
        if old["id"] != table["id"] or by not in old or by not in table:
            return {}
        return {"change": difference(old[by], table[by]), "against": before}

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
        """Is there an entry of this name, by the recipe's evals as they are now?"""
        return (self.entry(name) or {}).get("asked") == self._asked(name)

    def _asked(self, name: str) -> str:
        """What an entry was measured with that does not name the run folder, and on which data."""
        sections = ("evals",) if name in ("zero-shot", "adapted", "merged") else ("evals", "distill")
        data = "".join(self.fingerprints[config.split][:8] for config in self.recipe.evals if config.split in self.data)
        return self.recipe.key(*sections) + data

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
        """Forget the numbers and promises of exported files: there is another student now."""
        entries = [entry for entry in self.entries() if "file" not in entry]
        self._save(entries=entries, guards=[guard for guard in self.metrics()["guards"] if " int8 " not in guard["name"]])

    def guarded(self, name: str) -> bool:
        """Has this promise been looked at?"""
        return any(guard["name"] == name for guard in self.metrics()["guards"])

    def guard(self, name: str, ok: bool, message: str) -> None:
        """Note whether a promise was kept."""
        guards = {old["name"]: old for old in self.metrics()["guards"]} | {
            name: {"name": name, "ok": bool(ok), "message": message}
        }
        self._save(guards=list(guards.values()))


def _thumbnail(image) -> bytes:
    """A PIL image → PNG bytes, at most 96 pixels a side."""
    import io

    small = image.copy()
    small.thumbnail((96, 96))
    out = io.BytesIO()
    small.save(out, "PNG")
    return out.getvalue()
