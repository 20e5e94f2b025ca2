"""Who answers: a run's model as it comes or adapted, one of its students, or an exported file, by what its metadata say."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from adapt import plug
from adapt.plug import Spec, UserError, nearest
from adapt.provenance import hash_path
from adapt.verbs import kept, lineage
from adapt.verbs.answers import ANSWERS, offered

if TYPE_CHECKING:
    import numpy as np

    from adapt.students.base import Student
    from adapt.verbs.session import Session

MODELS = ("adapted", "student", "zero-shot")
KINDS = {
    "classifier": "class_logits",
    "pixels": "semantic_logits",
    "detector": "detections",
    "embedder": "image_embedding",
}
"""Kind of an exported student → what it answers."""
Sizes = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Answerer:
    """What answers for pictures."""

    predictor: str
    """A key of `ANSWERS`."""
    names: list[str]
    """Of the classes."""
    prepare: Callable[[Any], Any]
    """An RGB picture → what `answer` takes; called in threads."""
    answer: Callable[[list[Any], Sizes], list[Any]]
    """Prepared pictures with their widths and heights → the predictor's results, one a picture."""
    made_of: dict[str, Any]
    """Contents and settings of the model."""
    title: str
    input: Mapping[str, Any] = field(default_factory=dict)
    """How a file's pictures are prepared, see `vision/images.py`."""


# ------------------------------------------------------------------------------------------------------------------- runs


def of_run(session: Session, by: str | None, text: str | None) -> Answerer:
    """The model of a run.

    Args:
        by: adapted, student, zero-shot, or a student's name; none: the recipe's student, else the adapted model.
        text: what is asked of every picture.

    Raises:
        UserError: there is no such model, or it waits for prompts.
    """
    by = by or _best(session)
    if by in ("adapted", "zero-shot"):
        session.recipe.data.check_paths()
        module = kept.adapted(session) if by == "adapted" else session.as_it_comes()
        names, made = session.labels, lineage.adapted(session) if by == "adapted" else lineage.model(session)
    else:
        name = _student_name(session, by)
        module = _student(session, name)
        names, made = module.classes, {"student": session.hash(f"student/{name}")}
    made |= {"precision": session.precision} | ({"text": text} if text else {})
    return of_module(session, module, names, made, f"{session.run.path.name} {by}", text)


def of_module(
    session: Session, module: Any, names: list[str], made: dict[str, Any], title: str, text: str | None = None
) -> Answerer:
    """A family or a student that is in memory, on the session's device.

    Args:
        names: of its classes.
        made: contents and settings of the model.
        text: what is asked of every picture.

    Raises:
        UserError: it waits for prompts, or answers no text.
    """
    from adapt.students import detector

    module.eval()
    have = offered(module)
    predictor = _predictor(session, have, text)
    if isinstance(module, detector.Student):  # its rows would hold a batch of whole pictures in memory
        prepare, answer = _view(module), _of_detector(module)
    elif have[predictor].takes == "rows":
        prepare, answer = _whole, _of_rows(session, have[predictor], text)
    else:
        prepare, answer = _view(module), _of_images(session, have[predictor])
    return Answerer(predictor, names, prepare, answer, made | {"predictor": predictor}, title)


def _best(session: Session) -> str:
    """The student if the run has it, else the adapted model."""
    if session.recipe.distill and session.run.facts(f"distill {session.called}"):
        return "student"
    if session.run.facts("finetune"):
        return "adapted"
    raise UserError(
        f"{session.run.path}: neither adapted nor distilled yet. First: adapt finetune with the same recipe and overrides, or ask the "
        "model as it comes with by=zero-shot."
    )


def _student_name(session: Session, by: str) -> str:
    """The folder of a student.

    Raises:
        UserError: the run has no such student.
    """
    folder = session.run.path / "student"
    have = sorted(place.name for place in folder.iterdir() if place.is_dir()) if folder.is_dir() else []
    have = session.processes.share([name for name in have if not name.startswith(".")])
    if by == "student":
        if not session.recipe.distill:
            raise UserError(
                "by: the recipe has no section distill, so the run has no student. Write by=adapted or by=zero-shot."
            )
        by = session.called
    if by not in have:
        raise UserError(f"by: {str(session.run.path)!r} has no student {by!r}.{nearest(by, [*MODELS, *have])}")
    return by


def _student(session: Session, name: str) -> Student:
    """A student from its own folder; neither teacher nor data are needed."""
    from adapt.students import open_student

    return open_student(session.processes.fetched(session.run.path / "student" / name)).to(session.accelerator.device)


def _predictor(session: Session, have: dict, text: str | None) -> str:
    """What the model is asked: words where a text is given; else what the recipe's first eval asks, else the first that there is."""
    if text and "text" not in have:
        raise UserError(
            f"text: this model answers {', '.join(name for name in have if name in ANSWERS)}, no questions. Leave text= out."
        )
    asked = [config.predictor for config in session.recipe.evals[:1]]
    name = "text" if text else next((name for name in (*asked, *ANSWERS) if name in have and name in ANSWERS), None)
    if name is None:
        raise UserError(
            f"predict: this model answers prompts. Ask it with: adapt prompt run={session.run.path} image=FILE point=X,Y"
        )
    return name


def _whole(picture: Any) -> Any:
    return picture


def _view(module: Any) -> Callable[[Any], Any]:
    return lambda picture: module.preprocess({"image": picture}, False)["image"]


def _of_rows(session: Session, predictor: Callable, text: str | None) -> Callable[[list[Any], Sizes], list[Any]]:
    import torch

    question = {"prefix": text} if text else {}

    @torch.inference_mode()
    def answer(pictures: list[Any], sizes: Sizes) -> list[Any]:
        with session.accelerator.autocast():
            return list(predictor([{"image": picture} | question for picture in pictures]))

    return answer


def _of_detector(student: Student) -> Callable[[list[Any], Sizes], list[Any]]:
    import torch

    from adapt.train.precision import full

    height, width = student.input["size"]

    @full()
    @torch.inference_mode()
    def answer(views: list[Any], sizes: Sizes) -> list[Any]:
        return _scaled(student.detect(torch.stack(views).float().numpy()), sizes, width, height)

    return answer


def _of_images(session: Session, predictor: Callable) -> Callable[[list[Any], Sizes], list[Any]]:
    import torch

    @torch.inference_mode()
    def answer(views: list[Any], sizes: Sizes) -> list[Any]:
        with session.accelerator.autocast():
            output = predictor(torch.stack(views).to(session.accelerator.device).float())
        return list(output.float().cpu().numpy())

    return answer


# ------------------------------------------------------------------------------------------------------------------ files


class Input(Spec):
    """How an exported file's pictures are prepared, as its metadata say it; see `adapt/vision/images.py`."""

    model_config = ConfigDict(extra="ignore")

    size: tuple[int, int]
    """Height and width, pixels."""
    resize: int | tuple[int, int] | Literal["longest"] | None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
    crop: Literal["floor", "round"] | None = None
    padding: tuple[float, float, float] = Field((0.0, 0.0, 0.0))
    """RGB 0–255, of what is filled up."""

    def spec(self) -> dict[str, Any]:
        """As `vision.images.view` takes it; normalisation is inside the file."""
        sides = [*self.size, *(self.resize if isinstance(self.resize, tuple) else [self.resize])]
        if not all(1 <= side <= 8192 for side in sides if isinstance(side, int)):
            raise UserError(f"sides of 1 to 8192 pixels, not {sides}")
        mean = [value / 255 for value in self.padding]
        return {name: getattr(self, name) for name in ("size", "resize", "interpolation", "crop")} | {"mean": mean}


def of_file(path: Path) -> Answerer:
    """An exported file; neither run folder nor weights nor data are needed.

    Raises:
        UserError: it is no exported student, or does not do what its metadata say.
    """
    from adapt.students.detector import by_row
    from adapt.vision.images import view

    runner = _runner(path)
    about = _about(path, runner.metadata)
    predictor, names = KINDS[about["kind"]], about["names"]
    height, width = about["input"]["size"]
    _tried(path, runner, predictor, names, height, width)

    def answer(views: list[Any], sizes: Sizes) -> list[Any]:
        import torch

        found = runner(torch.stack(views).float().numpy())
        return _scaled(by_row(found, len(views)), sizes, width, height) if predictor == "detections" else list(found)

    made = {"file": hash_path(path), "predictor": predictor}
    return Answerer(predictor, names, lambda picture: view(picture, about["input"]), answer, made, path.name, about["input"])


def _runner(path: Path):
    """The file in its runtime.

    Raises:
        UserError: there is none, or its runtime cannot read it.
    """
    if path.suffix.lower() != ".onnx":
        raise UserError(
            f"file: {str(path)!r} is no ONNX file. Write file=…/model.onnx or file=…/model.int8.onnx, that adapt export wrote."
        )
    if not path.is_file():
        raise UserError(f"file: there is no {str(path)!r}. Exported files are in runs/…/export/NAME/onnx.")
    try:
        return plug.load("export", "onnx").Runner(path)
    except Exception as error:  # of a stranger's file, the runtime's own
        raise UserError(f"file: {str(path)!r} cannot be read: {' '.join(str(error).split())[:160]}. Export it again.") from None


def _about(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """What the metadata say: kind, names of the classes, input.

    Raises:
        UserError: they are not an exported student's, or of a kind that waits for prompts.
    """
    try:
        told = {name: json.loads(metadata[name]) for name in ("kind", "input", "classes") if name in metadata}
        kind, names = told["kind"], [str(name) for name in told.get("classes", [])]
        seen = Input.model_validate(told["input"]).spec()
    except (KeyError, TypeError, ValueError, ValidationError, UserError) as error:
        why = f"{error.errors()[0]['loc']}: {error.errors()[0]['msg']}" if isinstance(error, ValidationError) else str(error)
        raise UserError(
            f"file: the metadata of {str(path)!r} are not those of an exported student ({why[:160]}). Export it again with adapt export."
        ) from None
    if kind not in KINDS:
        raise UserError(
            f"file: {str(path)!r} is a student of the kind {str(kind)[:40]!r}, which does not answer for pictures alone. Kinds that do: "
            f"{', '.join(KINDS)}."
        )
    return {
        "kind": kind,
        "input": seen,
        "names": names[1:] if kind == "pixels" else names,
    }  # there, the first is the background


def _tried(path: Path, runner: Callable, predictor: str, names: list[str], height: int, width: int) -> None:
    """Run the file once, so that what does not fit its metadata is told before the work begins."""
    import numpy as np

    try:
        found = runner(np.zeros((1, 3, height, width), np.float32))
    except Exception as error:  # the runtime's own
        why = f"does not take {width} × {height} pixels: {' '.join(str(error).split())[:120]}"
    else:
        classes = len(names) + (predictor == "semantic_logits")
        boxes = predictor == "detections"
        fits = len(found) == 4 if boxes else predictor == "image_embedding" or found.shape[1] == classes
        why = "" if fits else "has other outputs than classes"
    if why:
        raise UserError(f"file: {str(path)!r} {why}; its metadata say otherwise. Export it again with adapt export.")


def _scaled(found: list[dict[str, np.ndarray]], sizes: Sizes, width: int, height: int) -> list[dict[str, np.ndarray]]:
    """Boxes in pixels of a detector's input, width × height → in pixels of each picture; category and score as they are."""
    import numpy as np

    scales = [np.array([w / width, h / height] * 2, np.float32) for w, h in sizes]
    return [one | {"bbox": one["bbox"] * scale} for one, scale in zip(found, scales, strict=True)]
