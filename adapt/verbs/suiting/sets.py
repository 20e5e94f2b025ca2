"""The sets of a suite at work: where each lies, and what can be known of it before a picture is encoded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt import plug
from adapt.contracts import EvalConfig, SourceConfig
from adapt.measures import LABELS, METRICS
from adapt.plug import UserError, counted
from adapt.recipe import Prompts
from adapt.report.protocol import resized
from adapt.suite import Set, configs
from adapt.verbs.guests import Guest

if TYPE_CHECKING:
    from adapt.verbs.session import Session

COLUMNS = {
    "class": ("label",),
    "classes": ("labels",),
    "captions": ("caption",),
    "choice": ("caption",),
    "pairs": ("caption", "pair"),
    "cues": ("caption", "cue", "associated"),
    "objects": ("objects",),
    "maps": ("segmentation or objects",),
}
"""Kind of labels → the columns of rows that are labelled so."""
WORDED = ("class", "classes", "maps")
"""Kinds of labels that classes are asked about by their words."""

TEXTS = ("captions", "choice", "pairs", "cues")
"""Kinds of labels that bring their own texts."""

OF_HUB = ("hub", "winoground", "winogavil")
"""Sources that fetch what is not here."""


def guest(session: Session, one: Set, tree: Path | None) -> Guest:
    """A set beside the session's model; nothing is read yet.

    Raises:
        UserError: it is in no place that can be known, or no eval gives its metric.
    """
    evals = configs(one)
    main_of(one, evals)
    if why := missing(one, tree):
        raise UserError(why)
    place = source(one, tree, any(config.bank for config in evals))
    made = Guest(session, "", one.name, place, evals, lambda labels: _prompts(session, one, place, labels))
    if one.labels in TEXTS:
        made.labels = []  # it is asked about texts, whatever objects its pictures show
    return made


def fetched(one: Set, tree: Path | None) -> bool:
    """Is it fetched from the hub? Then it is looked at in its turn, not before: a suite may be larger than a disk's patience."""
    return tree is None and one.hub is not None


def main_of(one: Set, evals: list[EvalConfig]) -> EvalConfig:
    """The eval that gives the metric of the literature.

    Raises:
        UserError: none does.
    """
    found = next((config for config in evals if where(one.metric, config)), None)
    if found is None:
        raise UserError(f"metric: no eval of this set gives {one.metric!r}.")
    return found


def where(metric: str, config: EvalConfig) -> str | None:
    """The key of a metric in the result of an eval; none: it does not give it."""
    known = METRICS.get(metric)
    if known is None:
        return metric if metric == config.main else None
    return (known.key or metric) if known.eval == config.name else None


def source(one: Set, tree: Path | None, banked: bool = False) -> SourceConfig | None:
    """Where a set's rows are read from; none: the recipe's own data.

    Args:
        banked: does an eval learn from labelled pictures of another split?

    Raises:
        UserError: it is in no place that can be known, or has labels that its layout has not.
    """
    if one.place is None:
        return _of_hub(one.data, tree) if one.data and one.data.source in OF_HUB and tree else one.data
    if tree is None and one.hub is None:
        raise UserError(f"data.path: missing. This set is the folder {one.place!r} in the tree of sets: write data.path=TREE.")
    if one.labels not in ("class", "classes", "captions", "choice"):
        raise UserError(f"labels: the published layout has no {LABELS[one.labels]}. Name a source with data.")
    path = str(tree / one.place) if tree else one.hub
    given = {"source": "clip_benchmark", "path": path, "split": one.split, "labels": one.labels, "group": one.group}
    given |= {"train": True} if banked else {}
    return plug.schema("data", "clip_benchmark").model_validate(given)


def missing(one: Set, tree: Path | None) -> str:
    """Why a set is not in the tree, and how it is fetched; empty: it is there, or lies elsewhere."""
    if tree is None or one.place is None or (tree / one.place).is_dir():
        return ""
    folder = str(tree / one.place)
    other = "Write data.path=TREE, the folder that has it."
    fetch = f"Fetch it: hf download {one.hub} --repo-type dataset --local-dir {folder}" if one.hub else other
    return f"data.path: there is no folder {folder!r}. {fetch}"


def _of_hub(data: SourceConfig, tree: Path) -> SourceConfig:
    """The folder of the last part of its path in the tree, where it lies there, as those of the published layout do; else as it is."""
    path = Path(data.values()["path"]).expanduser()
    here = tree / path.name
    return data.model_copy(update={"path": str(here)}) if here.exists() and not path.exists() else data


def _prompts(session: Session, one: Set, source: SourceConfig | None, labels: list[str]) -> Prompts:
    """Its words: its own, those that lie beside the data, or the recipe's."""
    recipe = session.recipe.prompts
    if one.prompts is None and source is None:
        return recipe
    templates: list[str] = []
    if one.place and one.prompts is None:
        templates = plug.load("data", "clip_benchmark").beside(source.path).templates
    told = one.told(labels, templates)
    return told if one.prompts or templates else told.model_copy(update={"templates": recipe.templates})


def look(one: Set, guest: Guest) -> list[str]:
    """Read what the set says of itself, and hold it against its metric and words.

    Returns:
        sentences on what differs from what the suite expects.

    Raises:
        UserError: it cannot be measured.
    """
    if guest.source:
        guest.source.check_paths()
    for name in dict.fromkeys(split for config in guest.evals for split in filter(None, (config.split, config.bank))):
        if name not in guest.data:
            raise UserError(f"split: there is no {name!r} in the data. Have: {', '.join(guest.data)}.")
        if not len(guest.data[name]):
            raise UserError(f"split: {name!r} is empty.")
    rows = guest.data[one.split]
    wanted = [*COLUMNS[one.labels], *(["group"] if one.group else [])]
    if lacking := [name for name in wanted if not {*name.split(" or ")} & {*rows.column_names}]:
        raise UserError(
            f"labels: {one.metric} needs {LABELS[one.labels]}, and the data have no column {', '.join(lacking)}. "
            f"Have: {', '.join(rows.column_names)}."
        )
    if one.labels in WORDED:
        if not guest.labels:
            raise UserError("data: these have no names of classes to ask about.")
        _ = guest.words
    found = {"classes": len(guest.labels), "pictures": len(rows)}
    expected = {"classes": one.classes, "pictures": one.pictures}
    return [
        f"{counted(found[name], name.removesuffix('es' if name == 'classes' else 's'))} here, and the suite expects {number:,}."
        for name, number in expected.items()
        if number and number != found[name]
    ]


def protocol(one: Set, guest: Guest, measured: Mapping[str, Any]) -> dict[str, str]:
    """How a number was measured, by the words of `literature.PROTOCOL`.

    Args:
        measured: the number's own protocol.
    """
    seen = measured["input"]
    found = {"resize": resized(seen), "interpolation": seen["interpolation"], "precision": measured["precision"]}
    return found | ({"words": _family(one, guest)} if one.labels in WORDED else {})


def _family(one: Set, guest: Guest) -> str:
    """Whose lists the words are from; those beside data in the published layout are CLIP's."""
    from adapt.prompting.word_lists import family

    prompts = guest.prompts(guest.labels)
    if isinstance(prompts.templates, str):
        return family(prompts.templates) or "own"
    return "clip" if one.place and one.prompts is None else "own"
