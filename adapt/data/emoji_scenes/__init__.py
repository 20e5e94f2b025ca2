"""Scenes of the embedded world: one to four things on a ground, with boxes, masks and captions.

A scene is a function of (seed, split, index) alone. The things of a split are those of the same split of `emoji`, unless `things`
is `all`: to teach words in one hand that are to be told in another. Scenes are drawn once and kept in `$ADAPT_CACHE/scenes`
(`~/.cache/adapt` by default).

    >>> load(Config())["train"][0]
    {'id': 'train/0', 'image': <PIL 128 × 128>, 'caption': 'a pig face and a bus', 'count': 2,
     'objects': {'bbox': [[12.0, 40.0, 61.0, 92.0], …], 'category': [3, 46], 'mask': [{'size': [128, 128], 'counts': '…'}, …]},
     'prefix': 'caption en', 'suffix': 'a pig face and a bus'}
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adapt.contracts import SourceConfig

Hand = Literal["noto", "twemoji", "fluent_flat", "fluent_3d", "openmoji"]


class Config(SourceConfig):
    """How many scenes, drawn by whom."""

    renamed = {"most": "max_things"}

    source: str = "emoji_scenes"
    """This file."""
    hands: list[Hand] = Field(["openmoji"], min_length=1)
    """Who drew the things; for each thing, one of them by chance."""
    things: Literal["split", "all"] = "split"
    """all: every split shows every thing, for pre-training on hands that are no test."""
    cast: int | None = Field(None, ge=8)
    """How many things there are in all, chosen once: a small world for models that have to name things. null: every thing."""
    classes: Literal["subgroup", "thing"] = "subgroup"
    """What a category is: the Unicode subgroup (49), or the thing itself, by its name; best with `things: all` and a cast."""
    ground: Literal["textured", "paper"] = "textured"
    """What the things lie on: quiet textures, on which the embedded models learnt, or paper that has been drawn on in ink, which is new to
    them and as dark as the target hand's own lines."""
    max_things: int = Field(4, ge=1, le=8)
    """Largest number of things in a scene; the smallest is one."""
    size: int = Field(128, ge=64, le=1024)
    """Height and width of a scene, pixels."""
    train: int = Field(1000, ge=1)
    """Scenes of the training split."""
    validation: int = Field(200, ge=1)
    """Scenes of the validation split."""
    test: int = Field(200, ge=1)
    """Scenes of the test split."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Other seeds, other scenes; the things of a split stay."""


def load(config: Config):
    """Draw the scenes, or find them drawn.

    Returns:
        `Splits` with train, validation and test: id, image, objects (bbox float[N, 4] XYXY in pixels, around the visible
        part, category int[N]: see `classes`, mask: COCO RLE of the visible part), caption, count, prefix, suffix.
    """
    from adapt.data.emoji_scenes import compose
    from adapt.data.split import SPLITS, Splits

    rows = {split: compose.rows(config, split, config.values()[split]) for split in SPLITS}
    things = {split: "all things" if config.things == "all" else f"the {split} split's things" for split in SPLITS}
    hands = ", ".join(config.hands)
    return Splits(rows, {split: f"scenes of {things[split]} by {hands}, seed {config.seed}" for split in SPLITS})
