"""Work in portions that the memory holds: fewer prompts at once on large pictures, and half of them where a GPU runs out.

>>> torch.cat(list(portions(lambda part: network(images[part]), len(images), fitting(bytes_each, 8, images.device))))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from adapt.plug import UserError

Answer = TypeVar("Answer")

CPU, GPU = 2**28, 2**31
"""Bytes that the values of a portion may take where the machine's own memory is used, and on other devices."""


def fitting(each: int, most: int, device: torch.device) -> int:
    """How many things are computed at once: at most `most`, at least one.

    Args:
        each: bytes of one.
    """
    return max(1, min(most, (CPU if device.type == "cpu" else GPU) // each))


def portions(work: Callable[[slice], Answer], count: int, at_once: int) -> Iterator[Answer]:
    """The answers for all things 0, 1, …, `count` - 1, portion after portion; from where memory runs out, half as many at once.

    Args:
        work: takes which things.

    Raises:
        UserError: there is no memory for a single one.
    """
    start = 0
    while start < count:
        answers: list[Answer] = []
        try:
            answers.append(work(slice(start, min(start + at_once, count))))
        except RuntimeError as error:
            # not handled in here: the traceback holds what fills the memory; CPU allocations fail with a plain RuntimeError
            if "out of memory" not in str(error) and "can't allocate memory" not in str(error):
                raise
        if answers:
            start += at_once
            yield answers.pop()
            continue
        if at_once == 1:
            raise UserError("masks: out of memory with a single prompt or picture. Take smaller pictures or a smaller network.")
        at_once = (min(at_once, count - start) + 1) // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
