"""One cell of the sweep: a method learns from one draw of pictures, and is measured on the test split.

It learns as `adapt finetune` does with the same pictures and seed, to the same numbers; but random views whose features are kept are those of
the picture's place among all pictures, not among the few, so that cells share them.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adapt import plug
from adapt.contracts import MethodConfig, Train
from adapt.overrides import override
from adapt.plug import settings
from adapt.provenance import of
from adapt.run import Run
from adapt.verbs import finetune, lineage
from adapt.verbs.session import Session
from adapt.verbs.shooting.pool import Part, Place, Pool, model, words
from adapt.verbs.shooting.samples import Draw

if TYPE_CHECKING:
    from adapt.recipe import Recipe
    from adapt.verbs.shooting.request import Request

FOLDER = "shots"
"""In the run folder."""
VERSION = 1
"""Raised when a cell's numbers become others."""
APART = 10.0
"""Seconds of a training that a kill may cost: cells are many and short, and so are their epochs."""
VALIDATIONS = 20
"""Of a training whose encoder learns, at most: each asks it about all validation pictures."""


@dataclass(frozen=True)
class Cell:
    """What is learnt, from what."""

    method: MethodConfig
    shots: int
    seed: int
    train: list[Place]
    validation: list[Place]
    recipe: Recipe
    """The sweep's, with this cell's method, training and seed."""
    made_of: dict[str, Any]
    """The contents and settings by which its result is kept."""

    @property
    def name(self) -> str:
        """Of its files: another content is another name."""
        return f"{self.place}-{of(self.made_of)[:8]}"

    @property
    def place(self) -> str:
        """Where it stands in the table."""
        return f"{self.method.name}-{self.shots}-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """How a method learns in every cell."""

    method: MethodConfig
    own: bool
    """Is it the recipe's own, which keeps the recipe's training?"""
    looks: bool
    """Does its encoder learn, so that each validation asks it about the pictures themselves?"""


def planned(pool: Pool, part: Part, request: Request, plan: Plan, key: tuple[int, int], draw: Draw) -> Cell:
    """A cell with all that decides its result.

    Args:
        key: shots and seed.
    """
    session, method, (shots, seed) = pool.session, plan.method, key
    train, validation = (pool.chosen(part, ids) for ids in (draw.train, draw.validation))
    training = _limited(_training(session.recipe, plan, shots, request.train), len(train), request.cap, plan.looks)
    changes = {"method": method, "train": training, "seed": seed, "distill": None, "export": [], "tracker": "none"}
    recipe = session.recipe.model_copy(update=changes | {"evals": [measure(session.recipe)]})
    drawn = {name: of(ids) for name, ids in (("train", draw.train), ("validation", draw.validation))}
    made = {
        "version": VERSION,
        "model": model(session, part),
        "method": settings(method),
        "train": settings(training),
        "seed": seed,
        "data": pool.fingerprints,
        "draw": drawn | {"classes": of(part.classes)},
        "precision": session.precision,
        "eval": lineage.measured(recipe.evals[0]),
    }
    return Cell(method, shots, seed, train, validation, recipe, made)


def measure(recipe: Recipe):
    """The eval that measures cells: class logits on the test split, by the recipe's options where it has some, but with no other split."""
    own = next((config for config in recipe.evals if config.name == "zeroshot"), None)
    return own.model_copy(update=own.quick) if own else plug.schema("evals", "zeroshot")(name="zeroshot")


def _training(recipe: Recipe, plan: Plan, shots: int, typed: Sequence[str]) -> Train:
    """The recipe's training for its own method; for others their papers' for so many shots, with the recipe's random views."""
    usual = plan.method.train
    paper = usual | plan.method.few(shots)
    if plan.own:
        said = {name: getattr(recipe.train, name) for name in recipe.train.model_fields_set}
        return Train.model_validate(paper | {name: value for name, value in said.items() if value != usual.get(name)})
    raw = paper | {"augment": recipe.train.augment.model_dump(), "precision": recipe.train.precision}
    return Train.model_validate(override({"train": raw}, list(typed))["train"])


def _limited(train: Train, rows: int, cap: int | None, looks: bool) -> Train:
    """With at most `cap` optimiser steps, of `rows` pictures, and `VALIDATIONS` where each takes long."""
    epoch = 1 if train.batch == "all" else max(1, rows // train.batch)
    steps = train.steps or train.epochs * epoch
    changes: dict[str, Any] = {}
    if cap is not None and steps > cap:
        changes["steps"] = steps = cap
    if train.cache:
        changes["workers"] = 0  # there is nothing to decode
    if looks:
        changes["validate_every"] = max(train.validate_every, math.ceil(steps / epoch / VALIDATIONS))
    return train.model_copy(update=changes)


def opened(pool: Pool, cell: Cell, part: Part, asked: Part) -> Session:
    """The cell as a session of its own; its data are the draw's, its features the pool's.

    Args:
        part: the classes that it learns.
        asked: the classes that its model is told of.
    """
    session = Session(cell.recipe)
    session.run, session.quiet = Run(pool.session.run.path / FOLDER / "work" / cell.name), True
    places = {"train": cell.train} | ({"validation": cell.validation} if cell.validation else {})
    session.data = {split: pool.dataset(part, own) for split, own in places.items()}
    session.fingerprints = {split: of(cell.made_of["data"], cell.made_of["draw"], split) for split in places}
    session.words = words(pool.session, asked)
    session.shared = lambda split, views: pool.shared(session.family, places[split], views, cell.recipe.train.augment)
    return session


def learnt(pool: Pool, cell: Cell, parts: Sequence[Part], reference: Reference | None) -> dict[str, Any]:
    """Let the method learn the first part's classes, and measure it on all parts; what is kept of it."""
    session = opened(pool, cell, parts[0], parts[0])
    session.apply_method()
    began = time.perf_counter()
    finetune.prepare(session)
    with _threads(1 if cell.recipe.train.cache else None):
        if cell.method.trains:
            finetune.fit(session, APART)
        chosen = finetune.search(session).get("chosen", {})
    record: dict[str, Any] = {"method": cell.method.name, "shots": cell.shots, "seed": cell.seed, "made_of": cell.made_of}
    record |= {"seconds": round(time.perf_counter() - began, 2), "pictures": len(cell.train), "chosen": chosen}
    record["validation"] = _validated(pool, cell, parts[0], session.family, reference)
    record |= {"metrics": {}, "right": {}}
    for part in parts:
        if part is not parts[0] and cell.method.only_learnt_classes:
            continue
        family = session.family if part is parts[0] else _told(pool, cell, parts[0], part, session.family)
        logits = pool.logits(family, part, pool.tested(part))
        record["metrics"][part.name], record["right"][part.name] = _measured(pool, cell, part, logits)
    shutil.rmtree(session.run.path, ignore_errors=True)
    return record


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """So many threads of torch within; none: as many as there are. Steps on features are so small that threads wait longer than they work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _validated(pool: Pool, cell: Cell, part: Part, family, reference: Reference | None) -> dict[str, Any] | None:
    """Top-1 on the validation pictures of the model as it comes, if it can be asked, and of what was learnt."""
    if not cell.validation:
        return None
    after = float(hits(pool, part, cell.validation, pool.logits(family, part, cell.validation)).mean())
    before = float(reference.right(part, cell.validation).mean()) if reference else None
    return {"before": before, "after": after, "pictures": len(cell.validation)}


def _told(pool: Pool, cell: Cell, learnt: Part, asked: Part, family):
    """A family that knows the words of other classes, with what was learnt: its parameters are of no class."""
    import torch

    session = opened(pool, cell, learnt, asked)
    session.apply_method()
    known = dict(family.named_parameters())
    with torch.no_grad():
        for name, value in session.family.named_parameters():
            if value.requires_grad:
                value.copy_(known[name])
        state = dict(family.backbone.named_buffers())
        for name, value in session.family.backbone.named_buffers():  # running statistics
            value.copy_(state[name])
    return session.family


def _measured(pool: Pool, cell: Cell, part: Part, logits: np.ndarray) -> tuple[dict[str, float], str]:
    """The eval's metrics on a part's test pictures, and which answers were right, a bit each."""
    rows, config = pool.measured(part), cell.recipe.evals[0]
    result = plug.load("evals", config.name).evaluate(config, lambda *_, **__: logits, rows, {})
    return result.metrics, packed(np.array(result.table["correct"], bool))


class Reference:
    """The model as it comes: which pictures it has right."""

    def __init__(self, pool: Pool):
        self.pool, self.family = pool, pool.session.as_it_comes()
        self.family.requires_grad_(False)
        self._right: dict[tuple[str, str], np.ndarray] = {}

    def right(self, part: Part, places: Sequence[Place]) -> np.ndarray:
        """Of pictures of the part's classes, asked about among them: bool[N]."""
        for split in {split for split, _ in places}:
            if (part.name, split) not in self._right:
                self.family.set_classes(**words(self.pool.session, part))
                every = [(split, int(row)) for row in np.flatnonzero(part.has(self.pool.labels[split]))]
                right = np.zeros(len(self.pool.labels[split]), bool)
                logits = self.pool.logits(self.family, part, every)
                right[[row for _, row in every]] = hits(self.pool, part, every, logits)
                self._right[part.name, split] = right
        return np.array([self._right[part.name, split][row] for split, row in places], bool)


def hits(pool: Pool, part: Part, places: Sequence[Place], logits: np.ndarray) -> np.ndarray:
    """Whose label's logit is above all others: bool[N]."""
    from adapt.evals.metrics import rank

    return rank(logits, pool.labelled(part, places)) < 1


def packed(right: np.ndarray) -> str:
    """bool[N] → hexadecimal digits, a bit each."""
    return np.packbits(right).tobytes().hex()


def unpacked(text: str, count: int) -> np.ndarray:
    """What `packed` made of bool[count]."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8))[:count].astype(bool)
