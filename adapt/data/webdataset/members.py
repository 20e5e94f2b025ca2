"""The members of a tar, header by header: which are read, and why the others are not. Nothing is unpacked.

What a tar says is believed as far as it can be checked: a name never becomes a path, only plain files are read, each up to a size, and an
archive that ends early is said to.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Mapping
from io import FileIO
from pathlib import Path

from webdataset.tariterators import base_plus_ext

from adapt.data.listing import printable
from adapt.vision.pictures import SUFFIXES

PICTURES = tuple(suffix[1:] for suffix in SUFFIXES)
MOST = {**dict.fromkeys(PICTURES, 1 << 28), "cls": 1 << 12, "txt": 1 << 20, "json": 1 << 20}
"""Members that are read, by what follows their key, and the bytes that each may have."""
BLOCK = tarfile.BLOCKSIZE
META = re.compile(r"__[^/]*__($|/)")
"""Members of webdataset's own, which are no samples (`tar_file_iterator`)."""
LINKS, OUTSIDE = "links, devices and sparse files", "files whose names lead out of the tar"
"""Why members are not read that no honest set has."""


class Bounded(FileIO):
    """A file of which no more is read at once than a member may have, whatever the headers in it say."""

    def read(self, size: int = -1) -> bytes:
        if size > max(MOST.values()):
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return super().read(size)


class Damaged(Exception):
    """A tar cannot be read further: a kind of `problems.KINDS` and a detail."""


def headers(path: Path) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """The members' headers, to the tar's own end.

    Raises:
        Damaged: it ends before, or is no tar.
    """
    last = -1
    try:
        # "r:" is no compressed tar: what a small one unpacks to has no bound
        with Bounded(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while info := tar.next():
                if info.size < 0 or not last < info.offset < tar.offset:
                    raise Damaged("unreadable", f"the header at byte {info.offset:,} leads back")
                last = info.offset
                yield info, tar
                tar.members.clear()
            _ended(file, tar.offset)
    except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        words = " ".join(str(error).split())[:100]
        if last < 0:
            raise Damaged("unreadable", f"it is no tar, or a compressed one: {words}") from None
        raise Damaged("truncated", f"{words} after byte {last:,}") from None


def _ended(file: FileIO, offset: int) -> None:
    """Raises `Damaged` where the tar does not end with a block of zeros: tarfile stops there without a word."""
    file.seek(offset)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise Damaged("truncated", f"it ends at byte {offset:,} without the mark of its end")
    if block.strip(b"\0"):
        raise Damaged("unreadable", f"a broken header at byte {offset:,}")


def named(info: tarfile.TarInfo, most: Mapping[str, int] = MOST) -> tuple[str, str, str]:
    """A member's key and ending, as webdataset splits its name; and why it is not read. All are empty of a folder.

    Args:
        most: endings that are read.
    """
    if info.isdir():
        return "", "", ""
    name = info.name.removeprefix("./")
    key, ending = base_plus_ext(name)
    if not info.isreg() or info.issparse():
        return "", "", LINKS
    if name.startswith("/") or ".." in name.split("/"):
        return "", "", OUTSIDE
    if printable(name) != name:
        return "", "", "files whose names are not UTF-8"
    if META.match(name) or key is None:
        return "", "", "files without a key, such as .hidden or __meta__"
    if ending.lower() not in most:
        return "", "", f"files .{ending.lower()[:20]}"
    return key, ending.lower(), ""


def content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    """A member's content; `Damaged` where the tar ends inside it."""
    try:
        return tar.extractfile(info).read(info.size)
    except tarfile.ReadError:
        where = f"it ends inside {info.name!r}, which begins at byte {info.offset_data:,}"
        raise Damaged("truncated", where) from None
