"""Where a set in the published layout lies: a folder, or a copy of the hub's; its tars, and the texts beside them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.constants import HF_HUB_CACHE

from adapt import hardware
from adapt.data.places import expanded
from adapt.data.webdataset.tars import COUNT, KIND, NAMES, Shard, numbered, text
from adapt.plug import UserError, counted

TEXTS = ("*.txt",)
"""Files of the hub's that are fetched for what lies beside the tars."""
HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
FITS = {"class": ("", "classification"), "classes": ("multilabel",), "captions": ("retrieval",), "choice": ("retrieval",)}
"""Labels → what dataset_type.txt says of them; empty: there is no such file."""
MEANS = {kind: labels for labels, kinds in reversed(FITS.items()) for kind in kinds}
MOST = 100_000
"""Tars of a split."""


def local(path: str) -> Path | None:
    """The folder of that path, absolute; none: it is to be fetched from the hub.

    Raises:
        UserError: there is no such folder, and it cannot be a name on the hub.
    """
    folder = expanded(path)
    if folder.is_dir():
        return folder.resolve()
    if folder.exists():
        raise UserError(
            f"data.path: {path!r} is a file. Give the folder that has test/ and classnames.txt, or a hub id: owner/name."
        )
    if HUB.fullmatch(path) and not folder.parent.is_dir():
        return None
    parent = folder.parent
    near = difflib.get_close_matches(folder.name, [item.name for item in parent.iterdir()] if parent.is_dir() else [], n=1)
    hint = f" Did you mean {str(parent / near[0])!r}?" if near else f" Looked in {parent.resolve()}."
    raise UserError(
        f"data.path: no folder {path!r}.{hint} Give the folder that has test/ and classnames.txt, or a hub id: owner/name."
    )


def root(path: str, wanted: Sequence[str]) -> Path:
    """The folder of a set, fetched from the hub where it is none.

    Args:
        wanted: patterns of the files that are fetched.

    Raises:
        UserError: it is neither here nor on the hub.
    """
    if here := local(path):
        return here
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        with hardware.hub():
            return Path(snapshot_download(path, repo_type="dataset", allow_patterns=list(wanted)))
    except GatedRepoError:
        why = "the hub asks for consent first: open its page there, then: hf auth login"
    except RepositoryNotFoundError:
        why = "the hub has no such data set, or it is private (then: hf auth login)"
    except (LocalEntryNotFoundError, ConnectionError):
        why = "the hub cannot be reached (no network, or HF_HUB_OFFLINE is set)"
    except (HfHubHTTPError, OSError) as error:
        why = f"it cannot be fetched from the hub ({' '.join(str(error).split())[:200]})"
    raise UserError(
        f"data.path: {path!r}: there is no folder here, and {why}. Give a folder in the published layout, or another hub id."
    )


def shards(place: Path, split: str) -> list[Shard]:
    """The tars of a split, as many as nshards.txt says.

    Args:
        place: the set's folder.

    Raises:
        UserError: the split, the number or a tar is missing, or a tar is a link that leads out of the set.
    """
    folder = place / split
    if not folder.is_dir():
        have = sorted(item.name for item in place.iterdir() if item.is_dir() and (item / COUNT).is_file())
        raise UserError(f"data.split: {str(place)!r} has no folder {split!r}. Have: {', '.join(have) or 'none'}.")
    said = text(folder / COUNT).strip()
    if not (said.isascii() and said.isdecimal() and 0 < int(said[:9]) <= MOST and len(said) < 9):
        what = f"says {said[:20]!r}" if (folder / COUNT).is_file() else "is missing"
        raise UserError(f"data.path: {folder / COUNT} {what}. It must hold the number of tars: 0.tar, 1.tar, … beside it.")
    files = [folder / f"{number}.tar" for number in range(int(said))]
    if missing := [file.name for file in files if not file.is_file()]:
        more = f" and {counted(len(missing) - 1, 'other')}" if missing[1:] else ""
        raise UserError(
            f"data.path: {folder / COUNT} says {counted(len(files), 'tar')}, and {missing[0]}{more} cannot be found. Get the set again, "
            "or correct the number."
        )
    cache = Path(HF_HUB_CACHE).resolve()  # whose folders hold links to its own files
    if outside := [file for file in files if not any(file.resolve().is_relative_to(home) for home in (place.resolve(), cache))]:
        raise UserError(
            f"data.path: {outside[0]} is a link that leads out of the set, to {outside[0].resolve()}. Copy the tar to this place, or link "
            "the whole folder of the set."
        )
    return [Shard(file, f"{split}/{number}", split) for number, file in enumerate(files)]


def check(config, place: Path) -> list[Shard]:
    """The tars of the split that is asked for, of a set that has labels of the kind asked for.

    Raises:
        UserError: as `shards`; or the set is of another kind.
    """
    found = shards(place, config.split)
    kind = text(place / KIND).strip().lower()
    if kind in MEANS and kind not in FITS[config.labels]:
        what = f"{place / KIND} says {kind!r}" if kind else f"{str(place)!r} has no {KIND}, so that each picture has one class"
        raise UserError(f"data.labels: got {config.labels!r}, but {what}. Write data.labels={MEANS[kind]}.")
    names(config, place)
    return found


def names(config, place: Path) -> list[str]:
    """The classes' names, each once; none, where pictures have captions.

    Raises:
        UserError: classnames.txt is missing, empty, or has an empty line.
    """
    if config.labels not in ("class", "classes"):
        return []
    file = place / NAMES
    found = numbered(file)[0] if file.is_file() else []
    if not found:
        raise UserError(
            f"data.path: {file} is {'empty' if file.is_file() else 'missing'}. Write one class a line, the class 0 on the first."
        )
    return found


def lines(file: Path) -> list[str]:
    """The lines of a text that are not empty; none, where there is no such file."""
    return [line.strip() for line in text(file).splitlines() if line.strip()]
