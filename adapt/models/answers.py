"""Answers of a vision-language model, with the probability of each token, and read back as objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from adapt.prompting.tokens import Found, distinct

DUPLICATE = 0.7
"""Two boxes of a category that overlap more (IoU) are one object said twice."""


@dataclass
class Answer:
    """What the model said to one question, up to its end token."""

    tokens: list[int]
    confidence: np.ndarray
    """Log-probability of each token, float[T]."""


@dataclass
class Speed:
    """Of the last answers."""

    tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens a second, all rows of a batch together."""
        return self.tokens / self.seconds if self.seconds else 0.0


class Confidence:
    """A logits processor that changes nothing and notes the log-probability of each greedy token."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.steps.append(scores.float().log_softmax(-1).amax(-1))
        return scores


def objects(
    pieces: Sequence[str],
    answer: Answer,
    size: tuple[int, int],
    classes: Sequence[str],
    parse: Callable[[str], tuple[list[Found], int]],
    decode: Callable[[Sequence[int], tuple[int, int]], list[float]],
) -> dict[str, Any]:
    """The objects of an answer about an image of `size` (width, height); see `VisionLanguage.detections`.

    Args:
        pieces: the text of each of its tokens.
        parse: text → objects, and how many could not be read.
        decode: an object's locations and `size` → its box XYXY in pixels.
    """
    owner = np.repeat(np.arange(len(pieces)), [len(piece) for piece in pieces])  # character → token
    found, unread = parse("".join(pieces))
    numbers = {name.lower(): number for number, name in reversed(list(enumerate(classes)))}
    boxes = np.array([decode(each.locations, size) for each in found]).reshape(-1, 4)
    categories = np.array([numbers.get(each.name.lower(), -1) for each in found], int)
    own = [np.unique(np.concatenate([owner[start:stop] for start, stop in each.spans])) for each in found]
    scores = np.array([np.exp(answer.confidence[tokens].mean()) for tokens in own], float)
    kept = distinct(boxes, categories, scores, DUPLICATE)
    names = [found[number].name for number in kept]
    return {"bbox": boxes[kept], "category": categories[kept], "score": scores[kept], "name": names, "unread": unread}
