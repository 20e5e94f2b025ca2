"""Pictures with their corrupted versions, made when they are looked at."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from itertools import product
from typing import Any

import numpy as np
from PIL import Image

from adapt.vision.corrupt import corrupt

KEPT = 32
"""Pictures that stay decoded: the versions of one follow each other."""


class Versions:
    """Of each picture: as it is, then each corruption at each severity. It is looked up as a `datasets.Dataset` is.

    Args:
        config: corruptions, severities, size, seed.
        rows: with `id` and `image`.
    """

    column_names = ["id", "image"]

    def __init__(self, config, rows):
        self.seed = config.seed
        self.kinds = [None, *product(config.corruptions, config.severities)]
        self.ids = rows["id"][:]
        pictures = rows.select_columns(["image"])
        self._picture = lru_cache(KEPT)(lambda row: reduced(pictures[row]["image"], config.size))

    def __len__(self) -> int:
        return len(self.ids) * len(self.kinds)

    def __getitem__(self, key: int | slice | list[int] | str) -> Any:
        """A row, the columns of some, or a column of all."""
        numbers = range(len(self))
        if isinstance(key, str):
            return [self._image(number) if key == "image" else self._id(number) for number in numbers]
        if isinstance(key, int | np.integer):
            number = numbers[key]
            return {"id": self._id(number), "image": self._image(number)}
        numbers = numbers[key] if isinstance(key, slice) else [numbers[number] for number in key]
        return {"id": list(map(self._id, numbers)), "image": list(map(self._image, numbers))}

    def _id(self, number: int) -> str:
        return self.ids[number // len(self.kinds)]

    def _image(self, number: int) -> Image.Image:
        row, kind = divmod(number, len(self.kinds))
        picture = self._picture(row)
        if kind:
            picture = corrupt(picture, *self.kinds[kind], own_seed(self.seed, self.ids[row]))
        return Image.fromarray(picture)


def own_seed(seed: int, name: str) -> int:
    """A picture's own seed, from its id: the same in any order, in any choice of pictures, on any machine."""
    return int.from_bytes(blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big")


def reduced(image: Image.Image, size: int) -> np.ndarray:
    """A picture uint8[H, W, 3] whose shorter side is `size` pixels at most, made smaller by Pillow's bicubic filter."""
    shorter = min(image.size)
    if shorter > size:
        image = image.resize([max(size, round(side * size / shorter)) for side in image.size], Image.Resampling.BICUBIC)
    return np.array(image.convert("RGB"))
