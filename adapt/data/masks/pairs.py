"""Pictures and the masks beside them: which belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adapt.data.check import repeated
from adapt.data.problems import Problem
from adapt.data.scan import SPLIT_FOLDERS, Finding, scan, walk
from adapt.plug import UserError, counted

EXACT = (".png", ".bmp", ".tif", ".tiff", ".gif")
"""Formats that keep numbers; JPEG blurs them."""


@dataclass(frozen=True)
class Pair:
    """A picture and its mask."""

    id: str
    """The picture's path below the root."""
    split: str
    """By its folder; '' when that says nothing."""
    mask: Path
    """Where the mask lies."""


def pairs(root: Path, config) -> tuple[list[Pair], list[Problem]]:
    """The pictures that have a mask, sorted; and what is wrong with the others.

    Raises:
        UserError: the folder has not the layout, or no picture.
    """
    places = [(root, "")]
    if not (root / config.images).is_dir():
        splits = sorted(item for item in root.iterdir() if item.name.lower() in SPLIT_FOLDERS)
        places = [(item, SPLIT_FOLDERS[item.name.lower()]) for item in splits if (item / config.images).is_dir()]
    if not places or not any((place / config.masks).is_dir() for place, _ in places):
        have = ", ".join(sorted(item.name for item in root.iterdir() if item.is_dir())[:10]) or "none"
        raise UserError(
            f"data.path: {str(root)!r} needs the folders {config.images!r} and {config.masks!r}. Have: {have}. "
            "Other names: data.images, data.masks."
        )
    found, problems = [], []
    for place, split in places:
        ids, wrong = walk(place / config.images, config.follow_links)
        start = (place / config.images).relative_to(root)
        problems += [Problem((start / name).as_posix(), split, kind, detail) for name, kind, detail in wrong]
        taken = set()
        for name in ids:
            first = name.split("/")[0].lower() if "/" in name else ""
            pair, problem = _pair(root, config, place, name, split or SPLIT_FOLDERS.get(first, ""))
            found += [pair] if pair else []
            problems += [problem] if problem else []
            taken.add(pair.mask if pair else None)
        problems += _alone(root, place / config.masks, taken)
    if not found and not problems:
        raise UserError(f"data.path: no pictures in {config.images!r} of {str(root)!r} (.jpg, .png, .webp, …).")
    lacking = [problem for problem in problems if problem.problem == "no mask"]
    if lacking and not found:
        raise _other_names(root, config, [place for place, _ in places], lacking)
    return found, problems


def _pair(root: Path, config, place: Path, name: str, split: str) -> tuple[Pair | None, Problem | None]:
    """A picture with its mask, or why it has none."""
    identity = (place / config.images / name).relative_to(root).as_posix()
    stem = place / config.masks / Path(name).parent / (Path(name).stem + config.suffix)
    mask = next((path for path in (stem.with_name(stem.name + end) for end in EXACT) if path.is_file()), None)
    if mask is None:
        wanted = f"{stem.relative_to(root).as_posix()}.png"
        lossy = any(stem.with_name(stem.name + end).is_file() for end in (".jpg", ".jpeg", ".webp"))
        detail = f"no file {wanted}; the one in a lossy format has no exact numbers" if lossy else f"no file {wanted}"
        return None, Problem(identity, split, "no mask", detail)
    if not config.follow_links and not mask.resolve().is_relative_to(root):
        return None, Problem(identity, split, "leads outside", f"its mask, to {mask.resolve()}")
    return Pair(identity, split, mask), None


def _alone(root: Path, folder: Path, taken: set) -> list[Problem]:
    """Masks without a picture."""
    if not folder.is_dir():
        return []
    others = sorted(path for path in folder.rglob("*") if path.suffix.lower() in EXACT and path not in taken)
    return [Problem(path.relative_to(root).as_posix(), "", "mask alone") for path in others if not path.name.startswith(".")]


def look(root: Path, found: Sequence[Pair], problems: list[Problem]) -> dict[Pair, Finding]:
    """The pictures that can be read; what is wrong with any goes into `problems`."""
    seen: dict = {}
    good = {}
    for pair, finding in zip(found, scan(root, [pair.id for pair in found]).values(), strict=True):
        wrong = [Problem(pair.id, pair.split, *problem) for problem in finding.problems]
        problems += [*wrong, *repeated(seen, finding, pair.id, pair.split, None)]
        if not any(problem.severe for problem in wrong):
            good[pair] = finding
    return good


def _other_names(root: Path, config, places: Sequence[Path], lacking: Sequence[Problem]) -> UserError:
    """What to tell a user none of whose pictures has a mask of its name: how the masks are named instead."""
    masks = [path for place in places for path in sorted((place / config.masks).rglob("*")) if path.suffix.lower() in EXACT]
    stems = {Path(problem.id).stem for problem in lacking}
    ends = Counter(path.stem[cut:] for path in masks for cut in range(1, len(path.stem) + 1) if path.stem[:cut] in stems)
    suffix, count = ends.most_common(1)[0] if ends else ("", 0)
    said = f"data.path: no mask beside {counted(len(lacking), 'picture')}, such as {lacking[0].id!r} ({lacking[0].detail})"
    if suffix != config.suffix and 2 * count > len(lacking):
        return UserError(f"{said}; files there end in {suffix}{masks[0].suffix}: set data.suffix={suffix}")
    names = f"files there are called {masks[0].relative_to(root).as_posix()!r}" if masks else "there are no files in its place"
    return UserError(f"{said}; {names}. Give each mask its picture's name; what follows the name is data.suffix.")
