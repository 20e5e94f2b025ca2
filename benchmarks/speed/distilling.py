"""Distilling a ViT-S/14 of random weights into a resnet18 at 224 pixels: an epoch from our cache, and LightlyTrain's with the teacher in
the loop. What the cache costs once stands beside it."""

from __future__ import annotations

from pathlib import Path

from adapt import pipeline
from benchmarks.speed import clock, made, peers
from benchmarks.speed.table import OURS, Rows, interleaved

EPOCHS, BATCH, VIEWS, LABELLED = 3, 32, 2, 8
BUILD = "adapt.distill.cache.build"
"""What asks the teacher for all views."""


def measure(task: made.Task) -> list[Rows]:
    """An epoch of all pictures, from the second on; the student sees each once."""
    count, side = task.sizes.large, task.sizes.side
    batch = min(BATCH, count // 2)
    split = dict.fromkeys(("train", "val", "test"), LABELLED)
    data = made.pictures(Path("photos"), split, classes=2, side=side)
    more = made.pictures(Path("more"), {"": count - LABELLED}, classes=1, side=side)
    checkpoint = made.small_dino(Path("vit-s-14"), side, task.sizes.layers)
    works = [lambda turn: ours(data, more, checkpoint, f"distill-{turn}", batch, count // batch)]
    if task.lightly:
        every = made.pictures(Path("every"), {"": count}, classes=1, side=side)
        given = {"data": str(every), "batch": batch, "epochs": EPOCHS, "epoch": count // batch, "side": side}
        works.append(lambda turn: peers.asked(task.lightly, "lightly", given))
    return [interleaved(f"epoch of {count} × {side} px, ViT-S/14 → resnet18", works, task.turns)]


def ours(data: Path, more: Path, checkpoint: Path, name: str, batch: int, epoch: int) -> dict[str, float]:
    """Seconds of an epoch from the cache, and of making the cache; the teacher has been measured before, as it must."""
    train = {"epochs": EPOCHS, "batch": batch, "validate_every": EPOCHS}
    recipe = made.recipe(
        name,
        data,
        more,
        model={"name": "dinov2", "checkpoint": str(checkpoint), "weights": "random"},
        method={"name": "head"},
        evals=[{"name": "knn", "split": "test"}],
        distill={"name": "features", "student": "resnet18", "views": VIEWS, "train": train},
    )
    pipeline.evaluate(recipe)
    with clock.watched(BUILD) as built, clock.steps(epoch) as ends:
        pipeline.distill(recipe)
    (start, stop), *_ = built
    return {OURS: clock.later(ends), f"ours: the cache of {VIEWS} views, once": stop - start}
