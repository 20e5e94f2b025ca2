"""Lists of words: files of `prompts/`, a user's own YAML files, or what a recipe spells out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from adapt.overrides import parse_yaml
from adapt.plug import UserError
from adapt.recipe import find, folder, read_text

KINDS = {"templates": (list,), "classes": (dict, list), "descriptions": (dict,), "texts": (dict,)}
"""Key of a prompt file → what may stand there."""


@dataclass(frozen=True)
class Entry:
    """What a list says of a class."""

    key: str
    """The data's label that it is meant for; of a plain list of names, the name itself."""
    texts: tuple[str, ...]
    """Its names, the first of which is the class's, or its descriptions or whole texts."""


@dataclass(frozen=True)
class WordList:
    """A list as it was given."""

    key: str
    """`templates`, `classes`, `descriptions` or `texts`."""
    content: Any
    """Templates: the list; else a mapping from label to text or texts, or a list of names."""
    ordered: bool
    """Is its order the data set's own? That of a list is, and that of what is shipped."""

    def entries(self) -> list[Entry]:
        """An entry a class, in the list's order.

        Raises:
            UserError: a class has no text at all, or something that is not a text.
        """
        pairs = self.content.items() if isinstance(self.content, dict) else [(None, texts) for texts in self.content]
        return [self._entry(key, texts) for key, texts in pairs]

    def _entry(self, key: Any, texts: Any) -> Entry:
        several = list(texts) if isinstance(texts, list | tuple) else [texts]
        if wrong := [text for text in several if isinstance(text, dict | list) or text is None]:
            raise UserError(
                f"prompts.{self.key}: {key or texts!r}: {wrong[0]!r} is not a text. Write a text, or a list of texts."
            )
        if not several:
            raise UserError(
                f"prompts.{self.key}: {key or texts!r} has an empty list. Give it one text at least, or '' for none."
            )
        return Entry(str(several[0] if key is None else key), tuple(map(str, several)))


def placed(template: Any) -> str | None:
    """A template with exactly one `{}`, which `{c}` is too, as CLIP_benchmark writes it; none: it has no place for a name, or several."""
    found = template.replace("{c}", "{}") if isinstance(template, str) else ""
    return found if found.count("{}") == 1 else None


def read(given: str | list | dict, key: str) -> WordList:
    """A list by the name of a file of `prompts/`, by the path of a YAML file, or as it is.

    Raises:
        UserError: there is no such file, or it has nothing of this key.
    """
    if not isinstance(given, str):
        return WordList(key, given, isinstance(given, list))
    path = find("prompts", given)
    content = parse_yaml(read_text(path, "prompts"), str(path))
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, KINDS[key]):
        have = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        what = "list" if KINDS[key] == (list,) else "mapping"
        raise UserError(f"prompts.{key}: the file {given!r} has no {what} named {key!r}. It has: {have}.")
    return WordList(key, value, shipped(given) or isinstance(value, list))


def shipped(given: str | list | dict | None) -> bool:
    """Is this the name of a list of the package's? Not a path, nor what a recipe spells out."""
    return isinstance(given, str) and not given.endswith((".yaml", ".yml"))


def family(name: str) -> str:
    """`clip` or `coop`, the family of a shipped list; empty of others."""
    parts = find("prompts", name).relative_to(folder("prompts")).parts if shipped(name) else ()
    return parts[0] if len(parts) > 1 else ""
