"""Where COCO's files and pictures lie."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from adapt.data.places import expanded
from adapt.data.scan import SPLIT_FOLDERS
from adapt.plug import UserError
from adapt.vision.pictures import SUFFIXES


@dataclass(frozen=True)
class Part:
    """A JSON of annotations, and where its pictures may lie."""

    path: Path
    split: str
    """'' where nothing says it."""
    folders: tuple[str, ...]
    """Below the root; a file name in the JSON starts from one of them."""


def parts(place: Path, images: str | None) -> tuple[Path, list[Part]]:
    """The folder that the pictures lie in, and the files.

    Args:
        place: `data.path`, absolute: a JSON or a folder.
        images: `data.images`.

    Raises:
        UserError: there is no JSON.
    """
    if place.is_file():
        root = place.parent.parent if place.parent.name == "annotations" else place.parent
        found = [(place, "")]
    else:
        root = place
        found = _annotations(place) or _beside(place)
    if not found:
        have = ", ".join(sorted(item.name for item in root.iterdir())[:10]) or "nothing"
        raise UserError(
            f"data.path: {str(place)!r} has no JSON of COCO's: annotations/instances_train….json, train.json, or "
            f"train/_annotations.coco.json. Have: {have}. Name the file itself in data.path."
        )
    if images:
        folder = root / expanded(images)
        if not folder.is_dir():
            raise UserError(f"data.images: no folder {images!r}, looked in {root}.")
        return folder.resolve(), [Part(path, split, ("",)) for path, split in found]
    return root, [Part(path, split, _folders(root, path)) for path, split in found]


def split_of(name: str) -> str:
    """instances_val2017 → 'validation'; '' where a name says nothing."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLIT_FOLDERS[word] for word in words if word in SPLIT_FOLDERS), "")


def _annotations(root: Path) -> list[tuple[Path, str]]:
    """`annotations/` as COCO has it: instances before other kinds; captions beside them."""
    files = sorted((root / "annotations").glob("*.json"))
    chosen = [path for path in files if path.stem.startswith(("instances", "captions"))]
    return [(path, split_of(path.stem)) for path in chosen or files]


def _beside(root: Path) -> list[tuple[Path, str]]:
    """JSON files in the folder itself, or one in each folder of a split."""
    files = sorted(root.glob("*.json"))
    named = [path for path in files if split_of(path.stem)]
    if named or len(files) == 1:
        return [(path, split_of(path.stem)) for path in named or files]
    folders = [item for item in sorted(root.iterdir()) if item.is_dir() and item.name.lower() in SPLIT_FOLDERS]
    return [(path, SPLIT_FOLDERS[item.name.lower()]) for item in folders for path in sorted(item.glob("*.json"))]


def _folders(root: Path, path: Path) -> tuple[str, ...]:
    """Folders that may hold the pictures of a file, the likeliest first."""
    own = path.parent.relative_to(root).as_posix()
    name = path.stem.rpartition("_")[2]  # train2017 of instances_train2017
    places = [own, f"{own}/images", f"{own}/{path.stem}", f"{own}/{name}", name, f"images/{name}", "images", ""]
    return tuple(dict.fromkeys(place.removeprefix("./") for place in places if _holds(root / place)))


def _holds(folder: Path) -> bool:
    """May pictures lie in or below it?"""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as items:
        return any(item.is_dir() or item.name.lower().endswith(SUFFIXES) for item in items)
