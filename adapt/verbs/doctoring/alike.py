"""Pictures that look alike: in two splits a leak, in train a duplicate.

Two pictures look alike when `NEAR` or fewer of the 64 bits of their perceptual hashes (`imagehash.phash`: the signs of the low
frequencies of the grey picture) differ. What another size, quality or brightness makes of a picture is found; what has been mirrored,
turned or cut is not. Of random hashes a pair in 10^13 is so near.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from adapt.verbs.doctoring.pictures import Looks

NEAR = 4
"""Bits of 64. Of the embedded drawings, 849 by each hand, the pairs as near as that are variants: a red and a green apple."""
PARTS = NEAR + 1
"""Where no more than `NEAR` bits differ, one of so many parts of the hash is the same in both."""
HELD_OUT = {"validation", "test"}
FAR = 65


@dataclass(frozen=True)
class Alike:
    """A picture, and an earlier one that it looks like."""

    split: str
    row: int
    other_split: str
    other_row: int
    bits: int
    """How many of 64 differ."""

    @property
    def leak(self) -> bool:
        """Is one of the two held out, and the other not in the same split?"""
        return self.split != self.other_split


def pairs(hashes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of hashes that differ in `NEAR` bits or fewer: (numbers int[K], numbers int[K], bits int[K]), in groups.

    A group has a number at most once on each side; a pair may be in several groups. Time grows with the number of pairs that share
    a part, not with all pairs (multi-index hashing, Norouzi et al. 2012, arXiv:1307.2982).

    Args:
        hashes: uint64[U], each different.
    """
    edges = np.linspace(0, 64, PARTS + 1).astype(int)
    for low, high in pairwise(edges):
        part = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(part, kind="stable")
        part, start = part[order], np.arange(len(order))
        for step in range(1, len(order)):
            start = start[start + step < len(order)]
            start = start[part[start] == part[start + step]]
            if not len(start):
                break
            one, other = order[start], order[start + step]
            bits = np.bitwise_count(hashes[one] ^ hashes[other])
            near = bits <= NEAR
            if near.any():
                yield one[near], other[near], bits[near].astype(int)


def alike(looks: Mapping[str, Looks]) -> list[Alike]:
    """For each picture the one that it looks like most, in train or in a split before its own, where one of the two is held out.

    Pictures with the same bytes are left to the source, which tells of them as `leak` and `duplicate`.

    Args:
        looks: by split, train first.
    """
    crowd = _Crowd(looks)
    found = crowd.in_train() if "train" in looks else []
    for number, split in enumerate(crowd.names):
        before = [other for other in range(number) if {split, crowd.names[other]} & HELD_OUT]
        found += crowd.across(number, before) if before else []
    return found


class _Crowd:
    """All pictures of all splits, by their hashes.

    Of P pictures whose hash is clear, in the order of their splits and rows, U different hashes.
    """

    def __init__(self, looks: Mapping[str, Looks]):
        self.names = list(looks)
        clear = [np.flatnonzero(one.clear) for one in looks.values()]
        self.rows = np.concatenate([np.zeros(0, int), *clear])
        self.splits = np.repeat(np.arange(len(clear)), [len(rows) for rows in clear])
        parts = [(one.hash[rows], one.digest[rows]) for one, rows in zip(looks.values(), clear, strict=True)]
        hashes, self.digests = (np.concatenate([np.zeros(0, np.uint64), *part]) for part in zip(*parts, strict=True))
        self.hashes, self.hash = np.unique(hashes, return_inverse=True)
        self.first = np.full((len(self.names), len(self.hashes)), -1)
        """The first picture of a split that has a hash, int[S, U]; -1: none."""
        for split in range(len(self.names)):
            mine = np.flatnonzero(self.splits == split)
            hashes, places = np.unique(self.hash[mine], return_index=True)
            self.first[split][hashes] = mine[places]
        self.bits = np.full(self.first.shape, FAR)
        """To the nearest other hash that a split has, int[S, U]."""
        self.nearest = np.full(self.first.shape, -1)
        """Which hash that is."""
        self.earlier = np.full(len(self.hashes), FAR), np.full(len(self.hashes), -1)
        """The same of train, among the hashes that come before."""
        for one, other, bits in pairs(self.hashes):
            self._note(one, other, bits)
            self._note(other, one, bits)

    def _note(self, one: np.ndarray, other: np.ndarray, bits: np.ndarray) -> None:
        for split in range(len(self.names)):
            better = (self.first[split][other] >= 0) & (bits < self.bits[split][one])
            self.bits[split][one[better]], self.nearest[split][one[better]] = bits[better], other[better]
        if "train" in self.names:
            first, (least, which) = self.first[self.names.index("train")], self.earlier
            better = (first[other] >= 0) & (first[other] < first[one]) & (bits < least[one])
            least[one[better]], which[one[better]] = bits[better], other[better]

    def in_train(self) -> list[Alike]:
        """Pictures of train that look like an earlier one."""
        split = self.names.index("train")
        mine = np.flatnonzero(self.splits == split)
        hashes, first = self.hash[mine], self.first[split]
        same = first[hashes] != mine
        copies = same & (self.digests[first[hashes]] == self.digests[mine])
        bits = np.where(same, 0, self.earlier[0][hashes])
        other = np.where(same, first[hashes], first[self.earlier[1][hashes]])
        return [self._alike(mine[i], other[i], bits[i]) for i in np.flatnonzero((bits <= NEAR) & ~copies)]

    def across(self, split: int, before: list[int]) -> list[Alike]:
        """Pictures of a split that look like one of those before."""
        mine = np.flatnonzero(self.splits == split)
        hashes = self.hash[mine]
        bits, others, copies = np.full(len(mine), FAR), np.full(len(mine), -1), np.zeros(len(mine), bool)
        for number in before:
            own = self.first[number][hashes]
            there = own >= 0
            copies |= there & (self.digests[own] == self.digests[mine])
            nearest = self.first[number][self.nearest[number][hashes]]
            near, other = np.where(there, 0, self.bits[number][hashes]), np.where(there, own, nearest)
            better = near < bits
            bits[better], others[better] = near[better], other[better]
        return [self._alike(mine[i], others[i], bits[i]) for i in np.flatnonzero((bits <= NEAR) & ~copies)]

    def _alike(self, one: int, other: int, bits: int) -> Alike:
        place = [(self.names[self.splits[i]], int(self.rows[i])) for i in (one, other)]
        return Alike(*place[0], *place[1], int(bits))
