"""Pictures of class maps beside the pictures → objects and `segmentation`, as `data.source=masks` makes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image, List, Value, concatenate_datasets
from datasets.arrow_writer import ArrowWriter
from PIL import Image as Picture

from adapt.data.check import picture_stamps
from adapt.data.hub.rows import flat, refuse, sides, without
from adapt.data.hub.words import numbered
from adapt.data.masks.files import Classes, found_classes, known_classes, read, things, wrong
from adapt.data.problems import Problem
from adapt.plug import counted
from adapt.progress import progress
from adapt.vision.pictures import BOXES, MASKS, cache_folder, cached, digest, reason

VERSION = 3
"""To be raised when maps are read otherwise, so that kept ones are read again."""


@dataclass(frozen=True)
class Meaning:
    """What the numbers of a map are, as `masks` is told it."""

    background: int
    """Of nothing; -1, which no picture has: there is none."""
    ignore: int | None
    kind: str = "class"
    divisor: None = None


def standard_maps(parts: dict[str, Dataset], config, problems: list[Problem]) -> tuple[dict[str, Dataset], list[str]]:
    """Splits whose column `segmentation`, where there is one, is as ours, with the objects that it shows; and the maps' classes, before
    `data.classes`, which is done here.

    Args:
        config: of `hub`: background, ignore, id2label, classes, on_error.
        problems: what is left out is added to it.

    Raises:
        UserError: the column holds no pictures; numbers are shades of grey; there are no or too many classes; with `on_error: stop`, maps
            that cannot be used.
    """
    mapped = {split: rows for split, rows in parts.items() if "segmentation" in rows.column_names}
    if not mapped:
        return parts, []
    meaning = Meaning(-1 if config.background is None else config.background, config.ignore)
    known = _classes(config, mapped, meaning)
    tables = {split: _table(rows, meaning, known) for split, rows in mapped.items()}
    severe, left = {}, Counter()
    for split, table in tables.items():
        ids, severe[split] = mapped[split]["id"][:], {}
        for row, notes in enumerate(table.select_columns(["problems", "left"])):
            left.update(notes["left"])
            wrong = [(each["kind"], each["detail"]) for each in notes["problems"]]
            if any(kind != "empty mask" for kind, _ in wrong):
                severe[split][row] = wrong
            else:
                problems += [Problem(ids[row], split, *each) for each in wrong]
    refuse(mapped, severe, config.on_error)
    problems += [Problem(name, "", "class left out", counted(number, "map")) for name, number in sorted(left.items())]
    done = {}
    for split, rows in mapped.items():
        both = [flat(rows).remove_columns("segmentation"), tables[split].select_columns(["objects", "segmentation"])]
        done[split] = without(concatenate_datasets(both, axis=1), split, severe[split], problems)
    return parts | done, list(known.numbers.values())


# ---------------------------------------------------------------------------------------------------------------- numbers


def _classes(config, mapped: dict[str, Dataset], meaning: Meaning) -> Classes:
    """The numbers of the classes in the maps, their names, and what `data.classes` makes of them."""
    names = numbered(config)
    if not names:
        masks = ((f"{split}, row {row}", value) for split, rows in mapped.items() for row, _, value in _stored(rows))
        total = sum(map(len, mapped.values()))
        names = found_classes(meaning, masks, total, config.path, "name the classes in data.id2label")
    called = {name: new for name, new in config.classes.items() if name in names.values()}  # others are of the pictures
    return known_classes(names, meaning, called, config.path)


# ------------------------------------------------------------------------------------------------------------------- rows


def _stored(rows: Dataset) -> Iterator[tuple[int, dict, dict]]:
    """Row number, picture and map of each row, as they are stored."""
    plain = rows.select_columns(["image", "segmentation"])
    for column in ("image", "segmentation"):
        plain = plain.cast_column(column, Image(decode=False))
    for row, each in enumerate(plain):
        yield row, each["image"], each["segmentation"]


def _table(rows: Dataset, meaning: Meaning, known: Classes) -> Dataset:
    """Objects and map of each row, and what is wrong with it; memory-mapped, and not made again while nothing has changed."""
    stamps = [picture_stamps({"": rows}, column) for column in ("image", "segmentation")]
    key = digest("maps", VERSION, rows._fingerprint, stamps, meaning, known)
    text = Value("string")
    features = Features(
        objects={"bbox": BOXES, "category": List(ClassLabel(names=known.names)), "mask": MASKS},
        segmentation=Image(),
        problems=[{"kind": text, "detail": text}],
        left=List(text),
    )

    def build(path: Path) -> None:
        with ArrowWriter(path=str(path), features=features, writer_batch_size=100) as writer:
            with progress("read maps", len(rows)) as tick:
                for _, image, value in _stored(rows):
                    writer.write(_row(meaning, known, value, sides(image)))
                    tick()
            writer.finalize()

    return cached(cache_folder("hub") / f"{key}.arrow", build)


def _row(meaning: Meaning, known: Classes, value: dict, size: tuple[int, int]) -> dict:
    """A row, whose `problems` say why its map cannot be used; `left` are classes in it that are left out.

    Args:
        size: of the picture; zeros: it cannot be opened, and then its map is no matter.
    """
    nothing = {"objects": {"bbox": [], "category": [], "mask": []}, "segmentation": None, "problems": [], "left": []}
    if not all(size):
        return nothing
    try:
        mask = read(value)
    except (OSError, ValueError, Picture.DecompressionBombError) as error:
        return nothing | {"problems": [{"kind": "unreadable mask", "detail": reason(error)}]}
    problems = list(wrong(meaning, mask, size, known.numbers, "the data have"))
    if any(problem["kind"] != "empty mask" for problem in problems):
        return nothing | {"problems": problems}
    columns, left = things(meaning, mask, known)
    return columns | {"problems": problems, "left": left}
