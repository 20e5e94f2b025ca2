"""Distill: a student learns from cached teacher outputs, or from the pictures that the teacher has labelled."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from adapt import plug
from adapt.plug import UserError
from adapt.run import atomic
from adapt.verbs import guards, kept, lineage, measuring, scores
from adapt.verbs.evaluate import need
from adapt.verbs.session import Session


def distill(session: Session) -> None:
    """Teach a small CNN what the model knows, from cached teacher outputs."""
    need(session.recipe.distill, "distill", "{name: logits}")
    need(session.recipe.evals, "evals", "[{name: zeroshot}]")
    taught = kept.finished(session, "distill")
    if taught:
        session.say(f"distill: finished before, in {session.run.path}")
    teacher = session.recipe.distill.teacher
    if scores.entry(session, teacher) is None:
        raise UserError(
            f"{session.run.path}: the teacher has no such numbers yet. First: adapt finetune with the same recipe and overrides."
        )
    if not scores.measured(session, teacher):
        measuring.measure(session, teacher, scores.title(session, teacher), kept.teacher(session))
        session.forget()
    teacher = _measure_labels(session) or scores.entry(session, teacher)
    if not taught:
        student = teach(session)
        _save(session, student)
        scores.drop_files(session)
    elif not scores.measured(session, "student"):
        student = kept.student(session)
    if not scores.measured(session, "student"):
        measuring.measure(session, "student", "CNN student", student)
    entry = scores.entry(session, "student")
    scores.guard(session, guards.varied("the student's answers vary", entry["collapse"]))
    if scores.comparable(entry, teacher):
        advice = "More distill.train.epochs, more unlabelled images, or a larger distill.student."
        scores.guard(session, scores.budget("student within its budget", teacher, entry, session.recipe.distill, advice))


def teach(session: Session):
    """Cache the teacher's outputs, or let it label the images, then train the student; returns it with its best weights."""
    import torch
    from accelerate.utils import set_seed

    from adapt.train.loop import fit
    from adapt.train.views import Views

    config = session.recipe.distill
    objective = plug.load("distill", config.name)
    teacher, rows, extra = kept.teacher(session).eval(), _student_rows(session), None
    if hasattr(objective, "label"):
        rows = _labelled(session, objective, teacher, rows)
    have = teacher.predictors()
    if objective.PREDICTOR and objective.PREDICTOR not in have:
        raise UserError(
            f"distill.name: {config.name!r} needs a teacher with {objective.PREDICTOR}; {session.recipe.model.name!r} offers "
            f"{', '.join(have)}."
        )
    function = have[objective.PREDICTOR] if objective.PREDICTOR else None
    set_seed(session.recipe.seed)  # its first weights too, whether the labels were made just now or before
    student = objective.build(config, teacher, None if config.cache else function)
    if function and config.cache:
        made = lineage.answers(session, config.views, config.train.augment)
        extra = kept.outputs(session, "teacher", made, function, teacher, rows, config.views, config.train.augment)
    del teacher, have, function  # students train without the teacher in memory
    session.forget()
    views = Views(rows, student.preprocess, session.recipe.seed, config.views, extra)
    student.to(session.accelerator.device, memory_format=torch.channels_last)  # convolutions train up to a fifth faster
    session.track("distill")
    folder = _fresh(session)
    validate = partial(measuring.validate, session) if session.selects else None
    options = {"title": "distill", "selection": measuring.selection(session, student)}
    fit(student, views, config.train, session.recipe.seed, folder, session.accelerator, validate, **options)
    return student


def _fresh(session: Session) -> Path:
    """The folder of the training; a state that other settings or contents left there is thrown away, since it cannot be continued."""
    made = lineage.student(session)
    if session.run.read_json("distill/made_of.json") != made:
        session.run.forget("distill")
        session.run.write_json("distill/made_of.json", made)
    session.accelerator.wait_for_everyone()
    return session.run.path / "distill"


def _measure_labels(session: Session) -> dict | None:
    """Where a teacher's labels answer another question than the teacher itself: what they are worth; else none."""
    config = session.recipe.distill
    objective = plug.load("distill", config.name)
    if not hasattr(objective, "teacher"):
        return None
    if not scores.measured(session, "labels"):
        family = kept.teacher(session)
        predictors = objective.teacher(config, family)
        measuring.measure(
            session, "labels", f"{scores.title(session, config.teacher)}, labelling", family, lambda texts: predictors
        )
        session.forget()
    return scores.entry(session, "labels")


def _labelled(session: Session, objective, teacher, rows):
    """The teacher's labels of rows, found once, by one process a disk."""
    from datasets import load_from_disk

    place = kept.place(session, "labels", lineage.labels(session))
    if session.processes.keeps and not place.exists():
        with atomic(place) as folder:
            objective.label(session.recipe.distill, teacher, rows).save_to_disk(folder)
    session.accelerator.wait_for_everyone()
    return load_from_disk(place)


def _save(session: Session, student) -> None:
    """Write the student's network as safetensors, with what a user must know of its input."""
    from safetensors.torch import save_file

    from adapt.students.base import origin

    config = session.recipe.distill
    if session.run.writes:
        with atomic(session.run.path / "student") as folder:
            folder.mkdir()
            save_file({k: v.contiguous() for k, v in student.net.state_dict().items()}, folder / "model.safetensors")
            about = {"architecture": config.student} | student.about(session.labels) | {"input": student.input}
            (folder / "config.json").write_text(json.dumps(about, indent=1))
    parent = session.hash("adapter") if config.teacher == "adapted" else None
    facts = {"base": session.base, "parent": parent, "start": origin(config.student, config.pretrained)}
    made = {"made_of": lineage.student(session), "selection": measuring.selection(session, student)}
    session.record("distill", student=session.hash("student"), **facts, **made)


def _student_rows(session: Session):
    """Training rows with their labels, and unlabelled ones."""
    from datasets import concatenate_datasets

    wanted = ("image", "label", "objects", "caption")
    parts = [session.data[name] for name in ("train", "unlabelled") if name in session.data]
    return concatenate_datasets([part.select_columns([c for c in wanted if c in part.column_names]) for part in parts])
