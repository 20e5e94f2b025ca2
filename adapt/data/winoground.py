"""Winoground: 400 pairs of pictures and captions, the captions of the same words in another order; which caption goes with which picture?

    data: {source: winoground}                              # facebook/winoground on the hub, which asks for consent before it is fetched
    data: {source: winoground, path: winoground}            # a folder of `save_to_disk`, or of Parquet, with the same columns

Source: Thrush et al. 2022, arXiv:2204.03162.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapt.data.config import MeasuredConfig

if TYPE_CHECKING:
    from datasets import Dataset

    from adapt.data.split import Splits

SIDES = (0, 1)


class Config(MeasuredConfig):
    """Where the pairs lie."""

    source: str = "winoground"
    """This file."""
    path: str = "facebook/winoground"
    """A hub id, or a folder of `save_to_disk` or of Parquet with columns image_0, image_1, caption_0, caption_1."""


def load(config: Config) -> Splits:
    """Read the pairs.

    Returns:
        `Splits` with test, two rows a pair, one after the other: id, image, caption (the picture's own, a text), pair (int, from 0).

    Raises:
        UserError: it cannot be found or read, or lacks a column or a picture.
    """
    from datasets import concatenate_datasets

    from adapt.data.hub.measured import only
    from adapt.data.split import Splits

    pairs = only(config, [f"{name}_{side}" for name in ("image", "caption") for side in SIDES])
    both = concatenate_datasets([_side(pairs, side) for side in SIDES])
    number = len(pairs)
    rows = both.select([pair + side * number for pair in range(number) for side in SIDES])
    return Splits({"test": rows}, {"test": f"all of {config.path!r}"})


def _side(pairs: Dataset, side: int) -> Dataset:
    """The first or the second pictures of all pairs, with their own captions."""
    from datasets import Value

    from adapt.data.hub.measured import pictures

    rows = pictures(pairs, f"image_{side}")
    rows = rows.add_column("id", [f"{pair:03}/{side}" for pair in range(len(pairs))], feature=Value("string"))
    rows = rows.add_column("caption", pairs[f"caption_{side}"][:], feature=Value("string"))
    return rows.add_column("pair", list(range(len(pairs))), feature=Value("int64")).select_columns(
        ["id", "image", "caption", "pair"]
    )
