"""The run folder: what a recipe leaves on disk, from which any number can be traced back to its base checkpoint.

    runs/NAME-HASH/  recipe.yaml manifest.json adapter/ checkpoints/ history.jsonl metrics.json predictions/ cache/ student/ export/ report.html

HASH is of the sections that decide the adapted model; other distill, evals and export sections share the folder.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from glob import escape
from pathlib import Path
from typing import Any

from adapt.plug import UserError, nearest
from adapt.provenance import code_hash, packages
from adapt.recipe import Recipe, load_recipe

SECTIONS = ("name", "model", "data", "method", "prompts", "train", "seed")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)
HOST = re.sub(r"[^A-Za-z0-9-]+", "-", platform.node())[:40] or "host"
"""This machine's name, as temporary names carry it: on a shared disk, another machine's processes are not ours to judge."""
ASIDE = ".before"
"""What ends the temporary name of a folder that is being replaced."""
NOTHING = "not set"


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path`, for a file or a folder; renamed to `path` on success, removed on failure.

    A folder that is there stands aside until the new one is in its place, so that a kill never takes both; see `recover`. What a killed
    process left of the same name is removed first.

    Raises:
        UserError: the disk is full or read-only, the place forbidden or no folder; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{HOST}.{os.getpid()}")
    aside = temporary.with_name(temporary.name + ASIDE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        yield temporary
        if path.is_dir():
            os.rename(path, aside)
        os.replace(temporary, path)
    except Exception as error:
        if reason := _refusal(error, path.parent):
            raise UserError(f"{path}: cannot be written: {reason}. Make room, or work in another folder.") from error
        raise
    finally:
        if os.path.lexists(aside):
            recover(path)
        _remove(temporary)


def recover(path: Path) -> None:
    """Put the folder back that stands aside, if nothing has taken its place: a kill came between; else remove it."""
    for aside in _left(path, ASIDE):
        if path.exists():
            _remove(aside)
        else:
            with suppress(OSError):  # another process has done it
                os.rename(aside, path)


def _refusal(error: Exception, folder: Path) -> str:
    """Why the place refused what was written to it: full, read-only, forbidden, no folder; empty for any other error."""
    if isinstance(error, UserError):
        return ""
    if isinstance(error, OSError) and error.errno in FULL + FORBIDDEN:
        return os.strerror(error.errno)
    # safetensors keeps the system's words only; torch and numpy not even these, so the disk is asked
    words = next((words for words in map(os.strerror, FULL) if words in str(error)), "")
    full = isinstance(error, OSError | RuntimeError) and shutil.disk_usage(folder).free < 1 << 20
    return words or (os.strerror(errno.ENOSPC) if full else "")


def _sweep(path: Path) -> None:
    """Remove what killed processes of this machine left of `path`, once a folder that stands aside is in its place again."""
    recover(path)
    for left in _left(path):
        _remove(left)


def _left(path: Path, ending: str = "") -> list[Path]:
    """Temporary siblings of `path` of killed processes of this machine, and of this process's own number, from an earlier life too."""
    found = []
    for left in path.parent.glob(f".{escape(path.name)}.{HOST}.*{ending}"):
        number = left.name.removesuffix(ending).rpartition(".")[2]
        if number.isdecimal() and (int(number) == os.getpid() or not _alive(int(number))):
            found.append(left)
    return found


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # another user's
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(NotADirectoryError):
            path.unlink(missing_ok=True)


class Run:
    """A run folder; on other processes than the main one (`writes=False`) writing does nothing.

    Args:
        share: (value) → the main process's value, on every process: the main process alone reads, so that all decide alike, also
            where each machine has a disk of its own.
    """

    def __init__(self, path: Path, writes: bool = True, share: Callable[[Any], Any] = lambda value: value):
        self.path, self.writes, self.share = path, writes, share
        self._known: dict[str, Any] = {}

    @classmethod
    def open(
        cls,
        recipe: Recipe,
        root: Path = Path("runs"),
        writes: bool = True,
        share: Callable[[Any], Any] = lambda value: value,
    ) -> Run:
        """The recipe's folder, which is made by `begin`."""
        return cls(root / f"{recipe.name}-{recipe.key(*SECTIONS)}", writes, share)

    def begin(self, recipe: Recipe) -> Run:
        """Make the folder with the recipe in it, if need be: when the first result is at hand, and no mistake has been found."""
        text, place = recipe.to_yaml(), self.path / "recipe.yaml"
        if not place.is_file() or place.read_text(encoding="utf-8") != text:
            self.write_text("recipe.yaml", text)
        return self

    @classmethod
    def from_folder(cls, path: Path | str, recipe: Recipe | None = None) -> Run:
        """An existing run folder, by its path or by its name in `runs`.

        Raises:
            UserError: it is none, or it belongs to another recipe than the one given.
        """
        path = Path(path)
        inside = Path("runs") / path
        if not (path / "recipe.yaml").is_file() and (inside / "recipe.yaml").is_file():
            path = inside
        if not (path / "recipe.yaml").is_file():
            if path.exists() or len(path.parts) > 1:
                raise UserError(
                    f"run: {str(path)!r} is not a run folder: it has no recipe.yaml. Run folders are runs/NAME-HASH."
                )
            have = sorted(file.parent.name for file in Path("runs").glob("*/recipe.yaml"))
            raise UserError(
                f"run: {path.name!r} is not a run folder: there is no recipe.yaml in it, here or in runs/.{nearest(path.name, have)}"
            )
        if recipe is not None:
            both = load_recipe(path / "recipe.yaml"), recipe
            if len({each.key(*SECTIONS) for each in both}) > 1:
                theirs, ours = (each.model_dump(mode="json", include=set(SECTIONS)) for each in both)
                raise UserError(
                    f"run: {str(path)!r} belongs to another recipe: {_difference(theirs, ours)}. Leave run= out for a new folder."
                )
        return cls(path)

    def at_home(self, recipe: Recipe) -> None:
        """Is this the folder where verbs of the recipe would work? They look for runs/ in the working folder.

        Raises:
            UserError: it is not.
        """
        home = Run.open(recipe, writes=False).path
        if home.resolve() != self.path.resolve():
            raise UserError(
                f"run: {str(self.path)!r} is not {str(home)!r}, where its recipe works. Go to the folder that holds runs/."
            )

    def write_text(self, name: str, text: str) -> None:
        """Write a text file, whole or not at all."""
        if self.writes:
            with atomic(self.path / name) as temporary:
                with open(temporary, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, whole or not at all."""
        text = json.dumps(value, indent=1)
        self._known[name] = json.loads(text)  # as it would be read
        self.write_text(name, text + "\n")

    def read_json(self, name: str, default: Any = None) -> Any:
        """A JSON file's content, or the default when there is none; read once, by the main process for all.

        Raises:
            UserError: the file is there but is no JSON.
        """
        if name not in self._known:
            self._known[name] = self.share(self._read_json(name) if self.writes else None)
        value = self._known[name]
        return default if value is None else value

    def _read_json(self, name: str) -> Any:
        path = self.path / name
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read: {error}. Put the file back, or delete it to do its part again.") from None

    def forget(self, name: str) -> None:
        """Remove a file or folder."""
        self._known.pop(name, None)
        if self.writes:
            _remove(self.path / name)

    def facts(self, stage: str) -> dict[str, Any]:
        """What `record` noted of a stage; empty before that."""
        return self.read_json("manifest.json", {}).get("stages", {}).get(stage, {})

    def record(self, stage: str, **facts: Any) -> None:
        """Note in `manifest.json` that a stage is finished, with what it came from."""
        manifest = dict(self.read_json("manifest.json", {}))
        made = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "code": code_hash(),
            "packages": packages(),
        }
        manifest["stages"] = manifest.get("stages", {}) | {stage: made | facts}
        self.write_json("manifest.json", manifest)

    def strike(self, stage: str) -> None:
        """Take what `record` noted of a stage out of `manifest.json`."""
        manifest = dict(self.read_json("manifest.json", {}))
        manifest["stages"] = {name: facts for name, facts in manifest.get("stages", {}).items() if name != stage}
        self.write_json("manifest.json", manifest)


def _difference(theirs: dict, ours: dict, most: int = 3) -> str:
    """The options in which two resolved recipes differ, with both values; plug-ins' names first."""
    there, here = (dict(_options(recipe)) for recipe in (theirs, ours))
    differing = [name for name in there | here if there.get(name, NOTHING) != here.get(name, NOTHING)]
    differing.sort(key=lambda name: name.rpartition(".")[2] not in ("name", "source"))
    told = [f"{name}: {there.get(name, NOTHING)} there, {here.get(name, NOTHING)} here" for name in differing[:most]]
    return "; ".join(told) + (f"; and {len(differing) - most} more" if len(differing) > most else "")


def _options(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Dotted path and value, as text, of each option of a section."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _options(inner, f"{place}.{name}" if place else name)
    else:
        yield place, repr(value)
