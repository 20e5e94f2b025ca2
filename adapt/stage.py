"""What the verbs of `pipeline.py` stand on: the recipe's data, model, run folder and processes, built when first asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import plug
from adapt.plug import UserError
from adapt.recipe import Recipe
from adapt.run import SECTIONS, Run, atomic, fingerprint, hash_path

if TYPE_CHECKING:
    import numpy as np

STUDENT_BATCH = 256


class Stage:
    """One recipe at work in its run folder."""

    def __init__(self, recipe: Recipe):
        from accelerate import Accelerator
        from accelerate.utils import set_seed

        from adapt import hardware

        precision = "bf16" if hardware.precision(recipe.train.precision) == "bf16" else "no"
        tracker = None if recipe.tracker == "none" else recipe.tracker
        self.recipe = recipe
        self.accelerator = Accelerator(cpu=hardware.device() == "cpu", mixed_precision=precision, log_with=tracker, project_dir="runs")
        self.run = Run.open(recipe, writes=self.accelerator.is_main_process)
        self.accelerator.project_configuration.logging_dir = str(self.run.path)
        self.key = recipe.key(*SECTIONS)
        self.distill_key = recipe.key(*SECTIONS, "distill")
        set_seed(recipe.seed)

    # ------------------------------------------------------------------------------------------------------------- parts

    @cached_property
    def data(self):
        """The splits, a `DatasetDict`."""
        return plug.load("data", self.recipe.data.source).load(self.recipe.data)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        return {split: fingerprint(rows) for split, rows in self.data.items()}

    @cached_property
    def family(self):
        """The model as it comes, told the classes of the data."""
        from adapt.prompting.templates import words

        family = plug.load("models", self.recipe.model.name).load(self.recipe.model)
        rows = self.data["train"]
        family.bind(rows.column_names)
        if "label" in rows.column_names:
            family.set_classes(*words(self.recipe.prompts, rows.features["label"].names))
        return family.to(self.accelerator.device)

    def apply_method(self) -> None:
        """Decide what learns."""
        plug.load("methods", self.recipe.method.name).apply(self.family, self.recipe.method)
        self.family.to(self.accelerator.device)

    def adapted(self):
        """The family with what the run folder's adapter holds."""
        from adapt.methods import _adapter

        if not self.run.done("finetune", self.key):
            raise UserError(f"{self.run.path}: no adapter yet. First: adapt finetune with the same recipe and overrides.")
        self.apply_method()
        _adapter.load(self.family, self.run.path / "adapter")
        return self.family

    def student(self):
        """The student that `distill` left."""
        from safetensors.torch import load_file

        if not self.run.done("distill", self.distill_key):
            raise UserError(f"{self.run.path}: no student yet. First: adapt distill with the same recipe and overrides.")
        student = self._new_student(json.loads((self.run.path / "student" / "config.json").read_text())["outputs"])
        student.net.load_state_dict(load_file(self.run.path / "student" / "model.safetensors"))
        return student

    # ---------------------------------------------------------------------------------------------------------- training

    def fit(self) -> None:
        """Train what the method lets learn; the best weights on validation stay."""
        from adapt.train.loop import fit
        from adapt.train.views import Views

        views = Views(self.data["train"], self.family.preprocess, self.recipe.seed)
        validate = self.validate if self.recipe.evals and "validation" in self.data else None
        self._track("finetune")
        self.history = fit(
            self.family, views, self.recipe.train, self.recipe.seed, self.run.path, self.accelerator, validate, title="finetune"
        )

    def _track(self, name: str) -> None:
        if self.accelerator.log_with:
            self.accelerator.init_trackers(name)

    def save_adapter(self, **facts: Any) -> None:
        """Write what was learned, and from what."""
        from adapt.methods import _adapter

        if self.run.writes:
            with atomic(self.run.path / "adapter") as folder:
                _adapter.save(self.family, folder)
        self.record("finetune", self.key, base=self._base(), data=self.fingerprints, adapter=self.hash(self.run.path / "adapter"), **facts)

    def record(self, stage: str, key: str, **facts: Any) -> None:
        self.run.record(stage, key, **facts)
        self.accelerator.wait_for_everyone()

    def hash(self, path: Path) -> str | None:
        """Of a file or folder, none when it is missing."""
        return hash_path(path) if path.exists() else None

    def _base(self) -> dict[str, Any]:
        from adapt.models._checkpoint import EMBEDDED

        checkpoint = self.recipe.model.checkpoint
        place = EMBEDDED / checkpoint if (EMBEDDED / checkpoint).is_dir() else Path(checkpoint)
        return {"checkpoint": checkpoint, "hash": hash_path(place) if place.exists() else "hub"}

    # ----------------------------------------------------------------------------------------------------------- student

    def teach(self):
        """Cache the teacher's outputs, then train the student from them; returns it with its best weights."""
        from adapt.distill import _cache
        from adapt.train.loop import fit
        from adapt.train.views import Views

        config = self.recipe.distill
        teacher, rows = self._teacher(), self._student_rows()
        spec, classes = teacher.input, len(self.family.classes)
        function = teacher.predictors()[plug.load("distill", config.name).PREDICTOR]
        extra = None
        student = self._new_student(classes, None if config.cache else function)
        if config.cache:
            key = self.recipe.key(*SECTIONS, "distill") + self.fingerprints["train"][:8]
            views = Views(rows, teacher.preprocess, self.recipe.seed, config.views)
            folder = self.run.path / "cache" / key
            extra = _cache.build(folder, function, views, config.train.augment, STUDENT_BATCH, self.accelerator)
            del self.__dict__["family"]  # students train without the teacher in memory
        views = Views(rows, student.preprocess, self.recipe.seed, config.views, extra)
        student.to(self.accelerator.device)
        assert student.input["size"] == spec["size"]
        self._track("distill")
        folder = self.run.path / "distill"
        fit(student, views, config.train, self.recipe.seed, folder, self.accelerator, self.validate, title="distill")
        return student

    def _teacher(self):
        return self.adapted() if self.recipe.distill.teacher == "adapted" else self.family

    def _new_student(self, outputs: int, live: Callable | None = None):
        from adapt.distill._student import Student

        config = self.recipe.distill
        objective = plug.load("distill", config.name).objective(config)
        return Student(config.student, outputs, self.family.input, objective, config.pretrained, live)

    def _student_rows(self):
        from datasets import concatenate_datasets

        parts = [self.data[name] for name in ("train", "unlabelled") if name in self.data]
        return concatenate_datasets([part.select_columns([c for c in ("image", "label") if c in part.column_names]) for part in parts])

    def save_student(self, student) -> None:
        """Write the student in timm's layout, with what a user must know of its input."""
        from safetensors.torch import save_file

        names = self.data["train"].features["label"].names
        if self.run.writes:
            with atomic(self.run.path / "student") as folder:
                folder.mkdir()
                save_file({k: v.contiguous() for k, v in student.net.state_dict().items()}, folder / "model.safetensors")
                about = {"architecture": self.recipe.distill.student, "outputs": len(names), "classes": names, "input": student.input}
                (folder / "config.json").write_text(json.dumps(about, indent=1))
        self.record("distill", self.distill_key, parent=self.hash(self.run.path / "adapter"), student=self.hash(self.run.path / "student"))

    # ----------------------------------------------------------------------------------------------------------- numbers

    def predictor(self, module) -> Callable[..., np.ndarray]:
        """(data set, texts=None) → float32[N, C], by a family or a student."""
        from adapt.train.predict import predict

        def run(dataset, texts: list[str] | None = None) -> np.ndarray:
            function = module.predictors(texts)["class_logits"]
            return predict(function, module, dataset, STUDENT_BATCH, self.accelerator, title="evaluate")

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
            result = plug.load("evals", config.name).evaluate(config, predict, self.data[config.split], self._protocol(config.split))
            entry["metrics"] |= result.metrics
            entry["intervals"] |= result.intervals
            entry |= result.figures
            entry.setdefault("split", config.split)
            entry.setdefault("protocol", result.protocol)
            if result.table:
                self._save_table(name, result.table)
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

    def _save_table(self, name: str, table: dict[str, list]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.run.writes:
            with atomic(self.run.path / "predictions" / f"{name.replace(' ', '_')}.parquet") as path:
                pq.write_table(pa.table(table), path)

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
