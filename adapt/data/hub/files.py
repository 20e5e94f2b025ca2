"""Where a data set comes from: files, a folder, a folder of `save_to_disk`, or the hub; and why it cannot be read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from adapt.data.places import expanded, saved
from adapt.plug import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from datasets import Dataset, DatasetDict

KINDS = {
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".json": "json",
    ".jsonl": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".arrow": "arrow",
}
CONVERTED = "refs/convert/parquet"
"""The hub's branch of what it has converted itself."""
OWN_NAMES = {"train": ("train", "training"), "validation": ("validation", "val", "valid", "dev"), "test": ("test", "testing")}


def read(config) -> tuple[dict[str, Dataset], list[Path]]:
    """The data set's own splits, and the folders that paths in it may lead to.

    Raises:
        UserError: it cannot be found, or not be read.
    """
    from pathlib import Path

    from datasets import config as settings
    from datasets import load_dataset
    from huggingface_hub import constants

    from adapt import hardware
    from adapt.data.hub.metadata import check_lines
    from adapt.data.hub.saved import read_saved

    files = local_files(config.path)
    folder = expanded(config.path)
    if not files and folder.is_dir() and saved(folder):
        names = {name for theirs in OWN_NAMES.values() for name in theirs}
        return read_saved(folder.resolve(), names), [folder.resolve()]
    if not files and folder.is_dir():
        check_lines(folder)
    try:
        if files:
            kind = files[0].suffix.lower()
            options = {"sep": "\t"} if kind == ".tsv" else {}
            rows = load_dataset(KINDS[kind], data_files={"train": [str(file) for file in files]}, **options)
            places = sorted({file.parent for file in files})
            if len(places) > 1:
                _only_absolute(rows["train"], config, places)
            return dict(rows), places
        if folder.is_dir():
            return dict(load_dataset(str(folder.resolve()), config.subset)), [folder.resolve()]
        caches = constants.HF_HUB_CACHE, settings.HF_DATASETS_CACHE
        with hardware.hub():
            found = dict(_of_hub(config))
        return found, [Path(cache).resolve() for cache in caches]
    except UserError:
        raise
    except Exception as error:  # datasets raises its own, the hub's, pyarrow's and fsspec's errors
        if not files and folder.is_dir():
            check_lines(folder, parse=True)
        raise _explain(config, error, local=bool(files) or folder.is_dir()) from None


def _only_absolute(rows: Dataset, config, places: list[Path]) -> None:
    """Raises a `UserError`, where tables of several folders name pictures by relative paths: no row says which table it is of."""
    from adapt.data.hub.columns import is_text

    if not is_text(rows.features.get(config.image)):
        return
    relative = next((path for path in rows[config.image] if path and not os.path.isabs(path)), None)
    if relative is not None:
        folders = ", ".join(map(repr, map(str, places[:3]))) + (f" and {len(places) - 3} more" if len(places) > 3 else "")
        raise UserError(
            f"data.image: {config.image!r} names {relative[:200]!r}, and the tables lie in several folders: {folders}. Write absolute "
            "paths into them, put one table into the folder above, or give data.path one table."
        )


def _of_hub(config) -> DatasetDict:
    """The hub's data set; of one that is published as a program, which `datasets` no longer runs, the Parquet that the hub made of it."""
    from datasets import load_dataset

    try:
        return load_dataset(config.path, config.subset)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        try:
            return load_dataset(config.path, config.subset, revision=CONVERTED)
        except Exception:  # the hub has made none: the first error says why
            raise error from None


def local_files(path: str) -> list[Path]:
    """The files that a path or a glob means, absolute; none for a folder or a hub id.

    Raises:
        UserError: they are of several kinds, or of none that is known; or it can only be a local path, and nothing is there.
    """
    from glob import glob
    from pathlib import Path

    local = expanded(path)
    wild = bool(set(path) & set("*?["))
    found = [local] if local.is_file() or not wild else map(Path, sorted(glob(str(local), recursive=True)))
    files = [file.resolve() for file in found if file.is_file()]
    kinds = sorted({file.suffix.lower() for file in files})
    if len(kinds) > 1 or not set(kinds) <= set(KINDS):
        raise UserError(f"data.path: {path!r} has files {', '.join(kinds)}. Give files of one kind: {', '.join(KINDS)}.")
    hub_id = path.count("/") <= 1 and not path.startswith(("/", ".", "~")) and not wild and local.suffix.lower() not in KINDS
    if not files and not local.is_dir() and not hub_id:
        raise UserError(
            f"data.path: no file or folder {path!r}, looked in {Path.cwd()}. Check the path, or give a hub id: owner/name."
        )
    return files


def _explain(config, error: Exception, local: bool) -> UserError:
    """One line on why `load_dataset` has failed."""
    from datasets.exceptions import DatasetNotFoundError

    cause = error.__cause__ or error
    text = f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
    if isinstance(error, ValueError) and "onfig" in str(error):
        return UserError(f"data.subset: {config.subset!r}: {' '.join(str(error).split())[:400]}")
    if local:
        if config.path.endswith(".tar") and "invalid literal for int()" in text:
            value = text.partition("base 10: b")[2] or "text"
            return UserError(
                f"data.path: a .cls in {config.path!r} holds {value}, and must hold a class's number, such as 3. Put "
                "names of classes into .txt, and set data.label=txt."
            )
        return UserError(f"data.path: {config.path!r} cannot be read ({text}). Check the files, or give them as Parquet.")
    if isinstance(error, DatasetNotFoundError) and "gated" in str(error):
        why = "the hub gives it to those who have agreed to its terms (on its page there; then: hf auth login)"
    elif isinstance(error, DatasetNotFoundError):
        why = "the hub has no such data set, or it is private (then: hf auth login)"
    elif isinstance(error, ConnectionError | OSError):
        why = "the hub cannot be reached (no network, or HF_HUB_OFFLINE is set)"
    else:
        why = f"the hub's data set cannot be read ({text})"
    return UserError(
        f"data.path: {config.path!r}: there is no file or folder here, and {why}. Give a local path, or another hub id."
    )
