"""Pictures with their corrupted versions, made when they are looked at."""

from __future__ import annotations

from collections.abc import Sequence
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
        config: named, severities, size, seed.
        rows: with `id` and `image`; the other columns stay as they are.
    """

    def __init__(self, config, rows):
        self.rows, self.column_names = rows, rows.column_names
        self.kinds = [None, *product(config.named, config.severities)]
        self._seed, self._size = config.seed, config.size
        self._read = lru_cache(KEPT)(self._row)

    def __len__(self) -> int:
        return len(self.rows) * len(self.kinds)

    def __getitem__(self, key: int | slice | Sequence[int] | str) -> Any:
        """A row, the columns of some, or a column of all."""
        numbers = range(len(self))
        if isinstance(key, str):
            if key == "image":
                return [self._version(number)[key] for number in numbers]
            return [value for value in self.rows[key][:] for _ in self.kinds]
        if isinstance(key, int | np.integer):
            return self._version(numbers[key])
        chosen = numbers[key] if isinstance(key, slice) else [numbers[number] for number in key]
        found = list(map(self._version, chosen))
        return {name: [row[name] for row in found] for name in self.column_names}

    def _row(self, number: int) -> tuple[dict[str, Any], np.ndarray]:
        row = dict(self.rows[number])
        return row, reduced(row.pop("image"), self._size)

    def _version(self, number: int) -> dict[str, Any]:
        number, kind = divmod(number, len(self.kinds))
        row, picture = self._read(number)
        if kind:
            picture = corrupt(picture, *self.kinds[kind], own_seed(self._seed, row["id"]))
        return row | {"image": Image.fromarray(picture)}


def own_seed(seed: int, name: str) -> int:
    """A picture's own seed, from its id: the same in any order, in any choice of pictures, on any machine."""
    return int.from_bytes(blake2b(f"{seed} {name}".encode(), digest_size=8).digest(), "big")


def reduced(image: Image.Image, size: int) -> np.ndarray:
    """A picture uint8[H, W, 3] whose shorter side is `size` pixels at most, made smaller by Pillow's bicubic filter."""
    shorter = min(image.size)
    if shorter > size:
        image = image.resize([max(size, round(side * size / shorter)) for side in image.size], Image.Resampling.BICUBIC)
    return np.array(image.convert("RGB"))
