"""A folder of plug-ins is the registry: `method.name: lora` means `adapt/methods/lora.py`.

A plug-in is a file `NAME.py`, or a folder `NAME/` whose light `__init__.py` is that file; what it promises is in `contracts.py`. What
several plug-ins of a folder share is named in `SHARED`, and is no plug-in.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

ROOT = Path(__file__).resolve().parent

# A section that names a plug-in: its key in the recipe → (folder of plug-ins, the key that names the plug-in, is it a list).
SECTIONS = {
    "model": ("models", "name", False),
    "data": ("data", "source", False),
    "method": ("methods", "name", False),
    "evals": ("evals", "name", True),
    "distill": ("distill", "name", False),
    "export": ("export", "name", True),
}


CALLED = {
    "models": "model family",
    "data": "source of data",
    "methods": "method",
    "evals": "eval",
    "distill": "objective",
    "export": "export target",
}
"""Folder of plug-ins → what one of them is called."""


SHARED = {
    "models": {"answers", "base", "checkpoint", "vision_language"},
    "data": {"check", "places", "problems", "scan", "split", "world"},
    "methods": {"adapter", "low_rank", "memory"},
    "evals": {"bootstrap", "feature_bank", "metrics", "result", "text"},
    "distill": {"cache"},
    "export": {"bench", "examples", "gate"},
}
"""Folder of plug-ins → its modules that are none."""


class UserError(Exception):
    """A mistake in a recipe, in the data or in the surroundings: one clear line a problem, no traceback, exit status 2."""


class Spec(BaseModel):
    """Base of every config section: frozen, unknown keys forbidden, each field's docstring is its description."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )
    idle: ClassVar[frozenset[str]] = frozenset()
    """Fields that change no result, such as how many processes load."""
    renamed: ClassVar[dict[str, str]] = {}
    """Former name of a field → its name now, for the error that answers the former."""


def settings(spec: Spec) -> dict[str, Any]:
    """The fields that say what a result is of: those that differ from their defaults and are not idle, as JSON can write them.

    So a new field with a default leaves the keys of what was made before it as they are.
    """
    return {
        name: _plain(value)
        for name, field in type(spec).model_fields.items()
        if name not in spec.idle and (value := getattr(spec, name)) != field.get_default(call_default_factory=True)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return settings(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return {key: _plain(item) for key, item in value.items()} if isinstance(value, dict) else value


class Plugin(Spec):
    """Base of a plug-in's `Config`."""

    name: str
    """The plug-in: the name of its file, without `.py`."""


class Source(Spec):
    """Base of the `Config` of a source of data."""

    source: str
    """The source: the name of its file, without `.py`."""

    def check_paths(self) -> None:
        """Look for the files and folders that it names, before anything heavy is imported.

        Raises:
            UserError: one is missing.
        """


def names(folder: str) -> list[str]:
    """The plug-ins of `adapt/<folder>`, sorted."""
    files = [*(ROOT / folder).glob("*.py"), *(path.parent for path in (ROOT / folder).glob("*/__init__.py"))]
    return sorted({path.stem for path in files} - {"__init__"} - SHARED[folder])


def load(folder: str, name: str) -> ModuleType:
    """Import the plug-in `adapt/<folder>/<name>.py`, or `adapt/<folder>/<name>/`.

    Raises:
        UserError: the folder has no such plug-in; the message has the nearest name and all of them.
    """
    have = names(folder)
    if name not in have:
        raise UserError(f"There is no {CALLED[folder]} {name!r}.{nearest(name, have)}")
    return importlib.import_module(f"adapt.{folder}.{name}")


def schema(folder: str, name: str) -> type[Spec]:
    """The `Config` of a plug-in."""
    return load(folder, name).Config


def nearest(word: object, have: Iterable[str]) -> str:
    """The sentence that ends an error: the nearest right name, if one is near, and all that there are."""
    have = list(have)
    close = difflib.get_close_matches(str(word)[:100], have, n=1, cutoff=0.6)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{hint} Have: {', '.join(have) or 'none'}."


def counted(number: int, noun: str) -> str:
    """1 → '1 weight', 2000 → '2,000 weights'."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
