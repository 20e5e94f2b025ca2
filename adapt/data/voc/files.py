"""VOC's folders: which pictures there are, with their XML files, lists and masks."""

from __future__ import annotations

import os
from collections import Counter
from math import isfinite
from pathlib import Path

import numpy as np
from datasets import Image
from PIL import Image as Picture

from adapt.data.listing import Listed, Listing, Places, passed_over
from adapt.data.objects import Objects
from adapt.data.outlines import short
from adapt.data.places import present
from adapt.data.problems import Bad, Problem
from adapt.data.scan import SPLIT_FOLDERS
from adapt.data.voc.xml import Annotation, BadXML, Thing, parsed
from adapt.plug import UserError
from adapt.progress import progress
from adapt.vision.classes import IGNORE
from adapt.vision.masks import rle
from adapt.vision.pictures import SUFFIXES, encoded, open_picture, reason

NUMBERS = ("1", "L", "P")
"""Modes of a PNG whose pixels are numbers."""


class Reader:
    """The folder of a config: `listing` says what is there, `read` adds the objects.

    Raises:
        UserError: there is no folder, or no XML in it.
    """

    def __init__(self, config):
        self.config, self.root = config, present(config.path)
        if not self.root.is_dir():
            raise UserError(
                f"data.path: {config.path!r} is a file. Give the folder that the XML files and the pictures lie in."
            )
        self.listing = Listing(self.root)
        self._places = Places(self.root, config.follow_links)
        self._annotations: dict[str, Annotation] = {}  # by the picture's id
        self._masks: dict[str, Path] = {}
        for split, xml, folders, origin in self._files():
            self.listing.origin.setdefault(split, origin)
            self._list(split, xml, folders)
        if not self.listing.pictures:
            first = f" The first problem: {self.listing.problems[0]}." if self.listing.problems else ""
            raise UserError(f"data.path: no XML of VOC's in {config.path!r} that can be read.{first}")
        things = [thing for annotation in self._annotations.values() for thing in annotation.things]
        self.listing.names = sorted({thing.name for thing in things} - {""})
        if not self.listing.names:
            raise UserError(f"data.path: no XML in {config.path!r} names an object.")
        starts = {corner for thing in things for corner in thing.corners[:2]}
        self._first = config.first_pixel if config.first_pixel is not None else int(not starts & {"0", "0.0"})
        self._choose_masks()

    # --------------------------------------------------------------------------------------------------------------- listing

    def _files(self) -> list[tuple[str, Path, list[str], str]]:
        """Split, XML, the folders that its picture may lie in, and where the split comes from."""
        if (self.root / "Annotations").is_dir():
            folders = [self.config.images, "Annotations", "."]
            files = sorted((self.root / "Annotations").glob("*.xml"))
            lists = self._lists({file.stem for file in files})
            if not lists:
                return [("", file, folders, repr(self.config.path)) for file in files]
            return self._listed(lists, files, folders)
        places = [item for item in sorted(self.root.iterdir()) if item.is_dir() and item.name.lower() in SPLIT_FOLDERS]
        found = []
        for place in places:
            own = place.name
            files = sorted(place.glob("*.xml")) or sorted(place.glob("*/*.xml"))
            folders = [own, f"{own}/{self.config.images}", f"{own}/images"]
            found += [(SPLIT_FOLDERS[own.lower()], file, folders, f"{own}/") for file in files]
        folders = [self.config.images, "images", "."]
        return found or [("", file, folders, repr(self.config.path)) for file in sorted(self.root.rglob("*.xml"))]

    def _lists(self, known: set[str]) -> dict[str, tuple[str, list[str]]]:
        """Split → the name of its list in ImageSets, and the names in that; trainval stands for train where there is no such list.

        Args:
            known: the names of the XML files.
        """
        place = self.root / "ImageSets" / self.config.sets
        names = {"train": ("train", "trainval"), "validation": ("val",), "test": ("test",)}
        found = {}
        for split, stems in names.items():
            file = next((place / f"{stem}.txt" for stem in stems if (place / f"{stem}.txt").is_file()), None)
            if file:
                text = file.read_text(encoding="utf-8-sig", errors="replace")
                found[split] = (file.name, [_named(line.strip(), known) for line in text.splitlines() if line.strip()])
        if "validation" in found and found.get("train", ("",))[0] == "trainval.txt":
            apart = set(found["validation"][1])
            found["train"] = ("trainval.txt", [name for name in found["train"][1] if name not in apart])
        if not found and (self.root / "ImageSets").is_dir() and self.config.sets != "Main":
            have = ", ".join(sorted(item.name for item in (self.root / "ImageSets").iterdir())) or "nothing"
            raise UserError(f"data.sets: no lists in ImageSets/{self.config.sets}. Have: {have}.")
        return found

    def _listed(self, lists: dict, files: list[Path], folders: list[str]) -> list[tuple[str, Path, list[str], str]]:
        """The XML files that lists name; what is named and is not there, or twice, is a problem."""
        known = {file.stem: file for file in files}
        found, split_of = [], {}
        for split, (name, stems) in lists.items():
            for stem in stems:
                if stem in split_of:
                    self._wrong(f"{folders[0]}/{stem}", split, "picture twice", f"{stem!r} in ImageSets, {name}")
                elif stem not in known:
                    self._wrong(f"Annotations/{stem[:80]}.xml", split, "unreadable annotations", f"no file; {name} names it")
                else:
                    found.append((split, known[stem], folders, f"ImageSets/{self.config.sets}/{name}"))
                split_of[stem] = split
        self.listing.problems += passed_over(
            "ImageSets", {"files in Annotations that no list names": len(known.keys() - split_of.keys())}
        )
        return found

    def _list(self, split: str, xml: Path, folders: list[str]) -> None:
        """List the picture of an XML file."""
        name = xml.relative_to(self.root).as_posix()
        if not self.config.follow_links and not xml.resolve().is_relative_to(self.root):
            self._wrong(name, split, "leads outside", f"to {xml.resolve()}")
            return
        self.listing.made_of.append(xml)
        try:
            annotation = parsed(xml)
        except BadXML as error:
            self._wrong(name, split, "unreadable annotations", str(error))
            return
        file, problem = self._picture(xml, annotation, folders)
        if file in self._annotations:
            self._wrong(file, split, "picture twice", f"the picture of {name} and of another file")
            return
        self._annotations[file] = annotation
        self.listing.pictures.append(Listed(file, file, split, name, annotation.size))
        if problem:
            self._wrong(file, split, *problem)

    def _picture(self, xml: Path, annotation: Annotation, folders: list[str]) -> tuple[str, tuple[str, str] | None]:
        """The path of an XML file's picture below the root, and what is wrong with it."""
        named = annotation.filename or f"{xml.stem}.jpg"
        folders = [*dict.fromkeys([*folders, xml.parent.relative_to(self.root).as_posix()])]
        places = [place for folder in folders if (place := self._places.below(named, folder))]
        if not places:
            return named, ("leads outside", f"its file name in {xml.name}")
        others = [
            f"{folder}/{xml.stem}{end}" for folder in folders for end in SUFFIXES
        ]  # renamed since, or named without its ending
        everywhere = [*places, *(place for name in others if (place := self._places.below(name)))]
        path = next((place for place in everywhere if os.path.isfile(self.root / place)), places[0])
        return path, self._places.wrong(path)

    def _choose_masks(self) -> None:
        """Where the masks lie, if every picture has one; else boxes alone are read."""
        place = self.root / "SegmentationObject"
        if not self.config.masks or not place.is_dir():
            return
        found = {one.id: place / f"{Path(one.key).stem}.png" for one in self.listing.pictures}
        found = {name: path for name, path in found.items() if path.is_file()}
        if len(found) == len(self.listing.pictures):
            self._masks = found
            self.listing.made_of += found.values()
        elif found:
            over = f"masks of {len(found):,} of {len(self.listing.pictures):,} pictures; data.sets=Segmentation reads those that have one"
            self.listing.problems += passed_over("SegmentationObject", {over: len(found)})

    def _wrong(self, name: str, split: str, kind: str, detail: str) -> None:
        self.listing.problems.append(Problem(name, split, kind, detail))

    # --------------------------------------------------------------------------------------------------------------- objects

    def read(self, objects: Objects) -> None:
        """Add the objects of the pictures that can be opened."""
        numbers = {name: number for number, name in enumerate(self.listing.names)}
        over: Counter[str] = Counter()
        maps = []
        with progress("read annotations", len(objects.pictures)) as tick:
            for row, picture in enumerate(objects.pictures):
                annotation = self._annotations[picture.id]
                over.update(annotation.over)
                drawn = self._drawn(objects, row) if self._masks else None
                for number, thing in enumerate(annotation.things, 1):
                    where = f"{picture.key}, object {number}" + (f" {thing.name!r}" if thing.name else "")
                    try:
                        box = self._box(thing)
                        mask = None if drawn is None else self._mask(drawn, number)
                        objects.add(row, numbers[thing.name], where, box, mask, thing.difficult)
                    except Bad as wrong:
                        objects.wrong(row, where, wrong)
                maps.append(self._map(drawn, annotation, numbers, objects) if self._masks else None)
                tick()
        if self._masks and len(objects.names) < IGNORE:
            objects.columns["segmentation"] = (Image(), maps)
        objects.problems += passed_over("Annotations", over)

    def _box(self, thing: Thing) -> list[float]:
        """XYXY in pixels from the outer edges of the first and the last pixel."""
        if thing.wrong or not thing.name:
            raise Bad("box unreadable", thing.wrong or "it has no name")
        try:
            left, top, right, bottom = map(float, thing.corners)
        except ValueError:
            raise Bad("box unreadable", short(", ".join(thing.corners)) if thing.corners else "no bndbox") from None
        if not all(map(isfinite, (left, top, right, bottom))):
            raise Bad("box unreadable", ", ".join(thing.corners))
        return [left - self._first, top - self._first, right, bottom]

    def _drawn(self, objects: Objects, row: int) -> np.ndarray | None:
        """The objects' numbers uint8[H, W]; none, where they cannot be read."""
        file = self._masks[objects.pictures[row].id]
        where = file.relative_to(self.root).as_posix()
        try:
            if not self.config.follow_links and not file.resolve().is_relative_to(self.root):
                raise Bad("leads outside", f"to {file.resolve()}")
            with open_picture({"path": str(file), "bytes": None}) as image:
                mode, size = image.mode, image.size
                if mode not in NUMBERS:
                    raise Bad("unreadable mask", f"its pixels are colours ({mode})")
                if size != tuple(objects.sizes[row]):
                    width, height = objects.sizes[row]
                    raise Bad("mask of another size", f"{size[0]} × {size[1]}; the picture is {width} × {height}")
                return np.asarray(image).astype(np.uint8)
        except (OSError, ValueError, Picture.DecompressionBombError) as error:
            objects.wrong(row, where, Bad("unreadable mask", reason(error)))
        except Bad as wrong:
            objects.wrong(row, where, wrong)
        return None

    def _mask(self, drawn: np.ndarray, number: int) -> dict:
        here = drawn == number
        if not here.any():
            raise Bad("mask without pixels", f"no pixel {number} in the PNG")
        return rle(here)

    def _map(self, drawn: np.ndarray | None, annotation: Annotation, numbers: dict[str, int], objects: Objects) -> dict | None:
        """The class of each pixel as a PNG; what has no class that is kept is background, and 255 stays."""
        if drawn is None:
            return None
        classes = np.zeros(256, np.uint8)
        classes[IGNORE] = IGNORE
        for number, thing in enumerate(annotation.things[: IGNORE - 1], 1):
            kept = objects.numbers[numbers[thing.name]] if thing.name else None
            classes[number] = IGNORE if thing.difficult else 0 if kept is None else min(kept + 1, IGNORE)
        return encoded(Picture.fromarray(classes[drawn]))


def _named(line: str, known: set[str]) -> str:
    """The name in a line of a list: the whole line, or what stands before -1, 0 or 1, as in a class's list, where no file is called so."""
    name, _, told = line.replace("\t", " ").rpartition(" ")
    return name.rstrip() if line not in known and name and told in ("-1", "0", "1") else line
