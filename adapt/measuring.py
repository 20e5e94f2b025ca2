"""Numbers: evals on predictors, entries and guards in `metrics.json`, tables in `predictions/`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import plug
from adapt.plug import UserError
from adapt.run import atomic

if TYPE_CHECKING:
    import numpy as np

BATCH = 256


class Numbers:
    """The measuring half of a `Stage`."""

    def predictor(self, module) -> Callable[..., np.ndarray]:
        """(data set, texts=None) → float32[N, C], by a family or a student."""
        from adapt.train.predict import predict

        def run(dataset, texts: list[str] | None = None) -> np.ndarray:
            function = module.predictors(texts)["class_logits"]
            return predict(function, module, dataset, BATCH, self.accelerator, title="evaluate")

        return run

    def runner_predictor(self, runner: Callable, student) -> Callable[..., np.ndarray]:
        """The same by an exported file, with the student's own preprocessing."""
        import numpy as np

        def run(dataset, texts: None = None) -> np.ndarray:
            views = (student.preprocess(row, False)["image"].numpy() for row in dataset)
            return np.concatenate([runner(batch) for batch in _batches(views, 32)])

        return run

    def validate(self, module) -> float:
        """The first eval's main metric on the validation split."""
        config = self.recipe.evals[0]
        target = plug.load("evals", config.name)
        return target.evaluate(config, self.predictor(module), self.data["validation"], {}).metrics[target.MAIN]

    def measure(self, name: str, title: str, predict: Callable, plain: bool = False, **facts: Any) -> dict:
        """Run the recipe's evals on a predictor; the entry goes into `metrics.json`, the table into `predictions/`.

        Args:
            plain: the predictor gives class logits only: evals that need texts are left out.
        """
        entry: dict[str, Any] = {"name": name, "title": title, "metrics": {}, "intervals": {}} | facts
        for config in self.recipe.evals:
            if plain and plug.load("evals", config.name).TEXTS:
                continue
            if config.split not in self.data:
                raise UserError(f"evals: no split {config.split!r} in the data. Have: {', '.join(self.data)}.")
            result = plug.load("evals", config.name).evaluate(
                config, predict, self.data[config.split], self._protocol(config.split)
            )
            entry["metrics"] |= result.metrics
            entry["intervals"] |= result.intervals
            entry |= result.figures
            entry.setdefault("split", config.split)
            entry.setdefault("protocol", result.protocol)
            if result.table:
                self._save_table(name, result.table, self.data[config.split])
                entry["change"] = self._change(name, result.table)
        entries = [old for old in self.entries() if old["name"] != name] + [entry]
        self._save(entries=entries)
        return entry

    def _protocol(self, split: str) -> dict[str, Any]:
        family = self.family
        return {
            "data": self.fingerprints[split],
            "classes": family.classes,
            "templates": family.templates,
            "input": {name: family.input[name] for name in ("size", "resize", "interpolation", "crop")},
        }

    def _save_table(self, name: str, table: dict[str, list], rows) -> None:
        """The predictions, with pictures of the surest mistakes."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        sure = sorted((i for i, right in enumerate(table["correct"]) if not right), key=lambda i: -table["confidence"][i])[:24]
        pictures: list[bytes | None] = [None] * len(table["id"])
        for i in sure:
            pictures[i] = _thumbnail(rows[i]["image"])
        if self.run.writes:
            with atomic(self._table(name)) as path:
                pq.write_table(pa.table(table | {"thumbnail": pictures}), path)

    def _table(self, name: str) -> Path:
        return self.run.path / "predictions" / f"{name.replace(' ', '_')}.parquet"

    def _change(self, name: str, table: dict[str, list]) -> tuple[float, float, float] | None:
        """Against the row before on the road, on the same samples: top-1 difference with its paired 95 % interval."""
        import pyarrow.parquet as pq

        from adapt.evals._metrics import difference

        before = {"adapted": "zero-shot", "student": "adapted"}.get(name)
        if name.endswith("fp32"):
            before = "adapted"
        elif name.endswith("int8"):
            before = name.replace("int8", "fp32")
        if before is None or not self._table(before).exists():
            return None
        old = pq.read_table(self._table(before), columns=["id", "correct"]).to_pydict()
        return difference(old["correct"], table["correct"]) if old["id"] == table["id"] else None

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
        """Is there an entry of this name?"""
        return self.entry(name) is not None

    def main(self, entry: dict) -> float:
        """The metric by which guards compare."""
        return entry["metrics"][plug.load("evals", self.recipe.evals[0].name).MAIN]

    def title(self, name: str) -> str:
        """How the model is called in tables, before or after its adaptation."""
        family = plug.load("models", self.recipe.model.name).TITLE
        return (
            f"zero-shot {family}"
            if name == "zero-shot"
            else f"{family} + {plug.load('methods', self.recipe.method.name).TITLE}"
        )

    def say(self, text: str) -> None:
        """A line for the user, once, whatever the number of processes."""
        self.accelerator.print(text)

    def update(self, name: str, **facts: Any) -> None:
        """Add facts to an entry."""
        self._save(entries=[entry | facts if entry["name"] == name else entry for entry in self.entries()])

    def guard(self, name: str, ok: bool, message: str) -> None:
        """Note whether a promise was kept."""
        guards = [old for old in self.metrics()["guards"] if old["name"] != name]
        self._save(guards=[*guards, {"name": name, "ok": bool(ok), "message": message}])


def _batches(views, size: int):
    """Stack single views into float32[≤ size, 3, H, W]."""
    import numpy as np

    part: list[np.ndarray] = []
    for view in views:
        part.append(view)
        if len(part) == size:
            yield np.stack(part).astype(np.float32)
            part = []
    if part:
        yield np.stack(part).astype(np.float32)


def _thumbnail(image) -> bytes:
    """A PIL image → PNG bytes, at most 96 pixels a side."""
    import io

    small = image.copy()
    small.thumbnail((96, 96))
    out = io.BytesIO()
    small.save(out, "PNG")
    return out.getvalue()
