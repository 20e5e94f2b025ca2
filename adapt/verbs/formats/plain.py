"""A line a picture, as JSON or CSV; and a class a pixel, as PNG."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from adapt.plug import UserError
from adapt.verbs.formats.told import Told, text_file

MOST = 254
"""Classes that fit a PNG with a byte a pixel, beside the background and what nobody judged."""


def jsonl(place: Path, told: Told) -> list[str]:
    """`predictions.jsonl`: a JSON object a picture: path, width, height, and its answer."""
    with text_file(place / "predictions.jsonl") as file:
        for line in told.lines():
            answer = {name: value for name, value in line.items() if name not in ("id", "number", "sure")}
            if "probabilities" in answer:
                answer["probabilities"] = dict(zip(told.names, answer["probabilities"], strict=True))
            file.write(json.dumps({"path": line["id"]} | answer, ensure_ascii=False) + "\n")
    return []


def csv_(place: Path, told: Told, classes: bool) -> list[str]:
    """`predictions.csv`: path, label, probability, and with `all` the probability of each class; or path, text."""
    with text_file(place / "predictions.csv") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "probability", *(told.names if told.all else [])] if classes else ["path", "text"])
        for line in told.lines():
            answer = [line["label"], line["probability"], *line.get("probabilities", [])] if classes else [line["text"]]
            table.writerow([line["id"], *answer])
    return []


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
