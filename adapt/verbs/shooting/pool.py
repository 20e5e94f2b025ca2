"""All pictures of the data, by class, and what frozen encoders make of them: computed once an encoder, kept on disk, shared by all cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from adapt.plug import UserError, settings
from adapt.provenance import of
from adapt.verbs import kept, lineage, measuring
from adapt.vision.fingerprint import fingerprint

if TYPE_CHECKING:
    from torch import Tensor

    from adapt.contracts import Augment
    from adapt.verbs.session import Session

SPLITS = ("train", "validation", "test")
BLOCK = 4096
"""Pictures whose features become logits at once."""
Place = tuple[str, int]
"""A picture: its split, and its row there."""


@dataclass(frozen=True)
class Part:
    """Classes that are asked about among each other: all, or a half of them."""

    name: str
    """all, base or new."""
    classes: list[str]
    """The labels' names."""
    first: int
    """The number of its first class among all."""

    @property
    def where(self) -> str:
        """In words, such as ` of base classes`; of all nothing is said."""
        return "" if self.name == "all" else f" of {self.name} classes"

    def has(self, labels: np.ndarray) -> np.ndarray:
        """Which labels int[N] are of its classes, bool[N]."""
        return (labels >= self.first) & (labels < self.first + len(self.classes))


def halves(names: Sequence[str]) -> tuple[Part, Part]:
    """The first ⌈n/2⌉ classes, in the labels' order, and the others (CoCoOp, arXiv:2203.05557)."""
    middle = -(-len(names) // 2)
    return Part("base", list(names[:middle]), 0), Part("new", list(names[middle:]), middle)


class Pool:
    """The data of a session; pictures are named by split and row number.

    Raises:
        UserError: the pictures have no class labels, or there is no test split.
    """

    def __init__(self, session: Session):
        self.session, self.data = session, session.data
        names = self.data["train"].features.get("label")
        if names is None or not session.labels:
            have = ", ".join(self.data["train"].column_names)
            raise UserError(
                f"shots: these data have no class labels (columns: {have}). Take data with a class for each picture."
            )
        if "test" not in self.data:
            raise UserError(f"shots: the data have no test split. Have: {', '.join(self.data)}.")
        self.splits = [split for split in SPLITS if split in self.data]
        self.labels = {split: _labels(self.data[split]) for split in self.splits}
        self.ids = {split: list(self.data[split]["id"][:]) for split in self.splits}
        self._cached: dict[tuple, tuple[int, Callable]] = {}
        self._measured: dict[str, Any] = {}

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return self.session.labels

    @cached_property
    def place(self) -> dict[str, Place]:
        """Id → split and row."""
        return {one: (split, row) for split in reversed(self.splits) for row, one in enumerate(self.ids[split])}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of the splits."""
        return {split: fingerprint(self.data[split]) for split in self.splits}

    def chosen(self, part: Part, ids: Sequence[str]) -> list[Place]:
        """Those of the pictures that are of the part's classes."""
        places = [self.place[one] for one in ids]
        return [(split, row) for split, row in places if part.has(self.labels[split][row])]

    def tested(self, part: Part) -> list[Place]:
        """The test pictures of the part's classes."""
        return [("test", int(row)) for row in np.flatnonzero(part.has(self.labels["test"]))]

    def labelled(self, part: Part, places: Sequence[Place]) -> np.ndarray:
        """Labels of pictures among the part's classes, int64[N]."""
        return np.array([self.labels[split][row] - part.first for split, row in places], np.int64)

    def dataset(self, part: Part, places: Sequence[Place]):
        """The pictures as rows with `id`, `image` and `label`, which is one of the part's classes."""
        from datasets import ClassLabel, concatenate_datasets

        kept: list = []
        order: dict[Place, int] = {}
        for split in self.splits:
            if own := [row for name, row in places if name == split]:
                order |= {(split, row): len(order) + i for i, row in enumerate(own)}
                kept.append(self.data[split].select_columns(["id", "image", "label"]).select(own))
        found = concatenate_datasets(kept).select([order[place] for place in places])
        if part.name == "all":
            return found
        kind = ClassLabel(names=part.classes)
        return found.remove_columns("label").add_column("label", self.labelled(part, places).tolist(), feature=kind)

    def measured(self, part: Part):
        """The part's test pictures as rows."""
        if part.name not in self._measured:
            self._measured[part.name] = self.dataset(part, self.tested(part))
        return self._measured[part.name]

    # ---------------------------------------------------------------------------------------------------------- features

    def cached(
        self, family, split: str, views: int = 0, augment: Augment | None = None
    ) -> Callable[[int, int], dict[str, Tensor]]:
        """What the family's frozen encoder makes of a split's pictures, or of random views of them: (view, row) → `features`.

        A view's seed is that of the picture's row in its split, so that all cells share it.
        """
        function = family.frozen_features()
        name = self._encoder(family, function)
        key = (name, split, augment)
        if key not in self._cached or self._cached[key][0] < views:  # the first of many views are those of few
            made: dict[str, Any] = {"encoder": name, "data": self.fingerprints[split], "precision": self.session.precision}
            if views:
                made |= {"views": views, "augment": settings(augment), "seed": self.session.recipe.seed}
            seen, called = (views or 1, augment), f"features_{split}_{of(made)[:8]}"
            rows = self.data[split]
            self._cached[key] = (
                views,
                kept.outputs(self.session, "features", made, function, family, rows, *seen, called=called),
            )
        return self._cached[key][1]

    def shared(self, family, places: Sequence[Place], views: int, augment: Augment) -> Callable[[int, int], dict[str, Tensor]]:
        """The same for some of the pictures: (view, number among them) → `features`."""
        found = {
            split: self.cached(family, split, views, augment if views else None) for split in {split for split, _ in places}
        }

        def item(view: int, number: int) -> dict[str, Tensor]:
            split, row = places[number]
            return found[split](view, row)

        return item

    def logits(self, family, part: Part, places: Sequence[Place]) -> np.ndarray:
        """Class logits float32[N, C]: of the kept features, where the encoder is frozen; else of the pictures."""
        import torch

        device = self.session.accelerator.device
        family.eval()
        if family.frozen_features() is None:
            from adapt.train.predict import predict

            batch, predictor = measuring.BATCH.get(device.type, 256), family.predictors()["class_logits"]
            return predict(predictor, family, self.dataset(part, places), batch, self.session.accelerator, title="measure")
        item = self.shared(family, places, 0, None)
        features = torch.stack([item(0, number)["features"] for number in range(len(places))])
        with torch.inference_mode():
            parts = [family.feature_logits(part.to(device)) for part in features.split(BLOCK)]
            return torch.cat(parts).float().cpu().numpy()

    def _encoder(self, family, function: Callable[[Tensor], Tensor]) -> str:
        """A name of an encoder, by what it makes of the first picture: methods that have the same one share its features."""
        import torch

        family.eval()
        image = family.preprocess(self.data["train"][0], False)["image"][None]
        with torch.inference_mode():
            said = function(image.to(self.session.accelerator.device).float())
        return of(said.float().cpu().numpy().tobytes().hex())


def _labels(rows) -> np.ndarray:
    """Labels int64[N]; those of pictures without one are -1."""
    return np.array([-1 if label is None else label for label in rows["label"][:]], np.int64)


def model(session: Session, part: Part) -> dict[str, Any]:
    """What the model is made of that is asked about a part's classes, see `lineage.model`."""
    return lineage.model(session) | {"words": {name: of(texts) for name, texts in words(session, part).items()}}


def words(session: Session, part: Part) -> dict[str, list[str]]:
    """The texts that stand for a part's classes: `classes` and `templates`, see `Session.words`."""
    inside = slice(part.first, part.first + len(part.classes))
    return session.words | {"classes": session.words["classes"][inside]}
