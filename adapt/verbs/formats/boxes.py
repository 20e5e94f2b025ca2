"""Boxes and masks as COCO, YOLO and Pascal VOC have them.

Each function reads the lines as often as it needs to, and writes into a folder. Splits, where lines have them, are files or folders.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from adapt.verbs.formats.told import Told, link, text_file, write_list, xml

Lines = Callable[[], Iterable[dict[str, Any]]]


# ------------------------------------------------------------------------------------------------------------------- COCO


def coco(path: Path, told: Told, lines: Lines, first: int = 1) -> int:
    """Write a file of COCO's: pictures, categories numbered from 1 in the order of the classes, and annotations.

    A picture's id is its `image_id`, or its number from 1. Masks are compressed run lengths; an area is the mask's, or the box's.

    Args:
        lines: of the pictures that belong into it.
        first: the first annotation's id.

    Returns:
        The next annotation's id.
    """
    start = {"info": {"description": told.title}, "licenses": []}
    start["categories"] = [{"id": number, "name": name, "supercategory": ""} for number, name in enumerate(told.names, 1)]
    end = first

    def annotations() -> Iterator[dict[str, Any]]:
        nonlocal end
        for one in shapes(told, lines):
            yield {"id": end, "iscrowd": 0} | one
            end += 1

    with text_file(path) as file:
        file.write(json.dumps(start, ensure_ascii=False)[:-1] + ', "images": ')
        write_list(file, map(_image, lines()))
        file.write(', "annotations": ')
        write_list(file, annotations())
        file.write("}\n")
    return end


def captions(path: Path, told: Told, lines: Lines, first: int = 1) -> int:
    """The same of the pictures' captions."""
    said = ((number_of(line), text) for line in lines() for text in line["captions"])
    end = first - 1
    with text_file(path) as file:
        file.write(json.dumps({"info": {"description": told.title}, "licenses": []}, ensure_ascii=False)[:-1] + ', "images": ')
        write_list(file, map(_image, lines()))
        file.write(', "annotations": [')
        for end, (number, text) in enumerate(said, first):
            one = {"id": end, "image_id": number, "caption": text}
            file.write((",\n" if end > first else "\n") + json.dumps(one, ensure_ascii=False))
        file.write("\n]}\n")
    return end + 1


def number_of(line: dict[str, Any]) -> int | str:
    """A picture's id in COCO's files."""
    return line.get("image_id", line["number"] + 1)


def _image(line: dict[str, Any]) -> dict[str, Any]:
    return {"id": number_of(line), "file_name": line["id"], "width": line["width"], "height": line["height"]}


def shapes(told: Told, lines: Lines) -> Iterator[dict[str, Any]]:
    """The objects as COCO has them, without an id; those that have a class."""
    numbers = {name: number for number, name in enumerate(told.names, 1)}
    for line in lines():
        for one in line.get("objects", line.get("masks", [])):
            if one["name"] is not None:
                yield {"image_id": number_of(line), "category_id": numbers[one["name"]]} | _shape(one)


def _shape(one: dict[str, Any]) -> dict[str, Any]:
    left, top, right, bottom = one["box"]
    shape = {"bbox": [left, top, right - left, bottom - top]}
    shape |= {"score": one["score"]} if "score" in one else {}
    shape |= {"iscrowd": 1} if one.get("crowd") else {}
    if "rle" in one:
        return shape | {"segmentation": one["rle"], "area": one["pixels"]}
    return shape | {"segmentation": [], "area": (right - left) * (bottom - top)}


# ------------------------------------------------------------------------------------------------------------------- YOLO


def yolo(place: Path, told: Told, splits: dict[str, str | None]) -> None:
    """`labels/NAME.txt` (class, centre and size as shares of the picture), and `data.yaml`.

    A picture without objects has an empty file: a negative. `images/NAME.SUFFIX` are the pictures, where YOLO looks for them. Objects
    that have scores have them in `scores.csv`, line by line. Pictures with a split lie in its folder of both. Readers look for a text where
    the last `images` of a picture's path is `labels`: where the pictures' own folders are called so, all lie in one folder.

    Args:
        splits: what data.yaml says of train, val and test.
    """
    import yaml

    numbers = {name: number for number, name in enumerate(told.names)}
    stems = told.stems(flat=any("/images/" in f"/{name}" for name in told.ids))
    with text_file(place / "scores.csv") if told.scored else nullcontext(StringIO()) as file:
        table = csv.writer(file)
        table.writerow(["path", "line", "class", "score"])
        for line in told.lines():
            stem = f"{line['split']}/{stems[line['id']]}" if "split" in line else stems[line["id"]]
            told.put(line, place / "images" / f"{stem}{Path(line['id']).suffix}")
            named = [one for one in line["objects"] if one["name"] is not None]
            with text_file(place / "labels" / f"{stem}.txt") as labels:
                for number, one in enumerate(named, 1):
                    labels.write(f"{numbers[one['name']]} {' '.join(f'{share:.8f}' for share in _shares(line, one['box']))}\n")
                    if told.scored:
                        table.writerow([line["id"], number, one["name"], one["score"]])
    about = splits | {"nc": len(told.names), "names": dict(enumerate(told.names))}
    (place / "data.yaml").write_text(yaml.safe_dump(about, sort_keys=False, allow_unicode=True), encoding="utf-8")
    for name in ("images", "labels"):
        (place / name).mkdir(exist_ok=True)


def _shares(line: dict[str, Any], box: list[float]) -> tuple[float, ...]:
    """Centre and size of a box as shares of its picture."""
    left, top, right, bottom = box
    width, height = line["width"], line["height"]
    return (left + right) / 2 / width, (top + bottom) / 2 / height, (right - left) / width, (bottom - top) / height


# -------------------------------------------------------------------------------------------------------------------- VOC


def voc(place: Path, told: Told, flat: bool = False) -> None:
    """`Annotations/NAME.xml`: whole pixels counted from 1, the last one inside the box, as Pascal VOC's own; `score` beside the box.

    `JPEGImages/NAME.jpg` are the pictures: VOC's loaders look for this suffix, and see by its content what a file is. A region of a
    crowd is a difficult object, which neither learns nor counts.

    Args:
        flat: all files in one folder, as lists of splits need it.
    """
    stems = told.stems(flat)
    for line in told.lines():
        root = ElementTree.Element("annotation")
        stem = stems[line["id"]]
        told.put(line, place / "JPEGImages" / f"{stem}.jpg")
        about = {"folder": str(Path(stem).parent), "filename": f"{Path(stem).name}.jpg", "path": line["id"], "segmented": 0}
        xml(root, about)
        xml(ElementTree.SubElement(root, "size"), {"width": line["width"], "height": line["height"], "depth": 3})
        for one in line["objects"]:
            if one["name"] is None:
                continue
            about = {"name": one["name"], "pose": "Unspecified", "truncated": 0, "difficult": int(bool(one.get("crowd")))}
            item = ElementTree.SubElement(root, "object")
            xml(item, about | ({"score": one["score"]} if "score" in one else {}))
            left, top, right, bottom = (round(side) for side in one["box"])
            least = {"xmin": min(left + 1, line["width"]), "ymin": min(top + 1, line["height"])}
            most = {"xmax": max(right, least["xmin"]), "ymax": max(bottom, least["ymin"])}
            xml(ElementTree.SubElement(item, "bndbox"), least | most)
        ElementTree.indent(root)
        with text_file(place / "Annotations" / f"{stem}.xml") as file:
            file.write(ElementTree.tostring(root, encoding="unicode") + "\n")
    for name in ("Annotations", "JPEGImages"):
        (place / name).mkdir(exist_ok=True)


def linked(root: Path) -> Callable[[dict[str, Any], Path], None]:
    """`Told.put` for pictures that stay where they are, below a folder."""
    return lambda line, place: link(place, root / line["id"])
