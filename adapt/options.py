"""Every option of a recipe, from its schema: type, range, default and meaning; what `adapt options` and `adapt recipes NAME` print."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from adapt.contracts import SourceConfig
from adapt.mistakes import nested
from adapt.overrides import write_yaml
from adapt.plug import SECTIONS, Plugin, Spec, UserError, load, names, nearest, schema
from adapt.recipe import Recipe

REQUIRED = "required"
WORDS = {str: "text", int: "int", float: "float", bool: "true | false", NoneType: "null", Any: "anything"}
"""Type → what it is called."""
BOUNDS = {"Ge": "{} or more", "Gt": "above {}", "Le": "{} at most", "Lt": "below {}"}
BOUNDS |= {"MultipleOf": "a multiple of {}", "MinLen": "at least {} long", "MaxLen": "at most {} long"}
"""A constraint of pydantic's, by its name (of `annotated_types`, one field each) → what it is in words."""


@dataclass(frozen=True)
class Option:
    """One option of a section."""

    path: str
    """Dotted, below the section."""
    kind: str
    """Its type, such as `int` or `adamw | sgd`."""
    allowed: str
    """Its range, such as `1 or more`; empty: all of the type."""
    default: Any
    """Its value where nobody sets it; `required` where somebody must."""
    text: str
    """What it means: its docstring."""
    inside: tuple[Option, ...] = ()
    """The options of a nested section."""

    def document(self) -> dict[str, Any]:
        """As JSON has it; the default as it is typed, null where one must be given."""
        default = None if self.default is REQUIRED else written(self.default)
        required = self.default is REQUIRED
        facts = {"option": self.path, "type": self.kind, "range": self.allowed, "default": default, "required": required}
        return facts | {"text": self.text}

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition(".")[2]

    @property
    def facts(self) -> str:
        """Type, range and default in a line."""
        if self.kind == "section":
            return self.kind
        default = REQUIRED if self.default is REQUIRED else f"default {written(self.default)}"
        return f"{', '.join(filter(None, (self.kind, self.allowed)))}; {default}"


def options(spec: type[Spec], default: Spec | None = None, place: str = "") -> list[Option]:
    """The options of a section, those of nested sections inside them.

    Args:
        spec: its schema.
        default: the section as it is where nobody sets anything, if its owner chose other defaults than the schema's own.
        place: a dotted path in front of each option's.
    """
    found = []
    for name, field in spec.options().items():
        path = f"{place}.{name}" if place else name
        value = default.values()[name] if default is not None else _default(field)
        inner = nested(field.annotation)
        inside = options(inner, value if isinstance(value, inner) else None, path) if inner and _plain(inner) else []
        text = " ".join((field.description or "").split())
        found.append(Option(path, _kind(field.annotation), _allowed(field.metadata), value, text, tuple(inside)))
    return found


def sections() -> Iterator[tuple[str, type[Spec]]]:
    """Every section that a recipe can have, nested ones too: dotted path with the plug-in's name in it, and schema."""
    yield from _below("", Recipe)
    for section, (kind, _, _) in SECTIONS.items():
        for name in names(kind):
            yield from _below(f"{section}.{name}", schema(kind, name))


def lookup(words: Sequence[str]) -> tuple[str, str, list[Option]]:
    """What `adapt options WORDS` means: a section such as `train`, a plug-in such as `distill logits`, or one option of them.

    Returns:
        Its dotted path, what it is in a sentence, and its options.

    Raises:
        UserError: there is no such section, plug-in or option.
    """
    steps = [step for word in words for step in re.split(r"[.=\s]+", word) if step]
    section, *rest = steps or [""]
    if section not in Recipe.options():
        raise UserError(f"options: there is no section {section!r}.{nearest(section, Recipe.options())}")
    if section not in SECTIONS:
        if each := _listed(Recipe.options()[section].annotation):
            return _of_each(section, each, [step for step in rest if not step.isdigit()])
        return _inside("the recipe", options(Recipe), steps)
    kind, key, is_list = SECTIONS[section]
    rest = [step for i, step in enumerate(rest) if not (i < 2 and (step == key or step.isdigit()))]  # evals.0.name=knn
    if not rest:
        raise UserError(
            f"options: {section} of which plug-in? Write adapt options {section} NAME. Have: {', '.join(names(kind))}."
        )
    place = f"{section}.{rest[0]}"
    typed = f"{section}.0" if is_list else section
    every = [option for option in options(schema(kind, rest[0]), None, typed) if option.name != key]
    return _inside(place, every, rest[1:]) if rest[1:] else (place, about(kind, rest[0]), every)


def about(kind: str, name: str) -> str:
    """A plug-in in a sentence: the first of its file."""
    first = " ".join((load(kind, name).__doc__ or "").split("\n\n")[0].split())
    return first


def overview() -> list[tuple[str, str, list[tuple[str, str]]]]:
    """The recipe's sections: name, what it is, and its plug-ins with a sentence each."""
    found = []
    for name, field in Recipe.options().items():
        kind = SECTIONS[name][0] if name in SECTIONS else ""
        plugins = [(plugin, about(kind, plugin)) for plugin in names(kind)] if kind else []
        found.append((name, " ".join(field.description.split()), plugins))
    return found


def leaves(found: Sequence[Option]) -> Iterator[Option]:
    """The options themselves, those of nested sections in their places."""
    for option in found:
        yield from leaves(option.inside) if option.inside else [option]


def listed(found: Sequence[Option], width: int) -> Iterator[str]:
    """Options as lines for a terminal: name, type, range and default, then what it means."""
    for option in found:
        yield from textwrap.wrap(f"{option.path}  ({option.facts})", width, subsequent_indent="    ", break_on_hyphens=False)
        yield from textwrap.wrap(option.text, width, initial_indent="    ", subsequent_indent="    ")
        yield from listed(option.inside, width)


def annotated(recipe: Recipe, width: int = 80) -> str:
    """The resolved recipe as YAML that reads back as itself, with each option's meaning, type, range and default above it."""
    return "\n".join(_section(recipe, options(Recipe), "", width)).strip() + "\n"


def written(value: Any) -> str:
    """A value as it is typed in YAML, in one line."""
    if isinstance(value, Spec):
        value = value.model_dump(mode="json")
    return write_yaml(value, default_flow_style=True, width=10**9, sort_keys=True).removesuffix("...\n").strip()


# ------------------------------------------------------------------------------------------------------------------ parts


def _section(spec: Spec, found: Sequence[Option], indent: str, width: int) -> Iterator[str]:
    for option in found:
        name, value = option.name, spec.values()[option.name]
        if isinstance(spec, Plugin | SourceConfig) and option is found[0]:
            yield f"{indent}{name}: {written(value)}"
            continue
        yield from ([""] if indent == "" else [])
        nests = option.kind == "section"
        text = option.text if nests else f"{option.text} [{option.facts}]"
        start = f"{indent}# "
        yield from textwrap.wrap(text, max(width, 40), initial_indent=start, subsequent_indent=start, break_on_hyphens=False)
        if isinstance(value, Spec):
            yield f"{indent}{name}:"
            yield from _section(value, option.inside or options(type(value)), f"{indent}  ", width)
        elif nests and value:
            yield f"{indent}{name}:"
            for item in value:
                first, *rest = _section(item, options(type(item)), f"{indent}    ", width)
                yield f"{indent}  - {first.strip()}"
                yield from rest
        else:
            yield f"{indent}{name}: {written(value)}"
            for each in leaves(option.inside):  # of a section that is not there
                told = f"{each.path.partition(f'{name}.')[2]}: {each.text} [{each.facts}]"
                yield from textwrap.wrap(
                    told, max(width, 40), initial_indent=start, subsequent_indent=start, break_on_hyphens=False
                )


def _below(place: str, spec: type[Spec]) -> Iterator[tuple[str, type[Spec]]]:
    yield place, spec
    for name, field in spec.options().items():
        inner = nested(field.annotation)
        if inner and _plain(inner):
            yield from _below(f"{place}.{name}".lstrip("."), inner)


def _inside(place: str, found: Sequence[Option], steps: Sequence[str]) -> tuple[str, str, list[Option]]:
    """The nested section, or the single option, that the steps lead to."""
    for step in steps:
        named = {option.name: option for option in found}
        if step not in named:
            raise UserError(f"options: {place} has no option {step!r}.{nearest(step, named)}")
        place, found = named[step].path, named[step].inside
    option = named[steps[-1]]
    return place, option.text if found else "", list(found) or [option]


def _of_each(section: str, spec: type[Spec], steps: Sequence[str]) -> tuple[str, str, list[Option]]:
    """The same in a section that is a list of such."""
    every = options(spec, None, f"{section}.0")
    if steps:
        return _inside(f"{section}.0", every, steps)
    return section, " ".join((Recipe.options()[section].description or "").split()), every


def _listed(annotation: Any) -> type[Spec] | None:
    """The schema of the items of a list of sections; none if it is no such list."""
    inner = nested(get_args(annotation)[0]) if get_origin(annotation) is list else None
    return inner if inner and _plain(inner) else None


def _plain(spec: type[Spec]) -> bool:
    """Is this no plug-in's base, whose options are those of the plug-in that is named?"""
    return not issubclass(spec, Plugin | SourceConfig)


def _default(field: FieldInfo) -> Any:
    return REQUIRED if field.is_required() else field.get_default(call_default_factory=True)


def _kind(annotation: Any) -> str:
    """A type in words."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        allowed = _allowed(parts[1:])
        return f"{_kind(parts[0])} ({allowed})" if allowed else _kind(parts[0])
    if origin is Literal:
        return " | ".join(map(written, parts))
    if origin in (Union, UnionType):
        kinds = list(map(_kind, parts))
        return "section" if "section" in kinds else " or ".join(kinds)
    if origin in (list, tuple):
        inner = _kind(parts[0])
        return inner if inner == "section" else f"list of {inner}"
    if origin is dict:
        return f"mapping of {_kind(parts[0])} to {_kind(parts[1])}"
    return (
        "section" if isinstance(annotation, type) and issubclass(annotation, Spec) else WORDS.get(annotation, str(annotation))
    )


def _allowed(metadata: Sequence[Any]) -> str:
    """A range in words, from pydantic's constraints."""
    flat = [each for item in metadata for each in (item.metadata if isinstance(item, FieldInfo) else [item])]
    named = {type(bound).__name__: bound for bound in flat}
    found = {name: words.format(_number(*astuple(named[name]))) for name, words in BOUNDS.items() if name in named}
    if {"Ge", "Le"} <= found.keys():
        found["Ge"] = f"{found['Ge'].removesuffix(' or more')} to {found.pop('Le').removesuffix(' at most')}"
    return ", ".join(found.values())


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
