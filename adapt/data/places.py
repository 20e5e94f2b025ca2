"""Folders by their names, before anything heavy is imported."""

from __future__ import annotations

import difflib
from pathlib import Path

from adapt.plug import UserError

STATE, INFO, DICT = "state.json", "dataset_info.json", "dataset_dict.json"
"""Files by which a folder that `datasets`' `save_to_disk` wrote is known."""


def saved(folder: Path) -> bool:
    """Has `save_to_disk` of `datasets` written the folder?"""
    one = (folder / STATE).is_file() and ((folder / INFO).is_file() or any(folder.glob("*.arrow")))
    return one or (folder / DICT).is_file()


def expanded(path: str | Path) -> Path:
    """A path with `~` as the home folder it means; as it is, where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def existing(path: str | Path, place: str) -> Path:
    """The folder of that path, absolute.

    Raises:
        UserError: there is none; the message starts with `place`, the field of the recipe.
    """
    folder = expanded(path)
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise UserError(
            f"{place}: {str(path)!r} is a file, not a folder. For a table of paths: data.source=table; for tars: data.source=webdataset; for Parquet with pictures: data.source=hub; "
            "for questions and answers in JSON lines: data.source=jsonl; for boxes and masks in COCO's JSON or a data.yaml: "
            "data.source=coco, data.source=yolo."
        )
    parent = folder.parent
    near = difflib.get_close_matches(folder.name, [item.name for item in parent.iterdir()] if parent.is_dir() else [], n=1)
    hint = f" Did you mean {str(parent / near[0])!r}?" if near else f" Looked in {parent.resolve()}."
    raise UserError(f"{place}: no folder {str(path)!r}.{hint} Give a folder that has a folder of pictures for each class.")


def located(root: Path, name: str) -> tuple[Path | None, bool]:
    """Where a name that a file gives leads: the file's path, none where there is none; and whether it stays in the folder.

    Args:
        root: the folder, resolved.
    """
    try:
        path = (root / name).resolve()
        return path if path.is_file() else None, path.is_relative_to(root)
    except (OSError, ValueError, RuntimeError):  # a name too long, or with a zero byte
        return None, True


def file_of(path: str, wanted: str) -> Path:
    """The file that `data.path` names, absolute.

    Args:
        wanted: what to give, for the message.

    Raises:
        UserError: there is none.
    """
    file = expanded(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else f"is no file, looked in {Path.cwd()}"
        raise UserError(f"data.path: {path!r} {what}. Give {wanted}.")
    return file.resolve()


def present(path: str) -> Path:
    """The file or folder of that path, absolute.

    Raises:
        UserError: there is none.
    """
    place = expanded(path)
    if not place.exists():
        raise UserError(f"data.path: no file or folder {path!r}, looked in {Path.cwd()}. Check the path.")
    return place.resolve()
