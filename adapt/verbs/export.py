"""Export: the student is written for its devices and proven there; teacher and files are timed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from adapt import plug
from adapt.contracts import Artifact, Deployable
from adapt.evals.result import counts
from adapt.plug import settings
from adapt.run import atomic
from adapt.verbs import guards, kept, measuring, scores
from adapt.verbs.evaluate import need
from adapt.verbs.searching import frozen
from adapt.verbs.session import Session

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

VALIDATION = 256
"""Images of the validation split, at most, by which a target may choose."""
TOWER = 2**30
"""Bytes of the largest teacher that is exported to be timed: a ViT-B (CLIP's has 0.6 GB with its texts), not a ViT-L. A ViT-B takes half
a minute, and memory for its weights five times."""
PATIENCE = 5.0
"""Seconds that it may take for an image, in torch on one thread."""
TOWER_SAMPLES = 4
"""Images on which its file is proven."""


def export(session: Session) -> None:
    """Write the student for its device, prove each file equal to it, and time it."""
    need(session.recipe.export, "export", "[{name: onnx}]")
    need(session.recipe.distill, "distill", "{name: logits}")
    if _exported(session):
        session.say(f"export: finished before, in {session.run.path / 'export' / session.called}")
        return
    student, files = kept.student(session), []
    teacher = next(
        (name for name in (session.student_entry("labels"), session.recipe.distill.teacher) if scores.entry(session, name)),
        None,
    )
    for config in session.recipe.export:
        target, artifacts, entries = plug.load("export", config.name), _convert(session, config, student), {}
        for artifact in artifacts:
            name = session.file_entry(config, artifact.precision)
            file = artifact.path.relative_to(session.run.path).as_posix()
            facts = {"file": file, "hash": session.hash(file), "size_bytes": artifact.bytes, "student": session.called}
            facts["precision"] = artifact.precision
            against = session.file_entry(config, "fp32") if "fp32" in entries else teacher
            _announce(session, name, artifact)
            answers = student.file_predictors(target.Runner(artifact.path))
            title = f"CNN student {session.called}, {artifact.precision} {config.name.upper()}"
            facts |= {"against": against, **artifact.facts}
            entries[artifact.precision] = measuring.measure(
                session, name, title, student, lambda texts, found=answers: found, **facts
            )
            files += artifact.files
        clock(session, config, student, artifacts)
        if {"fp32", "int8"} <= entries.keys():
            _judge_int8(session, config)
    made = {"made_of": _export_made_of(session), "parent": session.hash(f"student/{session.called}")}
    session.record(f"export {session.called}", **made, files=_hashes(session, files))


def _judge_int8(session: Session, config) -> None:
    """Hold the int8 file against the fp32 one."""
    names = [session.file_entry(config, precision) for precision in ("fp32", "int8")]
    fp32, int8 = map(partial(scores.entry, session), names)
    why = _why_slow(session, names[1])
    advice = f"{_classes(session, fp32, int8)}{why}More export.0.calibration images, or a student with plain convolutions."
    scores.guard(session, scores.budget(f"{names[1]} within its budget", fp32, int8, config, advice))
    times = [entry["latency"]["p50_ms"] for entry in (fp32, int8)]
    scores.guard(
        session, guards.faster(f"{names[1]} is faster than fp32", *times, f"{why}A student with plain convolutions and ReLU.")
    )


def _classes(session: Session, fp32: dict, int8: dict) -> str:
    """A sentence on the class that int8 changes most; every class's change in accuracy is noted in the entry."""
    if "confusion" not in int8:
        return ""
    accuracy = [_recall(entry) for entry in (fp32, int8)]
    change = {name: after - before for name, before, after in zip(int8["classes"], *accuracy, strict=True)}
    scores.update(session, int8["name"], class_change=change)
    most = max(change, key=lambda name: abs(change[name]))
    return f"It changes {most!r} most of all classes: {100 * change[most]:+.1f} points. " if change[most] else ""


def _recall(entry: dict) -> list[float]:
    """The share of each class's pictures that were right; 0 of a class without any."""
    right, every = ([0] * len(entry["classes"]) for _ in range(2))
    for label, prediction, count in counts(entry["confusion"]):
        every[label] += count
        right[label] += count if label == prediction else 0
    return [hits / max(total, 1) for hits, total in zip(right, every, strict=True)]


def _exported(session: Session) -> bool:
    """Do the files lie there as they were written, of this student, with their numbers?"""
    facts = session.run.facts(f"export {session.called}")
    written = [entry["name"] for entry in scores.entries(session) if "file" in entry and entry["student"] == session.called]
    return (
        kept.taught(session)
        and facts.get("made_of") == _export_made_of(session)
        and facts["files"] == {name: session.hash(name) for name in facts["files"]}
        and all(map(partial(scores.measured, session), written))
    )


def _export_made_of(session: Session) -> dict:
    options = [settings(config) for config in session.recipe.export]
    return {"student": session.hash(f"student/{session.called}"), "options": options} | frozen.told(session.recipe)


def _hashes(session: Session, files: list[Path]) -> dict[str, str | None]:
    """The exported files, by their places in the run folder, and their hashes."""
    names = sorted({file.relative_to(session.run.path).as_posix() for file in files})
    return {name: session.hash(name) for name in names}


def _convert(session: Session, config, student) -> list[Artifact]:
    """Write the student for a target, through the gate, into `export/NAME/TARGET/`."""
    from adapt.export import gate

    target, folder = plug.load("export", config.name), session.run.path / "export" / session.called / config.name
    metadata = student.about() | asked(session)
    metadata |= {"student": session.hash(f"student/{session.called}"), "adapter": session.hash("adapter"), "base": session.base}
    artifacts: list[Artifact] = []
    if session.run.writes:
        train = samples(session, student, config.calibration)
        validation = samples(session, student, VALIDATION, "validation") if "validation" in session.data else None
        with atomic(folder) as place:
            place.mkdir()
            artifacts = gate.export(target, config, student.cpu().deployed(), train, place, metadata, validation)
        artifacts = [_moved(artifact, place, folder) for artifact in artifacts]
    session.accelerator.wait_for_everyone()
    session.processes.fetched(folder)
    return session.processes.share(artifacts)


def asked(session: Session) -> dict[str, Any]:
    """The words and drawings by which the recipe asks its model, for the metadata: what the student has learnt is an answer to these."""
    words = {name: session.words[name] for name in ("templates", "combine") if session.words.get(name)}
    return ({"prompts": words} if words else {}) | frozen.told(session.recipe)


def _announce(session: Session, name: str, artifact: Artifact) -> None:
    """Say on what a file was proven, or how it was made and what of its int8 is float."""
    said = [artifact.remark, in_float(artifact.facts.get("conversions", {}))]
    if proof := artifact.facts.get("proof"):
        said = [f"equal to torch on {proof['samples']} images, max abs error {proof['max_abs_error']:.0e}."]
    if text := " ".join(said).strip():
        session.say(f"{name}: {text}")


def _why_slow(session: Session, name: str) -> str:
    """A sentence on what the file of an entry does in float; empty when it does nothing so."""
    return in_float(scores.entry(session, name).get("conversions", {}))


def samples(session: Session, module, count: int, split: str = "train") -> np.ndarray:
    """Views of a split's images, evenly chosen: float32[count, 3, H, W]."""
    import numpy as np

    rows = session.data[split]
    chosen = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)
    return np.stack([module.preprocess(rows[int(i)], False)["image"].numpy() for i in chosen]).astype(np.float32)


def clock(session: Session, config, student, artifacts: list[Artifact]) -> None:
    """Latency of the teacher and of the files, one thread, one image, in turn; each says what ran in which runtime.

    What is timed is a function of images that teacher and student share, else one of rows; a teacher that shares none is not.
    A teacher's `latency` is by the files' own runtime where it can be written for it, and torch's is its `latency_torch`.
    """
    from adapt.export.bench import compare

    target = plug.load("export", config.name)
    runners: dict[str, Callable] = {artifact.precision: target.Runner(artifact.path) for artifact in artifacts}
    teacher, whole = _merged(session)
    have, ours = teacher.predictors(), student.predictors()
    shared = [name for name in ours if name in have]
    images = next((name for name in shared if ours[name].takes == "images"), None)
    with tempfile.TemporaryDirectory() as folder, one_thread():
        if images or not shared:
            example, what = samples(session, student, 1), "image tower"
            if images:
                views = samples(session, teacher, TOWER_SAMPLES)  # its input may have another size than the student's
                towers = _towers(session, config, teacher, have[images], whole, views, Path(folder))
                runners |= {name: _always(tower, views[:1]) for name, tower in towers.items()}
        else:
            example, what = [session.data["train"][0]], "whole model"
            runners = {name: student.file_predictors(runner)[shared[0]] for name, runner in runners.items()}
            runners["torch"] = have[shared[0]]
        times = compare(runners, example, config.bench)
    for artifact in artifacts:
        latency = times[artifact.precision] | {
            "runtime": config.runtime,
            "what": "image tower" if artifact.parts else "whole model",
        }
        scores.update(session, session.file_entry(config, artifact.precision), latency=latency)
    ran = [times[name] | {"runtime": name, "what": what} for name in (config.runtime, "torch") if name in times]
    latencies = dict(zip(("latency", "latency_torch"), ran, strict=False))
    size = sum(p.numel() * p.element_size() for p in teacher.backbone.parameters())
    for name in ("zero-shot", "adapted") if whole else ("adapted",):  # merged, they are one network
        scores.update(session, name, **latencies, size_bytes=size)
    session.forget()  # it has been merged


def _always(runner: Callable, example: np.ndarray) -> Callable:
    """The runner on an example of its own, whatever the others are given."""
    return lambda _: runner(example)


def _merged(session: Session) -> tuple[nn.Module, bool]:
    """The teacher as it would be deployed, on the CPU, and whether its weights are whole, not in 4 bits."""
    teacher = (kept.adapted(session) if kept.finetuned(session) else session.family).cpu()
    return teacher, merge(teacher)


def merge(family: nn.Module) -> bool:
    """Make a family with adapters one network, as it would be deployed; returns whether its weights are whole, not in 4 bits."""
    from peft import PeftModel

    whole = all(p.is_floating_point() for p in family.backbone.parameters())
    if whole and isinstance(family.backbone, PeftModel):
        family.backbone = family.backbone.merge_and_unload()
    return whole


def _towers(
    session: Session, config, teacher: nn.Module, function: Callable, whole: bool, views: np.ndarray, folder: Path
) -> dict[str, Callable]:
    """The teacher's function of images by runtime: torch, and the target's own, proven, where it is within the bounds."""
    import torch

    def eager(images: np.ndarray):
        with torch.inference_mode():
            return function(torch.from_numpy(images))

    size = sum(p.numel() * p.element_size() for p in teacher.parameters())
    if not whole or size > TOWER:
        why = "its weights are in 4 bits" if not whole else f"it has {size / 1e9:.1f} GB, more than {TOWER / 1e9:.1f}"
        return _torch_alone(session, eager, why)
    eager(views[:1])  # what is made once, such as the embeddings of the texts
    began = time.perf_counter()
    eager(views[:1])
    if (seconds := time.perf_counter() - began) > PATIENCE:
        return _torch_alone(session, eager, f"it takes {seconds:.0f} s for an image, more than {PATIENCE:.0f}")
    try:
        with torch.no_grad():
            return {"torch": eager, config.runtime: _written_tower(session, config, teacher, function, views, folder)}
    except Exception as error:  # of an exporter, any; it is no promise that every teacher can be written
        while error.__cause__ is not None:
            error = error.__cause__
        return _torch_alone(session, eager, shorten(f"{type(error).__name__}: {error}", 160, placeholder=" …"))


def _written_tower(session: Session, config, teacher: nn.Module, function: Callable, views: np.ndarray, folder: Path):
    """The teacher's function as the target runs it, for one image at a time; proven on each view by itself."""
    from adapt.export import gate

    target = plug.load("export", config.name)
    samples = [(views[i : i + 1],) for i in range(len(views))]
    tower = Deployable(_tower(teacher, function), ("answers",), {"images": {}}, samples=samples)
    only = config.model_copy(update={"int8": False})
    return target.Runner(gate.export(target, only, tower, views, folder, {})[0].path)


def _torch_alone(session: Session, eager: Callable, why: str) -> dict[str, Callable]:
    session.say(f"export: the teacher is timed in torch alone: {why}.")
    return {"torch": eager}


def _tower(family: nn.Module, function: Callable) -> nn.Module:
    """A family's function of images as a module."""
    from torch import nn

    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            self.family = family

        def forward(self, images):
            return function(images)

    return Tower()


def _moved(artifact: Artifact, before: Path, after: Path) -> Artifact:
    """An artifact whose folder has another name now."""

    def place(path: Path) -> Path:
        return after / path.relative_to(before)

    parts = {name: place(path) for name, path in artifact.parts.items()}
    return replace(artifact, path=place(artifact.path), files=tuple(map(place, artifact.files)), parts=parts)


def in_float(conversions: dict[str, int]) -> str:
    """A sentence, and a blank, on the operators that int8 leaves to float; empty without any."""
    if not conversions:
        return ""
    names = ", ".join(f"{count} for {name}" for name, count in sorted(conversions.items(), key=lambda one: -one[1]))
    return f"It leaves int8 and comes back {sum(conversions.values())} times: {names}. "


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread, and without gradients."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)
