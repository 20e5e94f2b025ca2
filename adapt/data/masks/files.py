"""Masks: what their numbers mean, and the rows that they make with their pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    names = listed_classes(root)
    if names is None and config.kind == "instance" and not config.divisor:
        names = {1: "object"}
    elif names is None:
        masks = ((pair.mask.relative_to(root).as_posix(), {"path": str(pair.mask), "bytes": None}) for pair in found)
        names = found_classes(config, masks, len(found), str(root))
    return known_classes(names, config, config.classes, str(root))


def listed_classes(root: Path) -> dict[int, str] | None:
    """The numbers and names of classes.yaml in a folder; none, where there is no such file.

    Raises:
        UserError: it cannot be read, is no list of names and no mapping of numbers to names.
    """
    file = next((root / name for name in ("classes.yaml", "classes.yml") if (root / name).is_file()), None)
    if file is None:
        return None
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"data.path: {file.name}: it is not UTF-8. Save it as UTF-8.") from None
    content = parse_yaml(text, str(file))
    names = dict(enumerate(content)) if isinstance(content, list) else content
    if not isinstance(names, dict) or not all(isinstance(key, int) and isinstance(name, str) for key, name in names.items()):
        raise UserError(f"data.path: {file.name} must map numbers to names, such as {{0: background, 1: cat}}, or list names.")
    return names


def found_classes(
    config, masks: Iterable[tuple[str, dict]], total: int, whole: str, remedy: str = "name the classes in classes.yaml"
) -> dict[int, str]:
    """The classes that masks have, with their numbers as names.

    Args:
        masks: how messages call each, and the picture as an `Image` column stores it; `total` of them.
        whole: how messages call all.
        remedy: what to do where numbers are shades of grey and are meant.

    Raises:
        UserError: the numbers are shades of grey; all masks are empty.
    """
    values = _values(config, masks, total, remedy)
    names = {number: str(number) for number in sorted({_class(value, config) for value in values} - {None})}
    if not names and values:
        ignored = f"{config.background} and {config.ignore}: if {config.ignore} is the thing, set data.ignore=null."
        empty = (
            f"empty: they hold {config.background} alone, the background. Draw something in one, or name it in data.background."
        )
        raise UserError(f"data.path: all masks of {whole!r} are {ignored if config.ignore in values else empty}")
    return names


def known_classes(names: dict[int, str], config, called: Mapping[str, str | None], whole: str) -> Classes:
    """The classes that are things: not the background, and not what is ignored; and what `data.classes` makes of them.

    Args:
        names: number → name.
        config: with background and ignore.
        called: `data.classes`.
        whole: how messages call all masks.

    Raises:
        UserError: there are none, or too many; `called` has a name that is none of theirs, or leaves out all.
    """
    numbers = {number: name for number, name in sorted(names.items()) if number not in (config.background, config.ignore)}
    kept, places = kept_names(list(numbers.values()), called)
    if not 1 <= len(kept) <= MOST:
        raise UserError(f"data.path: {len(kept)} classes in the masks of {whole!r}; 1 to {MOST} can be used.")
    return Classes(numbers, kept, dict(zip(numbers, places, strict=True)))


def _values(config, masks: Iterable[tuple[str, dict]], total: int, remedy: str) -> set[int]:
    """All numbers in the masks.

    Raises:
        UserError: these are shades of grey, which smooth edges, scaling or JPEG leave, and no numbers of classes.
    """
    first: dict[int, str] = {}
    solid: set[int] = set()
    with progress("read masks", total) as tick:
        for place, value in masks:
            with suppress(OSError, ValueError, Picture.DecompressionBombError):  # named when the rows are made
                mask = read(value)
                first = dict.fromkeys(np.unique(mask).tolist(), place) | first
                solid |= _solid(mask)
            tick()
    numbers = {_class(value, config) for value in first} - {None}
    thin = sorted(set(first) - solid - {config.background, config.ignore})
    shades = len(thin) >= 3 and len({_class(value, config) for value in thin} - {None}) > len(numbers) / 2
    if len(numbers) > UNNAMED or shades or _smooth(set(first), solid, config.background):
        place = first[(thin or sorted(first))[0]]
        raise UserError(
            f"data.path: the masks are neither binary nor class numbers: values {_some(sorted(first))} ({len(first)} in all), "
            f"{len(thin)} of them in thin rims or dots alone, as in {place!r}. Threshold them at 128 and set data.ignore=null, "
            f"or {remedy}."
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


def read(value: dict) -> np.ndarray:
    """The numbers of a mask, as an `Image` column stores it, int64[H, W].

    Raises:
        ValueError, OSError: it cannot be read, or its pixels are colours.
    """
    with open_picture(value) as image:
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
        mask = read({"path": str(pair.mask), "bytes": None})
    except (OSError, ValueError, Picture.DecompressionBombError) as error:
        return row | empty | {"problems": [{"kind": "unreadable mask", "detail": reason(error)}]}
    problems = list(wrong(config, mask, finding.size, known.numbers))
    if any(problem["kind"] != "empty mask" for problem in problems):
        return row | empty | {"problems": problems}
    columns, left = things(config, mask, known)
    return row | columns | {"problems": problems + [{"kind": LEFT_OUT, "detail": name} for name in left]}


def things(config, mask: np.ndarray, known: Classes) -> tuple[dict, list[str]]:
    """A mask int[H, W] as `objects` and as `segmentation`, a PNG: 0 background, k + 1 the category k, 255 not judged; and for each thing
    that is left out the name of its class."""
    classes = np.where(mask == config.ignore, IGNORE, 0).astype(np.uint8)
    objects: dict[str, list] = {"bbox": [], "category": [], "mask": []}
    left = []
    for number, values in _things(config, mask, known):
        category = known.categories[number]
        if category is None:
            left.append(known.numbers[number])
            continue
        here = np.isin(mask, values)
        classes[here] = category + 1
        for name, item in (("bbox", box(here)), ("category", category), ("mask", rle(here))):
            objects[name].append(item)
    return {"objects": objects, "segmentation": encoded(Picture.fromarray(classes))}, left


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


def wrong(config, mask: np.ndarray, size: tuple[int, int], numbers: dict[int, str], named: str = "classes.yaml has"):
    """Kinds and details of what is wrong with a mask int[H, W] of a picture of a width and height; `named`: what names the classes."""
    if mask.shape[::-1] != size:
        turned = " (turned by its EXIF tag)" if mask.shape == size else ""
        detail = f"{mask.shape[1]} × {mask.shape[0]}; the picture is {size[0]} × {size[1]}{turned}"
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
            "detail": f"{_some(unknown)}; {named} {', '.join(map(str, list(numbers)[:SHOWN]))} …",
        }
    if not present:
        yield {"kind": "empty mask", "detail": ""}
