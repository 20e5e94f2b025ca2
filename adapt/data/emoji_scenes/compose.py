"""Scenes of `emoji_scenes`: pictures of the embedded world composed on a ground."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value
from datasets.arrow_writer import ArrowWriter
from PIL import Image as Picture

from adapt.data import world
from adapt.data.emoji_scenes import grounds
from adapt.data.split import SPLITS
from adapt.progress import progress
from adapt.vision.masks import box, rle
from adapt.vision.pictures import BOXES, MASKS, RGB, cache_folder, cached, digest, encoded, open_picture

MAX_THINGS = 4
VISIBLE = 0.6
"""Least share of a thing that others may leave visible."""
VERSION = 1
"""To be raised when the drawing changes, so that scenes kept on disk are drawn anew."""


def rows(config, split: str, count: int) -> Dataset:
    """The first `count` scenes of a split, memory-mapped."""
    files = [world.file(hand) for hand in config.hands]
    every = config.things == "all"
    other = [
        *(["all"] if every else []),
        *([config.max_things] if config.max_things != MAX_THINGS else []),
        *([f"cast {config.cast}"] if config.cast else []),
        *([config.classes] if config.classes != "subgroup" else []),
        *([config.ground] if config.ground != "textured" else []),
    ]
    key = digest(VERSION, split, count, config.size, config.seed, *config.hands, *files, *other)

    def build(path: Path) -> None:
        things, names = cast(config.hands, None if every else split, config.cast, config.classes)
        # a short write buffer: pictures are not gathered in memory
        with ArrowWriter(path=str(path), features=features(names), writer_batch_size=100) as writer:
            with progress(f"scenes: {split}", count) as tick:
                for index in range(count):
                    writer.write(scene(things, config.size, config.seed, split, index, config.max_things, config.ground))
                    tick()
            writer.finalize()

    return cached(cache_folder("scenes") / f"{split}-{key}.arrow", build)


def features(names: list[str]) -> Features:
    """The columns of a scene."""
    text = Value("string")
    objects = {"bbox": BOXES, "category": [ClassLabel(names=names)], "mask": MASKS}
    return Features(id=text, image=RGB(), objects=objects, caption=text, count=Value("int32"), prefix=text, suffix=text)


def cast(
    hands: list[str], split: str | None, most: int | None = None, classes: str = "subgroup"
) -> tuple[list[dict], list[str]]:
    """The things that play in a split (none: every thing): name, category, pictures (one RGBA a hand); and all categories' names.

    With `most`, only the first so many of all concepts, in the order of their digests. Categories are those of `classes`; they are
    the same in every split.
    """
    things: dict[str, dict] = {}
    for hand in hands:
        table = world.read(hand)
        names = table.features["label"].names
        chosen = sorted(sorted((row.rpartition("/")[2] for row in table["id"]), key=digest)[:most])
        if classes == "thing":
            called = {row["id"].rpartition("/")[2]: row["caption"] for row in table.remove_columns("image")}
            names = [called[concept] for concept in chosen]
        for row, place, picture in zip(table.remove_columns("image"), world.concept_splits(table), _drawn(hand), strict=True):
            concept = row["id"].rpartition("/")[2]
            if concept in chosen and split in (None, place):
                category = row["label"] if classes == "subgroup" else chosen.index(concept)
                thing = things.setdefault(concept, {"name": row["caption"], "category": category, "pictures": []})
                thing["pictures"].append(picture)
    return [things[concept] for concept in sorted(things)], names


@cache
def _drawn(hand: str) -> list[Picture.Image]:
    """A hand's pictures in RGBA, in the rows' order."""
    return [open_picture(image).convert("RGBA") for image in world.read(hand).data["image"].to_pylist()]


def scene(
    things: list[dict], size: int, seed: int, split: str, index: int, max_things: int = MAX_THINGS, ground: str = "textured"
) -> dict:
    """One scene, a function of its arguments: one to `max_things` different things, of which at least `VISIBLE` can be seen."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    canvas = Picture.fromarray(getattr(grounds, ground)(rng, size))
    shown: list[tuple[dict, np.ndarray]] = []
    areas: list[int] = []
    for number in rng.permutation(len(things))[: rng.integers(1, max_things + 1)]:
        picture, mask = place(rng, things[number], size, len(shown))
        for _ in range(20):
            rest = [seen & ~mask for _, seen in shown]
            if all(part.sum() >= VISIBLE * area for part, area in zip(rest, areas, strict=True)):
                break
            picture, mask = place(rng, things[number], size, len(shown))
        else:
            continue  # no room for this one
        canvas.paste(picture, mask=picture.getchannel("A"))
        shown = [(thing, part) for (thing, _), part in zip(shown, rest, strict=True)] + [(things[number], mask)]
        areas.append(int(mask.sum()))
    boxes = [box(mask) for _, mask in shown]
    reading = sorted(range(len(shown)), key=lambda i: boxes[i][0])  # from left to right
    caption = listing([shown[i][0]["name"] for i in reading])
    objects = {
        "bbox": [boxes[i] for i in reading],
        "category": [shown[i][0]["category"] for i in reading],
        "mask": [rle(shown[i][1]) for i in reading],
    }
    head = {"id": f"{split}/{index}", "image": encoded(canvas), "objects": objects, "count": len(shown)}
    return head | {"caption": caption, "prefix": "caption en", "suffix": caption}


def place(rng: np.random.Generator, thing: dict, size: int, before: int) -> tuple[Picture.Image, np.ndarray]:
    """A thing scaled, turned and set somewhere: RGBA size × size, and where it is opaque, bool[size, size]."""
    picture = thing["pictures"][rng.integers(len(thing["pictures"]))]
    side = int(size * rng.uniform(0.25, 0.6 if before == 0 else 0.45))
    picture = picture.resize((side, side), Picture.Resampling.BICUBIC)
    picture = picture.rotate(rng.uniform(-20, 20), Picture.Resampling.BICUBIC, expand=True)
    whole = Picture.new("RGBA", (size, size))
    whole.paste(picture, tuple(int(at) for at in rng.integers(0, size - picture.width + 1, 2)))
    return whole, np.asarray(whole.getchannel("A")) > 127


def listing(names: list[str]) -> str:
    """['tiger', 'apple', 'scissors'] → 'a tiger, an apple and scissors'."""
    words = [article(name) for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def article(name: str) -> str:
    """A name with 'a' or 'an', by rule of thumb; plurals have none."""
    head = name.split()[-1] if " with " not in name and " of " not in name else name.split()[0]
    if head.endswith("s") and not head.endswith(("ss", "us", "is")):
        return name
    consonant = name[0].lower() not in "aeiou" or name.lower().startswith(("uni", "use", "eu", "one"))
    vowel = not consonant or name.startswith("hour")
    return f"{'an' if vowel else 'a'} {name}"
