"""A data set as files, a function a format: (folder, rows, about) → sentences on what the format could not hold."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from adapt.plug import UserError, counted
from adapt.verbs.converting.rows import Rows
from adapt.verbs.formats import boxes
from adapt.verbs.formats.labelstudio import labelstudio
from adapt.verbs.formats.told import FOLDER_OF, Told, text_file


@dataclass(frozen=True)
class About:
    """What the writers know beside the rows."""

    title: str
    """Of the data."""
    out: Path
    """Where the folder that they write will lie in the end, absolute."""


Writer = Callable[[Path, Rows, About], list[str]]


def coco(place: Path, rows: Rows, about: About) -> list[str]:
    """`annotations/instances_SPLIT.json`, or `captions_SPLIT.json`, or both; `images/`. Ids are unique in all files."""
    told = _told(rows, about, "objects")
    kinds = {"objects": ("instances", boxes.coco), "caption": ("captions", boxes.captions)}
    for column, (kind, write) in kinds.items():
        first = 1
        if column in rows.holds:
            for split in rows.splits_told():
                path = place / "annotations" / f"{kind}_{FOLDER_OF[split]}.json"
                first = write(path, told, partial(rows.lines, split), first)
    pictures(place, rows)
    return []


def pictures(place: Path, rows: Rows) -> None:
    """`images/`: all pictures by their names."""
    for line in rows.lines():
        rows.put(line, place / "images" / line["id"])


def yolo(place: Path, rows: Rows, about: About) -> list[str]:
    """See `boxes.yolo`. YOLO knows no crowds: their regions are left out."""
    told = _told(rows, about, "objects", crowds=False)
    words = [FOLDER_OF[split] for split in rows.splits_told()]
    boxes.yolo(place, told, {"train": None, "val": None} | {word: f"images/{word}" for word in words})
    return [*_without_masks(rows), *_without_crowds(rows)]


def voc(place: Path, rows: Rows, about: About) -> list[str]:
    """See `boxes.voc`; `ImageSets/Main/SPLIT.txt` lists the pictures."""
    told = _told(rows, about, "objects")
    boxes.voc(place, told, flat=True)
    stems = told.stems(flat=True)
    for split in rows.splits_told():
        with text_file(place / "ImageSets" / "Main" / f"{FOLDER_OF[split]}.txt") as file:
            file.writelines(f"{stems[line['id']]}\n" for line in rows.lines(split))
    return [*_without_masks(rows), "Boxes are rounded to whole pixels, as VOC has them."]


def tasks(place: Path, rows: Rows, about: About) -> list[str]:
    """Label Studio's tasks with annotations: boxes, where there are any, else classes."""
    what = "objects" if "objects" in rows.names else "label"
    told = _told(rows, about, what, crowds=False)
    pictures(place, rows)
    lost = [*_without_masks(rows), *_without_crowds(rows)] if what == "objects" else []
    return [
        *lost,
        *labelstudio(place, told, what == "objects"),
        "Label Studio has no splits: data.source=labelstudio draws them.",
    ]


def png(place: Path, rows: Rows, about: About) -> list[str]:
    """`masks/SPLIT/NAME.png`: 0 background, k + 1 the class k, 255 not judged; `images/SPLIT`, `classes.yaml`."""
    import numpy as np
    import yaml
    from PIL import Image

    from adapt.vision.classes import IGNORE
    from adapt.vision.maps import class_map
    from adapt.vision.pictures import open_picture

    names = rows.names["objects"]
    if len(names) >= IGNORE:
        raise UserError(f"to: png has a byte a pixel: {IGNORE - 1} classes at most, and these are {len(names)}. Write to=coco.")
    stems = _told(rows, about, "objects").stems()
    for line in rows.lines():
        row, stem = line["row"], f"{line['split']}/{stems[line['id']]}"
        rows.put(line, place / "images" / f"{stem}{Path(line['id']).suffix}")
        drawn = row.get("segmentation")
        sample = row | {"segmentation": drawn and open_picture(drawn), "image": Image.new("1", (line["width"], line["height"]))}
        path = place / "masks" / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(class_map(sample).astype(np.uint8)).save(path)
    numbers = dict(enumerate(["background", *names])) | {IGNORE: "ignore"}
    (place / "classes.yaml").write_text(yaml.safe_dump(numbers, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return []


def table(place: Path, rows: Rows, about: About) -> list[str]:
    """`labels.csv`: path, label, split; `images/`."""
    with text_file(place / "labels.csv") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "label", "split"])
        lines.writerows([f"images/{line['id']}", line["label"], line["split"]] for line in rows.lines())
    pictures(place, rows)
    return []


def folder(place: Path, rows: Rows, about: About) -> list[str]:
    """`SPLIT/CLASS/NAME`."""
    bad = [
        name for name in rows.names["label"] if "/" in name or name.startswith(".") or "\0" in name or len(name.encode()) > 255
    ]
    if bad:
        raise UserError(f"to: no folder can be called {bad[0]!r}. Rename the class with data.classes, or write to=csv.")
    stems = _told(rows, about, "label").stems(flat=True)
    for line in rows.lines():
        rows.put(line, place / line["split"] / line["label"] / f"{stems[line['id']]}{Path(line['id']).suffix}")
    return []


NEEDS = {"objects": "boxes", "mask": "masks", "label": "classes of pictures", "caption": "captions"}
"""What rows may have, in words."""
WRITERS: dict[str, tuple[tuple[str, ...], Writer]] = {
    "coco": (("objects", "caption"), coco),
    "yolo": (("objects",), yolo),
    "voc": (("objects",), voc),
    "labelstudio": (("objects", "label"), tasks),
    "png": (("mask",), png),
    "csv": (("label",), table),
    "folder": (("label",), folder),
}
"""Format → what it can hold, of which the data need one; and its function."""


def writer(to: str, rows: Rows) -> Writer:
    """The function that writes these data in a format.

    Raises:
        UserError: the format holds nothing of what they say.
    """
    needs, write = WRITERS[to]
    if not set(needs) & rows.holds:
        have = [name for name in NEEDS if name in rows.holds]
        fit = [name for name, (holds, _) in WRITERS.items() if set(holds) & set(have)]
        raise UserError(
            f"to: {to!r} holds {' or '.join(NEEDS[need] for need in needs)}, and these data have "
            f"{', '.join(NEEDS[name] for name in have) or 'neither'}. Formats that fit: {', '.join(fit) or 'none'}."
        )
    return write


def _told(rows: Rows, about: About, what: str, crowds: bool = True) -> Told:
    def lines():
        for line in rows.lines():
            if not crowds and "objects" in line:
                line["objects"] = [one for one in line["objects"] if not one.get("crowd")]
            yield line

    return Told(lines, rows.ids, rows.names.get(what, []), about.title, rows.put, about.out / "images", scored=False)


def _without_masks(rows: Rows) -> list[str]:
    return ["Masks are left out, boxes stay: to=coco and to=png hold masks."] if "mask" in rows.holds else []


def _without_crowds(rows: Rows) -> list[str]:
    count = sum(bool(one.get("crowd")) for line in rows.lines() for one in line["objects"])
    return [f"{counted(count, 'region')} of crowds left out: the format has none; to=coco has."] if count else []
