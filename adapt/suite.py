"""Suites: what is measured, set by set, as data. A set says its data, words, metric, and what the doctor should find there.

    name: mine
    about: Two sets of ours, and one of the literature's.
    sets:
      - {name: cups, data: {source: folder, path: cups}, metric: mean_per_class}
      - {name: captions, data: {source: jsonl, path: captions.jsonl}, labels: captions, metric: r1, also: [text_r1]}
      - {name: cars, hub: clip-benchmark/wds_cars, prompts: {templates: clip/cars}, metric: top1, classes: 196, pictures: 8041}

`hub` names a data set in the layout of CLIP_benchmark (`test/nshards.txt`, `0.tar`, `classnames.txt`, …): on the hub by this name, offline
as the folder of its last part, or of `folder`, below `data.path`. Its class names are those of `classnames.txt`, word for word, unless
`prompts.classes` says others. A set that names no place is measured on the recipe's own data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, ValidationError, field_validator, model_validator

from adapt.contracts import EvalConfig, SourceConfig
from adapt.measures import LABELS, METRICS, measured_by, of_eval
from adapt.mistakes import explain, short
from adapt.overrides import parse_yaml
from adapt.plug import Spec, UserError, nearest, schema
from adapt.recipe import Prompts, Recipe, find, read_text, sections

Labels = Literal["class", "classes", "captions", "choice", "pairs", "cues", "objects", "maps"]


EXAMPLES = {"group": "group: region", "corruptions": "corruptions: [3]", "fitted_on": "fitted_on: validation"}
"""Field that a metric needs → how it is written."""
FIELDS: dict[str, dict[str, str]] = {
    "zeroshot": {"fitted_on": "fitted_on"},
    "groups": {"without": "group_without"},
    "robustness": {"severities": "corruptions"},
}
"""Eval → its options that fields of the set say, beside `split`."""


class Set(Spec):
    """One line of a suite: data, words, metric."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_./-]*$", max_length=80)
    """Its name in tables and in `published/`; CLIP_benchmark's, where it has one."""
    title: str = ""
    """How tables call it; empty: by its name."""
    hub: str | None = Field(None, pattern=r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
    """A data set in the published layout, on the hub."""
    folder: str | None = Field(None, pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Its folder below `data.path` offline, in the same layout. None: the last part of `hub`."""
    data: SerializeAsAny[SourceConfig] | None = None
    """A source of `adapt/data`, where it is not in the published layout. None of the three: the recipe's own data."""
    prompts: Prompts | None = None
    """Templates and class names. None: those that lie beside the data, or else the recipe's."""
    labels: Labels = "class"
    """What a row is labelled with."""
    metric: str = ""
    """The metric of the literature, by which the set counts in the table and in means. Empty: the main one of the first of `evals`."""
    also: list[str] = []
    """Further metrics that are reported for it."""
    evals: list[SerializeAsAny[EvalConfig]] = []
    """The evals that give the metrics, with their options; those that are not here have their defaults."""
    split: str = "test"
    """The split that is measured."""
    group: str | None = None
    """What groups of pictures are, such as region: of metrics of the worst group."""
    group_without: list[str] = []
    """Groups that do not count as the worst."""
    corruptions: list[int] = []
    """Severities, 1 to 5, of the 15 corruptions under which it is measured too: of the metric `retained`."""
    fitted_on: str | None = None
    """A split with labels, such as validation, on which a temperature is fitted: of the metric `ece_fitted`."""
    classes: int | None = Field(None, ge=2)
    """How many classes there are."""
    pictures: int | None = Field(None, ge=1)
    """How many pictures the split has."""
    captions: int | None = Field(None, ge=1)
    """How many captions they have, with repeated ones."""
    notes: str = ""
    """What a reader of its numbers should know, with the source."""

    @property
    def place(self) -> str | None:
        """The folder below `data.path` where it lies offline, if it is in the published layout."""
        return self.folder or (self.hub.split("/")[-1] if self.hub else None)

    def metrics(self) -> list[str]:
        """The metrics that are reported, the literature's first."""
        return list(dict.fromkeys([self.metric, *self.also]))

    def asked(self) -> list[str]:
        """The evals that give them, each once."""
        return list(dict.fromkeys([item.name for item in self.evals] + measured_by(self.metrics())))

    def told(self, labels: Sequence[str], templates: Sequence[str] = ()) -> Prompts:
        """Its words for data with these labels.

        Class names of the published layout are the labels, word for word ('T-shirt' stays so), unless a list has others.

        Args:
            labels: the names of the data's classes.
            templates: those that lie beside the data, for a set that names none.
        """
        prompts = self.prompts or Prompts(**({"templates": list(templates)} if templates else {}))
        if prompts.classes is None and self.place:
            prompts = prompts.model_copy(update={"classes": {label: label for label in labels}})
        return prompts

    @field_validator("corruptions")
    @classmethod
    def _severities(cls, severities: list[int]) -> list[int]:
        if wrong := [each for each in severities if not 1 <= each <= 5]:
            raise ValueError(f"severities are 1, 2, 3, 4 and 5, not {wrong[0]}")
        return sorted(set(severities))

    @model_validator(mode="after")
    def _one_place(self) -> Set:
        if self.data and (self.hub or self.folder):
            raise ValueError(
                f"data and {'hub' if self.hub else 'folder'} both say where the pictures are; leave out one of the two"
            )
        return self


class Suite(Spec):
    """Sets that are measured together and end in one table."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)
    """Its name in tables and folders; in a file without it, the file's."""
    about: str = ""
    """What it is, in a sentence, with its source."""
    sets: list[Set] = Field(min_length=1)
    """What is measured, in the order of the table."""

    def set(self, name: str) -> Set:
        """The set of a name.

        Raises:
            UserError: there is none.
        """
        if found := next((each for each in self.sets if each.name == name), None):
            return found
        raise UserError(f"suite {self.name}: there is no set {short(name)}.{nearest(name, [each.name for each in self.sets])}")


def configs(one: Set) -> list[EvalConfig]:
    """The evals that give a set's metrics, each once, with what the set says of their options: split, groups, corruptions.

    Each metric of `METRICS` is the key `METRICS[name].key or name` of the result of the eval `METRICS[name].eval`; of an eval that is not
    in that table, the eval's own main metric.
    """
    own = {item.name: item for item in one.evals}
    return [_filled(own.get(name) or schema("evals", name)(name=name), one) for name in one.asked()]


def _filled(config: EvalConfig, one: Set) -> EvalConfig:
    """An eval with the set's fields in the place of its options, as far as the set says something."""
    said = {option: one.values()[field] for option, field in ({"split": "split"} | FIELDS.get(config.name, {})).items()}
    return config.model_copy(update={option: value for option, value in said.items() if value})


# ------------------------------------------------------------------------------------------------------ reading and checks


def load_suite(name: str | Path) -> Suite:
    """Read a suite by name or path, and check all of it before anything heavy is imported.

    Raises:
        UserError: every problem, one a line, each with its place, the value, and what is allowed.
    """
    path = find("suites", str(name))
    raw = parse_yaml(read_text(path, "suite"), str(path))
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a suite is a mapping with name, about and sets, not {type(raw).__name__}.")
    return check({"name": path.stem} | raw)


def check(raw: dict[str, Any]) -> Suite:
    """A suite from its mapping; raises a `UserError` that lists every problem."""
    problems: list[str] = []
    sets = raw.get("sets")
    if not isinstance(sets, list) or not sets:
        problems.append(f"sets: got {short(sets)}; write a list of mappings, such as [{{name: cups, metric: top1}}].")
        sets = []
    built = [_set(item, number, problems) for number, item in enumerate(sets)]
    named = [item.name for item in built if item]
    problems += [f"sets: {name!r} is in the list twice. Give each set a name of its own." for name in _twice(named)]
    stand_in = [item for item in built if item] or [Set.model_construct(name="?", metric="top1")]
    try:
        suite = Suite.model_validate(raw | {"sets": stand_in})
    except ValidationError as error:
        problems += explain(error, "", Suite, Recipe, {})
    if problems:
        raise UserError("\n".join(dict.fromkeys(problems)))
    return suite


def _set(raw: Any, number: int, problems: list[str]) -> Set | None:
    """One set; its problems are added to the list, each with the set's name."""
    if not isinstance(raw, dict):
        problems.append(f"sets.{number}: got {short(raw)}; write a mapping, such as {{name: cups, metric: top1}}.")
        return None
    place = f"sets.{raw['name']}" if isinstance(raw.get("name"), str) else f"sets.{number}"
    before = len(problems)
    if isinstance(raw.get("data"), dict) and "path" in raw["data"]:  # a path alone means what lies there
        raw = raw | {"data": {"source": "auto"} | raw["data"]}
    built = raw | sections(raw, ("data", "evals"), f"{place}.", {}, problems)
    found = None
    if isinstance(built.get("evals"), list):
        built["evals"] = [item for item in built["evals"] if isinstance(item, EvalConfig)]
        if built["evals"] and not raw.get("metric"):
            main = built["evals"][0]
            built["metric"] = of_eval(main.name, main.main) or main.main
    try:
        found = Set.model_validate(built)
    except ValidationError as error:
        problems += [f"{place}.{line}" for line in explain(error, "", Set, Recipe, {})]
    if found is None or len(problems) > before:
        return found
    problems += [f"{place}.{line}" for line in _unfit(found)]
    return found


def _unfit(one: Set) -> Iterator[str]:
    """Metrics that there are not, and those that do not go with the labels, the other fields or the evals."""
    fitting = [name for name, metric in METRICS.items() if metric.labels == one.labels]
    if not one.metric:
        yield f"metric: missing. Metrics of {LABELS[one.labels]} (labels: {one.labels}): {', '.join(fitting)}."
        return
    own = {item.main for item in one.evals}  # of evals that the table does not know, such as a user's
    for place, name in (("metric", one.metric), *((f"also.{i}", name) for i, name in enumerate(one.also))):
        metric = METRICS.get(name)
        if metric is None and name in own:
            continue
        if metric is None:
            yield f"{place}: there is no metric {short(name)}.{nearest(name, METRICS)}"
        elif metric.labels != one.labels:
            yield (
                f"{place}: {name!r} needs {LABELS[metric.labels]} (labels: {metric.labels}); this set has {LABELS[one.labels]} "
                f"(labels: {one.labels}). Metrics of it: {', '.join(fitting)}."
            )
        elif metric.needs and not one.values()[metric.needs]:
            yield f"{place}: {name!r} needs {metric.needs}, which the set does not say. Write, for example, {EXAMPLES[metric.needs]}."
    if one.fitted_on == one.split:
        yield f"fitted_on: {one.split!r} is the split that is measured. Name another, such as validation."
    asked = measured_by(one.metrics())
    for i, item in enumerate(one.evals):
        if item.main not in one.metrics() and item.name not in asked:
            yield f"evals.{i}.name: {item.name!r} gives no metric of this set. Metrics: {', '.join(one.metrics())}."
        for option, field in ({"split": "split"} | FIELDS.get(item.name, {})).items():
            own, ours = item.values()[option], one.values()[field]
            if option in item.model_fields_set and ours and own != ours:
                plain = own if isinstance(own, str) else short(own)
                yield f"evals.{i}.{option}: got {short(own)}; the set's is {short(ours)}. Say it once: {field}: {plain}, beside metric."


def _twice(names: list[str]) -> list[str]:
    return sorted({name for i, name in enumerate(names) if name in names[:i]})
