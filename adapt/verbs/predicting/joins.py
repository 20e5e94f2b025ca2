"""The answers for a picture's tiles as one answer for the picture.

Boxes: moved to the picture's pixels. What two tiles have both seen is told once: a box that ends at an inner edge of its tile is `cut`,
and is left out where a better box of its class from another tile covers most of it; of two boxes that overlap much, the one that is not
cut, then the surer one, stays. What is larger than the overlap stays in pieces: pieces are not put together.

Classes of pixels: the mean of the tiles' probabilities, where several have seen a pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from adapt.verbs.answers import VALUES
from adapt.verbs.predicting.tiles import Box

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

EDGE = 0.01
"""Of a tile's side: a box that ends so near to an inner edge is cut by it."""
SAME = 0.5
"""IoU of two boxes of a class that show one thing."""
COVERED = 0.7
"""Share of a cut box that a better one must cover to stand for it."""

# ------------------------------------------------------------------------------------------------------------------ boxes


def boxes(tiles: Sequence[tuple[Box, dict[str, np.ndarray]]], size: tuple[int, int], score: float) -> dict[str, np.ndarray]:
    """Boxes of tiles → boxes of the picture, in the order of the tiles.

    Args:
        tiles: a tile, and what was found there: bbox float[N, 4] XYXY in the tile's pixels, category int[N], score float[N].
        size: width and height of the picture, pixels.
        score: boxes that are less sure are left out.

    Returns:
        bbox float32[M, 4] XYXY in the picture's pixels, category int64[M], score float32[M].
    """
    import numpy as np

    parts: dict[str, list[Any]] = {"bbox": [], "category": [], "score": [], "tile": [], "cut": []}
    for number, (tile, found) in enumerate(tiles):
        kept = np.asarray(found["score"]) >= score
        moved, cut = _moved(np.asarray(found["bbox"], np.float32).reshape(-1, 4)[kept], tile, size)
        for name, values in (("bbox", moved), ("cut", cut), ("tile", np.full(len(moved), number))):
            parts[name].append(values)
        for name in ("category", "score"):
            parts[name].append(np.asarray(found[name])[kept])
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    kept = _kept(**whole)
    return {name: whole[name][kept] for name in ("bbox", "category", "score")}


def _moved(found: np.ndarray, tile: Box, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes in a tile's pixels → in the picture's, ending at the tile's edges; and which of them an inner edge cuts."""
    import numpy as np

    near = np.array(tile[:2] * 2, np.float32)
    edges = np.array([tile[2] - tile[0], tile[3] - tile[1]] * 2, np.float32)
    found = found.clip(0, edges)
    margin = np.maximum(1, EDGE * edges[:2])
    inner = np.array([tile[0] > 0, tile[1] > 0, tile[2] < size[0], tile[3] < size[1]])
    touched = np.concatenate([found[:, :2] <= margin, found[:, 2:] >= edges[2:] - margin], 1)
    return found + near, (touched & inner).any(1)


def _kept(bbox: np.ndarray, category: np.ndarray, score: np.ndarray, tile: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """The places of the boxes that stay, ascending: each class from the best box to the worst; cut ones come last, the largest first."""
    import numpy as np
    import torch
    from torchvision.ops import box_area, box_iou

    area = box_area(torch.from_numpy(bbox)).numpy()
    left = []
    for number in np.unique(category):
        own = np.flatnonzero(category == number)
        own = own[np.lexsort((-np.where(cut[own], area[own], score[own]), cut[own]))]
        while len(own):
            best, own = own[0], own[1:]
            left.append(best)
            wide, high = (np.minimum(bbox[best, 2:], bbox[own, 2:]) - np.maximum(bbox[best, :2], bbox[own, :2])).clip(0).T
            iou = box_iou(torch.from_numpy(bbox[best : best + 1]), torch.from_numpy(bbox[own]))[0].numpy()
            hidden = cut[own] & (wide * high > COVERED * area[own])
            own = own[(tile[own] == tile[best]) | ~((iou > SAME) | hidden)]
    return np.sort(np.array(left, np.int64))


# ----------------------------------------------------------------------------------------------------------------- pixels


def pixels(tiles: Iterable[tuple[Box, np.ndarray]], size: tuple[int, int]) -> tuple[np.ndarray, dict[int, float], float]:
    """Maps of tiles → the map of the picture.

    Args:
        tiles: a tile, and its logits float[C, h, w]; row by row from the top left.
        size: width and height of the picture, pixels.

    Returns:
        The class of each pixel uint8[H, W]; class → its mean probability where it won; and that of all pixels.
    """
    whole = _Map(size)
    for tile, logits in tiles:
        whole.add(tile, logits)
    return whole.result()


class _Map:
    """A picture's map in the making: tiles are held until all rows of theirs are filled in."""

    def __init__(self, size: tuple[int, int]):
        import numpy as np

        self.classes = np.zeros((size[1], size[0]), np.uint8)
        self._held: list[tuple[Box, np.ndarray]] = []
        self._done = 0
        self._sums, self._counts = np.zeros(256), np.zeros(256, np.int64)

    def add(self, tile: Box, logits: np.ndarray) -> None:
        """The next tile; where a new row of tiles begins, what lies above it is filled in, and let go."""
        if tile[1] > self._done:
            self._fill_to(tile[1])
            self._held = [held for held in self._held if held[0][3] > tile[1]]
        self._held.append((tile, logits))

    def result(self) -> tuple[np.ndarray, dict[int, float], float]:
        self._fill_to(len(self.classes))
        won = self._counts.nonzero()[0].tolist()
        sure = {number: float(self._sums[number] / self._counts[number]) for number in won}
        return self.classes, sure, float(self._sums.sum() / self._counts.sum())

    def _fill_to(self, bottom: int) -> None:
        """Fill in the rows of pixels down to this one."""
        tiles = [tile for tile, _ in self._held]
        columns = sorted({side for tile in tiles for side in tile[::2]})
        rows = {side for tile in tiles for side in tile[1::2] if self._done < side < bottom}
        for top, low in pairwise(sorted(rows | {self._done, bottom})):
            for left, right in pairwise(columns):
                self._fill((left, top, right, low))
        self._done = bottom

    def _fill(self, cell: Box) -> None:
        """The pixels of a part that the same tiles have seen, some rows at a time."""
        import numpy as np

        left, top, right, bottom = cell
        seen = [(tile, logits) for tile, logits in self._held if _within(cell, tile)]
        step = max(1, VALUES // (len(seen[0][1]) * (right - left)))
        for start in range(top, bottom, step):
            rows = (start, min(start + step, bottom))
            shares = sum(enlarged(logits, tile, (left, right), rows).softmax(0) for tile, logits in seen) / len(seen)
            best, classes = (values.numpy() for values in shares.max(0))
            self.classes[rows[0] : rows[1], left:right] = classes
            self._sums += np.bincount(classes.ravel(), best.ravel(), 256)
            self._counts += np.bincount(classes.ravel(), minlength=256)


def _within(cell: Box, tile: Box) -> bool:
    return tile[0] <= cell[0] and tile[1] <= cell[1] and tile[2] >= cell[2] and tile[3] >= cell[3]


def enlarged(logits: np.ndarray, tile: Box, columns: tuple[int, int], rows: tuple[int, int]) -> Tensor:
    """Logits float32[C, h, w] of a tile → [C, H, W] for some of the picture's columns and rows, by bilinear interpolation."""
    import torch

    left, right, across = _places(logits.shape[2], tile[::2], columns)
    above, below, down = _places(logits.shape[1], tile[1::2], rows)
    given = torch.from_numpy(logits)
    wide = torch.lerp(given[..., left], given[..., right], across)
    return torch.lerp(wide[:, above], wide[:, below], down[:, None])


def _places(cells: int, ends: tuple[int, int], pixels: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel of a range: the cells before and behind its centre, and the share of the second."""
    import torch

    places = ((torch.arange(*pixels) - ends[0] + 0.5) * (cells / (ends[1] - ends[0])) - 0.5).clamp(0, cells - 1)
    before = places.long()
    return before, (before + 1).clamp(max=cells - 1), places - before
