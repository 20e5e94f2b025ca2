"""What each result of a run is made of: the records by which a kept one is used again, made again, or refused.

Each function takes a `Stage` and returns a record of contents and of the settings that matter, for `provenance.changed`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import plug
from adapt.plug import Spec, settings
from adapt.provenance import hash_path, of

if TYPE_CHECKING:
    from adapt.verbs.session import Stage

NO_RESULT = frozenset({"name", "cache", "batch", "budget", "keep"})
"""Options of an objective that change neither what its teacher says nor the student that comes of it."""
DRAWN = frozenset({"pictures", "bootstrap", "split"})
"""Options of an eval that do not change by what weights are chosen."""


def model(stage: Stage) -> dict[str, Any]:
    """The model as it comes: base weights, settings, words."""
    config = stage.recipe.model
    own = {name: value for name, value in settings(config).items() if name not in ("name", "checkpoint")}
    words = {name: of(texts) for name, texts in stage.words.items()}
    method = stage.recipe.method
    placed = {"method": settings(method)} if plug.load("methods", method.name).PLACES else {}  # it rounds what it places
    return {"base": _content(stage.base), "model": own | files(config), "words": words} | placed


def adapted(stage: Stage) -> dict[str, Any]:
    """The model with the run's adapter."""
    return model(stage) | {"adapter": stage.hash("adapter"), "method": settings(stage.recipe.method)}


def adapter(stage: Stage) -> dict[str, Any]:
    """What a training learns from, but for the settings, which name the run folder."""
    splits = ("train", "validation") if stage.selects else ("train",)
    return model(stage) | {"data": {split: stage.fingerprints[split] for split in splits}}


def teacher(stage: Stage) -> dict[str, Any]:
    """Who teaches."""
    return adapted(stage) if stage.recipe.distill.teacher == "adapted" else model(stage)


def answers(stage: Stage, predictor: str, views: int, augmentation: Spec | None) -> dict[str, Any]:
    """A teacher's outputs for views of the training pictures."""
    seen = {"views": views, "augment": settings(augmentation) if augmentation else None, "seed": stage.recipe.seed}
    made = {"objective": stage.recipe.distill.version, "predictor": predictor, "precision": stage.precision}
    return {"teacher": teacher(stage), "data": taught(stage)} | made | seen


def features(stage: Stage) -> dict[str, Any]:
    """A frozen encoder's features of the training pictures."""
    made = {"method": settings(stage.recipe.method), "precision": stage.precision}
    return {"model": model(stage), "data": {"train": stage.fingerprints["train"]}} | made


def labels(stage: Stage) -> dict[str, Any]:
    """A teacher's labels of the training pictures."""
    config = stage.recipe.distill
    chosen = {name: value for name, value in settings(config).items() if name in config.labelled_by}
    made = {"objective": config.version, "precision": stage.precision, "others": others(stage)}
    return {"teacher": teacher(stage), "data": taught(stage), "options": chosen} | made


def taught(stage: Stage) -> dict[str, str]:
    """The pictures that a student learns from."""
    return {split: stage.fingerprints[split] for split in ("train", "unlabelled") if split in stage.data}


def others(stage: Stage) -> dict[str, str]:
    """The weights of the models that an objective asks beside the teacher."""
    from adapt.models.checkpoint import origin

    return {checkpoint: _content(origin(checkpoint)) for checkpoint in stage.recipe.distill.others}


def student(stage: Stage) -> dict[str, Any]:
    """A student: its teacher, its pictures, its start, and the options that it was taught with."""
    config = stage.recipe.distill
    own = {name: value for name, value in settings(config).items() if name not in NO_RESULT}
    splits = taught(stage) | ({"validation": stage.fingerprints["validation"]} if stage.selects else {})
    made = {"options": own | {"name": config.name, "seed": stage.recipe.seed}, "start": start(stage), "others": others(stage)}
    return {"teacher": teacher(stage), "data": splits, "precision": stage.precision} | made


def start(stage: Stage) -> str | None:
    """The content of the file that a student starts from, if the recipe names one; none where it is out of reach by now."""
    from adapt.students.cnn import origin

    config = stage.recipe.distill
    named = isinstance(config.pretrained, str) and config.pretrained != "auto"
    return origin(config.student, config.pretrained) if named else None


def entry(stage: Stage, name: str, file: str | None = None) -> dict[str, Any]:
    """The numbers of one row: what was asked, on which data, of what.

    Args:
        file: of an exported student, its path in the run folder.
    """
    made: dict[str, Any] = {"evals": {config.name: measured(config) for config in stage.recipe.evals}}
    splits = {split for config in stage.recipe.evals for split in read(config)}
    made |= {"data": {split: stage.fingerprints.get(split) for split in sorted(splits)}, "precision": stage.precision}
    made |= {"source": {"version": _version(plug.load("data", stage.recipe.data.source))}}
    if name == "zero-shot":
        return made | model(stage)
    if name in ("adapted", "merged"):
        return made | adapted(stage) | ({"merged": stage.hash("merged")} if name == "merged" else {})
    if name == stage.student_entry("labels"):
        return made | {"labels": labels(stage)}
    made |= {"student": stage.hash(f"student/{stage.called}"), "words": {key: of(texts) for key, texts in stage.words.items()}}
    return made | ({"file": stage.hash(file)} if file else {})


def validation(stage: Stage, name: str) -> dict[str, Any]:
    """The score by which weights are chosen, of the model as it comes or of the adapted one."""
    made = {
        "selection": selection(stage.recipe.evals[0]),
        "data": {"validation": stage.fingerprints["validation"]},
        "precision": stage.precision,
    }
    return made | (adapted(stage) if name == "adapted" else model(stage))


def measured(config: Spec) -> dict[str, Any]:
    """An eval as an entry depends on it: its options, and the version of its definition."""
    return settings(config) | {"version": _version(plug.load("evals", config.name))}


def read(config: Spec) -> list[str]:
    """The splits that an eval reads."""
    return [value for name, value in config if name in ("split", "bank_split")]


def selection(config: Spec) -> str:
    """By what weights are chosen on the validation split: eval, metric, and a digest of its options and definition."""
    module = plug.load("evals", config.name)
    own = {name: value for name, value in measured(config).items() if name not in DRAWN}
    return f"{config.name} {module.MAIN} on validation ({of(own)[:8]})"


def files(config: Spec) -> dict[str, str]:
    """The contents of the files that a section names beside its checkpoint."""
    named = {
        name: value for name, value in config if isinstance(value, str) and name != "checkpoint" and {"/", "."} & set(value)
    }
    paths = {name: Path(value).expanduser() for name, value in named.items()}
    return {f"{name} file": hash_path(path) for name, path in paths.items() if path.is_file()}


def _content(origin: dict[str, str]) -> str:
    return origin.get("hash") or origin["commit"]


def _version(module) -> int:
    return module.VERSION
