"""Distill: a student learns from cached teacher outputs, or from the pictures that the teacher has labelled."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from adapt import plug
from adapt.contracts import Lesson
from adapt.plug import UserError
from adapt.run import atomic
from adapt.verbs import guards, kept, lineage, measuring, scores
from adapt.verbs.evaluate import need
from adapt.verbs.finetune import tried
from adapt.verbs.session import Session


def distill(session: Session) -> None:
    """Teach a small CNN what the model knows, from cached teacher outputs; and its baseline, if it is wanted."""
    need(session.recipe.distill, "distill", "{name: logits}")
    need(session.recipe.evals, "evals", "[{name: zeroshot}]")
    need_labels(session)
    _one(session)
    if session.recipe.distill.wants_baseline:
        _baseline(session)


def need_labels(session: Session) -> None:
    """Look for people's labels, where they are to teach.

    Raises:
        UserError: there are none.
    """
    config = session.recipe.distill
    if not config.from_labels and not config.wants_baseline:
        return
    have: list[str] = []
    for name, feature in session.data["train"].features.items():
        have += [name, *(f"{name}.{part}" for part in (feature if isinstance(feature, dict) else ()))]
    if not set(config.needs) & set(have):
        asked, instead = "distill.baseline: true", "Leave it out."
        if config.from_labels:
            asked, instead = "distill.teacher: 'labels'", "Set distill.teacher=adapted."
        raise UserError(
            f"{asked}, but the training data have no column {' or '.join(config.needs)}. Have: {', '.join(have)}. {instead}"
        )


def need_teacher(session: Session) -> None:
    """Ask, before anything is trained, whether the objective can be taught by this model, with what the method puts into it.

    Raises:
        UserError: it cannot.
    """
    config = session.recipe.distill
    if config.from_labels:
        return
    if config.teacher == "adapted":
        with tried(session) as family:
            _lesson(session, family)
    else:
        _lesson(session, session.as_it_comes())


def _lesson(session: Session, teacher) -> Lesson:
    """What the objective asks of its teacher.

    Raises:
        UserError: this one does not offer that.
    """
    config = session.recipe.distill
    lesson = plug.load("distill", config.name).lesson(config, teacher, partial(_another, session))
    have = teacher.predictors()
    if lesson.predictor and lesson.predictor not in have:
        raise UserError(
            f"distill.name: {config.name!r} needs a teacher with {lesson.predictor}; {session.recipe.model.name!r} offers "
            f"{', '.join(have)}."
        )
    return lesson


def _one(session: Session) -> None:
    """Teach the recipe's student and measure it; hold it against its teacher."""
    config = session.recipe.distill
    taught = kept.taught(session)
    if taught:
        session.say(f"distill: finished before, in {session.run.path / 'student' / session.called}")
    if not config.from_labels:
        _measure_teacher(session)
    student = None if taught else teach(session)
    teacher, name = _reference(session), session.student_entry()
    if not scores.measured(session, name):
        facts = {"against": teacher["name"] if teacher else None, "student": session.called}
        measuring.measure(session, name, f"CNN student {session.called}", student or kept.student(session), **facts)
    entry = scores.entry(session, name)
    scores.guard(session, guards.varied(f"the answers of {name} vary", entry["collapse"]))
    if not config.from_labels and scores.comparable(entry, teacher):
        advice = "Try more distill.train.epochs, more unlabelled images, or a larger distill.student."
        scores.guard(session, scores.budget(f"{name} within its budget", teacher, entry, config, advice))


def _baseline(session: Session) -> None:
    """The same student by people's labels alone; a line says which of the two is better."""
    recipe = session.recipe
    ours, config = scores.entry(session, session.student_entry()), recipe.distill
    own = {"teacher": "labels", "as_": f"{config.called}-labels", "baseline": False}
    session.recipe = recipe.model_copy(update={"distill": config.model_copy(update=own)})
    try:
        _one(session)
        theirs = scores.entry(session, session.student_entry())
    finally:
        session.recipe = recipe
    points = 100 * (scores.main(ours) - scores.main(theirs))
    change = theirs.get("change") if theirs.get("against") == ours["name"] else None
    interval = f" ({-100 * change[2]:+.1f} to {-100 * change[1]:+.1f})" if change else ""
    session.say(
        f"distill: with its teacher the student has {scores.main(ours):.1%}, by people's labels alone {scores.main(theirs):.1%}: "
        f"{points:+.1f} points{interval} by the teacher."
    )


def _measure_teacher(session: Session) -> None:
    """The teacher's numbers, measured again if need be.

    Raises:
        UserError: it has none.
    """
    teacher = session.recipe.distill.teacher
    if scores.entry(session, teacher) is None:
        raise UserError(
            f"{session.run.path}: the teacher has not been measured yet. First: adapt finetune with the same recipe and overrides."
        )
    if not scores.measured(session, teacher):
        family = kept.teacher(session)
        _lesson(session, family)  # who cannot teach need not be measured
        measuring.measure(session, teacher, scores.title(session, teacher), family)


def _reference(session: Session) -> dict | None:
    """The entry that a student is compared with: its teacher's, or that of what its teacher's labels are worth; of one that learned from
    people's labels, the student that it is the baseline of, else the model."""
    config = session.recipe.distill
    if not config.from_labels:
        return _labels_entry(session) or scores.entry(session, config.teacher)
    names = (f"student {config.called.removesuffix('-labels')}", "adapted", "zero-shot")
    return next(filter(None, (scores.entry(session, name) for name in names if name != session.student_entry())), None)


def teach(session: Session):
    """Cache the teacher's outputs, or let it label the images, then train the student; returns it with its best weights."""
    import torch
    from accelerate.utils import set_seed

    from adapt.train.loop import fit
    from adapt.train.views import Views

    objective = plug.load("distill", session.recipe.distill.name)
    folder, config = _begun(session)
    teacher, rows, extra = kept.teacher(session).eval(), student_rows(session), None
    lesson = _lesson(session, teacher)
    _measure_labels(session, teacher, lesson)
    if lesson.label:
        rows = _labelled(session, lesson, rows)
    function = teacher.predictors()[lesson.predictor] if lesson.predictor else None
    set_seed(session.recipe.seed)  # its first weights too, whether the labels were made just now or before
    learner = objective.learner(config, teacher, None if config.cache else function)
    if function and config.cache:
        made = lineage.answers(session, lesson.predictor, config.views, config.train.augment)
        given = (config.views, config.train.augment, lesson.packing, lesson.half)
        extra = kept.outputs(session, "teacher", made, function, teacher, rows, *given)
    del teacher, function, lesson
    if config.cache:  # else the teacher is in the loop
        session.rest()
    student = learner.student
    if student.classes:
        student.classes = session.labels  # the data's own names; the teacher may know them by other words
    views = Views(rows, learner.preprocess, session.recipe.seed, config.views, extra)
    learner.to(session.accelerator.device, memory_format=torch.channels_last)  # convolutions train up to a fifth faster
    session.track("distill")
    validate = partial(measuring.validate, session) if session.selects else None
    options = {"title": "distill", "selection": measuring.selection(session, student)}
    fit(learner, views, config.train, session.recipe.seed, folder, session.accelerator, validate, **options)
    _save_student(session, student, config.pretrained)
    return student


def _begun(session: Session) -> tuple[Path, Any]:
    """The folder of the training, and the objective's config with the start that was chosen when it began.

    A state that other settings or contents left there is thrown away, since it cannot be continued.
    """
    config, place = session.recipe.distill, f"distill/{session.called}"
    made, kept = lineage.student(session), session.run.read_json(f"distill/{session.called}/made_of.json", {})
    if kept.get("made_of") != made:
        from adapt.students.cnn import chosen

        start, said = session.processes.share(chosen(config.student, config.pretrained) if session.run.writes else None)
        if said:
            session.say(said)
        kept = {"made_of": made, "start": start}
        session.run.forget(place)
        session.run.write_json(f"{place}/made_of.json", kept)
    session.accelerator.wait_for_everyone()
    return session.run.path / place, config.model_copy(update={"pretrained": kept["start"]})


def _another(session: Session, name: str, checkpoint: str):
    """Another model than the teacher, for an objective that needs one: the family `name` with a checkpoint, ready to answer."""
    module = plug.load("models", name)
    return module.load(module.Config(name=name, checkpoint=checkpoint)).to(session.accelerator.device).eval()


def _labels_entry(session: Session) -> dict | None:
    """What the teacher's labels are worth, where they answer another question than the teacher itself, measured again if need be."""
    name = session.student_entry("labels")
    if scores.entry(session, name) and not scores.measured(session, name):
        teacher = kept.teacher(session).eval()
        _measure_labels(session, teacher, _lesson(session, teacher))
    return scores.entry(session, name)


def _measure_labels(session: Session, teacher, lesson) -> None:
    name = session.student_entry("labels")
    if lesson.reference and not scores.measured(session, name):
        predictors = lesson.reference()
        title = f"{scores.title(session, session.recipe.distill.teacher)}, labelling"
        measuring.measure(session, name, title, teacher, lambda texts: predictors, student=session.called)


def _labelled(session: Session, lesson: Lesson, rows):
    """The rows that the student learns from, with the teacher's labels: found once, by all processes."""
    from adapt.distill import labels

    made = lineage.labels(session) | {"layout": labels.VERSION}
    place, share = kept.place(session, "labels", made), session.processes.place
    found = labels.build(place, lesson.label, rows, session.accelerator, lesson.labels_batch, share)
    if lesson.choose:
        found, said = lesson.choose(found)
        session.say(f"teacher: {said}")
    return found


def _save_student(session: Session, student, start: bool | str) -> None:
    """Write the student's folder, and what it came from; `start`: what `distill.pretrained` meant."""
    from adapt.students.cnn import origin

    config = session.recipe.distill
    if session.run.writes:
        with atomic(session.run.path / "student" / session.called) as folder:
            student.save(folder)
    parent = session.hash("adapter") if config.teacher == "adapted" else None
    facts = {"base": session.base, "parent": parent, "pretrained": start, "start": origin(config.student, start)}
    made = {"made_of": lineage.student(session), "selection": measuring.selection(session, student)}
    session.record(f"distill {session.called}", student=session.hash(f"student/{session.called}"), **facts, **made)
    scores.drop_files(session)


def student_rows(session: Session):
    """Training rows with their labels, and unlabelled ones; where people's labels teach, the labelled alone, with their maps of classes."""
    from datasets import concatenate_datasets

    from_labels = session.recipe.distill.from_labels
    splits = ("train",) if from_labels else ("train", "unlabelled")
    wanted = ("image", "label", "objects", "caption", *(("id", "segmentation") if from_labels else ()))
    parts = [session.data[name] for name in splits if name in session.data]
    return concatenate_datasets([part.select_columns([c for c in wanted if c in part.column_names]) for part in parts])
