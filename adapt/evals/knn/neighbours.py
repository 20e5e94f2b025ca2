"""The nearest rows of a bank by cosine: found on the device in single precision, ordered by similarities in double.

Single precision is fast and cannot tell whether two rows are equally near. So it only says which rows may be among the nearest: a few
more than are asked for, whose similarities are computed again in double. Where rows that it left out could be as near, within its
largest error, all of the bank is looked at again. What comes of it is what double precision alone gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from adapt import hardware
from adapt.train.precision import full

DIGITS = 12
"""Decimals of similarities and shares: equal rows of a matrix product may differ in the sixteenth."""
MORE = 16
"""Rows that are looked at beyond those that are asked for."""
BLOCK = 2**24
"""Numbers of one array in memory."""


class Bank:
    """Rows to compare with.

    Args:
        rows: float[M, D].
        device: where they are compared; none: the fastest there is.
    """

    def __init__(self, rows: np.ndarray, device: str | None = None):
        self.rows, self.device = _unit(rows), torch.device(device or hardware.device())
        self.single = torch.from_numpy(self.rows).float().to(self.device)

    def nearest(self, queries: np.ndarray, count: int, itself: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The `count` nearest rows of each query and the next one, if there is one, which tells whether the last ties.

        Args:
            queries: float[N, D].
            itself: for each the row of the bank that is never near it, or −1.

        Returns:
            row numbers int64[N, K], nearest first; their cosines float64[N, K], rounded to `DIGITS`, −∞ with itself.
        """
        own = _numbers(itself, len(queries))
        unit, wide = _unit(queries), min(count + 1, len(self.rows))
        near, known = self._candidates(unit, own, min(wide + MORE, len(self.rows)))
        exact = self._exact(unit, near, own)
        near, exact = _ordered(near, exact, wide)
        unsure = np.flatnonzero(exact[:, -1] <= known + _error(unit.shape[1]))
        for query, every in zip(unsure, self.all_of(queries[unsure], own[unsure]), strict=True):
            best = np.argpartition(-every, wide - 1)[None, :wide]
            near[query], exact[query] = (part[0] for part in _ordered(best, every[best], wide))
        return near, exact.round(DIGITS)

    def all_of(self, queries: np.ndarray, itself: Sequence[int] | None = None) -> Iterator[np.ndarray]:
        """For each query its cosines with all rows, float64[M], −∞ with itself."""
        own, step = _numbers(itself, len(queries)), max(1, BLOCK // len(self.rows))
        for start in range(0, len(queries), step):
            cosines = _unit(queries[start : start + step]) @ self.rows.T
            for row, same in zip(cosines, own[start : start + step], strict=True):
                if same >= 0:
                    row[same] = -np.inf
                yield row

    @full()
    @torch.inference_mode()
    def _candidates(self, unit: np.ndarray, own: np.ndarray, wide: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows that may be near, int64[N, wide], and a cosine float64[N] that no other exceeds but for the error; −∞: there are no others."""
        near, last = np.empty((len(unit), wide), np.int64), np.full(len(unit), -np.inf)
        step = max(1, BLOCK // len(self.rows))
        for start in range(0, len(unit), step):
            rows = slice(start, start + step)
            cosines = torch.from_numpy(unit[rows]).float().to(self.device) @ self.single.T
            masked = np.flatnonzero(own[rows] >= 0)
            cosines[torch.from_numpy(masked), torch.from_numpy(own[rows][masked])] = -torch.inf
            best = cosines.topk(wide, dim=1, sorted=False)
            near[rows] = best.indices.cpu().numpy()
            if wide < len(self.rows):
                last[rows] = best.values.amin(1).cpu().double().numpy()
        return near, last

    def _exact(self, unit: np.ndarray, near: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Cosines in double precision, float64[N, K], of rows int64[N, K]; −∞ of a query with itself."""
        out = np.empty(near.shape)
        step = max(1, BLOCK // (near.shape[1] * unit.shape[1]))
        for start in range(0, len(unit), step):
            rows = slice(start, start + step)
            out[rows] = np.matmul(self.rows[near[rows]], unit[rows, :, None])[..., 0]
        out[near == own[:, None]] = -np.inf
        return out


def _error(width: int) -> float:
    """How far a cosine in single precision may be off, at most: twice the bound of a dot product of unit vectors (Higham 2002, §3.1)."""
    if torch.get_float32_matmul_precision() != "highest":  # TF32 or bfloat16 by the user's leave: 8 bits, at least
        return 2.0**-6
    return 2.0**-22 * (width + 2)


def _numbers(itself: Sequence[int] | None, count: int) -> np.ndarray:
    return np.full(count, -1) if itself is None else np.asarray(itself, np.int64)


def _unit(rows: np.ndarray) -> np.ndarray:
    """L2-normalised, float64."""
    rows = np.asarray(rows, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _ordered(near: np.ndarray, cosines: np.ndarray, wide: int) -> tuple[np.ndarray, np.ndarray]:
    """The `wide` nearest of each query, nearest first."""
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :wide]
    return np.take_along_axis(near, order, 1), np.take_along_axis(cosines, order, 1)
