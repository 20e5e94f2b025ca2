"""Figures of the literature on few labels, from `published/few_labels.yaml`: as reported, and as reproduced by others."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from adapt.overrides import parse_yaml
from adapt.plug import Spec
from adapt.recipe import folder, read_text

ARXIV = r"^\d{4}\.\d{4,5}$"


class Figures(Spec):
    """Numbers and where they stand."""

    top1: dict[int | str, float]
    """Shots, or base, new and harmonic → top-1, %."""
    paper: str | None = Field(None, pattern=ARXIV)
    """arXiv number."""
    repository: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    """Owner and name on GitHub."""
    where: str
    """Table, section or file."""
    via: str | None = None
    """Where we read them, if not there."""

    @model_validator(mode="after")
    def _are_percentages(self) -> Figures:
        if not self.top1 or not all(0 < value < 100 for value in self.top1.values()):
            raise ValueError("top1: percentages, above 0 and below 100")
        return self


class Published(Spec):
    """A method on one model."""

    method: str
    """The plug-in of `adapt/methods`, where there is one."""
    title: str
    """As its authors call it."""
    model: str
    """The foundation model."""
    reported: Figures | None = None
    """By its authors."""
    reproduced: Figures | None = None
    """By others."""

    @model_validator(mode="after")
    def _says_something(self) -> Published:
        if self.reported is None and self.reproduced is None:
            raise ValueError("it has neither reported nor reproduced figures")
        return self


class Literature(Spec):
    """The whole file."""

    datasets: list[str]
    """What the figures are averaged over."""
    shots: list[Published]
    """By labelled pictures a class."""
    base_to_new: list[Published]
    """Learnt on half of the classes."""


def path() -> Path:
    """The file."""
    return folder("published") / "few_labels.yaml"


def read() -> Literature:
    """All of it."""
    return Literature.model_validate(parse_yaml(read_text(path(), "published"), str(path())))
