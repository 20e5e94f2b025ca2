"""A folder of plug-ins is the registry: `method.name: lora` means `adapt/methods/lora.py`.

A plug-in is a file `NAME.py`, or a folder `NAME/` whose light `__init__.py` is that file; what it promises is in `contracts.py`. What
several plug-ins of a folder share is named in `SHARED`, and is no plug-in. Your own lie in folders of the same names below
`ADAPT_PLUGINS` (several folders are separated as in PATH), where a name that begins with `_` is a helper's.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

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
    "students": "kind of student",
    "export": "export target",
}
"""Folder of plug-ins → what one of them is called."""


SHARED = {
    "models": {"answers", "base", "checkpoint", "vision_language"},
    "data": {
        "annotated",
        "check",
        "config",
        "listing",
        "objects",
        "outlines",
        "places",
        "problems",
        "reading",
        "scan",
        "split",
        "world",
    },
    "methods": {"adapter", "few_labels", "low_rank", "memory"},
    "evals": {
        "bootstrap",
        "by_set",
        "calibration",
        "captions",
        "feature_bank",
        "mask_metrics",
        "metrics",
        "objects",
        "resampled",
        "result",
        "text",
    },
    "distill": {"cache", "labels", "taught"},
    "students": {"base", "cnn", "pyramid"},
    "export": {"bench", "examples", "gate"},
}
"""Folder of plug-ins → its modules that are none."""


class UserError(Exception):
    """A mistake in a recipe, in the data or in the surroundings: one clear line a problem, no traceback, exit status 2."""

    def _render_traceback_(self) -> list[str]:
        """As IPython shows it below a cell: the lines alone."""
        return str(self).splitlines()


class Spec(BaseModel):
    """Base of every config section: frozen, unknown keys forbidden, each field's docstring is its description."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )
    idle: ClassVar[frozenset[str]] = frozenset()
    """Fields that change no result, such as how many processes load."""
    renamed: ClassVar[dict[str, str]] = {}
    """Former name of a field → its name now, for the error that answers the former."""

    @classmethod
    def options(cls) -> dict[str, FieldInfo]:
        """The fields by their names as a user types them."""
        return {field.alias or name: field for name, field in cls.model_fields.items()}

    def values(self) -> dict[str, Any]:
        """The fields' values by their names as a user types them."""
        return {field.alias or name: getattr(self, name) for name, field in type(self).model_fields.items()}


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


def names(folder: str) -> list[str]:
    """The plug-ins of a kind, ours and yours, sorted."""
    return sorted(files(folder))


def files(folder: str) -> dict[str, Path]:
    """Name → file of the plug-ins of a kind.

    Raises:
        UserError: `ADAPT_PLUGINS` names a folder that is not there, or a plug-in of a name that is taken.
    """
    found = {name: file for name, file in _files(ROOT / folder).items() if name not in SHARED[folder]}
    for root in filter(None, os.environ.get("ADAPT_PLUGINS", "").split(os.pathsep)):
        if not Path(root).expanduser().is_dir():
            raise UserError(
                f"ADAPT_PLUGINS: there is no folder {root!r}. It holds folders such as methods/ and evals/, with a file a plug-in."
            )
        for name, file in _files(Path(root).expanduser().resolve() / folder).items():
            if name in found and found[name] != file:
                raise UserError(
                    f"ADAPT_PLUGINS: {file}: there is a {CALLED[folder]} {name!r} already: {found[name]}. Give it another name."
                )
            found[name] = file
    return found


def _files(place: Path) -> dict[str, Path]:
    """Name → file of what lies in a folder: modules, and packages by their `__init__.py`."""
    modules = {path.stem: path for path in place.glob("*.py")}
    packages = {path.parent.name: path for path in place.glob("*/__init__.py")}
    return {name: file for name, file in (modules | packages).items() if name.isidentifier() and not name.startswith("_")}


def load(folder: str, name: str) -> ModuleType:
    """Import a plug-in: `adapt/<folder>/<name>.py`, `adapt/<folder>/<name>/`, or the same below `ADAPT_PLUGINS`.

    Raises:
        UserError: there is no such plug-in; the message has the nearest name and all of them.
    """
    have = files(folder)
    if name not in have:
        raise UserError(f"There is no {CALLED[folder]} {name!r}.{nearest(name, sorted(have))}")
    file = have[name]
    if file.is_relative_to(ROOT):
        return importlib.import_module(f"adapt.{folder}.{name}")
    return _yours(file, f"adapt_plugins.{folder}.{name}")


def _yours(file: Path, name: str) -> ModuleType:
    """Import a file that is not ours, under this name.

    Raises:
        UserError: it cannot be imported.
    """
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(file):
        return known
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic and dataclasses look their annotations up here
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # of a stranger's file, any
        del sys.modules[name]
        raise UserError(f"{file}: this plug-in cannot be imported: {type(error).__name__}: {error}") from error
    return module


def schema(folder: str, name: str) -> type[Spec]:
    """The `Config` of a plug-in of a kind that has one: all but students.

    Raises:
        UserError: there is no such plug-in, or its file has no `Config`.
    """
    module = load(folder, name)
    config = vars(module).get("Config")
    if not (isinstance(config, type) and issubclass(config, Spec)):
        raise UserError(
            f"{module.__file__}: a {CALLED[folder]} needs a class `Config` with its options, a subclass of its kind's base in "
            "adapt/contracts.py; this file has none. Add it, or give a helper's file a name that begins with `_`."
        )
    return config


def nearest(word: object, have: Iterable[str]) -> str:
    """The sentence that ends an error: the nearest right name, if one is near, and all that there are."""
    have = list(have)
    close = difflib.get_close_matches(str(word)[:100], have, n=1, cutoff=0.6)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{hint} Have: {', '.join(have) or 'none'}."


def counted(number: int, noun: str) -> str:
    """1 → '1 weight', 2000 → '2,000 weights', 3 → '3 boxes'."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x")) else "s"
    return f"{number:,} {noun}{ending}"
