"""Figures of the literature, to stand beside ours: `published/suites.yaml`, each with its source and what is known of its protocol.

    figures = beside("openai/clip-vit-base-patch32", "imagenet1k", "top1")
    figures[0].value, figures[0].where            # 0.6333, 'LAION-AI/CLIP_benchmark (MIT) at …'
    remark(figures[0], ours={"words": "coop", "precision": "fp32"})   # 'published 63.3 (words: clip against coop; precision not said)'

What a source does not say of its protocol is not known, and a cell says that too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import Field, ValidationError

from adapt.measures import METRICS
from adapt.mistakes import explain
from adapt.overrides import parse_yaml
from adapt.plug import Spec, UserError
from adapt.recipe import Recipe, find, read_text

PROTOCOL = ("words", "resize", "interpolation", "precision", "ties")
"""What two numbers for one set and metric must share, as far as sources say it."""


class Source(Spec):
    """Where figures were read."""

    where: str = Field(min_length=1)
    """Repository or paper, licence, file or table, and its state."""
    protocol: dict[str, str] = {}
    """What it says of how it measured, by the words of `PROTOCOL`."""
    notes: str = ""
    """What a reader should know."""


class Model(Spec):
    """A model of the literature."""

    title: str
    """How tables call it."""
    checkpoints: list[str] = Field(min_length=1)
    """What `model.checkpoint` may be for it."""


class Block(Spec):
    """Figures of one model from one source."""

    source: str
    """A key of `sources`."""
    model: str
    """A key of `models`."""
    sets: dict[str, dict[str, float]]
    """Set → metric → value, a fraction."""


class File(Spec):
    """A file of figures."""

    sources: dict[str, Source]
    """Name → source."""
    models: dict[str, Model]
    """Name → model."""
    figures: list[Block]
    """The figures."""


@dataclass(frozen=True)
class Figure:
    """A number of the literature."""

    model: str
    """The model's name in the file."""
    set: str
    """The set's name in suites."""
    metric: str
    """A name of `measures.METRICS`."""
    value: float
    """A fraction."""
    source: str
    """The source's name in the file."""
    where: str
    """Where it was read."""
    protocol: Mapping[str, str]
    """What the source says of how it measured."""
    notes: str
    """What a reader should know of the source."""


APART = 0.01
"""Sources that differ by more than this disagree."""


@cache
def figures(name: str = "suites") -> tuple[Figure, ...]:
    """All figures of a file of `published/`, by name or path.

    Raises:
        UserError: every problem of the file, one a line.
    """
    path = find("published", name)
    raw = parse_yaml(read_text(path, "published"), str(path))
    try:
        file = File.model_validate(raw)
    except ValidationError as error:
        raise UserError("\n".join(f"{path}: {line}" for line in explain(error, "", File, Recipe, {}))) from None
    found, problems = [], []
    for number, block in enumerate(file.figures):
        lacking = [
            f"{path}: figures.{number}.{key}: there is no {value!r} among {key}s."
            for key, value, have in (("source", block.source, file.sources), ("model", block.model, file.models))
            if value not in have
        ]
        if lacking:
            problems += lacking
            continue
        source = file.sources[block.source]
        for place, values in block.sets.items():
            for metric, value in values.items():
                if metric not in METRICS:
                    problems.append(f"{path}: figures.{number}.sets.{place}: there is no metric {metric!r}.")
                facts = (source.where, source.protocol, source.notes)
                found.append(Figure(block.model, place, metric, value, block.source, *facts))
    if problems:
        raise UserError("\n".join(problems))
    return tuple(found)


@cache
def model(checkpoint: str, name: str = "suites") -> str | None:
    """The name of the model that a checkpoint is, if the file has it."""
    path = find("published", name)
    models = parse_yaml(read_text(path, "published"), str(path))["models"]
    return next((each for each, facts in models.items() if checkpoint in facts["checkpoints"]), None)


def beside(checkpoint: str, place: str, metric: str, name: str = "suites") -> list[Figure]:
    """What the literature has for a checkpoint on a set; several, where several sources measured it.

    Args:
        checkpoint: as `model.checkpoint` has it: a hub id, or `open_clip:ARCH/PRETRAINED`.
        place: the set's name in suites.
        metric: a name of `measures.METRICS`.
    """
    wanted = model(checkpoint, name)
    return [each for each in figures(name) if wanted and (each.model, each.set, each.metric) == (wanted, place, metric)]


def rivals(figure: Figure, name: str = "suites") -> list[Figure]:
    """Figures of other sources for the same model, set and metric that are more than a point away."""
    key = (figure.model, figure.set, figure.metric)
    same = [each for each in figures(name) if (each.model, each.set, each.metric) == key]
    return [each for each in same if abs(each.value - figure.value) > APART]


def differences(figure: Figure, ours: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """In what the protocols differ, `precision: fp32 against bf16`; and of what the source says nothing, though we know ours."""
    known = [key for key in PROTOCOL if key in ours]
    differing = [
        f"{key}: {figure.protocol[key]} against {ours[key]}"
        for key in known
        if figure.protocol.get(key, ours[key]) != ours[key]
    ]
    return differing, [key for key in known if key not in figure.protocol]


def percent(figure: Figure) -> str:
    """The value as tables show it: 63.3."""
    return f"{100 * figure.value:.1f}"


def remark(figure: Figure, ours: Mapping[str, Any], name: str = "suites") -> str:
    """A cell of a table: the published value, and what to know before it is compared."""
    differing, silent = differences(figure, ours)
    said = [
        *differing,
        *([f"{', '.join(silent)} not said"] if silent else []),
        *(f"{each.source} has {percent(each)}" for each in rivals(figure, name)),
    ]
    return f"published {percent(figure)}" + (f" ({'; '.join(said)})" if said else "")
