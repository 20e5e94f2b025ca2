"""Uploaded files and zips → one folder of pictures, of bounded size; a zip never writes outside it."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from adapt.data.places import located
from adapt.plug import UserError
from adapt.vision.pictures import SUFFIXES

MOST = 1000
"""Pictures at a time; for more there is `adapt predict`."""
BYTES = 512 * 2**20
"""Of all pictures of a zip, unpacked."""
MEMBERS = 20_000
"""Files and folders of a zip, whatever they are."""


def gather(paths: Sequence[str], folder: Path) -> int:
    """Put the pictures among these files, and those in their zips, into a folder; returns how many other files were passed over.

    A zip's own folders are kept. Of two files of one name the second is called NAME-2.

    Raises:
        UserError: there is no picture, there are too many, a zip cannot be read, or one of its files would lie outside the folder;
            nothing of that zip is unpacked then.
    """
    folder = folder.resolve()
    left = found = 0
    for path in map(Path, dict.fromkeys(paths)):
        if path.suffix.lower() == ".zip":
            place = _free(folder / path.stem) if len(paths) > 1 else folder
            there, passed = _unpack(path, place, MOST - found)
            found, left = found + there, left + passed
        elif path.suffix.lower() in SUFFIXES:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, _free(folder / path.name))
            found += 1
        else:
            left += 1
        if found > MOST:
            raise _many()
    if not found:
        raise UserError(
            f"files: there is no picture among them ({', '.join(SUFFIXES[:6])} …). Give pictures, or a zip of them."
        )
    return left


def _unpack(path: Path, folder: Path, most: int) -> tuple[int, int]:
    """A zip's pictures into a folder; how many they are, and how many other files it has."""
    try:
        with ZipFile(path) as archive:
            files = [member for member in archive.infolist() if not member.is_dir()]
            if len(archive.infolist()) > MEMBERS:
                raise UserError(f"zip: {path.name!r} has more than {MEMBERS:,} files. Give a smaller one.")
            for member in files:
                _inside(path.name, folder, member)
            pictures = [member for member in files if _picture(member.filename)]
            if len(pictures) > most:
                raise _many()
            if (size := sum(member.file_size for member in pictures)) > BYTES:
                raise UserError(
                    f"zip: the pictures in {path.name!r} have {size / 1e6:,.0f} MB unpacked; up to {BYTES / 1e6:,.0f} are taken. "
                    "Give fewer, or smaller ones."
                )
            for member in pictures:
                place = folder / member.filename
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, open(place, "wb") as target:  # no more than `file_size` is read
                    shutil.copyfileobj(source, target)
    except (BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError, EOFError) as error:
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"zip: {path.name!r} cannot be unpacked: {why}. Pack it again, without a password.") from None
    return len(pictures), len(files) - len(pictures)


def _inside(archive: str, folder: Path, member: ZipInfo) -> None:
    """Refuse a file that would lie outside the folder, or that is a link."""
    name = member.filename
    _, inside = located(folder, name)
    if not inside or ".." in PurePosixPath(name.replace("\\", "/")).parts or stat.S_ISLNK(member.external_attr >> 16):
        what = "is a link" if inside and ".." not in name else "would lie outside its folder"
        raise UserError(f"zip: {name[:80]!r} in {archive!r} {what}; nothing was unpacked. Pack plain files with plain names.")


def _picture(name: str) -> bool:
    """A picture's name; what systems add (`__MACOSX/`, hidden files) is passed over."""
    path = PurePosixPath(name)
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


def _free(path: Path) -> Path:
    """A path that nothing has yet."""
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return next(each for each in names if not each.exists()) if path.exists() else path


def _many() -> UserError:
    return UserError(f"files: more than {MOST:,} pictures. Give fewer, or label them with: adapt predict run=… images=FOLDER")
