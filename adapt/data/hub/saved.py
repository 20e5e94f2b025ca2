"""Folders that `Dataset.save_to_disk` and `DatasetDict.save_to_disk` write, looked at before `datasets` opens what they name."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset, load_from_disk

from adapt.data.places import DICT, INFO, STATE
from adapt.data.problems import Bad
from adapt.data.reading import read_json
from adapt.plug import UserError
from adapt.provenance import stamp
from adapt.vision.pictures import digest

END = b"\xff\xff\xff\xff\0\0\0\0"
"""The last bytes of an Arrow stream."""
AGAIN = "Copy the folder again, or save the data set again."


def read_saved(root: Path, names: set[str]) -> dict[str, Dataset]:
    """The saved data set by its splits, memory-mapped where it lies.

    Args:
        root: the folder, resolved; no file of it may lie elsewhere.
        names: those of splits; a single data set that has another name is train.

    Raises:
        UserError: a file is missing, cut short, no JSON, or leads outside.
    """
    if (root / STATE).is_file():
        rows = _rows(root, root)
        return {str(rows.split) if str(rows.split) in names else "train": rows}
    splits = _json(root, root / DICT).get("splits")
    if not isinstance(splits, list) or not splits or not all(isinstance(name, str) for name in splits):
        raise UserError(f"data.path: {DICT} of {str(root)!r} has no list of splits. {AGAIN}")
    for name in splits:
        if not _plain(name) or not (root / name).is_dir():
            raise UserError(f"data.path: {DICT} of {str(root)!r} names {name[:100]!r}, which is no folder in it. {AGAIN}")
    return {name: _rows(root, root / name) for name in splits}


def _rows(root: Path, folder: Path) -> Dataset:
    """The rows of one data set; their fingerprint is that of the files, not what the files say."""
    state = _json(root, folder / STATE)
    if not _named(_json(root, folder / INFO)):
        raise UserError(f"data.path: {_shown(root, folder / INFO)} has classes whose names are no texts. {AGAIN}")
    listed = state.get("_data_files")
    names = [each.get("filename") if isinstance(each, dict) else None for each in listed] if isinstance(listed, list) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"data.path: {_shown(root, folder / STATE)} names no data files. {AGAIN}")
    for name in names:
        if not _plain(name):
            raise UserError(f"data.path: {_shown(root, folder / STATE)} names {name[:100]!r}, which leads outside. {AGAIN}")
        _whole(root, folder / name)
    try:
        rows = load_from_disk(str(folder), keep_in_memory=False)
        # offsets that lead out of the file would end the process when a row is looked at; pictures are not read for this
        rows.data.table.validate(full=True)
    except Exception as error:  # datasets raises its own and pyarrow's errors, and whatever its reading of JSON ends in
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise UserError(f"data.path: {_shown(root, folder)} cannot be read ({why}). {AGAIN}") from None
    stamps = [stamp(folder / name) for name in (STATE, INFO, *names)]
    return Dataset(rows.data, info=rows.info, split=rows.split, fingerprint=digest(str(folder), names, stamps))


def _named(value: object) -> bool:
    """Are the names of all classes in a description of columns texts?"""
    if isinstance(value, list):
        return all(map(_named, value))
    if not isinstance(value, dict):
        return True
    names = (value.get("names") or []) if value.get("_type") == "ClassLabel" else []
    return isinstance(names, list) and all(isinstance(name, str) for name in names) and all(map(_named, value.values()))


def _whole(root: Path, file: Path) -> None:
    """Raises a `UserError` when an Arrow file is not there, lies elsewhere or has no end."""
    _inside(root, file)
    with open(file, "rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - len(END)))
        if stream.read() != END:
            raise UserError(f"data.path: {_shown(root, file)} is cut short, or no Arrow file. {AGAIN}")


def _json(root: Path, file: Path) -> dict:
    """The object in a JSON file."""
    _inside(root, file)
    try:
        content = read_json(file)
    except Bad as bad:
        raise UserError(f"data.path: {_shown(root, file)}: {bad.args[1]}. {AGAIN}") from None
    if not isinstance(content, dict):
        raise UserError(f"data.path: {_shown(root, file)} holds no JSON object. {AGAIN}")
    return content


def _inside(root: Path, file: Path) -> None:
    """Raises a `UserError` when a file is not there, or is not below the folder."""
    if not file.is_file():
        raise UserError(f"data.path: there is no file {_shown(root, file)}. {AGAIN}")
    if not file.resolve().is_relative_to(root):
        raise UserError(
            f"data.path: {_shown(root, file)} is a link that leads outside, to {file.resolve()}. Copy that file here."
        )


def _plain(name: str) -> bool:
    """Is it a name of something in a folder, and no path?"""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _shown(root: Path, file: Path) -> str:
    return repr((Path(root.name) / file.relative_to(root)).as_posix())
