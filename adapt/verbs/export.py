"""Export: the student is written for its devices and proven there; teacher and files are timed."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from adapt import plug
from adapt.plug import settings
from adapt.run import atomic
from adapt.verbs import guards, kept, measuring, scores
from adapt.verbs.evaluate import need
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
    if _exported(session):
        session.say(f"export: finished before, in {session.run.path / 'export'}")
        return
    student = kept.student(session)
    for config in session.recipe.export:
        target = plug.load("export", config.name)
        tops = {}
        for name, path in _convert(session, config, student).items():
            title = f"CNN student, {name} {config.name.upper()}"
            place = path.relative_to(session.run.path).as_posix()
            facts = target.facts(path) | {"file": place, "hash": session.hash(place)}
            _announce(session, f"{config.name} {name}", facts)
            file = student.file_predictors(target.Runner(path))
            entry = measuring.measure(session, f"{config.name} {name}", title, student, lambda texts, file=file: file, **facts)
            tops[name] = scores.main(entry)
        clock(session, config, student)
        if "int8" in tops:
            fp32, int8 = (scores.entry(session, f"{config.name} {name}") for name in ("fp32", "int8"))
            why = _why_slow(session, f"{config.name} int8")
            advice = (
                f"{_classes(session, config.name)}{why}More export.0.calibration images, or a student with plain convolutions."
            )
            scores.guard(session, scores.budget(f"{config.name} int8 within its budget", fp32, int8, config, advice))
            times = [entry["latency"]["p50_ms"] for entry in (fp32, int8)]
            advice = f"{why}A student with plain convolutions and ReLU."
            scores.guard(session, guards.faster(f"{config.name} int8 is faster than fp32", *times, advice))
    session.record("export", made_of=_export_made_of(session), parent=session.hash("student"), files=_files(session))


def _classes(session: Session, target: str) -> str:
    """A sentence on the class that int8 changes most; every class's change in accuracy is noted in the entry."""
    fp32, int8 = (scores.entry(session, f"{target} {name}") for name in ("fp32", "int8"))
    if "confusion" not in int8:
        return ""
    accuracy = [[row[i] / max(sum(row), 1) for i, row in enumerate(entry["confusion"])] for entry in (fp32, int8)]
    change = {name: after - before for name, before, after in zip(int8["classes"], *accuracy, strict=True)}
    scores.update(session, f"{target} int8", class_change=change)
    most = max(change, key=lambda name: abs(change[name]))
    return f"It changes {most!r} most of all classes: {100 * change[most]:+.1f} points. " if change[most] else ""


def _exported(session: Session) -> bool:
    """Do the files lie there as they were written, of this student, with their numbers?"""
    facts = session.run.facts("export")
    return (
        kept.finished(session, "distill")
        and facts.get("made_of") == _export_made_of(session)
        and facts["files"] == _files(session)
        and all(scores.measured(session, entry["name"]) for entry in scores.entries(session) if "file" in entry)
    )


def _export_made_of(session: Session) -> dict:
    return {"student": session.hash("student"), "options": [settings(config) for config in session.recipe.export]}


def _files(session: Session) -> dict[str, str | None]:
    """The exported files and their hashes."""
    folder = session.run.path / "export"
    names = session.processes.share([path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.onnx"))])
    return {name: session.hash(f"export/{name}") for name in names}


def _convert(session: Session, config, student) -> dict[str, Path]:
    """Write the student for a target, through its gate, into `export/<target>/`; returns name → file."""
    target = plug.load("export", config.name)
    metadata = student.about(session.labels) | {
        "input": student.input | {"range": [0, 255], "layout": "NCHW", "channels": "RGB"},
        "architecture": session.recipe.distill.student,
        "student": session.hash("student"),
        "adapter": session.hash("adapter"),
        "base": session.base,
    }
    if session.run.writes:
        train = samples(session, student, config.calibration)
        validation = samples(session, student, VALIDATION, "validation") if "validation" in session.data else None
        with atomic(session.run.path / "export" / config.name) as folder:
            folder.mkdir()
            target.export(config, student.cpu().deployed(), train, folder, metadata, validation)
    session.accelerator.wait_for_everyone()
    session.processes.fetched(session.run.path / "export" / config.name)
    return _written(session, config)


def _written(session: Session, config) -> dict[str, Path]:
    """What a target has written: name → file."""
    place = session.run.path / "export" / config.name
    files = plug.load("export", config.name).FILES
    return {name: place / file for name, file in files.items() if (place / file).exists()}


def _announce(session: Session, name: str, facts: dict[str, Any]) -> None:
    """Say on what a file was proven, or how its int8 was found and what of it is float."""
    if "int8" in facts:
        found = facts["int8"]
        text = (
            f"ranges by {found['ranges']}, {found['decibels'][found['ranges']]:.0f} dB above the error on {found['pictures']}"
        )
        session.say(f"{name}: {text} images. {in_float(facts['conversions'])}".strip())
    else:
        proof = facts["proof"]
        session.say(f"{name}: equal to torch on {proof['samples']} images, max abs error {proof['max_abs_error']:.0e}.")


def _why_slow(session: Session, name: str) -> str:
    """A sentence on what the file of an entry does in float; empty when it does nothing so."""
    return in_float(scores.entry(session, name).get("conversions", {}))


def samples(session: Session, module, count: int, split: str = "train") -> np.ndarray:
    """Views of a split's images, evenly chosen: float32[count, 3, H, W]."""
    import numpy as np

    rows = session.data[split]
    chosen = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)
    return np.stack([module.preprocess(rows[int(i)], False)["image"].numpy() for i in chosen]).astype(np.float32)


def clock(session: Session, config, student) -> None:
    """Latency of the teacher and of the files, one thread, one image, in turn; each says what ran in which runtime.

    What is timed is a function of images that teacher and student share, else one of rows; a teacher that shares none is not.
    A teacher's `latency` is by the files' own runtime where it can be written for it, and torch's is its `latency_torch`.
    """
    from adapt.export.bench import compare

    target, files = plug.load("export", config.name), _written(session, config)
    runners: dict[str, Callable] = {name: target.Runner(path) for name, path in files.items()}
    teacher, whole = _merged(session)
    have = teacher.predictors()
    shared = [name for name in student.predictors() if name in have]
    images = next((name for name in shared if not getattr(have[name], "rows", False)), None)
    with tempfile.TemporaryDirectory() as folder, _one_thread():
        if images or not shared:
            views = samples(session, student, TOWER_SAMPLES)
            example, what = views[:1], "image tower"
            if images:
                runners |= _tower(session, config, teacher, have[images], whole, views, Path(folder))
        else:
            example, what = [session.data["train"][0]], "whole model"
            runners = {name: student.file_predictors(runner)[shared[0]] for name, runner in runners.items()}
            runners["torch"] = have[shared[0]]
        times = compare(runners, example, config.bench)
    for name, path in files.items():
        part = "image tower" if target.parts(path) else "whole model"
        scores.update(session, f"{config.name} {name}", latency=times[name] | {"runtime": target.RUNTIME, "what": part})
    ran = [times[name] | {"runtime": name, "what": what} for name in (target.RUNTIME, "torch") if name in times]
    latencies = dict(zip(("latency", "latency_torch"), ran, strict=False))
    size = sum(p.numel() * p.element_size() for p in teacher.backbone.parameters())
    for name in ("zero-shot", "adapted") if whole else ("adapted",):  # merged, they are one network
        scores.update(session, name, **latencies, size_bytes=size)


def _merged(session: Session) -> tuple[nn.Module, bool]:
    """The teacher as it would be deployed, on the CPU, and whether its weights are whole, not in 4 bits."""
    teacher = (kept.adapted(session) if kept.finished(session, "finetune") else session.family).cpu()
    whole = all(p.is_floating_point() for p in teacher.backbone.parameters())
    if whole and hasattr(teacher.backbone, "merge_and_unload"):
        teacher.backbone = teacher.backbone.merge_and_unload()
    return teacher, whole


def _tower(
    session: Session, config, teacher: nn.Module, function: Callable, whole: bool, views: np.ndarray, folder: Path
) -> dict[str, Callable]:
    """The teacher's function of images by runtime: torch, and the target's own, proven, where it is within the bounds."""
    import torch

    def eager(images: np.ndarray):
        with torch.inference_mode():
            return function(torch.from_numpy(images))

    target = plug.load("export", config.name)
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
            return {"torch": eager, target.RUNTIME: target.tower(config, teacher, function, views, folder)}
    except Exception as error:  # of an exporter, any; it is no promise that every teacher can be written
        while error.__cause__ is not None:
            error = error.__cause__
        return _torch_alone(session, eager, shorten(f"{type(error).__name__}: {error}", 160, placeholder=" …"))


def _torch_alone(session: Session, eager: Callable, why: str) -> dict[str, Callable]:
    session.say(f"export: the teacher is timed in torch alone: {why}.")
    return {"torch": eager}


def in_float(conversions: dict[str, int]) -> str:
    """A sentence, and a blank, on the operators that int8 leaves to float; empty without any."""
    if not conversions:
        return ""
    names = ", ".join(f"{count} for {name}" for name, count in sorted(conversions.items(), key=lambda one: -one[1]))
    return f"It leaves int8 and comes back {sum(conversions.values())} times: {names}. "


@contextmanager
def _one_thread() -> Iterator[None]:
    """torch on one thread, and without gradients."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(threads)
