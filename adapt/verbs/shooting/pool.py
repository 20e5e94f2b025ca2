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


@dataclass(frozen=True)
class Part:
    """Classes that are asked about among each other: all, or a half of them."""

    name: str
    """all, base or new."""
    classes: list[str]
    """The labels' names."""
    first: int
    """The number of its first class among all."""

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
            raise UserError(f"shots: these data have no class labels, of which there are to be few. Columns: {have}.")
        if "test" not in self.data:
            raise UserError(f"shots: the data have no test split. Have: {', '.join(self.data)}.")
        self.splits = [split for split in SPLITS if split in self.data]
        self.labels = {split: _labels(self.data[split]) for split in self.splits}
        self.ids = {split: list(self.data[split]["id"][:]) for split in self.splits}
        self._features: dict[tuple[str, str], np.ndarray] = {}

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return self.session.labels

    @cached_property
    def place(self) -> dict[str, tuple[str, int]]:
        """Id → split and row."""
        return {one: (split, row) for split in reversed(self.splits) for row, one in enumerate(self.ids[split])}

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of the splits."""
        return {split: fingerprint(self.data[split]) for split in self.splits}

    def rows(self, part: Part, ids: Sequence[str]) -> list[tuple[str, int]]:
        """Split and row of those pictures that are of the part's classes."""
        places = [self.place[one] for one in ids]
        return [(split, row) for split, row in places if part.has(self.labels[split][row])]

    def tested(self, part: Part) -> list[tuple[str, int]]:
        """Split and row of the test pictures of the part's classes."""
        return [("test", int(row)) for row in np.flatnonzero(part.has(self.labels["test"]))]

    def labelled(self, part: Part, rows: Sequence[tuple[str, int]]) -> np.ndarray:
        """Labels of pictures among the part's classes, int64[N]."""
        return np.array([self.labels[split][row] - part.first for split, row in rows], np.int64)

    def dataset(self, part: Part, rows: Sequence[tuple[str, int]]):
        """The pictures as rows with `id`, `image` and `label`, which is one of the part's classes."""
        from datasets import ClassLabel, concatenate_datasets

        columns = ("id", "image", "label")
        found = concatenate_datasets(
            [
                self.data[split].select_columns(columns).select([row for own, row in rows if own == split])
                for split in self.splits
                if any(own == split for own, _ in rows)
            ]
        )
        places = {one: i for i, one in enumerate(found["id"][:])}
        found = found.select([places[self.ids[split][row]] for split, row in rows])
        if part.name == "all":
            return found
        kind = ClassLabel(names=part.classes)
        return found.remove_columns("label").add_column("label", self.labelled(part, rows).tolist(), feature=kind)

    # ---------------------------------------------------------------------------------------------------------- features

    def features(self, family, rows: Sequence[tuple[str, int]], views: int = 0, augment: Augment | None = None) -> np.ndarray:
        """What the family's frozen encoder makes of pictures, float32[max(1, views), N, …]; of random views, if there are any.

        The seeds of the views are those of the pictures' places in their split, so that cells share them.
        """
        function = family.frozen_features()
        name = self._name(family, function)
        if not views:
            for split in {split for split, _ in rows}:
                if (name, split) not in self._features:
                    found = self._computed(family, function, name, split, 0, None)
                    every = [found(0, row) for row in range(len(self.ids[split]))]
                    self._features[name, split] = np.stack([next(iter(one.values())).numpy() for one in every])
            return np.stack([self._features[name, split][row] for split, row in rows])[None]
        found = {split: self._computed(family, function, name, split, views, augment) for split in {split for split, _ in rows}}
        items = [[next(iter(found[split](view, row).values())) for split, row in rows] for view in range(views)]
        return np.stack([[item.numpy() for item in own] for own in items])

    def logits(self, family, part: Part, rows: Sequence[tuple[str, int]]) -> np.ndarray:
        """Class logits float32[N, C]: by the kept features, where the encoder is as it came; else of the pictures."""
        import torch

        if family.frozen_features() is None:
            from adapt.train.predict import predict

            device = self.session.accelerator.device.type
            batch = measuring.BATCH.get(device, 256)
            predictor = family.predictors()["class_logits"]
            return predict(predictor, family, self.dataset(part, rows), batch, self.session.accelerator, title="measure")
        family.eval()
        features = torch.from_numpy(self.features(family, rows)[0]).to(self.session.accelerator.device)
        with torch.inference_mode():
            return torch.cat([family.feature_logits(part) for part in features.split(4096)]).float().cpu().numpy()

    def _name(self, family, function: Callable[[Tensor], Tensor]) -> str:
        """Of an encoder, by what it makes of the first picture: whatever methods share it share its features."""
        import torch

        family.eval()
        image = family.preprocess(self.data["train"][0], False)["image"][None]
        with torch.inference_mode():
            said = function(image.to(self.session.accelerator.device).float())
        return of(said.float().cpu().numpy().tobytes().hex())

    def _computed(self, family, function: Callable, name: str, split: str, views: int, augment: Augment | None):
        """An encoder's outputs for a split, on disk."""
        session = self.session
        made: dict[str, Any] = {"encoder": name, "data": self.fingerprints[split], "precision": session.precision}
        if views:
            made |= {"views": views, "augment": settings(augment), "seed": session.recipe.seed}
        title = f"features_{split}_{of(made)[:8]}"
        return kept.outputs(session, title, made, function, family, self.data[split], max(1, views), augment if views else None)


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
