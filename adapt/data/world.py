"""The embedded world's files → rows, and the split of its concepts; shared by `emoji` and `emoji_scenes`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Value

from adapt.data.split import stratified
from adapt.plug import ROOT
from adapt.vision.masks import box, rle
from adapt.vision.pictures import BOXES, MASKS, RGB, open_picture

VALIDATION, TEST = 0.15, 0.25


def file(hand: str) -> Path:
    """The Parquet file of a hand: id (hexcode), name, keywords, subgroup, image (WebP RGBA 64 × 64)."""
    return ROOT / "assets" / "emoji" / f"{hand}.parquet"


@cache
def read(hand: str) -> Dataset:
    """All pictures of a hand with the standard columns; `objects` is the drawn thing, from the transparency. Read once a process."""
    table = pq.read_table(file(hand)).to_pylist()
    label = ClassLabel(names=sorted({row["subgroup"] for row in table}))
    masks = [alpha(row["image"]) > 127 for row in table]
    columns = {
        "id": [f"{hand}/{row['id']}" for row in table],
        "image": [row["image"] for row in table],
        "label": [row["subgroup"] for row in table],
        "caption": [row["name"] for row in table],
        "objects": [
            {"bbox": [box(mask)], "category": [label.str2int(row["subgroup"])], "mask": [rle(mask)]}
            for row, mask in zip(table, masks, strict=True)
        ],
    }
    objects = {"bbox": BOXES, "category": [label], "mask": MASKS}
    features = Features(id=Value("string"), image=RGB(), label=label, caption=Value("string"), objects=objects)
    return Dataset.from_dict(columns, features=features)


def alpha(image: dict) -> np.ndarray:
    """Opacity of a stored picture, uint8[H, W]."""
    return np.asarray(open_picture(image).convert("RGBA").getchannel("A"))


def concept_splits(rows: Dataset) -> list[str]:
    """train, validation or test for each row: a function of its concept and class, so it is the same for every hand."""
    names = rows.features["label"].names
    concepts = [name.rpartition("/")[2] for name in rows["id"]]
    return stratified(concepts, [names[label] for label in rows["label"]], VALIDATION, TEST, seed=0)
