"""Answers on disk, a shard a file: what a kill leaves is whole shards, and the same command makes the others.

OUT/made_of.json              what was asked: pictures, model, options
OUT/.shards/000000.jsonl      a line a picture: number, id, width, height, and its answer or its problem
OUT/.shards/coco.json         the files of a format, when they are written
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.ahead import ahead
from adapt.plug import UserError
from adapt.run import atomic
from adapt.verbs.answers import ANSWERS, probabilities
from adapt.verbs.predicting import joins

if TYPE_CHECKING:
    import numpy as np

    from adapt.verbs.predicting.answerers import Answerer
    from adapt.verbs.predicting.pictures import Looked, Pictures
    from adapt.verbs.predicting.tiles import Tiling

SHARD = 128
"""Pictures of a shard: so many, at most, are asked about again after a kill."""
TILED = 4
"""The same where pictures are cut into tiles, and each is work for minutes."""
THREADS = max(1, min(8, (os.cpu_count() or 1) - 1))
"""That decode while the model runs, which has a core to itself."""
LEAST = 0.3
"""Score of a box that is kept, unless another is asked for."""


@dataclass(frozen=True)
class Shards:
    """The shards of a folder."""

    out: Path
    pictures: int
    """How many are asked about."""
    tiled: bool = False
    """Are they cut into tiles?"""

    @property
    def each(self) -> int:
        """Pictures of a shard."""
        return TILED if self.tiled else SHARD

    @property
    def count(self) -> int:
        return -(-self.pictures // self.each)

    def path(self, number: int) -> Path:
        return self.out / ".shards" / f"{number:06d}.jsonl"

    def numbers(self, shard: int) -> range:
        """The places of its pictures."""
        return range(shard * self.each, min((shard + 1) * self.each, self.pictures))

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

    def problems(self) -> list[tuple[str, str, str]]:
        """The others: id, kind, detail."""
        return [(line["id"], *line["problem"]) for line in self.lines() if "problem" in line]


def fill(
    shards: Shards,
    numbers: list[int],
    pictures: Pictures,
    answerer: Answerer,
    options: dict[str, Any],
    batch: int,
    tick: Callable[[], None],
    tiling: Tiling | None = None,
) -> None:
    """Answer for the pictures of these shards; the next pictures are decoded in threads while the model runs.

    Args:
        options: `score` and `all`; see `record`.
        batch: pictures, or tiles, that the model gets at once.
        tick: called once a shard.
        tiling: how pictures are cut; none: they stay whole.

    Raises:
        UserError: an answer is not finite.
    """
    from adapt.verbs.predicting.pictures import look
    from adapt.verbs.predicting.tiles import cut, large

    places = [place for number in numbers for place in shards.numbers(number)]
    whole = (partial(look, pictures, place, answerer.prepare) for place in places)
    decoding = ahead(cut(pictures, places, answerer.prepare, tiling) if tiling else whole, batch + 2 * THREADS, THREADS)
    with warnings.catch_warnings(), closing(decoding) as looked, large() if tiling else nullcontext():
        warnings.filterwarnings("ignore", module="PIL")  # of slightly broken files
        for number, mine in groupby(looked, lambda one: one.number // shards.each):
            with atomic(shards.path(number)) as temporary, open(temporary, "w", encoding="utf-8") as file:
                for _, parts in groupby(_answers(mine, answerer, batch), lambda part: part[0].number):
                    file.write(json.dumps(_line(parts, answerer, options)) + "\n")
                file.flush()
                os.fsync(file.fileno())
            tick()


def _answers(looked: Iterable[Looked], answerer: Answerer, batch: int) -> Iterator[tuple[Looked, Any]]:
    """Pictures or tiles with the model's result for each, in their order; none for one that has a problem.

    Raises:
        UserError: a result is not finite.
    """
    from adapt.train.predict import finite

    looked = iter(looked)
    while part := list(islice(looked, batch)):
        usable = [one for one in part if one.problem is None]
        results = iter(answerer.answer([one.prepared for one in usable], [one.shown for one in usable]) if usable else [])
        for one in part:
            result = next(results) if one.problem is None else None
            if result is not None and not finite(result):
                raise UserError(
                    f"predict: the model's {answerer.predictor} for {one.id!r} holds NaN or infinity. Its training diverged, or its "
                    "precision is too low: measure it with adapt evaluate, and look at the fp32 file if this is the int8 file."
                )
            yield one, result


def _line(parts: Iterator[tuple[Looked, Any]], answerer: Answerer, options: dict[str, Any]) -> dict[str, Any]:
    """A picture's line, from the result for it, or from those for its tiles."""
    one, result = next(parts)
    start = {"number": one.number, "id": one.id}
    if one.problem is not None:
        return start | {"problem": list(one.problem)}
    start |= {"width": one.size[0], "height": one.size[1]}
    if one.tile is None:
        return start | record(answerer, result, one.size, **options)
    tiles = chain([(one.tile, result)], ((other.tile, found) for other, found in parts))
    if answerer.predictor == "semantic_logits":
        return start | _regions(*joins.pixels(tiles, one.size), answerer.names)
    return start | record(answerer, joins.boxes(list(tiles), one.size, options["score"]), one.size, **options)


def record(answerer: Answerer, result: Any, size: tuple[int, int], score: float, all: bool) -> dict[str, Any]:
    """A result as a line keeps it: the answer in JSON, and how sure it is, 0–1 (`sure`; none where that cannot be said).

    Args:
        size: width and height of the picture.
        score: boxes that are less sure are left out.
        all: keep the probability of each class.
    """
    import numpy as np

    if answerer.predictor == "detections":  # a detector tells hundreds of boxes that nobody asked for
        sure = np.asarray(result["score"]) >= score
        result = {name: np.asarray(result[name])[sure] for name in ("bbox", "category", "score")}
    answer = ANSWERS[answerer.predictor](result, lambda: size, answerer.names)
    if answerer.predictor == "class_logits":
        shares = {"probabilities": [float(share) for share in probabilities(result)]} if all else {}
        return answer | shares | {"sure": answer["probability"]}
    if answerer.predictor == "detections":
        objects = [_inside(one, size) for one in answer["objects"]]
        return {"objects": objects, "sure": min((one["score"] for one in objects), default=None)}
    if answerer.predictor == "semantic_logits":
        return _regions(answer["classes"], *_sure(answer["classes"], result), answerer.names)
    if answerer.predictor == "image_embedding":
        return {"embedding": [float(value) for value in answer["embedding"]], "sure": None}
    return answer | {"sure": None}


def _inside(one: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """An object whose box ends at the picture's edges."""
    left, top, right, bottom = (min(max(side, 0.0), float(most)) for side, most in zip(one["box"], 2 * size, strict=True))
    return one | {"box": [left, top, right, bottom]}


def _sure(classes: np.ndarray, logits: np.ndarray) -> tuple[dict[int, float], float]:
    """Of a map's classes, the mean probability of each where it is the best of the logits float[C, h, w]; and that of the whole map."""
    import numpy as np

    shares = probabilities(logits)
    best = shares.argmax(0)
    sure = {}
    for number in np.unique(classes).tolist():
        there = shares[number][best == number]
        sure[number] = float(there.mean() if there.size else shares[number].max())
    return sure, float(shares.max(0).mean())


def _regions(classes: np.ndarray, sure: dict[int, float], all_sure: float, names: list[str]) -> dict[str, Any]:
    """A map uint8[H, W] as a mask a class, but for the background: COCO RLE, box XYXY, pixels, score."""
    import numpy as np

    from adapt.vision.masks import box, rle

    masks, classes = [], np.asfortranarray(classes)  # once: run lengths go down the columns
    for number in np.unique(classes).tolist():
        if number:
            mask = classes == number
            found = {"rle": rle(mask), "box": box(mask), "pixels": int(mask.sum()), "score": sure[number]}
            masks.append({"name": names[number - 1], "class": number} | found)
    return {"masks": masks, "sure": all_sure}
