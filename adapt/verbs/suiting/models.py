"""Who is measured by a suite: the recipe's model as it comes and adapted, other checkpoints, runs, their students, exported files."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.contracts import Asked, Predictor
from adapt.overrides import override
from adapt.plug import UserError
from adapt.provenance import hash_path
from adapt.recipe import Recipe, load_recipe, validate
from adapt.run import Run
from adapt.verbs import kept, lineage
from adapt.verbs.predicting import answerers
from adapt.verbs.session import Session
from adapt.verbs.suiting.request import Named, Request

if TYPE_CHECKING:
    from adapt.verbs.predicting.answerers import Answerer

LOGITS = ("class_logits", "semantic_logits")
"""Predictors whose answers are a number for each of a model's classes."""
ROWS = 32
"""Pictures that an exported detector gets at once."""
SECONDS = 0.5
"""For which a model is timed, on a picture at a time."""


@dataclass
class Opened:
    """A model that can be asked."""

    module: Any
    """A family, a student or a `File`."""
    classes: Sequence[str] | None
    """The only classes it answers about, in the order of its logits; none: any, by their words."""
    bytes: int | None
    """Of its weights or file; none: as its parameters say."""
    told: bool = True
    """Can it be told of classes? A family can."""
    precision: str | None = None
    """Of a file; none: the session's."""

    def predictors(self, texts: list[str] | None = None) -> Mapping[str, Predictor]:
        """What it can be asked."""
        return self.module.predictors(texts)


@dataclass
class Model:
    """One of the models of a suite, not opened yet."""

    name: str
    """Of its folder, and in tables of numbers."""
    title: str
    kind: str
    """checkpoint, run, student or file."""
    session: Session
    made_of: dict[str, Any]
    """Its weights and settings."""
    open: Callable[[], Opened]
    checkpoint: str = ""
    """Where it is as it comes: by this the literature knows it."""


class File(Asked):
    """An exported file, asked as a student is; see `adapt/verbs/predicting/answerers.py`."""

    def __init__(self, answerer: Answerer):
        self.answerer, self.input = answerer, answerer.input

    def eval(self) -> File:
        """It learns nothing."""
        return self

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        """One row → its view, `image` uint8[3, H, W]."""
        return {"image": self.answerer.prepare(sample["image"])}

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Items → a batch."""
        from adapt.vision.images import collate

        return collate(items)

    def predictors(self, texts: list[str] | None = None) -> dict[str, Predictor]:
        """What it was exported to answer."""
        if self.answerer.predictor == "detections":
            return {"detections": Predictor(self._boxes, "rows")}
        return {self.answerer.predictor: Predictor(self._answer)}

    def _answer(self, images):
        """float[B, 3, H, W] 0–255 → float32[B, …]."""
        import numpy as np
        import torch

        return torch.from_numpy(np.stack(self.answerer.answer(list(images.cpu()), [])))

    def _boxes(self, samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows with `image` → for each bbox float32[N, 4] XYXY in pixels of its picture, category int64[N], score float32[N]."""
        found = []
        for start in range(0, len(samples), ROWS):
            pictures = [sample["image"] for sample in samples[start : start + ROWS]]
            found += self.answerer.answer(list(map(self.answerer.prepare, pictures)), [each.size for each in pictures])
        return found


# --------------------------------------------------------------------------------------------------------------- who is asked


def models(session: Session, request: Request) -> list[Model]:
    """The models of a suite, in their order.

    Raises:
        UserError: one cannot be had; every problem, one a line.
    """
    if not request.models:
        found = [_as_it_comes(session, "zero-shot")]
        return found + ([_adapted(session, "adapted")] if kept.finetuned(session) else [])
    found, problems = [], []
    for number, named in enumerate(request.models):
        try:
            found.append(_named(session, named))
        except UserError as error:
            problems.append(f"models.{number}: {error}")
    if problems:
        raise UserError("\n".join(problems))
    return _apart(found)


def _apart(found: Sequence[Model]) -> list[Model]:
    """Models with names of their own: the second of a name, such as a run of the same name in another folder, gets a number."""
    names = [model.name for model in found]
    before = [names[:place].count(name) for place, name in enumerate(names)]
    return [
        replace(model, name=f"{model.name}-{many + 1}") if many else model for model, many in zip(found, before, strict=True)
    ]


def _named(session: Session, named: Named) -> Model:
    if named.kind == "file":
        return _file(session, Path(named.file).expanduser())
    if named.kind == "run":
        path = Run.from_folder(named.run).path
        if named.student:
            return _student(session, path, named.student)
        return _adapted(_session(session, load_recipe(path / "recipe.yaml"), path), slug(path.name), path.name)
    if named.kind == "recipe":
        recipe = load_recipe(named.recipe)
        return _as_it_comes(_session(session, recipe), slug(f"{recipe.name} {short(recipe.model.checkpoint)}"))
    if named.checkpoint == session.recipe.model.checkpoint:
        return _as_it_comes(session, "zero-shot")
    raw = override(session.recipe.model_dump(mode="json"), [f"model.checkpoint={named.checkpoint!r}"])
    return _as_it_comes(_session(session, validate(raw)), slug(named.checkpoint))


def _session(beside: Session, recipe: Recipe, path: Path | None = None) -> Session:
    """Another recipe at work; processes of one machine have one precision."""
    train = recipe.train.model_copy(update={"precision": beside.recipe.train.precision})
    session = Session(recipe.model_copy(update={"train": train, "tracker": "none"}))
    if path:
        session.run = Run(path, session.processes.main, session.processes.share)
    return session


def _as_it_comes(session: Session, name: str) -> Model:
    checkpoint = session.recipe.model.checkpoint
    made = _without_words(lineage.model(session))
    return Model(name, short(checkpoint), "checkpoint", session, made, lambda: _family(session.as_it_comes()), checkpoint)


def _adapted(session: Session, name: str, run: str = "") -> Model:
    title = f"{short(session.recipe.model.checkpoint)} + {session.recipe.method.title}" + (f" ({run})" if run else "")
    made = _without_words(lineage.adapted(session))
    return Model(name, title, "run", session, made, lambda: _family(kept.adapted(session), session.labels))


def _without_words(made: dict[str, Any]) -> dict[str, Any]:
    """Each set has words of its own."""
    return {name: value for name, value in made.items() if name != "words"}


def _family(family, labels: Sequence[str] = ()) -> Opened:
    """One that finds objects by their names has no logits, and is told those of each set."""
    closed = family.own_classes_alone and any(name in LOGITS for name in family.predictors(None))
    own = labels if labels and closed else None
    return Opened(family, own, None)


def _student(session: Session, path: Path, name: str) -> Model:
    from adapt.students import open_student

    folder = path / "student" / name

    def opened() -> Opened:
        student = open_student(session.processes.fetched(folder)).to(session.accelerator.device)
        return Opened(student, student.classes or None, None, told=False)

    made = {"student": session.processes.share(hash_path(folder) if session.processes.main else None)}
    return Model(slug(f"{path.name} {name}"), f"{name} ({path.name})", "student", session, made, opened)


def _file(session: Session, path: Path) -> Model:
    def opened() -> Opened:
        answerer = answerers.of_file(path)
        precision = "int8" if ".int8" in path.suffixes else "fp32"
        return Opened(File(answerer), answerer.names or None, path.stat().st_size, told=False, precision=precision)

    parts = [part for part in path.parts if part not in ("runs", "export", path.anchor)][-4:]
    return Model(slug(" ".join(parts)), "/".join(parts[-3:]), "file", session, {"file": hash_path(path)}, opened)


def slug(text: str) -> str:
    """A name for a folder."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", text.removeprefix("open_clip:")).strip("-.")


def short(checkpoint: str) -> str:
    """A checkpoint as tables call it: without who published it."""
    if checkpoint.startswith("open_clip:"):
        return checkpoint.removeprefix("open_clip:").replace("/", " ")
    return checkpoint.rstrip("/").rpartition("/")[2]


# ----------------------------------------------------------------------------------------------------------------- what it costs


def costs(model: Model, opened: Opened, rows) -> dict[str, Any]:
    """Parameters, milliseconds for a picture at a time on one thread, and bytes; none where it is not known.

    A family's adapters are merged, as they would be on a device: it is asked nothing afterwards.

    Args:
        rows: a data set with `image`.
    """
    import torch

    from adapt.export.bench import compare
    from adapt.verbs.export import merge, one_thread

    module, parameters, size = opened.module, None, opened.bytes
    if model.kind in ("checkpoint", "run"):
        merge(module)
    if model.kind != "file":
        own = list(module.parameters())
        parameters, size = sum(each.numel() for each in own), sum(each.numel() * each.element_size() for each in own)
    have = module.predictors(None)
    name = next((name for name in ("image_embedding", "class_logits") if name in have and have[name].takes == "images"), None)
    milliseconds = None
    if name:
        view = module.preprocess(rows[0], False)["image"][None]

        def once(images: Any) -> Any:
            with model.session.accelerator.autocast(), torch.inference_mode():
                return have[name](images.to(model.session.accelerator.device).float()).cpu()

        with one_thread():
            milliseconds = round(compare({name: once}, view, SECONDS)[name]["p50_ms"], 3)
    return {"parameters": parameters, "milliseconds": milliseconds, "bytes": size}
