"""What `adapt shots` is asked for, as it is typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapt.contracts import MethodConfig
from adapt.mistakes import explain
from adapt.overrides import parse_yaml, taken
from adapt.plug import UserError, names, nearest, schema
from adapt.recipe import Recipe

HELP = """adapt shots recipe=NAME|FILE.yaml [key=value …]

  shots=1,2,4,8,16  labelled pictures a class
  seeds=3           draws of them, each with a training of its own
  methods=A,B,C     zero-shot, and methods such as linear_text, tip_adapter,
                    prolip, coop, vpt, lora, full, head; with options:
                    methods='[linear_text, {name: lora, rank: 4}]'
  cap=100           at most so many optimiser steps in each training
  stop=false        what was trained counts, even where it was no better than
                    zero-shot on validation; by default zero-shot stays then,
                    and the table counts how often
  base_to_new=true  learn the first half of the classes; measure both halves,
                    each among its own classes, and the harmonic mean (CoCoOp)
  splits=FILE.jsonl the pictures of each draw, in place of drawing them

The recipe's own method keeps the recipe's options and training. Others take
their papers', with the recipe's augmentation. What you type holds for all:
train.epochs=20. The weights and options of a method are chosen on at most
min(shots, 4) validation pictures a class, never on the test split.

A file of draws has a JSON object on each line, such as
  {"set": "train", "shots": 4, "seed": 1, "ids": ["cat/1.jpg", "dog/7.jpg"]}
  {"set": "validation", "shots": 4, "seed": 1, "ids": ["cat/9.jpg"]}
with the ids of the data; other keys are passed over. The draws of each run
are written in this format, to shots/samples.jsonl in its folder.

A killed sweep goes on with the same command: no finished cell is done twice."""
OWN = ("shots", "seeds", "methods", "cap", "stop", "base_to_new", "splits")
ZERO_SHOT = "zero-shot"
CACHED = ("linear_text", "tip_adapter", "prolip")
"""Methods that learn in seconds from features: what is compared where nobody names others."""
MOST = 1000
"""Seeds and shots, at most: a slip of the finger is no plan."""


@dataclass(frozen=True)
class Request:
    """What is asked for, beside the recipe."""

    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Labelled pictures a class."""
    seeds: int = 3
    """Draws of them."""
    methods: tuple[str | MethodConfig, ...] = (ZERO_SHOT, *CACHED)
    """Names of methods; or their sections, with options."""
    cap: int | None = None
    """Optimiser steps of each training, at most."""
    stop: bool = True
    """Does zero-shot stay where a training was no better on validation?"""
    base_to_new: bool = False
    """Learn the first half of the classes, and measure both halves."""
    splits: str | None = None
    """A file of draws, see `HELP`."""
    train: tuple[str, ...] = ()
    """Overrides of `train` that hold for every method, such as `train.epochs=20`."""

    def __post_init__(self) -> None:
        for name, values, example in (("shots", self.shots, "shots=1,2,4"), ("seeds", [self.seeds], "seeds=3")):
            for value in values:
                _count(name, str(value), example)
        if twice := next((value for i, value in enumerate(self.shots) if value in self.shots[:i]), None):
            raise UserError(f"shots: {twice} is in the list twice. Name each number once.")
        _names(self.methods)


def parse(arguments: list[str]) -> Request:
    """Take the verb's own arguments out of the others, which are those of a recipe.

    Raises:
        UserError: one is repeated, or not what it takes.
    """
    given = taken(arguments, OWN)
    for argument in arguments:
        name = argument.partition("=")[0]
        if "=" in argument and "." not in name and name not in (*Recipe.model_fields, "recipe", "run"):
            raise UserError(
                f"{name}: shots has no option of this name.{nearest(name, OWN)} Or a path into the recipe, such as train.epochs."
            )
    read = {"shots": _shots, "seeds": _seeds, "methods": _methods, "cap": _cap, "stop": _switch, "base_to_new": _switch}
    found: dict[str, Any] = {name: read[name](name, text) for name, text in given.items() if name in read}
    if "splits" in given:
        found["splits"] = _file(given["splits"])
    return Request(**found, train=tuple(one for one in arguments if one.partition("=")[0].partition(".")[0] == "train"))


def _shots(name: str, text: str) -> tuple[int, ...]:
    return tuple(sorted(_count(name, part, "shots=1,2,4") for part in text.strip("[]").split(",")))


def _seeds(name: str, text: str) -> int:
    return _count(name, text, "seeds=3")


def _cap(name: str, text: str) -> int:
    return _count(name, text, "cap=100", 10**9)


def _count(name: str, text: str, example: str, most: int = MOST) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= most:
        raise UserError(f"{name}: {text.strip()!r} is not a number from 1 to {most}. Write, for example, {example}.")
    return value


def _switch(name: str, text: str) -> bool:
    if text not in ("true", "false"):
        raise UserError(f"{name}: {text!r} is not true or false.")
    return text == "true"


def _file(text: str) -> str:
    path = Path(text).expanduser()
    if not path.is_file():
        raise UserError(f"splits: no file {text!r}. It has a JSON object on each line; adapt help shots shows it.")
    return str(path)


def _methods(name: str, text: str) -> tuple[str | MethodConfig, ...]:
    """Names, or a list in YAML of names and sections."""
    items = parse_yaml(text, name) if text.lstrip().startswith("[") else text.split(",")
    return tuple(_section(item, i) if isinstance(item, dict) else str(item).strip() for i, item in enumerate(items))


def _section(item: dict[str, Any], number: int) -> MethodConfig:
    """A method with options."""
    _names([str(item.get("name"))])
    config = schema("methods", item["name"])
    try:
        return config.model_validate(item)
    except ValidationError as error:
        raise UserError("\n".join(explain(error, f"methods.{number}", config, Recipe, {"methods": [item]}))) from None


def _names(methods: Sequence[str | MethodConfig]) -> None:
    """Is each a method, and none there twice?"""
    have = [ZERO_SHOT, *names("methods")]
    said = [called(method) for method in methods]
    for i, name in enumerate(said):
        if name not in have:
            raise UserError(f"methods: there is no method {name!r}.{nearest(name, have)}")
        if name in said[:i]:
            raise UserError(f"methods: {name!r} is in the list twice. Name it once, and run the verb again for other options.")
    if not said:
        raise UserError(f"methods: none is named. Write, for example, methods={','.join((ZERO_SHOT, *CACHED))}.")


def called(method: str | MethodConfig) -> str:
    """A method's name."""
    return method if isinstance(method, str) else method.name
