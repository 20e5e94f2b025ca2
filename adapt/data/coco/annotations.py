"""COCO's JSON: pictures and categories first, then annotations, each looked at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from datasets import List, Value

from adapt.data.coco.files import Part, parts
from adapt.data.coco.stream import elements, head
from adapt.data.listing import Listed, Listing, Places, passed_over, printable
from adapt.data.objects import Objects
from adapt.data.outlines import numbers, polygons, run_lengths, short
from adapt.data.places import present
from adapt.data.problems import Bad, Problem
from adapt.data.scan import many_objects
from adapt.plug import UserError
from adapt.progress import progress

HEAD = {"images": ("id", "file_name", "width", "height"), "categories": ("id", "name")}
"""Lists of a file that are read before its annotations, and what is read of them."""

LONGEST = 4096
"""Characters of a file name; no file system has longer ones."""


class Reader:
    """The files of a config: `listing` says what is there, `read` adds the annotations.

    Raises:
        UserError: there is no such file, or it is no JSON of COCO's.
    """

    @many_objects()
    def __init__(self, config):
        self.root, self.parts = parts(present(config.path), config.images)
        self.listing = Listing(self.root, made_of=[part.path for part in self.parts])
        self._places = Places(self.root, config.follow_links)
        self._categories: dict[Path, dict[Any, int]] = {}  # of each file: id → number in listing.names
        self._pictures: dict[Path, dict[Any, Listed]] = {}  # of each file: id → picture
        self._listed: dict[bool, dict[str, Path]] = {True: {}, False: {}}  # of captions, of others: picture's id → its file
        self._number = 0  # of annotations
        known: dict[str, Listed] = {}
        for part in self.parts:
            self._list(part, known)
            origin = self.listing.origin
            origin[part.split] = f"{origin[part.split]} and {part.path.name}" if part.split in origin else part.path.name

    # ----------------------------------------------------------------------------------------------------- pictures, classes

    def _list(self, part: Part, known: dict[str, Listed]) -> None:
        """List a file's pictures and categories; captions and instances of a split share their pictures."""
        categories, pictures, twice = {}, {}, set()
        numbered = {name: number for number, name in enumerate(self.listing.names)}
        own: set[str] = set()
        counts, lists = head(part.path, HEAD)
        for element in lists["categories"]:
            number, name = self._category(part, element)
            if number in categories:
                raise UserError(f"data.path: {part.path.name}: category id {short(number)} is there twice. Number them anew.")
            categories[number] = numbered.setdefault(name, len(numbered))
        for element in lists["images"]:
            self._picture(part, element, pictures, twice, known, own)
        if lacking := " and ".join(sorted({"images", "annotations"} - counts.keys())):
            raise UserError(f"data.path: {part.path.name} has no {lacking}: it is no file of COCO annotations.")
        self._number += counts["annotations"]
        self.listing.names = list(numbered)
        self._categories[part.path], self._pictures[part.path] = categories, pictures

    def _category(self, part: Part, element: Any) -> tuple[Any, str]:
        number, name = (element.get("id"), element.get("name")) if isinstance(element, dict) else (None, None)
        if type(number) not in (int, str) or not isinstance(name, str) or not name.strip():
            raise UserError(f"data.path: {part.path.name}: category {short(element)} needs an id and a name.")
        return number, printable(name.strip())

    def _picture(self, part: Part, element: Any, pictures: dict, twice: set, known: dict, own: set[str]) -> None:
        """List one picture of a file, or say what is wrong with it."""
        number, name = (element.get("id"), element.get("file_name")) if isinstance(element, dict) else (None, None)
        if type(number) not in (int, str) or not isinstance(name, str) or not 0 < len(name) < LONGEST:
            self._wrong(part.path.name, part.split, "bad entry", f"image {short(element)} needs an id and a file_name")
            if type(number) in (int, str):
                pictures.setdefault(number, None)  # its annotations are said with it
            return
        if number in pictures:
            other = pictures[number]
            for one in ([other.id] if other else []) + [name]:
                if (number, one) not in twice:
                    twice.add((number, one))
                    self._wrong(one, part.split, "id twice", f"image id {short(number)} in {part.path.name}")
            return
        name = printable(name)
        file, problem = self._found(part, name)
        identity = file or name
        again = known.get(identity)
        if again and (again.key, again.split) == (number, part.split) and again.id not in own:  # of captions, or of instances
            self._once(part, again.id)
            pictures[number] = again
            return
        while identity in known:
            identity = f"{identity}#{printable(str(number)[:100])}"
        sides = element.get("width"), element.get("height")
        size = sides if all(type(side) is int and side > 0 for side in sides) else None
        one = Listed(identity, file or name, part.split, number, size)
        pictures[number] = known[identity] = one
        own.add(identity)
        self._once(part, identity)
        if problem:
            self._wrong(identity, part.split, *problem)
        self.listing.pictures.append(one)

    def _once(self, part: Part, identity: str) -> None:
        """Raises a `UserError`, where another file of the same kind has the picture too: each of its objects would be there twice."""
        other = self._listed[part.path.stem.startswith("captions")].setdefault(identity, part.path)
        if other != part.path:
            raise UserError(
                f"data.path: picture {identity!r} is in {other.name} and in {part.path.name}, two files of one split, and what both say "
                f"would be there twice. Name the file that counts: data.path={other}, or move the other one away."
            )

    def _found(self, part: Part, name: str) -> tuple[str | None, tuple[str, str] | None]:
        """A file name → the path below the root; or kind and detail of what is wrong."""
        first = None
        for folder in part.folders:
            path = self._places.below(name, folder)
            if path is not None and os.path.lexists(os.path.join(self.root, path)):
                return path, self._places.wrong(path)
            first = first or path
        if first is None:
            return None, ("leads outside", f"{name!r} in {part.path.name}")
        return first, self._places.wrong(first)

    def _wrong(self, name: str, split: str, kind: str, detail: str) -> None:
        self.listing.problems.append(Problem(name, split, kind, detail))

    def picture(self, part: Part, number: Any) -> Listed | None:
        """The picture that a file gives this id; none, if there is none."""
        with suppress(TypeError):  # a list is no id
            return self._pictures[part.path].get(number) if type(number) is not bool else None
        return None

    def pictures(self, part: Part) -> list[Listed]:
        """The pictures of a file."""
        return [picture for picture in self._pictures[part.path].values() if picture]

    # ---------------------------------------------------------------------------------------------------------- annotations

    def read(self, objects: Objects) -> None:
        """Add all annotations of pictures that can be opened."""
        rows = {picture.id: row for row, picture in enumerate(objects.pictures)}
        captions: list[list[str]] = [[] for _ in rows]
        over: Counter[str] = Counter()
        with progress("read annotations, in thousands", self._number // 1000) as tick:
            for number, (part, element) in enumerate(self._annotations()):
                if number % 1000 == 999:
                    tick()
                where, image = self._whose(part, number, element, objects)
                row = rows.get(image.id) if image else None
                if row is None:  # said already
                    continue
                if isinstance(element.get("caption"), str):
                    captions[row].append(printable(element["caption"].strip()))
                if element.get("keypoints"):
                    over["keypoints"] += 1
                if "category_id" in element or "bbox" in element or "caption" not in element:
                    self._object(objects, row, element, where, self._categories[part.path])
        self._columns(objects, captions, over)
        objects.problems += passed_over(self.parts[0].path.name, over)

    def _annotations(self) -> Iterator[tuple[Part, Any]]:
        """The annotations of all files, one at a time."""
        for part in self.parts:
            yield from ((part, element) for _, element in elements(part.path, {"annotations"}))

    def _columns(self, objects: Objects, captions: list[list[str]], over: Counter[str]) -> None:
        """Add the pictures' numbers, and the captions where every picture has one."""
        ids = [picture.key for picture in objects.pictures]
        whole = all(type(each) is int and abs(each) < 2**63 for each in ids)
        objects.columns["image_id"] = (
            Value("int64" if whole else "string"),
            ids if whole else [printable(str(each)) for each in ids],
        )
        told = sum(map(bool, captions))
        if told and told == len(captions):
            objects.columns["caption"] = (List(Value("string")), captions)
        elif told:
            over[f"captions, which {len(captions) - told} of {len(captions)} pictures lack"] = sum(map(len, captions))

    def _whose(self, part: Part, number: int, element: Any, objects: Objects) -> tuple[str, Listed | None]:
        """How messages call an annotation, and its picture; none, if that is unknown."""
        pictures = self._pictures[part.path]
        image = element.get("image_id") if isinstance(element, dict) else None
        where = (
            f"annotation {short(element.get('id', f'number {number}'), 30)}"
            if isinstance(element, dict)
            else f"number {number}"
        )
        with suppress(TypeError):  # a list is no id
            if image in pictures and type(image) is not bool:
                return where, pictures[image]
        why = f"{where}: image_id {short(image)}" if isinstance(element, dict) else f"{where}: {short(element)} is no object"
        objects.problems.append(Problem(part.path.name, part.split, "annotation of no picture", why))
        return where, None

    def _object(self, objects: Objects, row: int, element: dict, where: str, categories: dict) -> None:
        """Add the box and the mask of an annotation."""
        try:
            category = element.get("category_id")
            if type(category) not in (int, float, str) or category not in categories:  # 3.0 is what pandas writes
                have = ", ".join(map(short, list(categories)[:5])) or "none"
                raise Bad("unknown category", f"category_id {short(category)}; the file has {have} …")
            box = element.get("bbox")
            if box:
                left, top, width, height = numbers(box, 4)
                box = [left, top, left + width, top + height]
            mask = self._mask(element.get("segmentation"), objects.sizes[row]) if objects.masks else None
            crowd = element.get("iscrowd") or 0
            if crowd not in (0, 1):
                raise Bad("bad entry", f"iscrowd {short(crowd)}, and it can be 0 or 1")
            objects.add(row, categories[category], where, box or None, mask, bool(crowd))
        except Bad as wrong:
            objects.wrong(row, where, wrong)

    def _mask(self, drawn: Any, size: tuple[int, int]) -> dict | None:
        """Polygons or run lengths → COCO RLE; none, where there are none."""
        if not drawn:
            return None
        if isinstance(drawn, dict):
            return run_lengths(drawn, size)
        if not isinstance(drawn, list):
            raise Bad("bad polygon", short(drawn))
        return polygons(drawn, size)
