"""Answers on disk, a shard a file: what a kill leaves is whole shards, and the same command makes the others.

OUT/made_of.json              what was asked: pictures, model, options
OUT/.shards/000000.jsonl      a line a picture: number, id, width, height, and its answer or its problem
OUT/.shards/coco.json         the files of a format, when they are written
"""

from __future__ import annotations

import json
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from adapt.plug import UserError
from adapt.run import atomic
from adapt.verbs.answers import ANSWERS, probabilities

if TYPE_CHECKING:
    from adapt.verbs.predicting.answerers import Answerer
    from adapt.verbs.predicting.pictures import Looked, Pictures

SHARD = 128
"""Pictures of a shard: so many, at most, are asked about again after a kill."""
THREADS = max(1, min(8, (os.cpu_count() or 1) - 1))
"""That decode while the model runs, which has a core to itself."""
LEAST = 0.3
"""Score of a box that is kept, unless another is asked for."""

Job, Done = TypeVar("Job"), TypeVar("Done")


@dataclass(frozen=True)
class Shards:
    """The shards of a folder."""

    out: Path
    pictures: int
    """How many are asked about."""

    @property
    def count(self) -> int:
        return -(-self.pictures // SHARD)

    def path(self, number: int) -> Path:
        return self.out / ".shards" / f"{number:06d}.jsonl"

    def numbers(self, shard: int) -> range:
        """The places of its pictures."""
        return range(shard * SHARD, min((shard + 1) * SHARD, self.pictures))

    def missing(self) -> list[int]:
        return [number for number in range(self.count) if not self.path(number).is_file()]

    def lines(self) -> Iterator[dict[str, Any]]:
        """All pictures, in their order, one at a time.

        Raises:
            UserError: a shard has been changed.
        """
        for number in range(self.count):
            with open(self.path(number), encoding="utf-8") as file:
                try:
                    yield from map(json.loads, file)
                except ValueError as error:
                    raise UserError(
                        f"{self.path(number)}: cannot be read: {error}. Delete it, and run the same command again."
                    ) from None

    def answered(self) -> Iterator[dict[str, Any]]:
        """The pictures that have an answer."""
        return (line for line in self.lines() if "problem" not in line)


def fill(
    shards: Shards,
    numbers: list[int],
    pictures: Pictures,
    answerer: Answerer,
    options: dict[str, Any],
    batch: int,
    tick: Callable[[], None],
) -> None:
    """Answer for the pictures of these shards; the next pictures are decoded in threads while the model runs.

    Args:
        options: `score` and `all`; see `record`.
        batch: pictures that the model gets at once.
        tick: called once a shard.

    Raises:
        UserError: an answer is not finite.
    """
    from adapt.verbs.predicting.pictures import look

    places = [place for number in numbers for place in shards.numbers(number)]
    decoding = ahead(lambda place: look(pictures, place, answerer.prepare), places, batch + 2 * THREADS)
    with warnings.catch_warnings(), closing(decoding) as looked:
        warnings.filterwarnings("ignore", module="PIL")  # of slightly broken files
        for number in numbers:
            mine = islice(looked, len(shards.numbers(number)))
            with atomic(shards.path(number)) as temporary, open(temporary, "w", encoding="utf-8") as file:
                while part := list(islice(mine, batch)):
                    file.writelines(json.dumps(line) + "\n" for line in _answered(part, answerer, options))
                file.flush()
                os.fsync(file.fileno())
            tick()


def ahead(work: Callable[[Job], Done], jobs: Iterable[Job], most: int) -> Iterator[Done]:
    """`work` done in threads for each job, in their order; so many, at most, are begun before they are asked for."""
    pool = ThreadPoolExecutor(THREADS)
    try:
        waiting: deque = deque()
        for job in jobs:
            waiting.append(pool.submit(work, job))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _answered(part: list[Looked], answerer: Answerer, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A line a picture, in their order."""
    from adapt.train.predict import finite

    usable = [one for one in part if one.problem is None]
    results = iter(answerer.answer([one.prepared for one in usable], [one.size for one in usable]) if usable else [])
    for one in part:
        start = {"number": one.number, "id": one.id}
        if one.problem is not None:
            yield start | {"problem": list(one.problem)}
            continue
        result = next(results)
        if not finite(result):
            raise UserError(
                f"predict: the model's {answerer.predictor} for {one.id!r} holds NaN or infinity. Its training diverged, or its precision "
                "is too low: measure it with adapt evaluate, and look at the fp32 file if this is the int8 file."
            )
        width, height = one.size
        yield start | {"width": width, "height": height} | record(answerer, result, one.size, **options)


def record(answerer: Answerer, result: Any, size: tuple[int, int], score: float, all: bool) -> dict[str, Any]:
    """A result as a line keeps it: the answer in JSON, and how sure it is, 0–1 (`sure`; none where that cannot be said).

    Args:
        size: width and height of the picture.
        score: boxes that are less sure are left out.
        all: keep the probability of each class.
    """
    answer = ANSWERS[answerer.predictor](result, lambda: size, answerer.names)
    if answerer.predictor == "class_logits":
        shares = {"probabilities": [float(share) for share in probabilities(result)]} if all else {}
        return answer | shares | {"sure": answer["probability"]}
    if answerer.predictor == "detections":
        objects = [_inside(one, size) for one in answer["objects"] if one["score"] >= score]
        return {"objects": objects, "sure": min((one["score"] for one in objects), default=None)}
    if answerer.predictor == "semantic_logits":
        return _regions(answer["classes"], result, answerer.names)
    if answerer.predictor == "image_embedding":
        return {"embedding": [float(value) for value in answer["embedding"]], "sure": None}
    return answer | {"sure": None}


def _inside(one: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """An object whose box ends at the picture's edges."""
    left, top, right, bottom = (min(max(side, 0.0), float(most)) for side, most in zip(one["box"], 2 * size, strict=True))
    return one | {"box": [left, top, right, bottom]}


def _regions(classes: Any, logits: Any, names: list[str]) -> dict[str, Any]:
    """A map of classes as a mask a class, but for the background: COCO RLE, box XYXY, pixels, score (its mean probability there)."""
    import numpy as np

    from adapt.vision.masks import box, rle

    shares = probabilities(logits)
    best = shares.argmax(0)
    masks = []
    for number in np.unique(classes)[np.unique(classes) > 0].tolist():
        mask = classes == number
        there = shares[number][best == number]
        score = float(there.mean() if there.size else shares[number].max())
        found = {"rle": rle(mask), "box": box(mask), "pixels": int(mask.sum()), "score": score}
        masks.append({"name": names[number - 1], "class": number} | found)
    return {"masks": masks, "sure": float(shares.max(0).mean())}
