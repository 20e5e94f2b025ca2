"""Label Studio's run lengths of brush strokes → masks.

A stroke is RGBA bytes, row by row, packed by thi.ng/umbrella's `rle-pack` (Label Studio's converter, brush.py): big-endian bits,

    32 the number of words · 5 the bits of a word less 1 · 4 × 4 the bits of a run's length less 1
    then runs: 1 is it one word repeated · 2 which of the four lengths · that many bits: words less 1 · one word, or each of them
"""

from __future__ import annotations

import numpy as np

from adapt.data.problems import Bad

CHANNELS = 4
ALPHA = 3


def decode(data: object, size: tuple[int, int]) -> np.ndarray:
    """Bytes as a list of integers → the mask bool[H, W]: where the stroke is not transparent.

    Args:
        size: (width, height) that the stroke must have, in pixels; nothing larger is unpacked.

    Raises:
        Bad: these are no run lengths, or of another size.
    """
    width, height = size
    try:
        bits = "".join(map("{:08b}".format, bytes(data)))
        words = np.frombuffer(_unpacked(bits, CHANNELS * width * height), np.uint8)
    except (TypeError, ValueError) as error:
        raise Bad("bad annotation", f"a brush stroke cannot be unpacked: {' '.join(str(error).split())[:100]}") from None
    return words.reshape(height, width, CHANNELS)[..., ALPHA] > 0


def _unpacked(bits: str, wanted: int) -> bytearray:
    """The words, of which there must be so many; of more than 8 bits, none.

    Raises:
        ValueError: there are others, or too few bits.
    """
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        if place > len(bits):
            raise ValueError("it ends in the middle")
        return int(bits[place - count : place], 2)

    number, width = take(32), take(5) + 1
    lengths = [take(4) + 1 for _ in range(4)]
    if number != wanted:
        raise ValueError(f"it has {number:,} values, and its picture {wanted:,}")
    if width > 8:
        raise ValueError(f"its words have {width} bits, not 8")
    out = bytearray()
    while len(out) < number:
        repeated = take(1)
        count = take(lengths[take(2)]) + 1
        out += bytes([take(width)]) * count if repeated else bytes(take(width) for _ in range(count))
    if len(out) > number:
        raise ValueError("its last run is too long")
    return out
