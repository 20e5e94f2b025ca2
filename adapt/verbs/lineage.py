"""What each result of a run is made of: the records by which a kept one is used again, made again, or refused.

Each function takes a session and returns a record of contents and of the settings that matter, for `provenance.changed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.plug import Spec, UserError, settings
from adapt.provenance import hash_path, of

if TYPE_CHECKING:
    from adapt.verbs.session import Session

NO_RESULT = frozenset({"name", "cache", "batch", "budget", "keep"})
"""Options of an objective that change neither what its teacher says nor the student that comes of it."""
DRAWN = frozenset({"pictures", "bootstrap", "split"})
"""Options of an eval that do not change by what weights are chosen."""


def model(session: Session) -> dict[str, Any]:
    """The model as it comes: base weights, settings, words."""
    config = session.recipe.model
    own = {name: value for name, value in settings(config).items() if name not in ("name", "checkpoint")}
    words = {name: of(texts) for name, texts in session.words.items()}
    method = session.recipe.method
    placed = {"method": settings(method)} if method.places else {}  # it rounds what it places
    return {"base": _content(session.base), "model": own | files(config), "words": words} | placed


def adapted(session: Session) -> dict[str, Any]:
    """The model with the run's adapter."""
    return model(session) | {"adapter": session.hash("adapter"), "method": settings(session.recipe.method)}


def adapter(session: Session) -> dict[str, Any]:
    """What a training learns from, but for the settings, which name the run folder."""
    searches = session.recipe.method.searches and "validation" in session.data
    splits = ("train", "validation") if session.selects or searches else ("train",)
    return model(session) | {"data": {split: session.fingerprints[split] for split in splits}}


def teacher(session: Session) -> dict[str, Any]:
    """Who teaches."""
    return adapted(session) if session.recipe.distill.teacher == "adapted" else model(session)


def answers(session: Session, predictor: str, views: int, augmentation: Spec | None) -> dict[str, Any]:
    """A teacher's outputs for views of the training pictures."""
    seen = {"views": views, "augment": settings(augmentation) if augmentation else None, "seed": session.recipe.seed}
    made = {"objective": session.recipe.distill.version, "predictor": predictor, "precision": session.precision}
    return {"teacher": teacher(session), "data": taught(session)} | made | seen


def features(session: Session, split: str = "train", views: int = 0) -> dict[str, Any]:
    """A frozen encoder's features of a split's pictures, or of random views of them."""
    recipe = session.recipe
    seen = {"views": views, "augment": settings(recipe.train.augment), "seed": recipe.seed} if views else {}
    made = {"method": settings(recipe.method), "precision": session.precision}
    return {"model": model(session), "data": {split: session.fingerprints[split]}} | made | seen


def labels(session: Session) -> dict[str, Any]:
    """A teacher's labels of the training pictures."""
    config = session.recipe.distill
    chosen = {name: value for name, value in settings(config).items() if name in config.labelled_by}
    made = {"objective": config.version, "precision": session.precision, "others": others(session)}
    return {"teacher": teacher(session), "data": taught(session), "options": chosen} | made


def taught(session: Session) -> dict[str, str]:
    """The pictures that a student learns from."""
    splits = ("train",) if session.recipe.distill.from_labels else ("train", "unlabelled")
    return {split: session.fingerprints[split] for split in splits if split in session.data}


def others(session: Session) -> dict[str, str]:
    """The weights of the models that an objective asks beside the teacher."""
    return _weights(session.recipe.distill.others)


def beside(evals: Sequence[Spec]) -> dict[str, Any]:
    """The weights of the models that evals ask beside the measured one, where they ask any.

    Raises:
        UserError: there is no such checkpoint.
    """
    named = dict.fromkeys(checkpoint for config in evals for checkpoint in config.others)
    try:
        return {"beside": _weights(named)} if named else {}
    except UserError as error:
        raise UserError(str(error).replace("model.checkpoint", "evals", 1)) from None


def student(session: Session) -> dict[str, Any]:
    """A student: its teacher, its pictures, its start, and the options that it was taught with."""
    config = session.recipe.distill
    own = {name: value for name, value in settings(config).items() if name not in NO_RESULT}
    splits = taught(session) | ({"validation": session.fingerprints["validation"]} if session.selects else {})
    made = {
        "options": own | {"name": config.name, "seed": session.recipe.seed},
        "start": start(session),
        "others": others(session),
    }
    return {"teacher": teacher(session), "data": splits, "precision": session.precision} | made


def start(session: Session) -> str | None:
    """The content of the file that a student starts from, if the recipe names one; none where it is out of reach by now."""
    from adapt.students.cnn import origin

    config = session.recipe.distill
    named = isinstance(config.pretrained, str) and config.pretrained != "auto"
    return origin(config.student, config.pretrained) if named else None


def entry(session: Session, name: str, file: str | None = None) -> dict[str, Any]:
    """The numbers of one row: what was asked, on which data, of what.

    Args:
        file: of an exported student, its path in the run folder.
    """
    made: dict[str, Any] = {"evals": {config.name: measured(config) for config in session.recipe.evals}}
    splits = {split for config in session.recipe.evals for split in read(config)}
    made |= {"data": {split: session.fingerprints.get(split) for split in sorted(splits)}, "precision": session.precision}
    made |= {"source": {"version": session.recipe.data.version}} | beside(session.recipe.evals)
    if name == "zero-shot":
        return made | model(session)
    if name in ("adapted", "merged"):
        return made | adapted(session) | ({"merged": session.hash("merged")} if name == "merged" else {})
    if name == session.student_entry("labels"):
        return made | {"labels": labels(session)}
    made |= {
        "student": session.hash(f"student/{session.called}"),
        "words": {key: of(texts) for key, texts in session.words.items()},
    }
    return made | ({"file": session.hash(file)} if file else {})


def canary(session: Session, name: str, sets: list) -> dict[str, Any]:
    """The score on the canary of the model as it comes, the adapted or the merged one.

    Args:
        sets: the canary's, see `guests.guests`.
    """
    told = {
        each.called: {
            "evals": [measured(config) | {"name": config.name} for config in each.evals],
            "data": each.fingerprints,
            "words": of(each.words),
            "version": each.source.version,
        }
        for each in sets
    }
    made = {"sets": told, "precision": session.precision} | beside([config for each in sets for config in each.evals])
    made |= model(session) if name == "zero-shot" else adapted(session)
    return made | ({"merged": session.hash("merged")} if name == "merged" else {})


def validation(session: Session, name: str) -> dict[str, Any]:
    """The score by which weights are chosen, of the model as it comes or of the adapted one."""
    made = {
        "selection": selection(session.recipe.evals[0]),
        "data": {"validation": session.fingerprints["validation"]},
        "precision": session.precision,
    } | beside(session.recipe.evals[:1])
    return made | (adapted(session) if name == "adapted" else model(session))


def measured(config: Spec) -> dict[str, Any]:
    """An eval as an entry depends on it: its options, and the version of its definition."""
    return settings(config) | {"version": config.version}


def read(config: Spec) -> list[str]:
    """The splits that an eval reads."""
    return [config.split, *([config.bank] if config.bank else [])]


def selection(config: Spec) -> str:
    """By what weights are chosen on the validation split: eval, metric, and a digest of its options and definition."""
    own = {name: value for name, value in measured(config).items() if name not in DRAWN}
    return f"{config.name} {config.main} on validation ({of(own)[:8]})"


def files(config: Spec) -> dict[str, str]:
    """The contents of the files that a section names beside its checkpoint."""
    named = {
        name: value for name, value in config if isinstance(value, str) and name != "checkpoint" and {"/", "."} & set(value)
    }
    paths = {name: Path(value).expanduser() for name, value in named.items()}
    return {f"{name} file": hash_path(path) for name, path in paths.items() if path.is_file()}


def _weights(checkpoints: Iterable[str]) -> dict[str, str]:
    """Checkpoint → what its weights are."""
    from adapt.models.checkpoint import origin

    return {checkpoint: _content(origin(checkpoint)) for checkpoint in checkpoints}


def _content(origin: dict[str, str]) -> str:
    return origin.get("hash") or origin["commit"]
