"""What is wrong with a recipe, in the user's words: pydantic's problems, and where the option is that was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from adapt.plug import SECTIONS, Spec, names, nearest, schema

BRANCH = re.compile(r"^(str|int|float|bool|none|literal|list|dict|function)\b")


def explain(error: ValidationError, place: str, root: type[Spec], recipe: type[Spec], raw: dict) -> list[str]:
    """Pydantic's problems, a line each: dotted path, value, what is allowed, the nearest right name.

    Args:
        place: the section that was validated, such as 'evals.0'; empty for the whole recipe.
        root: its schema.
        recipe: the whole recipe's schema; `raw`: its mapping.
    """
    lines: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        steps = [*filter(None, place.split(".")), *(str(step) for step in problem["loc"])]
        foreign = len(steps) - 1 if problem["type"] == "extra_forbidden" else None
        # a union's branches ('str', 'list[str]') are no place that the user typed
        steps = [step for i, step in enumerate(steps) if i == foreign or not BRANCH.search(step)]
        path = ".".join(steps)
        if problem["type"] == "extra_forbidden":
            path, lines[path] = _no_option(steps, problem, place, root, recipe, raw)
        elif problem["type"] == "missing":
            lines[path] = f"{path}: missing."
        elif problem["type"] == "model_type":
            options = _section(root, problem["loc"]).options()
            lines[path] = f"{path}: got {short(problem['input'])}; write a mapping of its options. Have: {', '.join(options)}."
        else:
            why = problem["msg"].removeprefix("Value error, ")
            lines.setdefault(path, f"{path}: got {short(problem['input'])}; {why[0].lower()}{why[1:]}.")
    return list(lines.values())


def short(value: Any) -> str:
    """A value as a message shows it: 80 characters at most."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"


def _no_option(steps: list[str], problem: dict, place: str, root: type[Spec], recipe: type[Spec], raw: dict) -> tuple[str, str]:
    """The path and the line of an option that there is not.

    A former name is answered by the name now. Else the one that was meant is looked for among the options of the section's other
    plug-ins, anywhere in the recipe by its last word, among those beside it, and anywhere by a word like its last; in this order.
    """
    spec = _section(root, problem["loc"][:-1])
    if now := spec.renamed.get(steps[-1]):
        path = ".".join(steps)
        return path, f"{path} is called {'.'.join([*steps[:-1], now])} now."
    have = list(spec.options())
    everywhere = list(_paths(recipe, raw))
    deep, value = list(steps), problem["input"]
    while isinstance(value, dict) and len(value) == 1:  # train.distill.epochs=5 has made `distill` a mapping
        (step, value), *_ = value.items()
        deep.append(str(step))
    last = deep[-1]
    same = [path for path in everywhere if path.split(".")[-1] == last]
    if same and len(deep) > len(steps):
        steps = deep
    path, last = ".".join(steps), steps[-1]
    line = f"{path}: no such option."
    beside, others = nearest(last, have), _elsewhere(place, steps, last)
    if others and last in others:
        hint = f" Did you mean {last!r}, {others[last]}?"
    elif same:
        hint = f" Did you mean {_best(steps, same)}?"
    elif beside.startswith(" Did"):
        return path, line + beside
    elif close := difflib.get_close_matches(last[:100], others, n=1):
        hint = f" Did you mean {close[0]!r}, {others[close[0]]}?"
    elif close := difflib.get_close_matches(last[:100], {other.split(".")[-1] for other in everywhere}, n=1, cutoff=0.75):
        hint = f" Did you mean {_best(steps, [other for other in everywhere if other.split('.')[-1] == close[0]])}?"
    else:
        hint = ""
    return path, f"{line}{hint} Have: {', '.join(have)}."


def _elsewhere(place: str, steps: Sequence[str], last: str) -> dict[str, str]:
    """Option → the other plug-ins of this section that have it; empty when the option is not one of a plug-in itself."""
    section = steps[0]
    if section not in SECTIONS or ".".join(steps[:-1]) != place:
        return {}
    kind, key, _ = SECTIONS[section]
    owners: dict[str, list[str]] = {}
    for name in names(kind):
        for option in schema(kind, name).options():
            owners.setdefault(option, []).append(name)
    return {option: f"of {place}.{key}={', '.join(having)}" for option, having in owners.items()}


def _best(steps: Sequence[str], paths: Iterable[str]) -> str:
    """Of paths that end alike, the one that has most of the words that were typed, and is shortest."""
    return min(paths, key=lambda path: (-len(set(path.split(".")) & set(steps)), path.count(".")))


def _paths(recipe: type[Spec], raw: dict) -> Iterator[str]:
    """All options of a recipe with these plug-ins, as dotted paths; of a section that is missing, those of all its plug-ins."""
    for name in recipe.options():
        if name not in SECTIONS:
            yield from _inside(recipe, name)
            continue
        kind, key, is_list = SECTIONS[name]
        given = [raw.get(name)] if not isinstance(raw.get(name), list) else raw[name] if is_list else []
        chosen = [item[key] if isinstance(item, dict) and item.get(key) in names(kind) else None for item in given or [None]]
        for number, plugin in enumerate(chosen):
            place = f"{name}.{number}" if is_list else name
            yield place
            for each in [plugin] if plugin else names(kind):
                yield from (
                    f"{place}.{path}" for field in schema(kind, each).options() for path in _inside(schema(kind, each), field)
                )


def _inside(spec: type[Spec], field: str) -> Iterator[str]:
    """A field, and the fields inside it."""
    yield field
    if section := nested(spec.options()[field].annotation):
        yield from (f"{field}.{path}" for inner in section.options() for path in _inside(section, inner))


def _section(spec: type[Spec], loc: Sequence) -> type[Spec]:
    """The schema at a place of a section; a step that leads into none stays where it is."""
    for step in loc:
        field = spec.options().get(step) if isinstance(step, str) else None
        spec = nested(field.annotation) or spec if field else spec
    return spec


def nested(annotation: Any) -> type[Spec] | None:
    """The schema that a field's type is, `Inner` or `Inner | None`; none if it is no section."""
    kinds = [kind for kind in get_args(annotation) or [annotation] if isinstance(kind, type) and issubclass(kind, Spec)]
    return kinds[0] if len(kinds) == 1 and get_origin(annotation) not in (list, dict) else None
