"""Recipes: the schema, YAML, overrides, and errors that name all problems at once.

A recipe is data. It is read, overridden, and validated once, before anything heavy is imported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, PrivateAttr, SerializeAsAny, ValidationError

from adapt import other_data
from adapt.architectures import unknown
from adapt.contracts import MethodConfig, ObjectiveConfig, SourceConfig, Train
from adapt.mistakes import explain, short
from adapt.overrides import override, parse_yaml
from adapt.plug import CALLED, ROOT, SECTIONS, Plugin, Spec, UserError, names, nearest, schema, settings


class Prompts(Spec):
    """The words that stand for the classes."""

    templates: str | list[str] = "simple"
    """A file of `prompts/` by name, the path of a YAML file with `templates`, or the templates themselves; each has one `{}`."""
    classes: str | dict[str, str] | None = None
    """A file of `prompts/` with `classes`, or a mapping from label to class name; null: the labels' own names."""


class Recipe(Spec):
    """The whole road of one adaptation: model, data, method, training, evaluation, student, exported files."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)
    """Name of the run folder's first half."""
    model: SerializeAsAny[Plugin]
    """A family of `adapt/models` and a checkpoint of it."""
    data: SerializeAsAny[SourceConfig]
    """A source of `adapt/data`."""
    method: SerializeAsAny[Plugin]
    """How the model is changed: a file of `adapt/methods`."""
    prompts: Prompts = Prompts()
    """Templates and class names."""
    train: Train = Train()
    """The training loop: steps, optimiser, random views."""
    evals: list[SerializeAsAny[Plugin]] = []
    """What is measured: files of `adapt/evals`."""
    distill: SerializeAsAny[Plugin] | None = None
    """The student: a file of `adapt/distill`."""
    export: list[SerializeAsAny[Plugin]] = []
    """Targets: files of `adapt/export`."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of everything random."""
    tracker: Literal["tensorboard", "wandb", "mlflow", "trackio", "none"] = "tensorboard"
    """Where curves go, through accelerate, besides the run folder."""
    strict: bool = False
    """Exit with status 1 when a guard is broken: worse than zero-shot, a student or int8 file past its budget."""

    _notes: list[str] = PrivateAttr(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Lines for the user, to be shown once: what other data than the recipe's own have changed, and what would suit them."""
        return self._notes

    def key(self, *sections: str) -> str:
        """Eight hex digits that change when a setting of one of the sections changes that a result depends on; see `settings`."""
        data = {name: value for name, value in settings(self).items() if name in sections}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:8]

    def to_yaml(self) -> str:
        """The resolved recipe, as it is written into the run folder."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


# ---------------------------------------------------------------------------------------------------- finding and reading


def folder(kind: Literal["recipes", "prompts", "published"]) -> Path:
    """Where the package's recipes, prompts or published figures lie: beside `adapt/` in a clone, inside it in a wheel."""
    inside = ROOT / kind
    return inside if inside.is_dir() else ROOT.parent / kind


def find(kind: Literal["recipes", "prompts"], name: str) -> Path:
    """The YAML file that a name or a path means.

    Raises:
        UserError: there is none; the message has the nearest name and all of them.
    """
    base = folder(kind)
    if name.endswith((".yaml", ".yml")):
        with suppress(OSError, RuntimeError):  # a name too long; a `~user` that there is not
            path = Path(name).expanduser()
            if path.is_file():
                return path
        raise UserError(f"{kind[:-1]}: no file {name!r}. Give a path to a YAML file, or one of: {', '.join(available(kind))}.")
    if name in available(kind):
        return base / f"{name}.yaml"
    raise UserError(
        f"{kind[:-1]}: there is no {kind[:-1]} {name!r}; a file's path ends in .yaml.{nearest(name, available(kind))}"
    )


def available(kind: Literal["recipes", "prompts"]) -> list[str]:
    """Names of the package's recipes or prompt files, such as `clip_lora` and `zoo/clip_tiny`."""
    base = folder(kind)
    return sorted(path.relative_to(base).with_suffix("").as_posix() for path in base.rglob("*.yaml"))


def read_text(path: Path, kind: str) -> str:
    """A text file's content; a file that is missing or no UTF-8 is a `UserError`."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{kind}: cannot read {str(path)!r}: {error}") from None


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path, apply overrides such as `train.epochs=5`, and validate it once.

    Raises:
        UserError: every problem, one a line, each with its dotted path, the value, what is allowed and the nearest name.
    """
    path = find("recipes", str(name))
    raw = parse_yaml(read_text(path, "recipe"), str(path))
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a recipe is a mapping of sections, not {type(raw).__name__}.")
    recipe = validate(override(raw, overrides))
    given = [text.partition("=")[0].strip() for text in overrides]
    recipe._notes = other_data.notes(raw, recipe.model_dump(mode="json"), given)
    return recipe


# ----------------------------------------------------------------------------------------------------------- validation


def validate(raw: dict) -> Recipe:
    """A recipe from its mapping; raises a `UserError` that lists every problem."""
    problems: list[str] = []
    built = dict(raw)
    for section, (kind, key, is_list) in SECTIONS.items():
        if raw.get(section) is None:
            continue
        if is_list and not isinstance(raw[section], list):
            problems.append(
                f"{section}: got {raw[section]!r}; write a list of mappings, such as [{{{key}: {names(kind)[0]}}}]."
            )
            built[section] = []
        elif is_list:
            built[section] = [_plugin(item, f"{section}.{i}", kind, key, raw, problems) for i, item in enumerate(raw[section])]
            given = [item.name for item in built[section]]
            problems += [
                f"{section}.{i}.{key}: {name!r} is in the list twice. Name it once, and run the verb again for the other options."
                for i, name in enumerate(given)
                if name != "?" and name in given[:i]
            ]
        else:
            built[section] = _plugin(raw[section], section, kind, key, raw, problems)
    method = built.get("method")
    if isinstance(method, MethodConfig) and isinstance(raw.get("train") or {}, dict):
        built["train"] = method.train | (raw.get("train") or {})  # what a recipe says beats the method's own defaults
    distill = built.get("distill")
    taught = isinstance(distill, ObjectiveConfig)
    if taught and (problem := unknown(distill.student)):
        problems.append(f"distill.student: {problem}")
    train = distill.train if taught else Train()
    problems += [
        f"distill.train.{name}: got {getattr(train, name)!r}; {why}. Leave it out."
        for name, why in (
            ("precision", "a run has one precision, that of train.precision"),
            ("cache", "distill.cache says that"),
            ("cache_views", "distill.views says that"),
        )
        if getattr(train, name) != Train.model_fields[name].default
    ]
    try:
        recipe = Recipe.model_validate(built)
    except ValidationError as error:
        problems += explain(error, "", Recipe, Recipe, raw)
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return recipe


def source(overrides: Sequence[str]) -> SourceConfig:
    """The section `data` alone, as overrides say it; without a source it is what lies there (`auto`).

    Raises:
        UserError: every problem, one a line.
    """
    problems: list[str] = []
    raw = override({"data": {"source": "auto"}}, overrides)
    config = _plugin(raw["data"], "data", "data", "source", raw, problems)
    if problems:
        raise UserError("\n".join(problems))
    return config


def _plugin(value: Any, place: str, kind: str, key: str, raw: dict, problems: list[str]) -> Spec:
    """Validate a plug-in's section; a problem is added to the list and a stand-in returned, so that the others are found too."""
    stand_in = SourceConfig.model_construct(source="?") if kind == "data" else Plugin.model_construct(name="?")
    have = names(kind)
    if not isinstance(value, dict):
        problems.append(f"{place}: got {short(value)}; write a mapping, such as {{{key}: {have[0]}}}.")
        return stand_in
    name = value.get(key)
    if name is None:
        problems.append(f"{place}.{key}: missing. Have: {', '.join(have)}.")
        return stand_in
    if not isinstance(name, str) or name not in have:
        problems.append(f"{place}.{key}: there is no {CALLED[kind]} {short(name)}.{nearest(name, have)}")
        return stand_in
    config = schema(kind, name)
    try:
        return config.model_validate(value)
    except ValidationError as error:
        problems += explain(error, place, config, Recipe, raw)
        return stand_in
