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
from adapt.plug import UserError, settings
from adapt.recipe import Recipe, load_recipe
from adapt.run import Run
from adapt.verbs import guards
from adapt.verbs.session import Stage

if TYPE_CHECKING:
    from adapt.verbs.question import Answer, Question

__all__ = ["Outcome", "distill", "evaluate", "export", "finetune", "load_recipe", "merge", "prompt", "report", "road"]


@dataclass
class Outcome:
    """What a verb leaves behind."""

    path: Path
    """The run folder."""
    entries: list[dict]
    """The rows of the table."""
    guards: list[dict]
    """Promises: name, state, message; see `adapt/guards.py`."""

    @property
    def ok(self) -> bool:
        """No promise is broken."""
        return all(guard["state"] != guards.BROKEN for guard in self.guards)


def evaluate(recipe: Recipe) -> Outcome:
    """Measure the model as it comes, and adapted, if the run folder has an adapter."""
    stage = Stage(recipe)
    _need(recipe.evals, "evals", "[{name: zeroshot}]")
    if not stage.measured("zero-shot") and stage.offered(stage.family):
        stage.measure("zero-shot", stage.title("zero-shot"), stage.family)
    if stage.finished("finetune"):
        _judge(stage)
    return _finish(stage)


def finetune(recipe: Recipe) -> Outcome:
    """Adapt the model with the recipe's method; measure it before and after."""
    stage = Stage(recipe)
    if stage.finished("finetune"):
        stage.say(f"finetune: finished before, in {stage.run.path}")
        return evaluate(recipe) if recipe.evals else _finish(stage)
    offered = stage.offered(stage.family)  # a family without a head yet has no class logits
    if offered:
        if not stage.measured("zero-shot"):
            stage.measure("zero-shot", stage.title("zero-shot"), stage.family)
        if stage.selects and offered[0] is recipe.evals[0]:
            stage.validated("zero-shot", stage.family)
    stage.apply_method()
    began = time.perf_counter()
    stage.fit()
    stage.save_adapter(seconds=round(time.perf_counter() - began, 1))
    if recipe.evals:
        _judge(stage)
    return _finish(stage)


def _judge(stage: Stage) -> None:
    """Measure the adapted model, and hold it against the model as it came; what has been done before is left alone."""
    facts = stage.run.facts("finetune")
    if not stage.measured("adapted"):
        chosen = facts["selection"].partition(" (")[0]
        note = f"its weights are {f'the best by {chosen}' if chosen else 'those of the last step'}."
        stage.measure("adapted", stage.title("adapted"), stage.adapted(), seconds=facts["seconds"], notes=[note])
    entry = stage.entry("adapted")
    stage.guard(guards.varied("the adapted model's answers vary", entry["collapse"]))
    before = stage.kept_validation("zero-shot")
    if before is None:
        return
    after = stage.kept_validation("adapted") or stage.validated("adapted", stage.adapted())
    guard = guards.loss(
        "adapted is no worse than zero-shot on validation",
        before["value"],
        after["value"],
        0.0,
        after.get("change"),
        after["pictures"],
        before["floor"],
        "Lower train.lr, fewer train.epochs, or more data.",
    )
    change = entry.get("change") if entry.get("against") == "zero-shot" else None
    stage.guard(guards.contradicted(guard, change, entry["split"]))


def distill(recipe: Recipe) -> Outcome:
    """Teach a small CNN what the model knows, from cached teacher outputs."""
    stage = Stage(recipe)
    _need(recipe.distill, "distill", "{name: logits}")
    _need(recipe.evals, "evals", "[{name: zeroshot}]")
    taught = stage.taught()
    if taught:
        stage.say(f"distill: finished before, in {stage.run.path / 'student' / stage.called}")
    teacher = recipe.distill.teacher
    if stage.entry(teacher) is None:
        raise UserError(
            f"{stage.run.path}: the teacher has no such numbers yet. First: adapt finetune with the same recipe and overrides."
        )
    if not stage.measured(teacher):
        stage.measure(teacher, stage.title(teacher), stage.teacher())
        stage.forget()
    student = None if taught else stage.teach()
    teacher, name = stage.labels_entry() or stage.entry(teacher), stage.student_entry()
    if not stage.measured(name):
        facts = {"against": teacher["name"], "student": stage.called}
        stage.measure(name, f"CNN student {stage.called}", student or stage.student(), **facts)
    entry = stage.entry(name)
    stage.guard(guards.varied(f"the answers of {name} vary", entry["collapse"]))
    if stage.comparable(entry, teacher):
        advice = "More distill.train.epochs, more unlabelled images, or a larger distill.student."
        stage.guard(_budget(stage, f"{name} within its budget", teacher, entry, recipe.distill, advice))
    return _finish(stage)


def _budget(stage: Stage, name: str, before: dict, after: dict, config, advice: str) -> dict[str, str]:
    """The guard of what `after` may lose against `before`: `config.keep` of its metric, or `config.budget` in points."""
    value = stage.main(before)
    allowed = config.budget if config.keep is None else (1 - config.keep) * value
    change = after.get("change") if after.get("against") == before["name"] else None
    return guards.loss(name, value, stage.main(after), allowed, change, after["pictures"], before["floor"], advice)


def export(recipe: Recipe) -> Outcome:
    """Write the student for its device, prove each file equal to it, and time it."""
    stage = Stage(recipe)
    _need(recipe.export, "export", "[{name: onnx}]")
    _need(recipe.distill, "distill", "{name: logits}")
    if _exported(stage):
        stage.say(f"export: finished before, in {stage.run.path / 'export' / stage.called}")
        return _finish(stage)
    student, files = stage.student(), []
    teacher = next((name for name in (stage.student_entry("labels"), recipe.distill.teacher) if stage.entry(name)), None)
    for config in recipe.export:
        target, artifacts, entries = plug.load("export", config.name), stage.convert(config, student), {}
        for artifact in artifacts:
            name = stage.file_entry(config, artifact.precision)
            file = artifact.path.relative_to(stage.run.path).as_posix()
            facts = {"file": file, "hash": stage.hash(file), "size_bytes": artifact.bytes, "student": stage.called}
            against = stage.file_entry(config, "fp32") if "fp32" in entries else teacher
            stage.announce(name, artifact)
            answers = student.file_predictors(target.Runner(artifact.path))
            title = f"CNN student {stage.called}, {artifact.precision} {config.name.upper()}"
            facts |= {"against": against, **artifact.facts}
            entries[artifact.precision] = stage.measure(name, title, student, lambda texts, found=answers: found, **facts)
            files += artifact.files
        stage.time(config, student, artifacts)
        if {"fp32", "int8"} <= entries.keys():
            _judge_int8(stage, config)
    made = {"made_of": _export_made_of(stage), "parent": stage.hash(f"student/{stage.called}")}
    stage.record(f"export {stage.called}", **made, files=_hashes(stage, files))
    return _finish(stage)


def _judge_int8(stage: Stage, config) -> None:
    """Hold the int8 file against the fp32 one."""
    names = [stage.file_entry(config, precision) for precision in ("fp32", "int8")]
    fp32, int8 = map(stage.entry, names)
    why = stage.why_slow(names[1])
    advice = f"{_classes(stage, fp32, int8)}{why}More export.0.calibration images, or a student with plain convolutions."
    stage.guard(_budget(stage, f"{names[1]} within its budget", fp32, int8, config, advice))
    times = [entry["latency"]["p50_ms"] for entry in (fp32, int8)]
    stage.guard(guards.faster(f"{names[1]} is faster than fp32", *times, f"{why}A student with plain convolutions and ReLU."))


def _classes(stage: Stage, fp32: dict, int8: dict) -> str:
    """A sentence on the class that int8 changes most; every class's change in accuracy is noted in the entry."""
    if "confusion" not in int8:
        return ""
    accuracy = [[row[i] / max(sum(row), 1) for i, row in enumerate(entry["confusion"])] for entry in (fp32, int8)]
    change = {name: after - before for name, before, after in zip(int8["classes"], *accuracy, strict=True)}
    stage.update(int8["name"], class_change=change)
    most = max(change, key=lambda name: abs(change[name]))
    return f"It changes {most!r} most of all classes: {100 * change[most]:+.1f} points. " if change[most] else ""


def _exported(stage: Stage) -> bool:
    """Do the files lie there as they were written, of this student, with their numbers?"""
    facts = stage.run.facts(f"export {stage.called}")
    written = [entry["name"] for entry in stage.entries() if "file" in entry and entry["student"] == stage.called]
    return (
        stage.taught()
        and facts.get("made_of") == _export_made_of(stage)
        and facts["files"] == {name: stage.hash(name) for name in facts["files"]}
        and all(map(stage.measured, written))
    )


def _export_made_of(stage: Stage) -> dict:
    return {"student": stage.hash(f"student/{stage.called}"), "options": [settings(config) for config in stage.recipe.export]}


def _hashes(stage: Stage, files: list[Path]) -> dict[str, str | None]:
    """The exported files, by their places in the run folder, and their hashes."""
    names = sorted({file.relative_to(stage.run.path).as_posix() for file in files})
    return {name: stage.hash(name) for name in names}


def merge(recipe: Recipe, scale: float | str = 1.0, budget: float = 0.1) -> Outcome:
    """Join the adapter with the base in full precision into one checkpoint that plain transformers loads.

    Args:
        scale: how much of the adapter, 0 to 1; "sweep": the best on validation.
        budget: of a sweep, the largest share of what zero-shot had right that may be lost.
    """
    from adapt.verbs.merge import merge as join

    stage = Stage(recipe)
    place = join(stage, scale, budget)
    if recipe.evals:
        size = sum(file.stat().st_size for file in place.glob("*.safetensors"))
        stage.measure("merged", f"{stage.title('adapted')}, merged", stage.family, size_bytes=size)
    stage.say(f"Merged: {place}")
    return _finish(stage)


def prompt(recipe: Recipe, question: Question) -> Answer:
    """Ask the recipe's model about one picture, without leaving a run folder; see `adapt/asking.py`."""
    from adapt.verbs.prompt import ask

    return ask(Stage(recipe), question)


def report(path: Path) -> Path:
    """Write a run folder's `report.html` and `report.md` anew; returns the page's path."""
    from adapt.report.page import build

    return build(Run.from_folder(path).path)


def road(recipe: Recipe) -> Outcome:
    """All verbs, one after the other."""
    stage = Stage(recipe)
    if recipe.distill and not stage.taught():
        from adapt.students.cnn import create

        create(recipe.distill.student, 0, recipe.distill.pretrained)  # what cannot be fetched is told of before the training
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
        try:
            report(stage.run.path)
        except UserError as error:  # the numbers are safe
            stage.say(f"report: could not be drawn: {error} The numbers are in {stage.run.path / 'metrics.json'}.")
    return Outcome(stage.run.path, metrics["entries"], metrics["guards"])
