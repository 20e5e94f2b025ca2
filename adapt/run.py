"""The run folder: what a recipe leaves on disk, from which any number can be traced back to its base checkpoint.

    runs/NAME-HASH/  recipe.yaml manifest.json adapter/ checkpoints/ history.jsonl metrics.json predictions/ cache/ student/ export/ report.html

HASH is of the sections that decide the adapted model; other distill, evals and export sections share the folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cache
from glob import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from adapt.plug import ROOT, UserError, nearest
from adapt.recipe import Recipe, load_recipe

SECTIONS = ("name", "model", "data", "method", "prompts", "train", "seed")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)
NOTHING = "not set"
TRUTH = ("id", "label", "caption", "objects", "count", "prefix", "suffix", "answers")
"""Columns that a fingerprint covers beside the pictures."""
PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")
PACKAGES += ("open-clip-torch", "timm", "datasets", "onnx", "onnxruntime")


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary sibling of `path`, for a file or a folder; renamed to `path` on success, removed on failure.

    What a killed process left of the same name is removed first.

    Raises:
        UserError: the disk is full or read-only, the place forbidden or no folder; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        yield temporary
        if path.is_dir():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except Exception as error:
        if reason := _refusal(error, path.parent):
            raise UserError(f"{path}: cannot be written: {reason}. Make room, or work in another folder.") from error
        raise
    finally:
        _remove(temporary)


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
    """Remove what killed processes left of `path`, and this process's own number from an earlier life."""
    for left in path.parent.glob(f".{escape(path.name)}.*"):
        number = left.name.rpartition(".")[2]
        if number.isdecimal() and (int(number) == os.getpid() or not _alive(int(number))):
            _remove(left)


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
    """A run folder; on other processes than the main one (`writes=False`) writing does nothing."""

    def __init__(self, path: Path, writes: bool = True):
        self.path, self.writes = path, writes

    @classmethod
    def open(cls, recipe: Recipe, root: Path = Path("runs"), writes: bool = True) -> Run:
        """The recipe's folder, which is made by `begin`."""
        return cls(root / f"{recipe.name}-{recipe.key(*SECTIONS)}", writes)

    def begin(self, recipe: Recipe) -> Run:
        """Make the folder with the recipe in it, if need be: when the first result is at hand, and no mistake has been found."""
        text, place = recipe.to_yaml(), self.path / "recipe.yaml"
        if not place.is_file() or place.read_text(encoding="utf-8") != text:
            self.write_text("recipe.yaml", text)
        return self

    @classmethod
    def from_folder(cls, path: Path, recipe: Recipe | None = None) -> Run:
        """An existing run folder, by its path or by its name in `runs`.

        Raises:
            UserError: it is none, or it belongs to another recipe than the one given.
        """
        inside = Path("runs") / path
        if not (path / "recipe.yaml").is_file() and (inside / "recipe.yaml").is_file():
            path = inside
        if not (path / "recipe.yaml").is_file():
            if path.exists() or len(path.parts) > 1:
                raise UserError(f"run: {str(path)!r} is no run folder: it has no recipe.yaml. They lie in runs/NAME-HASH.")
            have = sorted(file.parent.name for file in Path("runs").glob("*/recipe.yaml"))
            raise UserError(
                f"run: {path.name!r} is no run folder: there is no recipe.yaml in it, here or in runs/.{nearest(path.name, have)}"
            )
        if recipe is not None:
            theirs, ours = (
                each.model_dump(mode="json", include=set(SECTIONS)) for each in (load_recipe(path / "recipe.yaml"), recipe)
            )
            if theirs != ours:
                raise UserError(
                    f"run: {str(path)!r} belongs to another recipe: {_difference(theirs, ours)}. Leave run= out for a new folder."
                )
        return cls(path)

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
        self.write_text(name, json.dumps(value, indent=1) + "\n")

    def read_json(self, name: str, default: Any = None) -> Any:
        """A JSON file's content, or the default when there is none.

        Raises:
            UserError: the file is there but is no JSON.
        """
        path = self.path / name
        if not path.exists():
            return default
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read: {error}. Put the file back, or delete it to do its part again.") from None

    def done(self, stage: str, key: str) -> bool:
        """Has this stage been finished with just these settings?"""
        return self.facts(stage).get("key") == key

    def facts(self, stage: str) -> dict[str, Any]:
        """What `record` noted of a stage; empty before that."""
        return self.read_json("manifest.json", {}).get("stages", {}).get(stage, {})

    def record(self, stage: str, key: str, **facts: Any) -> None:
        """Note in `manifest.json` that a stage is finished, with what it came from."""
        manifest = self.read_json("manifest.json", {})
        made = {
            "key": key,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "code": code_hash(),
            "packages": packages(),
        }
        manifest.setdefault("stages", {})[stage] = made | facts
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


@cache
def code_hash() -> str:
    """Of this package's own source."""
    digest = hashlib.sha256()
    for path in sorted(ROOT.rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def packages() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found


def hash_path(path: Path) -> str:
    """SHA-256 of a file, or of a folder's files and their names; 16 hex digits."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file()):
        digest.update(file.relative_to(path).as_posix().encode())
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]


def fingerprint(dataset) -> str:
    """Of a data set's ids, encoded pictures and all that is true of them; the same on every machine; 16 hex digits."""
    from datasets import Image

    digest = hashlib.sha256()
    pictures = [name for name in ("image", "segmentation") if name in dataset.column_names]
    rows = dataset.select_columns([*pictures, *(name for name in TRUTH if name in dataset.column_names)])
    for name in pictures:
        rows = rows.cast_column(name, Image(decode=False))
    for row in rows:
        images = [row.pop(name) or {} for name in pictures]
        digest.update(json.dumps(row, sort_keys=True).encode())
        for image in images:
            digest.update(image.get("bytes") or (Path(image["path"]).read_bytes() if image.get("path") else b""))
    return digest.hexdigest()[:16]
