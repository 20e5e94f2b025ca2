"""Folders of pictures: what lies in them, and whether each picture can be read; remembered, so that a second look is quick."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image as Picture

from adapt.ahead import ahead
from adapt.plug import UserError
from adapt.progress import progress
from adapt.provenance import remember, stamp
from adapt.run import atomic
from adapt.vision.depth import Refused, bits, channels, eight
from adapt.vision.pictures import ORIENTATION, SUFFIXES, cache_folder, digest, open_picture, reason

# what `rgb` can convert
MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I", "I;16", "I;16L", "I;16B", "I;16N"}
SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
THIN = 100
"""Sides further apart than this: scaled to a model's input, the shorter side is nothing or the longer one fills the memory."""
AHEAD = 64
"""Files that are opened before their turn."""
VERSION = 3
"""To be raised when a look tells more than before, so that what is remembered is looked at anew."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look at a picture told."""

    digest: str
    """Of its bytes, 32 hex digits; empty when there are none."""
    size: tuple[int, int] | None
    """Width and height in pixels after turning as EXIF says; none when it cannot be read."""
    problems: Sequence[tuple[str, str]]
    """Kind (a key of `problems.KINDS`) and detail."""
    unread: bool = False
    """The file could not be read. That may pass, as errors of a network's disk do, so it is not remembered."""


@dataclass(frozen=True)
class Guest:
    """Who looks at the pictures too that `scan` opens, so that each is read and decoded once; see `also`."""

    see: Callable[[list[int], bytes, Picture.Image, tuple[int, int]], None]
    """Shown, in threads, a file's stamp from before it was read, its bytes, the picture as `eight` decodes it, and its width and height
    turned as EXIF says. What cannot be decoded it is not shown."""
    enough: int
    """Pixels a side that it needs: a larger JPEG may be decoded to no more."""


_guest: ContextVar[Guest | None] = ContextVar("guest", default=None)


@contextmanager
def also(guest: Guest) -> Iterator[None]:
    """While it lasts, what `scan` opens is shown to a guest; what it remembers, and therefore does not open, is not."""
    token = _guest.set(guest)
    try:
        yield
    finally:
        _guest.reset(token)


def inspect(
    value: dict, see: Callable[[bytes, Picture.Image, tuple[int, int]], None] | None = None, enough: int = 0
) -> Finding:
    """Decode the picture {bytes, path} that an `Image` column stores, and say what is wrong with it.

    Pillow warns of large and of slightly broken files, which is no news: call it within `quiet()`.

    Args:
        see, enough: who sees its bytes and the decoded picture too; see `Guest`.
    """
    try:
        data = Path(value["path"]).read_bytes() if value["bytes"] is None else value["bytes"]
    except (OSError, TypeError, ValueError) as error:
        return _unread(error)
    if not data:
        return Finding("", None, [("zero-size", "")])
    name = hashlib.blake2b(data, digest_size=16).hexdigest()
    problems = []
    try:
        image = open_picture({"bytes": data})
        mode, deep, own = image.mode, bits(image), channels(image)  # before EXIF, for which a PNG's pixels are read
        (width, height), turned, size = image.size, image.getexif().get(ORIENTATION, 1), upright_size(image)
        many = image.format != "MPO" and getattr(image, "is_animated", False)
        frames = f"{image.n_frames:,} in {image.format}" if many and image.format == "TIFF" else image.format or ""
        # of a JPEG all bytes are read, but fewer pixels made
        image.draft("RGB", (enough, enough) if see else (width // 8 or 1, height // 8 or 1))
        image = eight(image)
    except Refused as refused:
        return Finding(name, None, [(refused.kind, refused.detail)])
    except Picture.DecompressionBombError as error:
        return Finding(name, None, [("decompression bomb", reason(error))])
    except Exception as error:  # decoders raise nearly anything on broken bytes
        return Finding(name, None, [_broken(reason(error))])
    if see:
        see(data, image, size)
    if max(width, height) > THIN * min(width, height):
        problems.append(("too thin", f"{width} × {height}"))
    if mode not in MODES:
        return Finding(name, None, [("unreadable", f"no conversion from {mode} to RGB")])
    if deep == 16:
        problems.append(("16 bit", f"{mode}, up to {_brightest(image)} of 255 when read"))
    elif mode != "RGB":
        problems.append(("wrong mode", mode))
    if own == 4 and mode == "RGB":
        problems.append(("fourth channel", ""))
    if turned in range(2, 9):
        problems.append(("turned", f"EXIF orientation {turned}"))
    if many:
        problems.append(("many frames", frames))
    return Finding(name, size, problems)


def _unread(error: Exception) -> Finding:
    """Of a picture whose bytes are not there: the disk says why, or the row has neither bytes nor a path."""
    disk = isinstance(error, OSError)
    return Finding("", None, [("unreadable", reason(error) if disk else "no picture in this row")], unread=disk)


def _broken(text: str) -> tuple[str, str]:
    """Kind and detail of what a decoder says."""
    cut = any(word in text.lower() for word in ("truncated", "broken data stream", "unexpected end", "not enough"))
    return "truncated" if cut else "unreadable", text


def quiet() -> AbstractContextManager:
    """Without warnings. They are of the whole process: threads share one such context."""
    return warnings.catch_warnings(action="ignore")


def upright_size(image: Picture.Image) -> tuple[int, int]:
    """Width and height in pixels of a picture that is open and not read yet, after turning as EXIF says; Pillow turns a TIFF's itself."""
    turned = image.format != "TIFF" and image.getexif().get(ORIENTATION, 1) in range(5, 9)
    return image.size[::-1] if turned else image.size


def _brightest(image: Picture.Image) -> int:
    """The largest value of a picture's channels but alpha."""
    extremes = image.getextrema()
    return max(high for _, high in extremes[:3]) if isinstance(extremes[0], tuple) else extremes[1]


def looked(values: Iterable[dict], most: int = AHEAD) -> Iterator[Finding]:
    """`inspect` pictures {bytes, path}, in their order, by threads; files are shown to the guest, and their digests remembered.

    Call it within `quiet()`.

    Args:
        most: pictures, at most, that are looked at before their turn.
    """
    guest, digests = _guest.get(), []
    try:
        for finding, digest in ahead((partial(_looked, value, guest) for value in values), most):
            if digest:
                digests.append(digest)
            yield finding
    finally:
        if digests:
            remember(digests)  # for fingerprints, which then read nothing


def _looked(value: dict, guest: Guest | None) -> tuple[Finding, tuple[list[int], bytes] | None]:
    """What one look at a picture told; of a file that can be read its `stamp` from before, and SHA-256 of its bytes."""
    if value["bytes"] is not None:
        return inspect(value), None
    try:
        mark = stamp(value["path"])
        value = {"path": value["path"], "bytes": Path(value["path"]).read_bytes()}
    except (OSError, TypeError, ValueError):
        return inspect(value), None
    finding = inspect(value, partial(guest.see, mark), guest.enough) if guest else inspect(value)
    return finding, (mark, hashlib.sha256(value["bytes"]).digest())


@contextmanager
def many_objects() -> Iterator[None]:
    """While hundreds of thousands of objects are made that stay, Python's collector would go through all of them again and again."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@many_objects()
def scan(root: Path, ids: Sequence[str], title: str = "check pictures") -> dict[str, Finding]:
    """Inspect the files `root/id`; those that have not changed since the last time are not opened again."""
    memory = cache_folder("scans") / f"{digest(VERSION, str(root))}.json"
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        known = {}
    stamps = ((name, stamp(os.path.join(root, name))) for name in ids)
    new = {name: mark for name, mark in stamps if not _tells(known.get(name), mark)}
    looks = looked({"path": os.path.join(root, name), "bytes": None} for name in new)
    try:
        with progress(title, len(new)) as tick, quiet(), closing(looks):
            for (name, mark), finding in zip(new.items(), looks, strict=True):
                known[name] = [mark, finding.digest, finding.size, finding.problems]
                tick()
    finally:
        with suppress(UserError, OSError):  # a memory that cannot be written costs time and nothing else
            if new:
                with atomic(memory) as temporary:
                    temporary.write_text(json.dumps(known))
    findings = {}
    for name in ids:
        _, found, size, problems = known.pop(name)  # of many thousands it need not be there twice
        findings[name] = Finding(found, tuple(size) if size else None, tuple(map(tuple, problems)))
    return findings


def _tells(known: list | None, mark: list[int]) -> bool:
    """Is what is remembered of a file a look at what it is now? Of a file that could not be read there is no digest, and it is not empty."""
    return known is not None and known[0] == mark and bool(known[1] or mark[2] == 0)


def walk(root: Path, follow: bool = False) -> tuple[list[str], list[tuple[str, str, str]]]:
    """The pictures below a folder, as sorted relative paths; and what is wrong with links and names: (id, kind, detail).

    A picture is a regular file with an image's suffix. Hidden files and folders are passed over.

    Args:
        follow: links are followed, wherever they lead; a link to a folder that it lies in is not. Otherwise links to folders are
            not followed, and links to files that lead out of the folder refused.
    """
    ids, problems = [], []
    above = {str(root): {_identity(root)}}
    for place, folders, files in os.walk(root, followlinks=follow):
        relative, parents = Path(place).relative_to(root), above.pop(place)
        folders[:] = sorted(name for name in folders if not _hidden(name))
        for name in list(folders):
            path = Path(place) / name
            own = _identity(path)
            if path.is_symlink() and (not follow or own in parents):
                kind = "link in a circle" if own in parents else "link"
                problems.append((_printable(relative / name), kind, f"to {_printable(path.resolve())}"))
                folders.remove(name)
            above[os.path.join(place, name)] = parents | {own}
        start = "" if relative == Path() else f"{relative.as_posix()}/"
        for name in sorted(files):
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in SUFFIXES:
                continue
            identity, path = start + name, os.path.join(place, name)
            if not identity.isascii() and _printable(identity) != identity:
                problems.append((_printable(identity), "unreadable", "the file's name is not UTF-8"))
            elif _regular(path):
                ids.append(identity)
            elif not follow and os.path.islink(path) and not Path(path).resolve().is_relative_to(root):
                problems.append((identity, "leads outside", f"to {Path(path).resolve()}"))
            elif not os.path.isfile(path):
                problems.append((identity, "unreadable", "a link to nothing, or no regular file"))
            else:
                ids.append(identity)
    return sorted(ids), problems


def _regular(path: str) -> bool:
    """Is it a file, and no link?"""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except (OSError, ValueError):
        return False


def _identity(folder: Path) -> tuple[int, int]:
    """Device and inode: the same for a folder and all links to it."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _printable(path: str | Path) -> str:
    return os.fsencode(str(path)).decode("utf-8", "backslashreplace")


def layout(root: Path, ids: Sequence[str], follow: bool = False) -> tuple[list[tuple[str, str | None]], list[tuple[str, str]]]:
    """Split and class of each picture by its folders, and all class folders, also those without a picture.

    With a folder `train` that has folders in it, a path's first folder is the split (one that is neither train, val nor test is
    no data) and the second the class; else the first is the class, and the split is ''.

    Returns:
        (split, class) for each id, class none for a picture in no class folder, split '-' for a picture that is no data;
        (split, class) of all class folders.
    """
    tops = _folders(root, follow)
    splits = {item.name: SPLIT_FOLDERS[item.name.lower()] for item in tops if item.name.lower() in SPLIT_FOLDERS}
    trains = [item for item in tops if splits.get(item.name) == "train"]
    nested = any(_folders(item, follow) for item in trains)
    homes = [os.path.dirname(name) for name in ids]
    where: dict[str, tuple[str, str | None]] = {}
    for home in set(homes):
        first, second, *_ = [*home.split("/"), ""]
        where[home] = (splits.get(first, "-") if first else "", second or None) if nested else ("", first or None)
    places = [where[home] for home in homes]
    if not nested:
        return places, [("", item.name) for item in tops]
    classes = {(splits[item.name], inner.name) for item in tops if item.name in splits for inner in _folders(item, follow)}
    return places, sorted(classes)


def _folders(place: Path, follow: bool) -> list[Path]:
    """The folders that `walk` enters, sorted."""
    inside = (item for item in sorted(place.iterdir()) if item.is_dir() and not _hidden(item.name))
    home = place.resolve()
    return [item for item in inside if not item.is_symlink() or (follow and not home.is_relative_to(item.resolve()))]


def _hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))
