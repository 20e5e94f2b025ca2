"""What PaliGemma says of the things in boxes, by the likelihood of words, in two ways:

    tokens                    the whole picture; log P(<loc…> of the box | detect TEXT): are these words answered by this box?
    crop, blur, grey, …       a drawn picture; log P(TEXT | caption en): is this picture told by these words?

Both are sums over the tokens of the answer, so that the scores of several drawings can be summed. A word that is likely of any picture is answered by
the subtraction of `prompting/visual.py`: what is left is how much likelier the picture makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adapt.contracts import Predictor
from adapt.plug import UserError
from adapt.prompting import tasks
from adapt.prompting.tokens import encode_box
from adapt.prompting.visual import TOKENS, Visual, asked, seen, shown, things

PAIRS = 64
"""Questions with an answer that are read together, at most."""


def predictors(family, texts: Sequence[str | Sequence[str]] | None) -> dict[str, Predictor]:
    """What can be asked of rows with boxes.

    Args:
        family: a `PaliGemma`.
        texts: a text, or several that stand for one thing, whose scores are averaged.
    """
    groups = [[text] if isinstance(text, str) else list(text) for text in texts or []]
    return {"region_scores": Predictor(partial(scores, family, groups), "rows")}


@torch.inference_mode()
def scores(
    family,
    groups: Sequence[Sequence[str]],
    samples: list[dict[str, Any]],
    visual: Sequence[Visual] | None = None,
    boxes: Sequence | None = None,
    plain: Sequence[bool] | None = None,
    columns: Sequence[Sequence[int]] | None = None,
) -> list[dict[str, Any]]:
    """For each row what is said of its B boxes; arguments and result as those of CLIP's `region_scores`, in nats.

    Raises:
        UserError: a box is reversed or off its picture, or there is nothing to ask.
    """
    family.eval()
    count = len(samples)
    marked = [things(sample, given) for sample, given in zip(samples, boxes or [None] * count, strict=True)]
    found = []
    for number, (sample, row) in enumerate(zip(samples, marked, strict=True)):
        config = visual[number] if visual else Visual()
        summed, names = (asked(config, (TOKENS,), also) for also in (False, bool(plain and plain[number])))
        own = groups if columns is None else [groups[column] for column in columns[number]]
        words = list(dict.fromkeys([*family.classes, *(text for group in own for text in group)]))
        if not words:
            raise UserError("prompts.classes: there are no words to ask about. Use data with categories, or give texts.")
        parts = [_drawing(family, config, sample["image"], row, name, words) for name in names]
        said = np.stack(parts, 1) if row else np.zeros((0, len(names), len(words)), np.float32)
        place = {word: column for column, word in enumerate(words)}
        answer: dict[str, Any] = {"summed": len(summed), "drawings": names}
        means = [said[..., [place[text] for text in group]].mean(-1) for group in own]
        answer["texts"] = np.stack(means, -1) if means else np.zeros((*said.shape[:2], 0), np.float32)
        if family.classes:
            answer["classes"] = said[..., [place[word] for word in family.classes]]
        found.append(answer)
    return found


def _drawing(family, config: Visual, image, row: list, name: str, words: Sequence[str]) -> np.ndarray:
    """The log-likelihoods of words for each box in one drawing, float32[B, W]."""
    if not row:
        return np.zeros((0, len(words)), np.float32)
    if name == TOKENS:
        pictures = _features(family, [seen(image, family.input)])
        pairs = [(0, f"{tasks.detect([word])}", f"{encode_box(box, image.size)} {word}") for box, _ in row for word in words]
    else:
        pictures = _features(family, [shown(config, image, thing, name, family.input) for thing in row])
        pairs = [(number, tasks.CAPTION, word) for number in range(len(row)) for word in words]
    return likelihoods(family, pictures, pairs).reshape(len(row), len(words))


def _features(family, views: list[Tensor]) -> Tensor:
    """What the decoder sees of pictures, encoded once: float[N, P, W]."""
    return family.features(torch.stack(views).to(family.normalise.mean.device).float())


def likelihoods(family, features: Tensor, pairs: Sequence[tuple[int, str, str]]) -> np.ndarray:
    """log P(answer, end | picture, question), float32[N].

    Args:
        features: float[K, P, W] of K pictures.
        pairs: (the number of a picture, a question, an answer) each.
    """
    out = np.zeros(len(pairs), np.float32)
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][1]) + len(pairs[i][2]))  # of like length together
    for start in range(0, len(order), PAIRS):
        chosen = order[start : start + PAIRS]
        pictures, questions, answers = zip(*(pairs[i] for i in chosen), strict=True)
        tokens = family.tokenise(questions, answers)
        batch = {name: value.to(features.device) for name, value in tokens.items()} | {"features": features[list(pictures)]}
        out[chosen] = family.log_likelihoods(batch).float().cpu().numpy()
    return out
