"""What `adapt workbench` is asked for, as it is typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from adapt.mistakes import explain
from adapt.overrides import parse_yaml, taken
from adapt.plug import Spec, UserError, nearest
from adapt.prompting.visual import TOKENS, Visual, parse
from adapt.prompting.word_lists import placed, read
from adapt.recipe import Recipe, read_text

HELP = """adapt workbench recipe=NAME|FILE.yaml [key=value …]

  split=train       whose labels are used; half of its pictures choose, the
                    other half confirm
  pictures=400      at most so many of them, drawn by chance
  space=FILE.yaml   what is tried; or typed: space='{drawings: [crop, box]}'
  write=FILE.yaml   where the recipe with the choice is written, in place of
                    workbench/recipe.yaml in the run folder

Data with labels of whole pictures: which class is it? The words are searched.
Data with boxes: which thing is in the box? Words, drawings and subtraction are.
The recipe's own evals, zeroshot or region, say which, where data have both.

What is tried, each key with a list (left out: the default):
  templates   a file of prompts/, a template, or a list of templates that are
              averaged: [emoji, 'a {}', ['a {}', 'an icon of a {}']]; default:
              the recipe's, all, each alone, and each two of five or fewer;
              and five common ones, all and each alone
  classes     lists of class names, as prompts.classes takes them
  combine     mean, similarity, max
  drawings    of a thing in a box: [crop, crop+white, [crop, blur], ellipse]
  expand, line, blur, fit    as in evals.0.visual of region
  subtract    how much of the mean over other boxes is subtracted: [0, 0.5]

A killed search goes on with the same command: what was encoded is kept."""
OWN = ("split", "pictures", "space", "write")
FEWEST, MOST = 16, 1_000_000
"""Pictures: so many can be halved; more nobody labels."""
PLAIN = "a photo of a {}."
"""The plain template that all is compared with."""
COMMON = ("{}", PLAIN, "a {}", "a picture of a {}", "a drawing of a {}")
"""Templates that are tried whatever the recipe's are."""
Text = str | dict[str, str | list[str]] | list[str | list[str]] | None


class Space(Spec):
    """What is tried: the product of these lists, without what differs in nothing."""

    templates: list[str | list[str]] | None = Field(None, min_length=1)
    """Each a file of `prompts/` by name, a template, or templates that are averaged. null: the recipe's own and
    `COMMON`, together, alone, and the recipe's in pairs."""
    classes: list[Text] | None = Field(None, min_length=1)
    """Each as `prompts.classes`. null: the recipe's own."""
    combine: list[Literal["mean", "similarity", "max"]] = Field(["mean", "similarity"], min_length=1)
    """As `prompts.combine`, where a class has several texts."""
    drawings: list[str | list[str]] = Field(
        [
            "crop",
            "crop+white",
            "ellipse",
            "box",
            "contour",
            "blur",
            "grey",
            "white",
            ["crop", "blur"],
            ["crop", "crop+white"],
            ["crop+white", "ellipse"],
        ],
        min_length=1,
    )
    """Each a drawing, or several whose scores are summed."""
    expand: list[Annotated[float, Field(ge=0, le=2)]] = Field([0.01, 0.2], min_length=1)
    """As `visual.expand`, for drawings of the box."""
    line: list[Annotated[float, Field(gt=0, le=20)]] = Field([0.3, 2.0], min_length=1)
    """As `visual.line`, for drawings with lines."""
    blur: list[Annotated[float, Field(gt=0, le=100)]] = Field([16.0, 4.0], min_length=1)
    """As `visual.blur`, for blurred drawings."""
    fit: list[Literal["squash", "pad"]] = Field(["squash", "pad"], min_length=1)
    """As `visual.fit`, for what has another shape than the model's input."""
    subtract: list[Annotated[float, Field(ge=0, le=2)]] = Field([0.0, 0.5, 1.0], min_length=1)
    """How much of the mean score over boxes of other pictures is subtracted, class by class."""

    @field_validator("templates")
    @classmethod
    def _placed(cls, options: list[str | list[str]] | None) -> list[str | list[str]] | None:
        for option in options or []:
            for template in option if isinstance(option, list) else [option]:
                alone = isinstance(option, str) and " " not in template and "{" not in template  # a file's name
                if not alone and placed(template) is None:
                    raise ValueError(f"{template!r} needs exactly one {{}} (or {{c}}), where the class name goes")
            if option == []:
                raise ValueError("a list of templates is empty; use '{}' for the bare class name")
        return options

    @field_validator("drawings")
    @classmethod
    def _known(cls, options: list[str | list[str]]) -> list[str | list[str]]:
        for option in options:
            several = [option] if isinstance(option, str) else option
            for drawing in several:
                if drawing == TOKENS:
                    raise ValueError(f"{TOKENS!r} is no drawing")
                parse(drawing)
            Visual(drawings=several)
        return options


@dataclass(frozen=True)
class Request:
    """What is asked for, beside the recipe."""

    split: str = "train"
    """Whose labels are used."""
    pictures: int = 400
    """How many of them, at most."""
    space: Space = field(default_factory=Space)
    """What is tried."""
    write: str | None = None
    """Where the recipe with the choice is written; none: into the run folder."""


def parse_request(arguments: list[str]) -> Request:
    """Take the verb's own arguments out of the others, which are those of a recipe.

    Raises:
        UserError: one is repeated, or not what it takes.
    """
    given = taken(arguments, OWN)
    found: dict[str, Any] = {name: given[name] for name in ("split", "write") if given.get(name)}
    if "write" in found and not found["write"].endswith((".yaml", ".yml")):
        raise UserError(f"write: {found['write']!r} is no recipe's name: it ends in .yaml.")
    if "pictures" in given:
        found["pictures"] = _pictures(given["pictures"])
    if "space" in given:
        found["space"] = space(given["space"])
    return Request(**found)


def _pictures(text: str) -> int:
    if not text.strip().isdecimal() or not FEWEST <= int(text) <= MOST:
        raise UserError(f"pictures: {text!r} is not a number from {FEWEST} to {MOST:,}. Write, for example, pictures=200.")
    return int(text)


def space(text: str) -> Space:
    """What is tried, from YAML or a YAML file.

    Raises:
        UserError: every problem, one a line.
    """
    if text.lstrip().startswith("{"):
        raw = parse_yaml(text, "space")
    else:
        path = Path(text).expanduser()
        if not path.is_file():
            raise UserError(
                f"space: no file {text!r}. Write a YAML file with lists, or type them: space='{{drawings: [crop, box]}}'."
            )
        raw = parse_yaml(read_text(path, "space"), text)
    if not isinstance(raw, dict):
        raise UserError(f"space: {text!r:.80} is no mapping. Write lists by their keys. Have: {', '.join(Space.model_fields)}.")
    if wrong := next((key for key in raw if key not in Space.model_fields), None):
        raise UserError(f"space: there is no {wrong!r}.{nearest(str(wrong), Space.model_fields)}")
    try:
        found = Space.model_validate(raw)
    except ValidationError as error:
        raise UserError("\n".join(explain(error, "space", Space, Recipe, {"space": raw}))) from None
    for option in found.templates or []:
        if isinstance(option, str) and placed(option) is None:
            read(option, "templates")  # is there such a file?
    return found
