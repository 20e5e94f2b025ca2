"""Answers as files, a function a format: (folder, what was answered) → sentences on what the format could not hold.

Each reads the shards line by line, as often as it needs to, and writes into a folder that is moved into place when it is whole. Boxes
are left, top, right, bottom in pixels of the picture, turned as EXIF says.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote
from xml.etree import ElementTree

from adapt.plug import UserError, counted
from adapt.verbs.predicting.shards import Shards

MOST = 254
"""Classes that fit a PNG with a byte a pixel, beside the background and what nobody judged."""
NO_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
LOCAL = "/data/local-files/?d="
"""Where Label Studio serves files of the machine that it runs on: of folders below its document root, never of the root itself."""


@dataclass(frozen=True)
class Told:
    """What the writers know of the answers."""

    shards: Shards
    root: Path
    """The pictures' folder."""
    ids: list[str]
    """Of all pictures."""
    predictor: str
    names: list[str]
    """Of the classes."""
    title: str
    """The model."""
    all: bool = False
    """Is each class's probability there?"""

    def lines(self) -> Iterator[dict[str, Any]]:
        return self.shards.answered()

    def stems(self) -> dict[str, str]:
        """Picture → its path without the suffix; of a.jpg and a.png, which would share one, a_jpg and a_png."""
        often = Counter(os.path.splitext(name)[0] for name in self.ids)
        taken, found = {stem for stem, count in often.items() if count == 1}, {}
        for name in self.ids:
            stem, suffix = os.path.splitext(name)
            if often[stem] > 1:
                stem = f"{stem}_{suffix[1:]}"
                while stem in taken:
                    stem += "_"
                taken.add(stem)
            found[name] = stem
        return found


# ---------------------------------------------------------------------------------------------------------- any, and words


def jsonl(place: Path, told: Told) -> list[str]:
    """`predictions.jsonl`: a JSON object a picture: path, width, height, and its answer."""
    with _text(place / "predictions.jsonl") as file:
        for line in told.lines():
            answer = {name: value for name, value in line.items() if name not in ("id", "number", "sure")}
            if "probabilities" in answer:
                answer["probabilities"] = dict(zip(told.names, answer["probabilities"], strict=True))
            file.write(json.dumps({"path": line["id"]} | answer, ensure_ascii=False) + "\n")
    return []


def csv_(place: Path, told: Told) -> list[str]:
    """`predictions.csv`: path, label, probability, and with `all` the probability of each class; or path, text."""
    classes = told.predictor == "class_logits"
    with _text(place / "predictions.csv") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "probability", *(told.names if told.all else [])] if classes else ["path", "text"])
        for line in told.lines():
            answer = [line["label"], line["probability"], *line.get("probabilities", [])] if classes else [line["text"]]
            table.writerow([line["id"], *answer])
    return []


# ------------------------------------------------------------------------------------------------------------------ boxes


def coco(place: Path, told: Told) -> list[str]:
    """`dataset.json`, all that a COCO data set has, and `results.json`, the list that pycocotools' `loadRes` takes.

    Pictures are numbered from 1 in their order, categories from 1 in that of the classes. Masks are compressed RLE.
    """
    numbers = {name: number for number, name in enumerate(told.names, 1)}
    start = {"info": {"description": told.title}, "licenses": []}
    start["categories"] = [{"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()]
    images = (
        {"id": line["number"] + 1, "file_name": line["id"], "width": line["width"], "height": line["height"]}
        for line in told.lines()
    )

    def annotations() -> Iterator[dict[str, Any]]:
        for line in told.lines():
            for one in line.get("objects", line.get("masks", [])):
                if one["name"] is not None:
                    yield {"image_id": line["number"] + 1, "category_id": numbers[one["name"]]} | _coco_shape(one)

    with _text(place / "dataset.json") as file:
        file.write(json.dumps(start, ensure_ascii=False)[:-1] + ', "images": ')
        _list(file, images)
        file.write(', "annotations": ')
        _list(file, ({"id": number, "iscrowd": 0} | one for number, one in enumerate(annotations(), 1)))
        file.write("}\n")
    with _text(place / "results.json") as file:
        keys = ("image_id", "category_id", "bbox" if told.predictor == "detections" else "segmentation", "score")
        _list(file, ({key: one[key] for key in keys} for one in annotations()))
    return _nameless(told)


def _coco_shape(one: dict[str, Any]) -> dict[str, Any]:
    left, top, right, bottom = one["box"]
    shape = {"bbox": [left, top, right - left, bottom - top], "score": one["score"]}
    if "rle" in one:
        return shape | {"segmentation": one["rle"], "area": one["pixels"]}
    return shape | {"segmentation": [], "area": (right - left) * (bottom - top)}


def yolo(place: Path, told: Told) -> list[str]:
    """`labels/NAME.txt` (class, centre and size as shares of the picture), `scores.csv` (the score of each line), `data.yaml`.

    A picture without objects has an empty file: a negative. `images/NAME.SUFFIX` are links to the pictures, where YOLO looks for them.
    Which pictures shall measure (`val`) is the user's to say.
    """
    import yaml

    numbers, stems = {name: number for number, name in enumerate(told.names)}, told.stems()
    with _text(place / "scores.csv") as file:
        table = csv.writer(file)
        table.writerow(["path", "line", "class", "score"])
        for line in told.lines():
            _link(place / "images" / f"{stems[line['id']]}{Path(line['id']).suffix}", told.root / line["id"])
            named = [one for one in line["objects"] if one["name"] is not None]
            with _text(place / "labels" / f"{stems[line['id']]}.txt") as labels:
                for number, one in enumerate(named, 1):
                    left, top, right, bottom = one["box"]
                    shares = ((left + right) / 2 / line["width"], (top + bottom) / 2 / line["height"])
                    shares += ((right - left) / line["width"], (bottom - top) / line["height"])
                    labels.write(f"{numbers[one['name']]} {' '.join(f'{share:.8f}' for share in shares)}\n")
                    table.writerow([line["id"], number, one["name"], one["score"]])
    about = {"train": "images", "val": None, "nc": len(told.names), "names": dict(enumerate(told.names))}
    (place / "data.yaml").write_text(yaml.safe_dump(about, sort_keys=False, allow_unicode=True), encoding="utf-8")
    for name in ("images", "labels"):
        (place / name).mkdir(exist_ok=True)
    return _nameless(told)


def voc(place: Path, told: Told) -> list[str]:
    """`Annotations/NAME.xml`: whole pixels counted from 1, the last one inside the box, as Pascal VOC's own; `score` beside the box.

    `JPEGImages/NAME.jpg` are links to the pictures: VOC's loaders look for this suffix, and see by its content what a file is. The lists
    of splits, `ImageSets/Main/train.txt` and the like, are the user's.
    """
    stems = told.stems()
    for line in told.lines():
        root = ElementTree.Element("annotation")
        stem = stems[line["id"]]
        _link(place / "JPEGImages" / f"{stem}.jpg", told.root / line["id"])
        about = {"folder": str(Path(stem).parent), "filename": f"{Path(stem).name}.jpg", "path": line["id"], "segmented": 0}
        _xml(root, about)
        _xml(ElementTree.SubElement(root, "size"), {"width": line["width"], "height": line["height"], "depth": 3})
        for one in line["objects"]:
            if one["name"] is None:
                continue
            item = ElementTree.SubElement(root, "object")
            _xml(item, {"name": one["name"], "pose": "Unspecified", "truncated": 0, "difficult": 0, "score": one["score"]})
            left, top, right, bottom = (round(side) for side in one["box"])
            least = {"xmin": min(left + 1, line["width"]), "ymin": min(top + 1, line["height"])}
            most = {"xmax": max(right, least["xmin"]), "ymax": max(bottom, least["ymin"])}
            _xml(ElementTree.SubElement(item, "bndbox"), least | most)
        ElementTree.indent(root)
        with _text(place / "Annotations" / f"{stem}.xml") as file:
            file.write(ElementTree.tostring(root, encoding="unicode") + "\n")
    for name in ("Annotations", "JPEGImages"):
        (place / name).mkdir(exist_ok=True)
    return [*_nameless(told), "Boxes are rounded to whole pixels, as VOC has them."]


def labelstudio(place: Path, told: Told) -> list[str]:
    """`tasks.json`, to be imported: boxes in percent or choices as pre-annotations; `label_config.xml` for the project."""
    boxes = told.predictor == "detections"
    kind = ("rectanglelabels", "RectangleLabels", "Label") if boxes else ("choices", "Choices", "Choice")
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image")
    control = ElementTree.SubElement(view, kind[1], name="label", toName="image")
    for name in told.names:
        ElementTree.SubElement(control, kind[2], value=NO_XML.sub("?", name))
    ElementTree.indent(view)
    (place / "label_config.xml").write_text(ElementTree.tostring(view, encoding="unicode") + "\n", encoding="utf-8")

    def tasks() -> Iterator[dict[str, Any]]:
        for line in told.lines():
            found = [_region(line, one, number) for number, one in enumerate(line.get("objects", [])) if one["name"]]
            if not boxes:
                value = {"choices": [line["label"]]}
                found = [{"from_name": "label", "to_name": "image", "type": "choices", "value": value, "score": line["sure"]}]
            said = {"model_version": told.title, "result": found} | ({} if line["sure"] is None else {"score": line["sure"]})
            yield {"data": {"image": LOCAL + quote(f"{told.root.name}/{line['id']}")}, "predictions": [said]}

    with _text(place / "tasks.json") as file:
        _list(file, tasks())
    return [
        *_nameless(told),
        "Label Studio shows the pictures if it runs with LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and "
        f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={told.root.parent}, and its project has the local storage {told.root}.",
    ]


def _region(line: dict[str, Any], one: dict[str, Any], number: int) -> dict[str, Any]:
    """A box as Label Studio has it."""
    width, height = line["width"], line["height"]
    left, top, right, bottom = one["box"]
    place = {"x": 100 * left / width, "y": 100 * top / height}
    place |= {"width": 100 * (right - left) / width, "height": 100 * (bottom - top) / height, "rotation": 0}
    about = {
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": width,
        "original_height": height,
    }
    about |= {"id": f"{line['number']}-{number}", "image_rotation": 0, "score": one["score"]}
    return about | {"value": place | {"rectanglelabels": [one["name"]]}}


# ----------------------------------------------------------------------------------------------------------------- pixels


def png(place: Path, told: Told) -> list[str]:
    """`masks/NAME.png`, a byte a pixel with VOC's palette: 0 background, k the k-th class; `classes.yaml` names them."""
    import numpy as np
    import yaml
    from PIL import Image

    from adapt.vision.masks import unrle

    if len(told.names) > MOST:
        raise UserError(
            f"to: png has a byte a pixel: {MOST} classes at most, and these are {len(told.names)}. Write to=coco or to=jsonl."
        )
    stems, palette = told.stems(), [channel for number in range(256) for channel in colour(number)]
    for line in told.lines():
        classes = np.zeros((line["height"], line["width"]), np.uint8)
        for one in line["masks"]:
            classes[unrle(one["rle"])] = one["class"]
        picture = Image.fromarray(classes)
        picture.putpalette(palette)
        path = place / "masks" / f"{stems[line['id']]}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    (place / "masks").mkdir(exist_ok=True)
    names = dict(enumerate(["background", *told.names]))
    (place / "classes.yaml").write_text(yaml.safe_dump(names, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return []


def colour(number: int) -> tuple[int, int, int]:
    """The RGB of a class in Pascal VOC's palette: its bits, three by three, from the highest bit of each channel on."""
    red = green = blue = 0
    for place in range(7, -1, -1):
        red, green, blue = red | (number & 1) << place, green | (number >> 1 & 1) << place, blue | (number >> 2 & 1) << place
        number >>= 3
    return red, green, blue


# ------------------------------------------------------------------------------------------------------------------ parts

Writer = Callable[[Path, Told], list[str]]
WRITERS: dict[str, dict[str, Writer]] = {
    "class_logits": {"csv": csv_, "jsonl": jsonl, "labelstudio": labelstudio},
    "detections": {"coco": coco, "yolo": yolo, "voc": voc, "labelstudio": labelstudio, "jsonl": jsonl},
    "semantic_logits": {"png": png, "coco": coco, "jsonl": jsonl},
    "text": {"jsonl": jsonl, "csv": csv_},
    "image_embedding": {"jsonl": jsonl},
}
"""Predictor → the formats that hold its answers."""
CALLED = {
    "class_logits": "a class for a picture",
    "detections": "boxes",
    "semantic_logits": "a class for each pixel",
    "text": "words",
    "image_embedding": "an embedding",
}


def writer(predictor: str, to: str) -> Writer:
    """The function that writes a predictor's answers in a format.

    Raises:
        UserError: the format cannot hold them.
    """
    if to not in WRITERS[predictor]:
        raise UserError(
            f"to: {to!r} cannot hold {CALLED[predictor]}, which is what this model answers. Formats that can: "
            f"{', '.join(WRITERS[predictor])}."
        )
    return WRITERS[predictor][to]


def _text(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return open(path, "w", encoding="utf-8", newline="")


def _link(place: Path, picture: Path) -> None:
    """A link to a picture; its bytes stay where they are."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(picture)


def _list(file: TextIO, items: Iterator[dict[str, Any]]) -> None:
    """Write a JSON list, an item a line, without holding it."""
    file.write("[")
    for number, item in enumerate(items):
        file.write((",\n" if number else "\n") + json.dumps(item, ensure_ascii=False))
    file.write("\n]")


def _xml(parent: ElementTree.Element, values: dict[str, Any]) -> None:
    for name, value in values.items():
        ElementTree.SubElement(parent, name).text = NO_XML.sub("?", str(value))


def _nameless(told: Told) -> list[str]:
    """A sentence on the objects whose name is none of the classes, which only jsonl holds."""
    if told.predictor != "detections":
        return []
    count = sum(one["name"] is None for line in told.lines() for one in line["objects"])
    return [f"{counted(count, 'object')} of a name that is none of the classes: left out; to=jsonl has them."] if count else []
