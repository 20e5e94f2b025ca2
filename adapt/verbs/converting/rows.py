"""The rows of a data set as the writers of formats want them: a line a picture; see `formats/told.py`."""

from __future__ import annotations

import os
import re
import shutil
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc
from datasets import Image

from adapt.data.scan import upright_size
from adapt.plug import UserError
from adapt.progress import progress
from adapt.verbs.formats.told import FOLDER_OF
from adapt.vision.classes import category_names
from adapt.vision.pictures import open_picture, reason

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

SUFFIX_OF = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "JPEG2000": ".jp2", "PPM": ".ppm", "MPO": ".jpg"}
"""Pillow's format → the suffix of a picture that has no file; others: their name."""


@dataclass
class Rows:
    """The pictures of all splits that say something, each with a name of its own.

    Args:
        splits: as a source returns them; `unlabelled` is passed over.
        copy: pictures are copied; else their files get another name, as far as the file system can do that.
    """

    splits: DatasetDict
    copy: bool
    ids: list[str] = field(default_factory=list)
    """A path for each picture, with `/`, below the folder that they share; each once."""
    names: dict[str, list[str]] = field(default_factory=dict)
    """Of the classes: of the `objects`, of the pictures (`label`)."""
    holds: set[str] = field(default_factory=set)
    """What the rows say: objects, mask (of objects, or a map of classes), label, caption."""

    def __post_init__(self):
        self._rows = {split: _undecoded(rows) for split, rows in self.splits.items() if split in FOLDER_OF}
        if not self._rows:
            raise UserError("data: nothing is said of any picture, so there is nothing to convert. Name other data.")
        features = next(iter(self._rows.values())).features
        self.holds = {name for name in ("objects", "label", "caption") if name in features}
        if "objects" in features:
            self.names["objects"] = category_names(features)
            if "mask" in features["objects"] or "segmentation" in features:
                self.holds.add("mask")
        if "label" in features:
            self.names["label"] = list(features["label"].names)
        self._sizes = array("i")
        self._name()
        ids = [number for rows in self._rows.values() for number in (rows["image_id"][:] if "image_id" in features else ())]
        self._numbered = bool(ids) and len(set(ids)) == len(ids) and all(type(number) is int for number in ids)

    def _name(self) -> None:
        """Open each picture once: its size, and its name."""
        root, taken = self._root(), set()
        with progress("look at pictures", sum(map(len, self._rows.values()))) as tick:
            for _, row in self._each():
                picture = _opened(row)
                self._sizes.extend(upright_size(picture))
                path = row["image"]["path"] if row["image"]["bytes"] is None else None
                name = os.path.relpath(path, root).replace(os.sep, "/") if path else _file_name(row, picture)
                stem, suffix = os.path.splitext(name)
                number = 2
                while name in taken:
                    name, number = f"{stem}_{number}{suffix}", number + 1
                taken.add(name)
                self.ids.append(name)
                tick()

    def _root(self) -> str:
        """The folder that all files lie in, those too that `limit` leaves out."""
        folders: set[str] = set()
        for rows in self._rows.values():
            column = rows.data.column("image")
            paths = pc.struct_field(column, "path").filter(pc.is_null(pc.struct_field(column, "bytes")))
            folders |= {os.path.dirname(path) for path in paths.to_pylist() if path}
        return os.path.commonpath(folders) if folders else ""

    def _each(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for split, rows in self._rows.items():
            for row in rows:
                yield split, row

    def rename(self, names: dict[str, str]) -> None:
        """Call pictures by other names, if there is one for each row.

        Args:
            names: row's id → another path.
        """
        rows = [row_id for rows in self._rows.values() for row_id in rows["id"][:]]
        if names.keys() >= set(rows):
            self.ids = [names[row_id] for row_id in rows]

    def splits_told(self) -> list[str]:
        """The splits that are converted."""
        return list(self._rows)

    def lines(self, only: str | None = None) -> Iterator[dict[str, Any]]:
        """A line for each picture.

        Args:
            only: the pictures of this split.
        """
        number = 0
        for split, rows in self._rows.items():
            if only in (None, split):
                for place, row in enumerate(rows, number):
                    width, height = self._sizes[2 * place], self._sizes[2 * place + 1]
                    line = {"id": self.ids[place], "number": place, "width": width, "height": height, "row": row}
                    yield line | {"split": FOLDER_OF[split]} | self._told(row)
            number += len(rows)

    def _told(self, row: dict[str, Any]) -> dict[str, Any]:
        """What a row says."""
        told: dict[str, Any] = {}
        if self._numbered:
            told["image_id"] = row["image_id"]
        if "label" in self.names:
            told["label"] = self.names["label"][row["label"]]
        if row.get("caption"):
            told["captions"] = [row["caption"]] if isinstance(row["caption"], str) else list(row["caption"])
        if "objects" in self.names:
            told["objects"] = _objects(row["objects"] or {}, self.names["objects"])
        return told

    def put(self, line: dict[str, Any], place: Path) -> None:
        """A line's picture at a place: the same file under another name, a copy, or the bytes that the row holds.

        Nothing is written over: what lies at the place may be a user's own file under another name.

        Raises:
            UserError: something lies there.
        """
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._put(line["row"]["image"], place)
        except FileExistsError:
            raise UserError(
                f"out: picture {line['id']!r} would be a second {place.name!r} in one folder. Where names differ by capitals alone, "
                "write to a disk that tells capitals apart."
            ) from None

    def _put(self, value: dict[str, Any], place: Path) -> None:
        if value["bytes"] is not None:
            with open(place, "xb") as file:
                file.write(value["bytes"])
            return
        path = os.path.realpath(value["path"])
        if not self.copy:
            try:
                os.link(path, place)
                return
            except FileExistsError:
                raise
            except OSError:  # another file system, or one without hard links
                pass
        place.touch(exist_ok=False)
        shutil.copyfile(path, place)


def _undecoded(rows: Dataset) -> Dataset:
    """The rows, whose pictures stay bytes or paths."""
    for name in ("image", "segmentation"):
        if name in rows.column_names:
            rows = rows.cast_column(name, Image(decode=False))
    return rows


def _opened(row: dict[str, Any]):
    """The picture of a row, its header read.

    Raises:
        UserError: it cannot be.
    """
    try:
        return open_picture(row["image"])
    except Exception as error:  # decoders raise nearly anything on broken bytes
        name = row.get("id") or row["image"]["path"]
        raise UserError(f"data: picture {name!r}: {reason(error)}. See all such pictures with: adapt doctor data") from None


def _file_name(row: dict[str, Any], picture) -> str:
    """A path for a picture that has no file: its id, as far as that can be one."""
    parts = re.split(r"[/\\]", str(row.get("id") or "picture"))
    clean = [re.sub(r"[\x00-\x1f:*?\"<>|]", "_", part).strip(" .")[:100] for part in parts]
    suffix = SUFFIX_OF.get(picture.format, f".{picture.format.lower()}")
    name = "/".join(filter(None, clean)) or "picture"
    return name if name.lower().endswith(suffix) else name + suffix


def _objects(objects: dict[str, list], names: list[str]) -> list[dict[str, Any]]:
    from pycocotools.mask import area

    masks, crowds = objects.get("mask"), objects.get("iscrowd")
    found = []
    for place, (box, category) in enumerate(zip(objects.get("bbox", []), objects.get("category", []), strict=True)):
        one = {"name": names[category], "box": list(box)}
        if crowds and crowds[place]:
            one["crowd"] = True
        if masks:
            code = masks[place]
            one |= {"rle": code, "pixels": int(area({"size": code["size"], "counts": code["counts"].encode("ascii")}))}
        found.append(one)
    return found
