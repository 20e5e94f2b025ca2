"""What `adapt evaluate suite=…` is asked for, as it is typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from adapt.mistakes import explain, short
from adapt.overrides import parse_yaml, taken
from adapt.plug import Spec, UserError, nearest
from adapt.recipe import Recipe, load_recipe
from adapt.run import Run
from adapt.suite import Suite, load_suite

HELP = """adapt evaluate recipe=NAME|FILE.yaml suite=NAME|FILE.yaml [key=value …]

  suite=NAME      measure a list of data sets, each with its words and metric:
                  core, datacomp, robust, retrieval, composition, embedded, sam,
                  dinov2, or a YAML file of yours (see adapt/suite.py)
  data.path=TREE  the folder of sets in the layout of CLIP_benchmark; without it
                  they are fetched from the hub. Sets that name no place are
                  measured on the recipe's own data
  models=[…]      which models, in the place of the recipe's own, as it comes
                  and adapted; changes are against the first:
                    {checkpoint: ID}           another of the same family
                    {recipe: NAME}             another recipe's model
                    {run: runs/R}              a run's adapted model
                    {run: runs/R, student: S}  one of its students
                    {file: model.int8.onnx}    an exported file
                  Students, files and heads answer on sets of their own classes

Words, labels and places are checked before any picture is encoded; a set that
is missing or broken is told, and the rest is done (strict=true: status 1). A
killed suite goes on with the same command: no finished set is done twice."""
OWN = ("suite", "models")
KINDS = ("checkpoint", "recipe", "run", "file")


class Named(Spec):
    """A model that is to be measured; one of checkpoint, recipe, run and file."""

    checkpoint: str | None = None
    """Of the recipe's family, as it comes."""
    recipe: str | None = None
    """A recipe, by name or path: its model as it comes."""
    run: str | None = None
    """A run folder: its adapted model."""
    student: str | None = None
    """With `run`: the name of one of its students."""
    file: str | None = None
    """An exported file."""

    @property
    def kind(self) -> str:
        """Which of the four it is."""
        return next(kind for kind in KINDS if self.values()[kind])

    @model_validator(mode="after")
    def _one(self) -> Named:
        given = [kind for kind in KINDS if self.values()[kind]]
        if len(given) != 1:
            raise ValueError(f"write one of {', '.join(KINDS)}, not {' and '.join(given) or 'none'}")
        if self.student and not self.run:
            raise ValueError("a student is a run's; write {run: runs/R, student: S}")
        return self


@dataclass(frozen=True)
class Request:
    """What is asked for, beside the recipe."""

    suite: Suite
    models: tuple[Named, ...] = ()
    """Which models; none: the recipe's, as it comes and adapted."""
    tree: Path | None = None
    """Where sets in the published layout lie; none: on the hub."""


def asks(arguments: Sequence[str]) -> bool:
    """Is a suite asked for?

    Raises:
        UserError: models are, and no suite; or the word is misspelt.
    """
    given = [argument.partition("=")[0] for argument in arguments]
    for name in given:  # a recipe's own options are checked with it
        if name not in (*OWN, *Recipe.model_fields) and get_close_matches(name, OWN[:1], cutoff=0.8):
            raise UserError(f"{name}: no such option. Did you mean 'suite'?")
    if "models" in given and "suite" not in given:
        raise UserError("models: several models are measured by a suite. Add suite=NAME, such as suite=embedded.")
    return "suite" in given


def parse(arguments: list[str]) -> Request:
    """Take the verb's own arguments out of the others, which are those of a recipe; `data.path`, where the suite's sets lie in it.

    Raises:
        UserError: the suite or a model is not what it can be; every problem, one a line.
    """
    given = taken(arguments, OWN)
    suite = load_suite(given["suite"])
    tree = None
    if any(one.place for one in suite.sets):
        tree = taken(arguments, ("data.path",)).get("data.path")
    models = parse_yaml(given["models"], "models") if "models" in given else []
    return request(suite, models, tree)


def request(suite: str | Path | Suite, models: Any = (), tree: str | Path | None = None) -> Request:
    """The same, of Python's values.

    Args:
        models: mappings, each with one of checkpoint, recipe, run and file.

    Raises:
        UserError: every problem, one a line.
    """
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    place = Path(tree).expanduser() if tree else None
    problems = []
    if place and not place.is_dir():
        problems.append(f"data.path: there is no folder {str(tree)!r}, where the suite's sets would lie.")
    if not isinstance(models, list | tuple):
        raise UserError(f"models: got {short(models)}; write a list of mappings, such as [{{checkpoint: clip-tiny}}].")
    found: list[Named] = []
    for number, item in enumerate(models):
        try:
            one = Named.model_validate(item)
            if one in found:
                raise UserError("this model is in the list twice. Name it once.")
            _there(one)
            found.append(one)
        except ValidationError as error:
            problems += explain(error, f"models.{number}", Named, Recipe, {})
        except UserError as error:
            problems.append(f"models.{number}: {error}")
    if problems:
        raise UserError("\n".join(problems))
    return Request(suite, tuple(found), place)


def _there(one: Named) -> None:
    """Is what the model names there?"""
    if one.recipe:
        load_recipe(one.recipe)
    if one.file and not Path(one.file).expanduser().is_file():
        raise UserError(f"file: there is no {one.file!r}. Exported files are in runs/…/export/NAME/onnx.")
    if one.run:
        folder = Run.from_folder(one.run).path
        have = sorted(path.parent.name for path in folder.glob("student/*/config.json"))
        if one.student and one.student not in have:
            raise UserError(f"student: {str(folder)!r} has no student {one.student!r}.{nearest(one.student, have)}")
        if not one.student and not (folder / "adapter").is_dir():
            raise UserError(f"run: {str(folder)!r} has no adapter yet. First: adapt finetune run={folder}")
