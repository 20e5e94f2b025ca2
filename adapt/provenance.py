"""What a kept result was made of, and whether it still is: contents, never names.

    made = {"base": base["hash"], "words": of(words), "data": {"train": fingerprint(rows)}}      # of vision/fingerprint.py
    changed(kept["made_of"], made)        # [] when the kept result may be used; else what differs, such as ["data.train"]

A file's digest is remembered by inode, size and both times, so that a second look reads no byte: zeroed weights keep their size,
and `cp -p` keeps the time of the last change, but nothing short of root keeps the inode's own time (ctime).
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Any

from adapt import hardware
from adapt.ahead import ahead
from adapt.plug import ROOT

PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes")
PACKAGES += ("open-clip-torch", "timm", "datasets", "onnx", "onnxruntime")
BLOCK = 500
"""Files that are looked up at once."""
YOUNG = 2.0
"""Seconds: a file that changed so lately may change again within the clock's tick, so its digest is not remembered."""


def of(*parts: Any) -> str:
    """Sixteen hex digits of anything that JSON can write."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def changed(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The dotted names in which two records of what something was made of differ; none when it may be used again."""
    names = []
    for name in sorted(before.keys() | now.keys()):
        a, b = before.get(name), now.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            names += [f"{name}.{inner}" for inner in changed(a, b)]
        elif a != b:
            names.append(name)
    return names


# ------------------------------------------------------------------------------------------------------------------ files


def stamp(path: str | os.PathLike) -> list[int]:
    """What changes when a file's content does: device, inode, size, and the times of its last change and of its inode's, ns."""
    status = os.stat(path)
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def digests(paths: Iterable[str | os.PathLike]) -> Iterator[bytes]:
    """SHA-256 of each file's content, in order; files that have not changed since the last time are not read."""
    paths = iter(paths)
    with _memory() as memory:
        while part := list(islice(paths, BLOCK)):
            stamps = [stamp(path) for path in part]
            keys = list(map(_key, stamps))
            known = _known(memory, keys)
            new = [i for i, key in enumerate(keys) if key not in known]
            read = dict(zip(new, ahead((partial(_sha256, part[i]) for i in new), BLOCK), strict=True)) if new else {}
            _remember(memory, [(stamps[i], digest) for i, digest in read.items()])
            yield from (read[i] if i in read else known[key] for i, key in enumerate(keys))


def settled(stamp: list[int]) -> bool:
    """Is a file with this `stamp` old enough that it cannot change again within the clock's tick?"""
    return time.time() - stamp[-1] / 1e9 > YOUNG


def remember(found: Iterable[tuple[list[int], bytes]]) -> None:
    """Digests that were made when files were read for something else.

    Args:
        found: the file's `stamp` before it was read, and SHA-256 of what was read.
    """
    with _memory() as memory:
        _remember(memory, found)


def _key(stamp: list[int]) -> str:
    return ":".join(map(str, stamp))


def _known(memory: sqlite3.Connection, keys: list[str]) -> dict[str, bytes]:
    asked = f"SELECT stamp, digest FROM digests WHERE stamp IN ({','.join('?' * len(keys))})"
    with suppress(sqlite3.Error):  # locked, perhaps
        return dict(memory.execute(asked, keys))
    return {}


def _remember(memory: sqlite3.Connection, found: Iterable[tuple[list[int], bytes]]) -> None:
    """Keep digests, but for those of files that may change again within the clock's tick; nobody is kept waiting afterwards."""
    rows = [(_key(stamp), digest) for stamp, digest in found if settled(stamp)]
    with suppress(sqlite3.Error), memory:  # committed, or rolled back
        memory.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?)", rows)


@contextmanager
def _memory() -> Iterator[sqlite3.Connection]:
    """The remembered digests; a memory that cannot be opened or written costs time and nothing else."""
    place = hardware.cache_folder() / "digests.sqlite"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        memory = sqlite3.connect(place, timeout=10)
        memory.execute("CREATE TABLE IF NOT EXISTS digests (stamp TEXT PRIMARY KEY, digest BLOB)")
        memory.commit()
    except (OSError, sqlite3.Error):
        memory = sqlite3.connect(":memory:")
        memory.execute("CREATE TABLE digests (stamp TEXT PRIMARY KEY, digest BLOB)")
    with closing(memory):
        yield memory


def _sha256(path: str | os.PathLike) -> bytes:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def hash_path(path: Path, without: str = "") -> str:
    """Of a file's content, or of a folder's files and their names, but for those with the suffix `without`; 16 hex digits."""
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file() and f.suffix != (without or None))
    total = hashlib.sha256()
    for file, digest in zip(files, digests(files), strict=True):
        total.update(file.relative_to(path).as_posix().encode() + digest)
    return total.hexdigest()[:16]


def commit(repository: str) -> str:
    """The commit of a hub repository's copy in the cache, empty without one; a web address, which no commit has, stands for itself."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    if "://" in repository or not repository:
        return repository
    ref = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model") / "refs" / "main"
    return ref.read_text(encoding="utf-8").strip() if ref.is_file() else ""


# ------------------------------------------------------------------------------------------------------------------- code


@cache
def code_hash() -> str:
    """Of this package's own source."""
    total = hashlib.sha256()
    for path in sorted(ROOT.rglob("*.py")):
        total.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    return total.hexdigest()[:16]


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
