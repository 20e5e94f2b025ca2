"""What is told of pictures, and the small parts that all formats write.

A picture's line is a mapping: `id`, `number` (its place, from 0), `width`, `height`, and of these what there is: `split`, `image_id`,
`label`, `probability`, `text`, `captions`, `objects` or `masks`. An object has `name`, `box` (left, top, right, bottom in pixels of the
picture, turned as EXIF says), and of these what there is: `score`, `rle` (COCO's), `pixels` (of the mask), `crowd`.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from xml.etree import ElementTree

from adapt.plug import counted

NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
FOLDER_OF = {"train": "train", "validation": "val", "test": "test"}
"""Split → the word for it in names of files and folders."""


@dataclass(frozen=True)
class Told:
    """What the writers know."""

    lines: Callable[[], Iterable[dict[str, Any]]]
    """The pictures' lines, one at a time, as often as they are asked for."""
    ids: list[str]
    """Of all pictures: paths with `/`, each once."""
    names: list[str]
    """Of the classes."""
    title: str
    """Who tells: the model, or the data."""
    put: Callable[[dict[str, Any], Path], None]
    """Put a line's picture at a place that is free: a link to it, or a copy."""
    root: Path
    """The folder that the pictures lie in."""
    scored: bool = True
    """Does a model tell, who says how sure it is?"""
    all: bool = False
    """Is each class's probability there?"""

    def stems(self, flat: bool = False) -> dict[str, str]:
        """Picture → its path without the suffix; of a.jpg and a.png, which would share one, a_jpg and a_png.

        Args:
            flat: without folders and spaces, where a format has no room for them.
        """
        names = {name: re.sub(r"[/\s]", "_", name) if flat else name for name in self.ids}
        often = Counter(os.path.splitext(name)[0] for name in names.values())
        taken, found = {stem for stem, count in often.items() if count == 1}, {}
        for picture, name in names.items():
            stem, suffix = os.path.splitext(name)
            if often[stem] > 1:
                stem = f"{stem}_{suffix[1:]}"
                while stem in taken:
                    stem += "_"
                taken.add(stem)
            found[picture] = stem
        return found


def text_file(path: Path) -> TextIO:
    """A file to be written, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return open(path, "w", encoding="utf-8", newline="")


def link(place: Path, picture: Path) -> None:
    """A link to a picture; its bytes stay where they are."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(picture)


def write_list(file: TextIO, items: Iterator[dict[str, Any]]) -> None:
    """Write a JSON list, an item a line, without holding it."""
    file.write("[")
    for number, item in enumerate(items):
        file.write((",\n" if number else "\n") + json.dumps(item, ensure_ascii=False))
    file.write("\n]")


def xml(parent: ElementTree.Element, values: dict[str, Any]) -> None:
    """Add an element for each value."""
    for name, value in values.items():
        ElementTree.SubElement(parent, name).text = NO_XML.sub("?", str(value))


def nameless(told: Told) -> list[str]:
    """A sentence on the objects whose name is none of the classes, which only jsonl holds."""
    count = sum(one["name"] is None for line in told.lines() for one in line.get("objects", []))
    return [f"{counted(count, 'object')} of a name that is none of the classes: left out; to=jsonl has them."] if count else []
