"""The texts of a zero-shot classifier: class names, aliases, descriptions and templates, matched to the data by name.

    prompts: {templates: clip/eurosat, classes: clip/eurosat}                            # a list of `prompts/`
    prompts: {classes: {hen: [hen, chicken], cup: cup}}                                  # several names a class
    prompts: {descriptions: {hen: [a red comb, two legs], cup: [a handle]}}              # "a photo of a hen, which has a red comb."
    prompts: {texts: {hen: [a bird with a red comb], cup: ["{}, to drink from"]}}        # whole texts, in no template
    prompts: {random: {seed: 3}}                                                         # the baseline of descriptions

Names are matched, never positions (unless `match: position` says so): a list in another order scores like chance without a word.

Sources: prompt ensembles: CLIP §3.1.4, arXiv:2103.00020. Descriptions: Menon and Vondrick 2022, arXiv:2210.07183.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapt.plug import UserError, counted
from adapt.prompting.class_names import matched
from adapt.prompting.random_words import descriptions as random_descriptions
from adapt.prompting.word_lists import Entry, family, placed, read, shipped
from adapt.recipe import Prompts

LINKS = ("which ", "that ", "who ", "with ", "without ", "where ", "used ", "made ")
"""How a description begins that follows a name as it is; before any other stands `which has`."""


@dataclass(frozen=True)
class Words:
    """What a family is told of the classes, and what its user should read once."""

    classes: list[str]
    """The name of each class, in the labels' order."""
    templates: list[str]
    """One `{}` each."""
    texts: list[list[str]]
    """For each class what is put in the templates: its name, or its aliases or descriptions; one at least."""
    combine: str
    """How several texts become one score; see `Prompts.combine`."""
    notes: list[str]
    """Lines for the user: names that were matched by spelling or number, duplicates and empties of a shipped list."""

    @property
    def told(self) -> dict[str, Any]:
        """The arguments of `Family.set_classes`: of plain names without `texts`, so that what was made of them before stays valid."""
        plain = {"classes": self.classes, "templates": self.templates}
        if self.texts == [[name] for name in self.classes] and self.combine != "similarity":
            return plain
        return plain | {"texts": self.texts, "combine": self.combine}


def words(prompts: Prompts, labels: Sequence[str]) -> Words:
    """The words of a recipe for these labels.

    Args:
        labels: the names of the data's classes 0, 1, …

    Raises:
        UserError: a list does not exist, or does not match the data (with both differences), lists of two families, a template
            without a place for the name, duplicates and empties in a user's own list.
    """
    check(prompts)
    notes: list[str] = []
    templates = placed_templates(prompts)
    names = _names(prompts, labels, notes)
    classes = [several[0] for several in names]
    texts, where = names, "classes"
    if prompts.texts is not None:
        texts, where, templates = _texts(prompts, labels, names, notes), "texts", ["{}"]
    elif prompts.descriptions is not None:
        texts, where = _described(prompts, labels, names, notes), "descriptions"
    if prompts.random is not None:
        random = random_descriptions(classes, prompts.random.pairs, prompts.random.seed)
        templates = [_put(template, f"{{}}, which has {text}") for template in templates for text in random]
    given = prompts.values()[where]
    own = given is not None and not shipped(given)  # the labels' own names are no list that could be corrected
    _unlike(where, labels, texts, own and "duplicates" not in prompts.allow, notes)
    _filled(where, labels, texts, own and "empty" not in prompts.allow, notes)
    return Words(classes, templates, texts, prompts.combine, notes)


def check(prompts: Prompts) -> None:
    """Check what can be checked without the data, before anything heavy is imported.

    Raises:
        UserError: a list does not exist or is not a list, lists of two families, a template without a place for the name, or two
            options that do not go together.
    """
    _one_family(prompts)
    placed_templates(prompts)
    _go_together(prompts)
    for key in ("classes", "descriptions", "texts"):
        if prompts.values()[key] is not None:
            read(prompts.values()[key], key).entries()


def placed_templates(prompts: Prompts) -> list[str]:
    """The templates, each with one `{}`; `{c}`, as CLIP_benchmark writes it, is the same.

    Raises:
        UserError: a template has no place for the name or several, the list is empty, or an own list has one twice.
    """
    given = read(prompts.templates, "templates").content
    found = []
    for i, template in enumerate(given):
        if (text := placed(template)) is None:
            raise UserError(
                f"prompts.templates.{i}: {template!r} needs exactly one {{}} (or {{c}}), where the class name goes."
            )
        found.append(text)
    if not found:
        raise UserError("prompts.templates: the list is empty. Use ['{}'] for the bare class name.")
    twice = next((template for template in found if found.count(template) > 1), None)
    if twice and not shipped(prompts.templates) and "duplicates" not in prompts.allow:
        raise UserError(
            f"prompts.templates: {twice!r} is in the list twice, so it counts double. Name it once, or write prompts.allow=[duplicates]."
        )
    return found


# ----------------------------------------------------------------------------------------------------------- a class's own


def _names(prompts: Prompts, labels: Sequence[str], notes: list[str]) -> list[list[str]]:
    """For each label its name and aliases: of the list, or the label's own in readable form."""
    if prompts.classes is None:
        as_coop = isinstance(prompts.templates, str) and family(prompts.templates) == "coop"
        blank = "_" if as_coop else "_-"  # its trainers/zsclip.py leaves the hyphens of `707-320`
        return [[re.sub(f"[{blank}]", " ", label)] for label in labels]
    return [list(entry.texts) for entry in _matched(prompts, "classes", labels, notes)]


def _texts(prompts: Prompts, labels: Sequence[str], names: list[list[str]], notes: list[str]) -> list[list[str]]:
    found = _matched(prompts, "texts", labels, notes, names)
    return [[_put(text, several[0]) for text in entry.texts] for entry, several in zip(found, names, strict=True)]


def _described(prompts: Prompts, labels: Sequence[str], names: list[list[str]], notes: list[str]) -> list[list[str]]:
    found = _matched(prompts, "descriptions", labels, notes, names)
    return [
        [described(name, text) for name in several for text in entry.texts] for entry, several in zip(found, names, strict=True)
    ]


def described(name: str, text: str) -> str:
    """A name with a description, to be put in a template: `hen, which has a red comb`; `{}` or `{c}` in the text is the name's place."""
    if not text.strip():
        return name
    if "{}" in text or "{c}" in text:
        return _put(text, name)
    return f"{name}, {text}" if text.startswith(LINKS) else f"{name}, which has {text}"


def _put(text: str, name: str) -> str:
    return text.replace("{c}", "{}").replace("{}", name)


# ----------------------------------------------------------------------------------------------------------------- checks


def _matched(
    prompts: Prompts, key: str, labels: Sequence[str], notes: list[str], names: list[list[str]] | None = None
) -> list[Entry]:
    """The entry of each label, by its name or its class's or, where the recipe says so, by position."""
    found = read(prompts.values()[key], key)
    numbers, said = matched(labels, found, f"prompts.{key}", prompts.match, names)
    notes += said
    entries = found.entries()
    return [entries[number] for number in numbers]


def _one_family(prompts: Prompts) -> None:
    """The lists of CLIP's benchmarks and of CoOp name and ask differently: a score of both at once is comparable to none."""
    files = {
        name: value
        for name in ("templates", "classes", "descriptions", "texts")
        if isinstance(value := prompts.values()[name], str)
    }
    families = {name: family(value) for name, value in files.items() if family(value)}
    if len(set(families.values())) < 2 or "mixed" in prompts.allow:
        return
    (first, one), (second, other) = next((a, b) for a in families.items() for b in families.items() if a[1] != b[1])
    raise UserError(
        f"prompts: {first} {files[first]!r} and {second} {files[second]!r} are of two families of lists, {one}/ and {other}/, whose "
        f"published figures are not comparable. Use one, such as prompts.{first}={files[second]}, or write prompts.allow=[mixed]."
    )


def _go_together(prompts: Prompts) -> None:
    """Whole texts, descriptions and random words exclude each other."""
    if prompts.texts is not None and (prompts.descriptions is not None or prompts.random is not None):
        other = "descriptions" if prompts.descriptions is not None else "random"
        raise UserError(f"prompts.texts: whole texts stand in no template and take no {other}. Leave out one of the two.")
    if prompts.descriptions is not None and prompts.random is not None:
        raise UserError("prompts.random: random words stand in the place of descriptions. Leave out one of the two.")


def _unlike(where: str, labels: Sequence[str], texts: list[list[str]], refused: bool, notes: list[str]) -> None:
    """No text stands for two classes, or twice for one: the first ties them, the second counts double."""
    seen: dict[str, int] = {}
    doubled: list[tuple[str, int, int]] = []
    for number, several in enumerate(texts):
        for text in several:
            if text.strip() and text in seen:
                doubled.append((text, seen[text], number))
            seen.setdefault(text, number)
    if not doubled:
        return
    text, first, second = doubled[0]
    ties = f"stands for both {labels[first]!r} and {labels[second]!r}" if first != second else f"is twice in {labels[first]!r}"
    line = f"prompts.{where}: {text!r} {ties}" + (f" ({counted(len(doubled), 'duplicate')} in all)" if len(doubled) > 1 else "")
    if refused:
        raise UserError(f"{line}. Give each class texts of its own, or write prompts.allow=[duplicates].")
    notes.append(f"{line}: such classes cannot be told apart." if first != second else f"{line}: it counts double.")


def _filled(where: str, labels: Sequence[str], texts: list[list[str]], refused: bool, notes: list[str]) -> None:
    """Each class has a text, and no text is blank."""
    blank = [label for label, several in zip(labels, texts, strict=True) if not all(text.strip() for text in several)]
    if not blank:
        return
    line = f"prompts.{where}: the text of {blank[0]!r} is empty" + (f" ({len(blank)} in all)" if len(blank) > 1 else "")
    if refused:
        raise UserError(f"{line}. Write one, or prompts.allow=[empty].")
    notes.append(f"{line}: its templates stand without a name.")
