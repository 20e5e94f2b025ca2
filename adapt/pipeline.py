"""READ THIS FIRST. The road: evaluate → finetune → distill → export → report; each verb tells its part of the story.

    recipe = load_recipe("clip_lora", ["train.epochs=5"])
    finetune(recipe)
    distill(recipe)
    export(recipe)

Every verb works in the recipe's run folder and leaves alone what lies there finished; `stage.py` has the parts they are made of.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapt import plug
from adapt.plug import UserError
from adapt.recipe import Recipe, load_recipe
from adapt.run import Run
from adapt.stage import Stage

if TYPE_CHECKING:
    from adapt.question import Answer, Question

__all__ = ["Outcome", "distill", "evaluate", "export", "finetune", "load_recipe", "merge", "prompt", "report", "road"]


@dataclass
class Outcome:
    """What a verb leaves behind."""

    path: Path
    """The run folder."""
    entries: list[dict]
    """The rows of the table."""
    guards: list[dict]
    """Promises: name, ok, message."""

    @property
    def ok(self) -> bool:
        """No guard has fired."""
        return all(guard["ok"] for guard in self.guards)


def evaluate(recipe: Recipe) -> Outcome:
    """Measure the model as it comes, and adapted, if the run folder has an adapter."""
    stage = Stage(recipe)
    _need(recipe.evals, "evals", "[{name: zeroshot}]")
    if not stage.measured("zero-shot") and stage.offered(stage.family):
        stage.measure("zero-shot", stage.title("zero-shot"), stage.family)
    if stage.finished("finetune", stage.key):
        _judge(stage)
    return _finish(stage)


def finetune(recipe: Recipe) -> Outcome:
    """Adapt the model with the recipe's method; measure it before and after."""
    stage = Stage(recipe)
    if stage.finished("finetune", stage.key):
        stage.say(f"finetune: finished before, in {stage.run.path}")
        return evaluate(recipe) if recipe.evals else _finish(stage)
    before: dict = {}
    offered = stage.offered(stage.family)  # a family without a head yet has no class logits
    if offered:
        stage.measure("zero-shot", stage.title("zero-shot"), stage.family)
        if "validation" in stage.data and offered[0] is recipe.evals[0]:
            before = {"before": stage.validate(stage.family)}
    stage.apply_method()
    began = time.perf_counter()
    stage.fit()
    seconds = round(time.perf_counter() - began, 1)
    stage.save_adapter(seconds=seconds, evals=recipe.key("evals"), **before)
    if recipe.evals:
        _judge(stage)
    return _finish(stage)


def _judge(stage: Stage) -> None:
    """Measure the adapted model, and hold it against the model as it came; what has been done before is left alone."""
    facts = stage.run.facts("finetune")
    if not stage.measured("adapted"):
        stage.measure("adapted", stage.title("adapted"), stage.adapted(), seconds=facts["seconds"])
    name, before = "adapted is no worse than zero-shot on validation", facts.get("before")
    if before is not None and facts["evals"] == stage.recipe.key("evals") and not stage.guarded(name):
        after = stage.validate(stage.adapted())
        stage.guard(
            name,
            after >= before,
            f"{before:.4f} before, {after:.4f} after. If it fell: lower train.lr, fewer train.epochs, or more data.",
        )


def distill(recipe: Recipe) -> Outcome:
    """Teach a small CNN what the model knows, from cached teacher outputs."""
    stage = Stage(recipe)
    _need(recipe.distill, "distill", "{name: logits}")
    _need(recipe.evals, "evals", "[{name: zeroshot}]")
    taught = stage.finished("distill", stage.distill_key)
    if taught:
        stage.say(f"distill: finished before, in {stage.run.path}")
    teacher = recipe.distill.teacher
    if not stage.measured(teacher):
        raise UserError(
            f"{stage.run.path}: the teacher has no such numbers yet. First: adapt finetune with the same recipe and overrides."
        )
    teacher = stage.measure_labels() or stage.entry(teacher)
    if not taught:
        student = stage.teach()
        stage.save_student(student)
        stage.drop_files()
    elif not stage.measured("student"):
        student = stage.student()
    if not stage.measured("student"):
        stage.measure("student", "CNN student", student)
    entry = stage.entry("student")
    if stage.comparable(entry, teacher):
        lost = stage.main(teacher) - stage.main(entry)
        stage.guard(
            "student within its budget",
            lost <= recipe.distill.budget,
            f"it loses {100 * lost:.1f} points to its teacher; the budget is {100 * recipe.distill.budget:.1f}. "
            "If it fell: more distill.train.epochs, more unlabelled images, a larger distill.student.",
        )
    return _finish(stage)


def export(recipe: Recipe) -> Outcome:
    """Write the student for its device, prove each file equal to it, and time it."""
    stage = Stage(recipe)
    _need(recipe.export, "export", "[{name: onnx}]")
    if _exported(stage):
        stage.say(f"export: finished before, in {stage.run.path / 'export'}")
        return _finish(stage)
    student = stage.student()
    for config in recipe.export:
        runner = plug.load("export", config.name).Runner
        tops = {}
        for name, path in stage.convert(config, student).items():
            title = f"CNN student, {name} {config.name.upper()}"
            facts = {
                "size_bytes": path.stat().st_size,
                "file": path.relative_to(stage.run.path).as_posix(),
                "hash": stage.hash(path),
            }
            file = student.file_predictors(runner(path))
            entry = stage.measure(f"{config.name} {name}", title, student, lambda texts, file=file: file, **facts)
            tops[name] = stage.main(entry)
        stage.time(config, student)
        if "int8" in tops:
            lost = tops["fp32"] - tops["int8"]
            stage.guard(
                f"{config.name} int8 within its budget",
                lost <= config.budget,
                f"it loses {100 * lost:.1f} points to fp32; the budget is {100 * config.budget:.1f}. "
                f"{_classes(stage, config.name)}If it fell: more export.0.calibration images, or a student with plain convolutions.",
            )
            fp32, int8 = (stage.entry(f"{config.name} {name}")["latency"]["p50_ms"] for name in ("fp32", "int8"))
            stage.guard(
                f"{config.name} int8 is faster than fp32",
                int8 < fp32,
                f"{fp32:.2f} ms in fp32, {int8:.2f} ms in int8, one thread. If it is slower: a student with plain convolutions.",
            )
    stage.record("export", recipe.key("export"), parent=stage.hash(stage.run.path / "student"), files=_files(stage))
    return _finish(stage)


def _classes(stage: Stage, target: str) -> str:
    """A sentence on the class that int8 changes most; every class's change in accuracy is noted in the entry."""
    fp32, int8 = (stage.entry(f"{target} {name}") for name in ("fp32", "int8"))
    if "confusion" not in int8:
        return ""
    accuracy = [[row[i] / max(sum(row), 1) for i, row in enumerate(entry["confusion"])] for entry in (fp32, int8)]
    change = {name: after - before for name, before, after in zip(int8["classes"], *accuracy, strict=True)}
    stage.update(f"{target} int8", class_change=change)
    most = max(change, key=lambda name: abs(change[name]))
    return f"It changes {most!r} most of all classes: {100 * change[most]:+.1f} points. " if change[most] else ""


def _exported(stage: Stage) -> bool:
    """Do the files lie there as they were written, of this student, with their numbers?"""
    facts = stage.run.facts("export")
    return (
        stage.finished("distill", stage.distill_key)
        and stage.run.done("export", stage.recipe.key("export"))
        and facts["parent"] == stage.hash(stage.run.path / "student")
        and facts["files"] == _files(stage)
        and all(stage.measured(entry["name"]) for entry in stage.entries() if "file" in entry)
    )


def _files(stage: Stage) -> dict[str, str | None]:
    """The exported files and their hashes."""
    folder = stage.run.path / "export"
    return {path.relative_to(folder).as_posix(): stage.hash(path) for path in sorted(folder.rglob("*.onnx"))}


def merge(recipe: Recipe, scale: float | str = 1.0, budget: float = 0.1) -> Outcome:
    """Join the adapter with the base in full precision into one checkpoint that plain transformers loads.

    Args:
        scale: how much of the adapter, 0 to 1; "sweep": the best on validation.
        budget: of a sweep, the largest share of what zero-shot had right that may be lost.
    """
    from adapt.merge import merge as join

    stage = Stage(recipe)
    place = join(stage, scale, budget)
    if recipe.evals:
        size = sum(file.stat().st_size for file in place.glob("*.safetensors"))
        stage.measure("merged", f"{stage.title('adapted')}, merged", stage.family, size_bytes=size)
    stage.say(f"Merged: {place}")
    return _finish(stage)


def prompt(recipe: Recipe, question: Question) -> Answer:
    """Ask the recipe's model about one picture, without leaving a run folder; see `adapt/asking.py`."""
    from adapt.asking import ask

    return ask(Stage(recipe), question)


def report(path: Path) -> Path:
    """Write a run folder's `report.html` and `report.md` anew; returns the page's path."""
    from adapt.report import build

    return build(Run.from_folder(path).path)


def road(recipe: Recipe) -> Outcome:
    """All verbs, one after the other."""
    stage = Stage(recipe)
    if recipe.distill and not stage.run.done("distill", stage.distill_key):
        from adapt.distill._student import create

        create(recipe.distill.student, 0, recipe.distill.pretrained)  # one that cannot be had is told of before the training
    outcome = finetune(recipe)
    if recipe.distill:
        outcome = distill(recipe)
    if recipe.export:
        outcome = export(recipe)
    return outcome


def _need(section: object, name: str, example: str) -> None:
    if not section:
        raise UserError(f"{name}: this recipe has no such section. Add, for example, {name}={example}.")


def _finish(stage: Stage) -> Outcome:
    """Rebuild the report, from the run folder alone, and hand over what lies in it."""
    for tracker in stage.accelerator.trackers:
        tracker.finish()
    metrics = stage.metrics()
    if stage.run.writes and metrics["entries"]:
        report(stage.run.path)
    return Outcome(stage.run.path, metrics["entries"], metrics["guards"])
