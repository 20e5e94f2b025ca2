"""READ THIS FIRST. The road: evaluate → finetune → distill → export → report; each verb tells its part of the story.

    recipe = load_recipe("clip_lora", ["train.epochs=5"])
    finetune(recipe)
    distill(recipe)
    export(recipe)

Every verb works in the recipe's run folder and leaves alone what lies there finished. Each is a file of `verbs/`; what they share is a
session: the recipe's data, model and run folder, handed from one to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.plug import UserError
from adapt.recipe import Recipe, load_recipe
from adapt.run import Run
from adapt.verbs import kept, scores
from adapt.verbs.outcome import Outcome
from adapt.verbs.predicting.request import Request as PredictRequest
from adapt.verbs.question import Question
from adapt.verbs.searching.request import Request as WorkbenchRequest
from adapt.verbs.searching.request import Space
from adapt.verbs.session import Session
from adapt.verbs.shooting.request import Request as ShotsRequest
from adapt.vision.classes import category_names

if TYPE_CHECKING:
    from adapt.data.split import Splits
    from adapt.report.gallery import Gallery
    from adapt.suite import Suite
    from adapt.verbs.predict import Answered
    from adapt.verbs.question import Answer
    from adapt.verbs.shots import Swept
    from adapt.verbs.suite import Suited
    from adapt.verbs.suiting.request import Request as Sets
    from adapt.verbs.workbench import Searched

__all__ = [
    "Outcome",
    "PredictRequest",
    "Question",
    "ShotsRequest",
    "Space",
    "WorkbenchRequest",
    "category_names",
    "distill",
    "evaluate",
    "export",
    "finetune",
    "load_data",
    "load_recipe",
    "merge",
    "predict",
    "prompt",
    "report",
    "road",
    "shots",
    "show",
    "workbench",
]


def evaluate(
    recipe: Recipe,
    suite: str | Path | Suite | None = None,
    models: Sequence[dict[str, str]] = (),
    tree: str | Path | None = None,
) -> Outcome | Suited:
    """Measure the model as it comes, and adapted, if the run folder has an adapter.

    Args:
        suite: by name, by path or as it is: measure its sets in the place of the recipe's `evals`; see `adapt/verbs/suite.py`.
        models: of a suite, which in the place of the recipe's own, such as {"checkpoint": ID}, {"recipe": NAME}, {"run": FOLDER},
            {"run": FOLDER, "student": NAME}, {"file": FILE}.
        tree: of a suite, the folder of sets in the published layout; none: they are fetched from the hub.
    """
    if suite is not None:
        from adapt.verbs.suiting import request

        return measured(recipe, request.request(suite, models, tree))
    from adapt.verbs import evaluate

    session = Session(recipe)
    evaluate.evaluate(session)
    return _finish(session)


def measured(recipe: Recipe, request: Sets) -> Suited:
    """Measure the sets of a suite, of one model or of several; see `adapt/verbs/suite.py`."""
    session = Session(recipe)  # first: it quietens what the verb's imports would say
    from adapt.verbs import suite

    return suite.suite(session, request)


def finetune(recipe: Recipe, extend: int = 0) -> Outcome:
    """Adapt the model with the recipe's method; measure it before and after.

    Args:
        extend: of a finished run, epochs by which it is trained further.
    """
    from adapt.verbs import finetune

    session = Session(recipe)
    finetune.finetune(session, extend)
    return _finish(session)


def distill(recipe: Recipe) -> Outcome:
    """Teach a small CNN what the model knows, from cached teacher outputs."""
    from adapt.verbs import distill

    session = Session(recipe)
    distill.distill(session)
    return _finish(session)


def export(recipe: Recipe) -> Outcome:
    """Write the student for its device, prove each file equal to it, and time it."""
    from adapt.verbs import export

    session = Session(recipe)
    export.export(session)
    return _finish(session)


def road(recipe: Recipe) -> Outcome:
    """Finetune, distill and export, with one session: the data are read once, and the model is loaded once."""
    from adapt.verbs import distill, export, finetune, rehearsal

    session = Session(recipe)
    if recipe.distill and not kept.taught(session):
        from adapt.students.cnn import create

        create(recipe.distill.student, 0, recipe.distill.pretrained)  # what cannot be had is told of before the training
        distill.need_labels(session)
        distill.need_teacher(session)
        session.later = {} if kept.finetuned(session) else rehearsal.seconds(session)
    finetune.finetune(session)
    if recipe.distill:
        distill.distill(session)
    if recipe.export:
        export.export(session)
    return _finish(session)


def merge(recipe: Recipe, scale: float | str = 1.0, keep: float | None = None) -> Outcome:
    """Join what was learnt with the base in full precision into one checkpoint that plain transformers loads.

    Args:
        scale: how much of what was learnt, 0 to 1; "sweep": the best on validation.
        keep: of a sweep, the share of the canary's zero-shot score that must be kept (0.98 unless said); without a canary, of the
            target's pictures that zero-shot had right (0.9).
    """
    session = Session(recipe)  # first: it quietens what the verb's imports would say
    from adapt.verbs import merge

    merge.merge(session, scale, keep)
    return _finish(session)


def prompt(recipe: Recipe, question: Question) -> Answer:
    """Ask the recipe's model about one picture, without leaving a run folder; see `adapt/verbs/prompt.py`."""
    from adapt.verbs.prompt import ask

    return ask(Session(recipe), question)


def predict(recipe: Recipe | None, request: PredictRequest) -> Answered:
    """Answer for any number of pictures, by a run's model or by an exported file; see `adapt/verbs/predict.py`.

    Args:
        recipe: of the run; none: `request.file` answers.
    """
    from adapt.verbs import predict

    return predict.of_file(request) if recipe is None else predict.of_run(recipe, request)


def shots(recipe: Recipe, request: ShotsRequest) -> Swept:
    """Compare methods on few labelled pictures of each class; see `adapt/verbs/shots.py`."""
    from adapt.verbs import shots

    return shots.shots(Session(recipe), request)


def workbench(recipe: Recipe, request: WorkbenchRequest) -> Searched:
    """Search the words and drawings that ask the model best, by a few labelled pictures; see `adapt/verbs/workbench.py`."""
    from adapt.verbs import workbench

    return workbench.workbench(Session(recipe), request)


def report(path: Path | str) -> Path:
    """Write a run folder's `report.html` and `report.md` anew; returns the page's path."""
    from adapt.report.page import build

    return build(Run.from_folder(path).path)


def load_data(recipe: Recipe) -> Splits:
    """The recipe's pictures: split → rows, a `datasets.DatasetDict`."""
    return Session(recipe).data


def show(rows, answers=None, words=None, side: int = 128) -> Gallery:
    """Pictures in rows, as a notebook shows them; see `adapt/report/gallery.py`."""
    from adapt.report.gallery import show

    return show(rows, answers, words, side)


def _finish(session: Session) -> Outcome:
    """Rebuild the report, from the run folder alone, and hand over what lies in it."""
    for tracker in session.accelerator.trackers:
        tracker.finish()
    metrics = scores.metrics(session)
    if session.run.writes and metrics["entries"]:
        try:
            report(session.run.path)
        except UserError as error:  # the numbers are safe
            session.say(f"report: could not be drawn: {error} The numbers are in {session.run.path / 'metrics.json'}.")
    return Outcome(session.run.path, metrics["entries"], metrics["guards"])
