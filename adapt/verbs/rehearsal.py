"""How long a road's student will take, by a few of its steps before anything is trained: so the road's time is said at its beginning."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

from adapt import plug
from adapt.contracts import Lesson, ObjectiveConfig
from adapt.verbs.session import Session

SHORT = 100
"""Steps of a student's training that need no foretelling."""
FEW = 8
"""Pictures of the first try."""
PATIENT = 5.0
"""Seconds: a whole batch that takes longer is not tried, but reckoned from the few."""
MOST = 1024
"""Pictures: nor one of more."""


def seconds(session: Session) -> dict[str, float]:
    """What comes after finetune → about how long it takes: the teacher's answers, and the student's training.

    The student's real loss is computed on real pictures with the model as it comes; all of it is thrown away, and what is random is put
    back. Evaluation and export are not in it. Empty where it cannot be known before: where the teacher labels pictures (that depends
    on what it will find), where steps are not alike, in several processes, and where the training is short.
    """
    import torch

    from adapt.train import processes

    config, world = session.recipe.distill, session.accelerator.num_processes
    if config is None or not config.steps_alike or world > 1:
        return {}
    pictures = sum(len(session.data[split]) for split in ("train", "unlabelled") if split in session.data)
    batch = pictures if config.train.batch == "all" else config.train.batch
    steps = config.train.steps or config.train.epochs * max(1, pictures // batch)
    objective, teacher = plug.load("distill", config.name), session.family.eval()
    lesson = objective.lesson(config, teacher, _no_other) if steps >= SHORT else None
    if lesson is None or lesson.label or (lesson.predictor and lesson.predictor not in teacher.predictors()):
        return {}
    devices = [session.accelerator.device] if session.accelerator.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices):
            answer, step = _tried(session, config, lesson, min(batch, pictures))
    except processes.OutOfMemory:  # the training will take smaller parts
        return {}
    trainings = 2 if config.wants_baseline else 1
    if not config.cache:
        return {"distill": steps * (answer + step) * trainings}
    answers = {"teacher": answer / batch * pictures * config.views} if lesson.predictor else {}
    return answers | {"distill": steps * step * trainings}


def _no_other(name: str, checkpoint: str):
    raise AssertionError(f"{name} is not asked for here")


def _tried(session: Session, config: ObjectiveConfig, lesson: Lesson, batch: int) -> tuple[float, float]:
    """Seconds for a batch of the teacher's answers, and of the student's step besides."""
    import torch

    from adapt.train.gradient import gradient
    from adapt.train.views import Views
    from adapt.verbs.distill import student_rows

    teacher, device = session.family, session.accelerator.device
    function = teacher.predictors()[lesson.predictor] if lesson.predictor else None
    start = config.model_copy(update={"pretrained": False})  # its weights change no time
    learner = plug.load("distill", config.name).learner(start, teacher, function)
    learner.to(device, memory_format=torch.channels_last).train()
    around = nullcontext if device.type == "cpu" else session.accelerator.autocast  # as the cache is filled
    rows = student_rows(session)
    views = Views(rows, learner.preprocess, session.recipe.seed)

    def step(count: int) -> Callable[[], None]:
        batch = learner.collate(views.items(range(count)))  # most are kept in memory, or decoded while the network works
        return partial(gradient, learner, batch, 1, config.train.augment, session.recipe.seed, session.accelerator)

    def answer(count: int) -> Callable[[], None]:
        seen = torch.stack([teacher.preprocess(row, False)["image"] for row in rows.select(range(count))])
        pictures = seen.float().to(device)

        def asked() -> None:
            with torch.inference_mode(), around():
                function(pictures)

        return asked

    answered = _batch(answer, batch) if function else 0.0
    return answered, max(0.0, _batch(step, batch) - answered)


def _batch(prepared: Callable[[int], Callable[[], None]], batch: int) -> float:
    """Seconds that the work for so many pictures takes: of a whole batch, or reckoned from few where that would take long."""
    few = min(FEW, batch)
    work = prepared(few)
    work()  # warms up
    each = _clocked(work) / few
    return _clocked(prepared(batch)) if each * batch < PATIENT and batch <= MOST else each * batch


def _clocked(work: Callable[[], None]) -> float:
    import torch

    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
