"""What the encoders make of things and texts: each (thing, drawing) and each text is encoded once, when it is first asked for, and kept.

What is kept on disk lies in the run folder, under a name of all that it depends on: a killed search reads it and goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from adapt.ahead import ahead
from adapt.prompting.visual import Visual, shown, things
from adapt.provenance import of
from adapt.run import atomic
from adapt.verbs import lineage
from adapt.verbs.searching.candidates import WHOLE, Look, Unit, Wording

if TYPE_CHECKING:
    from torch import Tensor

    from adapt.verbs.session import Session

BATCH = 64
"""Pictures that are encoded together."""
AHEAD = 16
"""Rows that are drawn before their turn comes."""
OFTEN = 30.0
"""Seconds after which what was encoded is written."""
Row = tuple[str, str]
"""A split, and the id of a row of it."""


class Encoded:
    """The encoders of a session's model, as it comes, and all that they have made.

    Args:
        rows: split → its rows, with masks where the recipe wants them.
        base: what the looks do not say: the colour of lines, and the segmenter; none: whole pictures.
    """

    def __init__(self, session: Session, rows: dict[str, Any], base: Visual | None):
        self.session, self.rows, self.family = session, rows, session.as_it_comes().eval()
        self.number = {(split, name): i for split, part in rows.items() for i, name in enumerate(part["id"][:])}
        self.base = base
        self.made = 0
        """Drawings that were encoded; those that an earlier run has left are not counted."""
        self.seconds = 0.0
        """That the encoders took."""
        self._things: dict[tuple[Row, Unit], np.ndarray] = {}
        self._texts: dict[str, Tensor] = {}
        self._classifiers: dict[int, Tensor] = {}
        self._fresh: list[tuple[Row, Unit]] = []
        self._written = time.monotonic()
        self._read()

    @property
    def texts(self) -> int:
        """How many were encoded."""
        return len(self._texts)

    # ------------------------------------------------------------------------------------------------------------ pictures

    def need(self, rows: Sequence[Row], looks: Sequence[Look]) -> None:
        """Encode what is missing of these looks at these rows."""
        wanted: dict[Unit, Look] = {}
        for look in looks:
            for unit in look.units:
                wanted.setdefault(unit, look)
        missing = {row: [unit for unit in wanted if (row, unit) not in self._things] for row in dict.fromkeys(rows)}
        missing = {row: units for row, units in missing.items() if units}
        jobs = (partial(self._drawn, row, units, wanted) for row, units in missing.items())
        waiting: list[tuple[tuple[Row, Unit], int, Tensor]] = []
        counts: dict[tuple[Row, Unit], int] = {}
        for views in ahead(jobs, AHEAD):
            for key, several in views.items():
                counts[key] = len(several)
                waiting += [(key, number, view) for number, view in enumerate(several)]
            while len(waiting) >= BATCH:
                self._encode(waiting[:BATCH], counts)
                del waiting[:BATCH]
        if waiting:
            self._encode(waiting, counts)
        if missing:
            self._write()

    def _drawn(self, row: Row, units: Sequence[Unit], wanted: dict[Unit, Look]) -> dict[tuple[Row, Unit], list[Tensor]]:
        """Views of the things of a row, by what is drawn."""
        sample = self.rows[row[0]][self.number[row]]
        if self.base is None:
            return {(row, WHOLE): [self.family.preprocess(sample, False)["image"]]}
        found = things(sample)
        return {
            (row, unit): [shown(wanted[unit].visual, sample["image"], thing, unit[0], self.family.input) for thing in found]
            for unit in units
        }

    def _encode(self, views: Sequence[tuple[tuple[Row, Unit], int, Tensor]], counts: dict[tuple[Row, Unit], int]) -> None:
        import torch

        images = torch.stack([view for _, _, view in views]).to(self.session.accelerator.device).float()
        start = time.perf_counter()
        with torch.inference_mode(), self.session.accelerator.autocast():
            embedded = self.family.image_embedding(images).float().cpu().numpy()
        self.seconds += time.perf_counter() - start
        self.made += len(views)
        for (key, number, _), value in zip(views, embedded, strict=True):
            if key not in self._things:
                self._things[key] = np.full((counts[key], len(value)), np.nan, np.float32)
                self._fresh.append(key)
            self._things[key][number] = value
        if time.monotonic() - self._written > OFTEN:
            self._write()

    def things(self, rows: Sequence[Row], look: Look) -> np.ndarray:
        """float32[B, D, E] of the B things of these rows, which have been encoded, and the D drawings of a look."""
        return np.concatenate([np.stack([self._things[row, unit] for unit in look.units], 1) for row in rows])

    # --------------------------------------------------------------------------------------------------------------- texts

    def logits(self, images: np.ndarray, number: int, wording: Wording) -> np.ndarray:
        """What the model says of float32[B, D, E] in the words of a wording: float32[B, D, C], scaled as its softmax takes them."""
        import torch

        from adapt.models.clip.words import classifier, greatest

        said = wording.words
        with torch.inference_mode():
            if number not in self._classifiers:
                self._classifiers[number] = classifier(said.texts, said.templates, said.combine, self._embedded)
            flat = torch.from_numpy(images).flatten(0, 1).to(self.session.accelerator.device)
            found = self.family.logits(flat, self._classifiers[number])
            if said.combine == "max" and max(map(len, said.texts)) > 1:
                found = greatest(found, said.texts)
            return found.float().cpu().numpy().reshape(*images.shape[:2], -1)

    def _embedded(self, texts: list[str]) -> Tensor:
        """N texts → float32[N, E]; new ones are encoded, each once."""
        import torch

        if missing := [text for text in dict.fromkeys(texts) if text not in self._texts]:
            start = time.perf_counter()
            with torch.autocast(self.session.accelerator.device.type, enabled=False):
                found = self.family.text_embedding(missing)
            self.seconds += time.perf_counter() - start
            self._texts |= dict(zip(missing, found, strict=True))
        return torch.stack([self._texts[text] for text in texts])

    # ---------------------------------------------------------------------------------------------------------------- disk

    @property
    def _folder(self):
        """Where it is kept, by all that an embedding depends on beside its key."""
        model = lineage.model(self.session)
        base = self.base and [self.base.segmenter, list(self.base.colour)]
        data = {split: self.session.fingerprints[split] for split in sorted(self.rows)}
        made = of(1, {name: model[name] for name in model if name != "words"}, data, base, self.session.precision)
        return self.session.run.path / "workbench" / "encoded" / made

    def _read(self) -> None:
        for path in sorted(self._folder.glob("*.npz")):
            try:
                with np.load(path) as found:
                    names, counts, values = json.loads(str(found["names"])), found["counts"], found["values"]
            except (OSError, ValueError, KeyError, BadZipFile):
                continue  # it is encoded again
            parts = np.split(values, np.cumsum(counts)[:-1])
            self._things |= {_key(name): part for name, part in zip(names, parts, strict=True)}

    def _write(self) -> None:
        """Keep what is whole of that which is new."""
        self._written = time.monotonic()
        done = [key for key in self._fresh if not np.isnan(self._things[key]).any()]
        if not done or not self.session.run.writes:
            return
        folder, values = self._folder, [self._things[key] for key in done]
        names = json.dumps([[*row, [unit[0], *map(list, unit[1:])]] for row, unit in done])
        number = 1 + max((int(path.stem) for path in folder.glob("*.npz")), default=0)
        with atomic(folder / f"{number:05d}.npz") as path, open(path, "wb") as file:
            np.savez(file, names=names, counts=[len(value) for value in values], values=np.concatenate(values))
        written = set(done)
        self._fresh = [key for key in self._fresh if key not in written]


def _key(name: list) -> tuple[Row, Unit]:
    split, row, unit = name
    return (split, row), (unit[0], *((key, value) for key, value in unit[1:]))
