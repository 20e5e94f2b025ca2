"""What is tried: looks (how a thing is shown), wordings (what the classes are called) and subtraction, without what differs in nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapt.plug import UserError
from adapt.prompting.text import Words, placed_templates, words
from adapt.prompting.visual import LINES, MASKED, Visual, parse
from adapt.prompting.word_lists import placed
from adapt.recipe import Prompts
from adapt.verbs.searching.request import COMMON, PLAIN, Space

if TYPE_CHECKING:
    from adapt.recipe import Recipe

PAIRED = 5
"""Templates up to which each two of them are tried together."""
MOST = 50_000
"""Candidates, at most."""
Unit = tuple
"""One drawing with the values that it depends on: what is encoded, once a thing."""
WHOLE: Unit = ("picture",)
"""The picture as it is."""


@dataclass(frozen=True)
class Look:
    """How a thing is shown; of whole pictures there is one, without a drawing."""

    visual: Visual | None
    units: tuple[Unit, ...]
    """Its drawings, as they are encoded."""

    @property
    def title(self) -> str:
        """In words, such as `crop and ellipse, expand 0.2, line 2 %, pad`."""
        if self.visual is None:
            return "the picture"
        said = [" and ".join(self.visual.drawings or [])]
        own = {name for unit in self.units for name, _ in unit[1:]}
        said += [f"expand {self.visual.expand:g}"] if "expand" in own else []
        said += [f"{name} {self.visual.values()[name]:g} %" for name in ("line", "blur") if name in own]
        said += [self.visual.fit] if "fit" in own else []
        return ", ".join(said)


@dataclass(frozen=True)
class Wording:
    """What the classes are called."""

    prompts: Prompts
    words: Words
    title: str


@dataclass(frozen=True)
class Candidate:
    """One way to ask: numbers of a look and of a wording, and how much is subtracted."""

    look: int
    wording: int
    subtract: float


@dataclass(frozen=True)
class Tried:
    """All candidates; the plain one and the recipe's own among them, which are never dropped."""

    looks: list[Look]
    wordings: list[Wording]
    candidates: list[Candidate]
    plain: Candidate
    own: Candidate


@dataclass(frozen=True)
class Things:
    """What is known of the things before any is drawn: it decides which values a drawing depends on."""

    masked: bool
    """Has each thing a mask?"""
    square: bool
    """Has every picture the shape of the model's input?"""


def tried(recipe: Recipe, labels: Sequence[str], space: Space, own: tuple[Visual, float] | None, things: Things) -> Tried:
    """The product of the lists of a space.

    Args:
        own: the recipe's visual, with its drawings named, and how much it subtracts; none: whole pictures.

    Raises:
        UserError: a list of words does not match the data, or there are too many candidates.
    """
    wordings = _wordings(recipe.prompts, labels, space)
    if own is None:
        looks, subtracts, mine, own_look = [Look(None, (WHOLE,))], [0.0], 0.0, 0
    else:
        visual, mine = own
        plain = Visual(**{**visual.values(), **_plain_values(), "drawings": ["crop"]})
        looks = _distinct([plain, visual, *_visuals(visual, space)], things)
        own_look = _place(looks, visual, things)
        subtracts = sorted(set(space.subtract))
    first, second = Candidate(0, 0, 0.0), Candidate(own_look, 1, mine)
    found = [Candidate(*each) for each in itertools.product(range(len(looks)), range(len(wordings)), subtracts)]
    found = list(dict.fromkeys([first, second, *found]))
    if len(found) > MOST:
        raise UserError(f"space: {len(found):,} candidates are more than {MOST:,}. Leave some of its values out.")
    return Tried(looks, wordings, found, first, second)


# ------------------------------------------------------------------------------------------------------------------ looks


def _plain_values() -> dict[str, Any]:
    """The values of a plain crop: the defaults."""
    return {name: Visual.model_fields[name].default for name in ("expand", "line", "blur", "fit")}


def _visuals(base: Visual, space: Space) -> list[Visual]:
    values = itertools.product(space.drawings, space.expand, space.line, space.blur, space.fit)
    return [
        base.model_copy(
            update={
                "drawings": [drawings] if isinstance(drawings, str) else drawings,
                "expand": expand,
                "line": line,
                "blur": blur,
                "fit": fit,
            }
        )
        for drawings, expand, line, blur, fit in values
    ]


def _distinct(visuals: Sequence[Visual], things: Things) -> list[Look]:
    """A look for each that shows something else than those before it."""
    found: dict[frozenset[Unit], Look] = {}
    for visual in visuals:
        look = Look(visual, tuple(unit(visual, drawing, things) for drawing in visual.drawings or []))
        found.setdefault(frozenset(look.units), look)
    return list(found.values())


def _place(looks: Sequence[Look], visual: Visual, things: Things) -> int:
    units = {unit(visual, drawing, things) for drawing in visual.drawings or []}
    return next(number for number, look in enumerate(looks) if set(look.units) == units)


def unit(visual: Visual, drawing: str, things: Things) -> Unit:
    """A drawing with the values that it depends on."""
    parts = parse(drawing)
    framed = {"crop", "ellipse", "box"} & set(parts) or (set(MASKED) & set(parts) and not things.masked)
    own = {
        "expand": bool(framed),
        "line": any(part in LINES for part in parts),
        "blur": "blur" in parts,
        "fit": "crop" in parts or not things.square,
    }
    return ("+".join(parts), *((name, visual.values()[name]) for name, depends in own.items() if depends))


# --------------------------------------------------------------------------------------------------------------- wordings


def _wordings(prompts: Prompts, labels: Sequence[str], space: Space) -> list[Wording]:
    """The plain one, the recipe's own, and those of the space; none twice, by their texts."""
    bare = dict.fromkeys(("descriptions", "texts", "random"))
    options = [(prompts.model_copy(update={"templates": [PLAIN], "combine": "mean"} | bare), f"plain: {PLAIN}")]
    options.append((prompts, "the recipe's" if prompts.texts else f"the recipe's: {_titled(prompts.templates)}"))
    for classes in space.classes or [prompts.classes]:
        called = f"classes {_called(classes)}, " if space.classes else ""
        for templates in _templates(prompts, space):
            for combine in space.combine:
                changed = prompts.model_copy(update={"templates": templates, "classes": classes, "combine": combine})
                options.append((changed, called + _titled(templates)))
    found: list[Wording] = []
    known: set[str] = set()
    for number, (each, title) in enumerate(options):
        said = words(each, labels)
        several = len(said.templates) * max(map(len, said.texts)) > 1
        key = str((said.templates, said.texts, said.combine if several else ""))
        if key in known and number > 1:
            continue
        known.add(key)
        found.append(Wording(each, said, f"{title}, {said.combine}" if several and number > 1 else title))
    return found


def _templates(prompts: Prompts, space: Space) -> list[str | list[str]]:
    """What is tried as `prompts.templates`."""
    if prompts.texts is not None and space.templates is not None:
        raise UserError(
            "space.templates: the recipe's prompts.texts are whole texts, which stand in no template. Leave out one."
        )
    if prompts.texts is not None:
        return [prompts.templates]  # whole texts stand in none
    if space.templates is not None:
        return [[option] if isinstance(option, str) and placed(option) else option for option in space.templates]
    every = list(dict.fromkeys(placed_templates(prompts)))
    alone = [[template] for template in dict.fromkeys([*every, *COMMON])]
    pairs = [list(pair) for pair in itertools.combinations(every, 2)] if 2 < len(every) <= PAIRED else []
    return [prompts.templates, *alone, list(COMMON), *pairs]


def _titled(templates: str | list[str]) -> str:
    if isinstance(templates, str):
        return f"templates {templates}"
    return " | ".join(templates) if len(templates) <= 2 else f"{len(templates)} templates, the first {templates[0]}"


def _called(classes: Any) -> str:
    return classes if isinstance(classes, str) else "of the data" if classes is None else f"of your own ({len(classes)})"
