"""Answers of a vision-language model: generated greedily in batches, and read back as objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from adapt.prompting.tokens import Found, distinct
from adapt.vision.images import view

if TYPE_CHECKING:
    from adapt.models.vision_language import VisionLanguage

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


@torch.inference_mode()
def greedy(
    family: VisionLanguage, samples: list[dict[str, Any]], questions: Sequence[str], most: int, batch: int
) -> tuple[list[Answer], Speed]:
    """Answers of `most` tokens at most, in batches of questions of like length, with a cache of keys and values."""
    from transformers import GenerationConfig, LogitsProcessorList

    tokenizer, device = family.tokenizer, next(family.net.parameters()).device
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    silent = {pad, tokenizer.bos_token_id, family.processor.image_token_id}  # an untrained model may say these
    settings = GenerationConfig(do_sample=False, max_new_tokens=most, eos_token_id=end, pad_token_id=pad, use_cache=True)
    settings.update(num_beams=1, early_stopping=False, no_repeat_ngram_size=0)  # whatever the checkpoint is used to
    order = np.argsort([len(tokenizer(question)["input_ids"]) for question in questions], kind="stable")
    answers: dict[int, Answer] = {}
    began, total = time.perf_counter(), 0
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch].tolist()
        images = torch.stack([view(samples[i]["image"], family.input) for i in chosen]).to(device).float()
        tokens = {name: value.to(device) for name, value in family.tokenise([questions[i] for i in chosen]).items()}
        sure = Confidence()
        output = family.net.generate(
            **tokens,
            pixel_values=family.pixels(images),
            generation_config=settings,
            logits_processor=LogitsProcessorList([sure]),
        )
        said = output[:, -len(sure.steps) :].tolist()
        chances = torch.stack(sure.steps, 1).cpu().numpy()
        for i, row, chance in zip(chosen, said, chances, strict=True):
            length = row.index(end) if end in row else len(row)
            words = [at for at in range(length) if row[at] not in silent]
            answers[i] = Answer([row[at] for at in words], chance[words])
            total += length + (length < len(row))
    return [answers[i] for i in range(len(samples))], Speed(total, time.perf_counter() - began)


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
    return {"bbox": boxes[kept], "category": categories[kept], "score": scores[kept], "unread": unread}
