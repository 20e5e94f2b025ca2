"""Recipes: the schema, YAML, overrides, and errors that name all problems at once.

A recipe is data. It is read, overridden, and validated once, before anything heavy is imported.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, SerializeAsAny, ValidationError

from adapt import other_data
from adapt.architectures import unknown
from adapt.contracts import MethodConfig, ObjectiveConfig, SourceConfig, Train
from adapt.measures import measured_by
from adapt.mistakes import explain, short
from adapt.overrides import override, parse_yaml, write_yaml
from adapt.plug import CALLED, ROOT, SECTIONS, Plugin, Spec, UserError, names, nearest, schema, settings

SET = "{data: {source: …}, prompts: {templates: …}, evals: [{name: …}]}"
"""A set, as it is written."""

FORMER = {"imagenet": "clip/imagenet", "simple": "clip/simple"}
"""Short names of prompt files, and where they lie."""


class RandomWords(Spec):
    """An ensemble of random texts after the class name (WaffleCLIP, arXiv:2306.07282)."""

    pairs: int = Field(15, ge=1, le=1000)
    """How many texts of random words, and as many of random characters; each stands in every template."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the draw. The paper reports the mean over seven draws or more."""


class Prompts(Spec):
    """The words that stand for the classes."""

    templates: str | list[str] = "simple"
    """A file of `prompts/` by name, the path of a YAML file with `templates`, or the templates themselves; each has one `{}` or `{c}`."""
    classes: str | dict[str, str | list[str]] | list[str | list[str]] | None = None
    """A file of `prompts/` with `classes`, a mapping from label to class name or to names (the first is shown, all are asked for), or a
    list of them; null: the labels' own names."""
    descriptions: str | dict[str, str | list[str]] | None = None
    """For each label what the class looks like, one text or more, each of which follows the name in the templates: `a red comb` makes
    "hen, which has a red comb". A mapping, or the path of a YAML file with `descriptions`."""
    texts: str | dict[str, str | list[str]] | None = None
    """For each label whole texts, which stand in no template; `{}` or `{c}` in one is the class name. A mapping, or the path of a YAML
    file with `texts`."""
    random: RandomWords | None = None
    """Random words in the place of descriptions: the baseline that descriptions must beat."""
    combine: Literal["mean", "similarity", "max"] = "mean"
    """How several texts of a class become one score. mean: embeddings averaged and normalised again (CLIP); similarity: the mean of the
    similarities (DCLIP, WaffleCLIP); max: the greatest of the similarities of the names or descriptions, each averaged over templates."""
    match: Literal["name", "position"] = "name"
    """How labels find their class in a list. position: the n-th label is the list's n-th class, and the first ones are shown."""
    allow: list[Literal["duplicates", "empty", "mixed"]] = []
    """What is refused otherwise: a text that stands for two classes or twice for one, an empty text, lists of two families."""


class EvalSet(Spec):
    """Data of their own, with their words and their evals: one of a list of sets, as in `canary` and in a file of `suites/`."""

    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)
    """What it is called in tables and files; null: as its source."""
    data: SerializeAsAny[SourceConfig]
    """A source of `adapt/data`, with its options as in the section `data`."""
    prompts: Prompts = Prompts()
    """Its own templates and class names, as in the section `prompts`."""
    evals: list[SerializeAsAny[Plugin]]
    """What is measured: files of `adapt/evals`; the main metric of each counts."""

    @property
    def called(self) -> str:
        """Its name."""
        return self.name or self.data.source


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
    canary: list[EvalSet] = []
    """Other data that the adapted model must not forget: a file of `suites/` by name (`source_hands`), the path of a YAML file with
    `sets`, or a list of {name, data, prompts, evals}. Measured before and after finetune; `adapt merge scale=sweep` keeps a share of it."""
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

    @property
    def uses_words(self) -> bool:
        """Is the model, a teacher of the student, or a model beside them in an eval, asked with the texts of `prompts`?"""
        sections = [self.model, *([self.distill] if self.distill else []), *self.evals]
        return any(section.uses_words for section in sections)

    def key(self, *sections: str) -> str:
        """Eight hex digits that change when a setting of one of the sections changes that a result depends on; see `settings`."""
        data = {name: value for name, value in settings(self).items() if name in sections}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:8]

    def to_yaml(self) -> str:
        """The resolved recipe, as it is written into the run folder."""
        return write_yaml(self.model_dump(mode="json"))

    def _repr_html_(self) -> str:
        """As a notebook shows it: what is said in each section; below it, folded, all options."""
        rows = []
        for name, value in self.model_dump(mode="json", exclude_unset=True).items():
            text = write_yaml(value, default_flow_style=True, width=10**6)
            text = text.removesuffix("...\n").strip()
            rows.append(f'<tr><th>{escape(name)}</th><td style="text-align:left">{escape(text)}</td></tr>')
        whole = f"<details><summary>All options</summary><pre>{escape(self.to_yaml())}</pre></details>"
        return f"<table>{''.join(rows)}</table>{''.join(f'<p>{escape(note)}</p>' for note in self.notes)}{whole}"


# ---------------------------------------------------------------------------------------------------- finding and reading


Kind = Literal["recipes", "prompts", "suites", "published"]
"""Folders of YAML files that the package ships."""


def folder(kind: Kind) -> Path:
    """Where the package's files of a kind lie: beside `adapt/` in a clone, inside it in a wheel."""
    inside = ROOT / kind
    return inside if inside.is_dir() else ROOT.parent / kind


def find(kind: Kind, name: str) -> Path:
    """The YAML file that a name or a path means.

    Raises:
        UserError: there is none; the message has the nearest name and all of them.
    """
    base, called = folder(kind), kind.removesuffix("s")
    if name.endswith((".yaml", ".yml")):
        with suppress(OSError, RuntimeError):  # a name too long; a `~user` that there is not
            path = Path(name).expanduser()
            if path.is_file():
                return path
        raise UserError(f"{called}: no file {name!r}. Give a path to a YAML file, or one of: {', '.join(available(kind))}.")
    have = available(kind)
    name = FORMER.get(name, name) if kind == "prompts" else name
    if name in have:
        return base / f"{name}.yaml"
    same = [other for other in have if other.split("/")[-1] == name.split("/")[-1]]
    hint = f" Did you mean {' or '.join(map(repr, same))}? Have: {', '.join(have)}." if same else nearest(name, have)
    if kind == "prompts":  # they are many
        hint = f"{hint.partition(' Have:')[0]} adapt options prompts lists all {len(have)}."
    raise UserError(f"{called}: there is no {called} {name!r}; a file's path ends in .yaml.{hint}")


def available(kind: Kind) -> list[str]:
    """Names of the package's files of a kind, such as the recipes `clip_lora` and `zoo/clip_tiny`."""
    base = folder(kind)
    return sorted(path.relative_to(base).with_suffix("").as_posix() for path in base.rglob("*.yaml"))


def read_text(path: Path, kind: str) -> str:
    """A text file's content; a file that is missing or no UTF-8 is a `UserError`."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{kind}: cannot read {str(path)!r}: {error}") from None


def suite(name: str) -> list:
    """The sets of a file of `suites/` by its name, or of a YAML file by its path, as a canary takes them.

    What a suite alone says of a set (`adapt/suite.py`), such as how many pictures to expect, is left out; a metric stands for its eval.

    Raises:
        UserError: there is no such file, or it has no list `sets`.
    """
    path = find("suites", name)
    content = parse_yaml(read_text(path, "suite"), str(path))
    sets = content.get("sets") if isinstance(content, dict) else None
    if not isinstance(sets, list):
        have = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{path}: a suite is a mapping with a list `sets`, each {SET}. It has: {have}.")
    return [_as_canary(item) if isinstance(item, dict) else item for item in sets]


def _as_canary(item: dict) -> dict:
    """A set of a suite with the keys of an `EvalSet` alone."""
    kept = {key: value for key, value in item.items() if key in EvalSet.model_fields}
    if isinstance(kept.get("name"), str):
        kept["name"] = kept["name"].replace("/", "-")
    if asked := measured_by([str(item.get("metric", ""))]):  # what else the suite reports of it is not asked
        said = {each.get("name"): each for each in kept.get("evals") or [] if isinstance(each, dict)}
        kept["evals"] = [said.get(name) or {"name": name} for name in asked]
    if folder := item.get("folder") or str(item.get("hub") or "").split("/")[-1]:
        said = {key: item[key] for key in ("split", "labels", "group") if item.get(key) is not None}
        kept["data"] = {"source": "clip_benchmark", "path": folder} | said
    return kept


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
    built = dict(raw) | sections(raw, SECTIONS, "", raw, problems)
    if raw.get("canary") is not None:
        built["canary"] = _sets(raw["canary"], "canary", raw, problems)
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


def sections(given: dict, wanted: Iterable[str], place: str, raw: dict, problems: list[str]) -> dict[str, Any]:
    """Section → its plug-in's `Config`, or the list of them, of those that are given; problems are added to the list.

    Args:
        given: a mapping with the sections.
        wanted: keys of `SECTIONS`.
        place: what stands before a section's name in a dotted path, such as `canary.0.`.
        raw: the whole recipe's mapping.
    """
    built: dict[str, Any] = {}
    for section in wanted:
        (kind, key, is_list), value, path = SECTIONS[section], given.get(section), f"{place}{section}"
        if value is None:
            continue
        if is_list and not isinstance(value, list):
            problems.append(f"{path}: got {value!r}; write a list of mappings, such as [{{{key}: {names(kind)[0]}}}].")
            built[section] = []
        elif is_list:
            built[section] = [_plugin(item, f"{path}.{i}", kind, key, raw, problems) for i, item in enumerate(value)]
            called = [item.name for item in built[section]]
            problems += [
                f"{path}.{i}.{key}: {name!r} is in the list twice. Name it once, and run the verb again for the other options."
                for i, name in enumerate(called)
                if name != "?" and name in called[:i]
            ]
        else:
            built[section] = _plugin(value, path, kind, key, raw, problems)
    return built


def _sets(value: Any, place: str, raw: dict, problems: list[str]) -> list[EvalSet]:
    """A list of sets, or those of a suite; problems are added to the list."""
    try:
        value = suite(value) if isinstance(value, str) else value
    except UserError as error:
        problems.append(f"{place}: {error}")
        return []
    if not isinstance(value, list):
        have = ", ".join(available("suites"))
        problems.append(f"{place}: got {short(value)}; write a list of sets, each {SET}, or a suite's name. Have: {have}.")
        return []
    found = [made for i, item in enumerate(value) if (made := _set(item, f"{place}.{i}", raw, problems))]
    called = [each.called for each in found]
    problems += [
        f"{place}.{i}.name: two sets are called {name!r}. Give each a name of its own."
        for i, name in enumerate(called)
        if name != "?" and name in called[:i]
    ]
    return found


def _set(item: Any, place: str, raw: dict, problems: list[str]) -> EvalSet | None:
    if not isinstance(item, dict):
        problems.append(f"{place}: got {short(item)}; write a mapping, such as {SET}.")
        return None
    if not item.get("data"):
        problems.append(
            f"{place}.data: missing. Name a source: {{source: {names('data')[0]}}}. Have: {', '.join(names('data'))}."
        )
    if not item.get("evals"):
        problems.append(
            f"{place}.evals: nothing is measured. Name an eval: [{{name: zeroshot}}]. Have: {', '.join(names('evals'))}."
        )
    if isinstance(item.get("data"), dict) and "path" in item["data"]:  # a path alone means what lies there
        item = item | {"data": {"source": "auto"} | item["data"]}
    stand_ins = {"data": SourceConfig.model_construct(source="?"), "evals": []}
    try:
        return EvalSet.model_validate(item | stand_ins | sections(item, stand_ins, f"{place}.", raw, problems))
    except ValidationError as error:
        problems += explain(error, place, EvalSet, Recipe, raw)
        return None


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
