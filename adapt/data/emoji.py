"""The embedded world: 849 things, each drawn by five hands; classes are the 49 Unicode subgroups.

The split is by concept and the same for every hand, so the things of the test split are new, whoever drew them. A class with
a single concept (`animal-amphibian`: the frog) has it in train.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adapt.plug import ROOT, Spec

Hand = Literal["noto", "twemoji", "fluent_flat", "fluent_3d", "openmoji"]


class Config(Spec):
    """Pictures of one hand, 64 × 64 pixels on white."""

    source: str = "emoji"
    """This file."""
    hand: Hand = "openmoji"
    """Who drew them. The target hand, openmoji, has been in no pre-training."""
    shots: int | None = Field(None, ge=1)
    """At most so many training pictures a class; none: all."""
    unlabelled: list[Hand] = []
    """More hands, all concepts, without labels, as the split `unlabelled`."""


def load(config: Config):
    """`DatasetDict` with train, validation and test (id, image, label, caption), and unlabelled (id, image, caption)."""
    from datasets import concatenate_datasets

    from adapt.data._split import by_split, stratified

    rows = _hand(config.hand)
    names = rows.features["label"].names
    split = stratified([name.rpartition("/")[2] for name in rows["id"]], [names[label] for label in rows["label"]], 0.15, 0.25, seed=0)
    splits = by_split(rows, split)
    if config.shots:
        splits["train"] = splits["train"].select(_first(splits["train"]["label"], config.shots))
    if config.unlabelled:
        splits["unlabelled"] = concatenate_datasets([_hand(hand).remove_columns("label") for hand in config.unlabelled])
    return splits


def _first(labels: list[int], shots: int) -> list[int]:
    """Row numbers of the first `shots` rows of each label."""
    counts: dict[int, int] = {}
    kept = []
    for row, label in enumerate(labels):
        counts[label] = counts.get(label, 0) + 1
        if counts[label] <= shots:
            kept.append(row)
    return kept


def _hand(hand: str):
    """All pictures of a hand, transparency over white; ids are `hand/hexcode`."""
    import io

    import pyarrow.parquet as pq
    from datasets import ClassLabel, Dataset, Features, Image, Value
    from PIL import Image as Picture

    from adapt.data._images import encoded, rgb

    table = pq.read_table(ROOT / "assets" / "emoji" / f"{hand}.parquet").to_pylist()
    features = Features(
        {
            "id": Value("string"),
            "image": Image(),
            "label": ClassLabel(names=sorted({row["subgroup"] for row in table})),
            "caption": Value("string"),
        }
    )
    pictures = [encoded(rgb(Picture.open(io.BytesIO(row["image"]["bytes"])))) for row in table]
    columns = {
        "id": [f"{hand}/{row['id']}" for row in table],
        "image": pictures,
        "label": [row["subgroup"] for row in table],
        "caption": [row["name"] for row in table],
    }
    return Dataset.from_dict(columns, features=features)
