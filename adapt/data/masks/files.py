"""Masks: what their numbers mean, and the rows that they make with their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value
from datasets.arrow_writer import ArrowWriter
from PIL import Image as Picture

from adapt.data.listing import kept_names
from adapt.data.masks.pairs import Pair
from adapt.data.problems import LEFT_OUT
from adapt.data.scan import Finding
from adapt.overrides import parse_yaml
from adapt.plug import UserError
from adapt.progress import progress
from adapt.provenance import stamp
from adapt.vision.classes import IGNORE
from adapt.vision.depth import bits
from adapt.vision.masks import box, rle
from adapt.vision.pictures import BOXES, MASKS, RGB, cache_folder, cached, digest, encoded, open_picture, reason

NUMBERS = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B", "I;16N")
MOST = 254
"""In `segmentation`: the value of pixels that are not judged, and the most categories that fit beside it."""
UNNAMED = 64
"""Most classes without a classes.yaml."""
SHOWN = 5


@dataclass(frozen=True)
class Classes:
    """What the numbers in the masks mean."""

    numbers: dict[int, str]
    """A number → the name of its class in the data, in their order."""
    names: list[str]
    """The categories, as `data.classes` calls them."""
    categories: dict[int, int | None]
    """A number → its category; none: it is left out."""


def classes(root: Path, config, found: Sequence[Pair]) -> Classes:
    """The classes' numbers in the masks, their names, and the categories that `data.classes` makes of them.

    Raises:
        UserError: classes.yaml is no list of names and no mapping of numbers to names; there are no or too many classes; without
            classes.yaml, the numbers are shades of grey; `data.classes` names a class that is not there, or leaves out all.
    """
    numbers = _numbers(root, config, found)
    names, places = kept_names(list(numbers.values()), config.classes)
    if not 1 <= len(names) <= MOST:
        raise UserError(f"data.path: {len(names)} classes in the masks of {str(root)!r}; 1 to {MOST} can be used.")
    return Classes(numbers, names, dict(zip(numbers, places, strict=True)))


def _numbers(root: Path, config, found: Sequence[Pair]) -> dict[int, str]:
    """The classes' numbers in the masks → their names, as classes.yaml says, or as the masks have them."""
    file = next((root / name for name in ("classes.yaml", "classes.yml") if (root / name).is_file()), None)
    if file:
        content = parse_yaml(file.read_text(encoding="utf-8"), str(file))
        names = dict(enumerate(content)) if isinstance(content, list) else content
        if not isinstance(names, dict) or not all(
            isinstance(key, int) and isinstance(name, str) for key, name in names.items()
        ):
            raise UserError(
                f"data.path: {file.name} must map numbers to names, such as {{0: background, 1: cat}}, or list names."
            )
    elif config.kind == "instance" and not config.divisor:
        names = {1: "object"}
    else:
        values = _values(root, config, found)
        names = {number: str(number) for number in sorted({_class(value, config) for value in values} - {None})}
        if not names and values:
            ignored = f"{config.background} and {config.ignore}: if {config.ignore} is the thing, set data.ignore=null."
            empty = f"empty: they hold {config.background} alone, the background. Draw something in one, or name it in data.background."
            raise UserError(f"data.path: all masks of {str(root)!r} are {ignored if config.ignore in values else empty}")
    return {number: name for number, name in sorted(names.items()) if number not in (config.background, config.ignore)}


def _values(root: Path, config, found: Sequence[Pair]) -> set[int]:
    """All numbers in the masks.

    Raises:
        UserError: these are shades of grey, which smooth edges, scaling or JPEG leave, and no numbers of classes.
    """
    first: dict[int, Path] = {}
    solid: set[int] = set()
    with progress("read masks", len(found)) as tick:
        for pair in found:
            with suppress(OSError, ValueError, Picture.DecompressionBombError):  # named when the rows are made
                mask = read(pair.mask)
                first = dict.fromkeys(np.unique(mask).tolist(), pair.mask) | first
                solid |= _solid(mask)
            tick()
    numbers = {_class(value, config) for value in first} - {None}
    thin = sorted(set(first) - solid - {config.background, config.ignore})
    shades = len(thin) >= 3 and len({_class(value, config) for value in thin} - {None}) > len(numbers) / 2
    if len(numbers) > UNNAMED or shades or _smooth(set(first), solid, config.background):
        place = first[(thin or sorted(first))[0]].relative_to(root).as_posix()
        raise UserError(
            f"data.path: the masks are neither binary nor class numbers: values {_some(sorted(first))} ({len(first)} in all), "
            f"{len(thin)} of them in thin rims or dots alone, as in {place!r}. Threshold them at 128 and set data.ignore=null, "
            "or name the classes in classes.yaml."
        )
    return set(first)


def _solid(mask: np.ndarray) -> set[int]:
    """The numbers that fill a square of 3 × 3 pixels somewhere in a mask int[H, W]."""
    middle = mask[:, 1:-1]
    rows = (middle == mask[:, :-2]) & (middle == mask[:, 2:])
    centre = middle[1:-1]
    full = rows[1:-1] & rows[:-2] & rows[2:] & (centre == middle[:-2]) & (centre == middle[2:])
    return set(np.unique(centre[full]).tolist())


def _smooth(values: set[int], solid: set[int], background: int) -> bool:
    """Is it a thing of 255 with a smooth edge: does 255 fill areas, and other numbers nothing but rims?"""
    others = values - {background, 255}
    return 255 in solid and bool(others) and not others & solid


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:SHOWN])) + (" …" if len(numbers) > SHOWN else "")


def _class(number: int, config) -> int | None:
    """The class of a pixel's number; none for pixels of no object."""
    if number in (config.background, config.ignore):
        return None
    if config.kind == "class":
        return number
    if not config.divisor:
        return 1
    # below the divisor are classes without instances, such as road and sky in Cityscapes: no objects
    return number // config.divisor if number >= config.divisor else None


def read(path: Path) -> np.ndarray:
    """The numbers of a mask, int64[H, W].

    Raises:
        ValueError, OSError: it cannot be read, or its pixels are colours.
    """
    with open_picture({"path": str(path), "bytes": None}) as image:
        exact = bits(image) == 8  # of colours with 16 bits Pillow keeps the upper 8
        image.load()
        if image.mode in NUMBERS:
            return np.asarray(image).astype(np.int64)
        channels = np.asarray(image.convert("RGB")) if image.mode in ("RGB", "RGBA", "LA") and exact else None
        if channels is None or (channels != channels[..., :1]).any():
            raise ValueError(
                f"its pixels are colours ({image.mode}); a mask has one number for each pixel: grey, palette or 16 bit"
            )
        return channels[..., 0].astype(np.int64)


# ------------------------------------------------------------------------------------------------------------------- rows


def rows(root: Path, config, good: dict[Pair, Finding], known: Classes) -> Dataset:
    """A row for each picture that can be read, memory-mapped; masks that have not changed are not read again."""
    stamps = [(pair.id, pair.split, finding.digest, *stamp(pair.mask)) for pair, finding in good.items()]
    called = sorted(config.classes.items())
    meaning = (config.kind, config.divisor, config.background, config.ignore, sorted(known.numbers.items()), *called)
    key = digest(2, str(root), config.masks, config.suffix, meaning, stamps)

    def build(path: Path) -> None:
        with ArrowWriter(path=str(path), features=_features(known.names), writer_batch_size=100) as writer:
            with progress("read masks", len(good)) as tick:
                for pair, finding in good.items():
                    writer.write(_row(root, config, pair, finding, known))
                    tick()
            writer.finalize()

    return cached(cache_folder("masks") / f"{key}.arrow", build)


def _features(names: list[str]) -> Features:
    text = Value("string")
    objects = {"bbox": BOXES, "category": [ClassLabel(names=names)], "mask": MASKS}
    problems = [{"kind": text, "detail": text}]
    return Features(id=text, image=RGB(), objects=objects, segmentation=Image(), split=text, digest=text, problems=problems)


def _row(root: Path, config, pair: Pair, finding: Finding, known: Classes) -> dict:
    """A row, whose `problems` say why its mask cannot be used, and the classes of its objects that are left out."""
    row = {"id": pair.id, "split": pair.split, "digest": finding.digest, "image": {"path": str(root / pair.id), "bytes": None}}
    empty = {"objects": {"bbox": [], "category": [], "mask": []}, "segmentation": None}
    try:
        mask = read(pair.mask)
    except (OSError, ValueError, Picture.DecompressionBombError) as error:
        return row | empty | {"problems": [{"kind": "unreadable mask", "detail": reason(error)}]}
    problems = list(_wrong(config, mask, finding, known.numbers))
    if any(problem["kind"] != "empty mask" for problem in problems):
        return row | empty | {"problems": problems}
    classes = np.where(mask == config.ignore, IGNORE, 0).astype(np.uint8)
    objects: dict[str, list] = {"bbox": [], "category": [], "mask": []}
    for number, values in _things(config, mask, known):
        category = known.categories[number]
        if category is None:
            problems.append({"kind": LEFT_OUT, "detail": known.numbers[number]})
            continue
        here = np.isin(mask, values)
        classes[here] = category + 1
        for name, item in (("bbox", box(here)), ("category", category), ("mask", rle(here))):
            objects[name].append(item)
    return row | {"objects": objects, "segmentation": encoded(Picture.fromarray(classes)), "problems": problems}


def _things(config, mask: np.ndarray, known: Classes) -> list[tuple[int, list[int]]]:
    """The objects on a mask int[H, W], a class's number and the numbers of the pixels of each; with kind class, all of a category are one."""
    found = [(value, number) for value in np.unique(mask).tolist() if (number := _class(value, config)) is not None]
    if config.kind == "instance":
        return [(number, [value]) for value, number in found]
    things: dict[object, tuple[int, list[int]]] = {}
    for value, number in found:
        category = known.categories[number]
        things.setdefault(known.numbers[number] if category is None else category, (number, []))[1].append(value)
    return list(things.values())


def _wrong(config, mask: np.ndarray, finding: Finding, numbers: dict[int, str]):
    """Kinds and details of what is wrong with a mask int[H, W]."""
    if mask.shape[::-1] != finding.size:
        turned = " (turned by its EXIF tag)" if mask.shape == finding.size else ""
        detail = f"{mask.shape[1]} × {mask.shape[0]}; the picture is {finding.size[0]} × {finding.size[1]}{turned}"
        yield {"kind": "mask of another size", "detail": detail}
    values = set(np.unique(mask).tolist())
    present = {_class(value, config) for value in values} - {None}
    if config.kind == "instance" and not config.divisor and _smooth(values, _solid(mask), config.background):
        yield {
            "kind": "grey mask",
            "detail": f"values {_some(sorted(values))}; all but {config.background} and 255 in thin rims",
        }
    unknown = sorted(present - set(numbers))
    if unknown:
        yield {
            "kind": "unknown class",
            "detail": f"{_some(unknown)}; classes.yaml has {', '.join(map(str, list(numbers)[:SHOWN]))} …",
        }
    if not present:
        yield {"kind": "empty mask", "detail": ""}
