"""What a run folder keeps: is it still of what the recipe means? Then it is used again; else it is made again, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.plug import UserError
from adapt.provenance import changed, of
from adapt.run import atomic
from adapt.verbs import lineage

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapt.contracts import Packing
    from adapt.verbs.session import Session

BATCH = 256
"""Small pictures that a predictor gets at once."""
ON_GPU = 16
"""Times as many on a GPU: more do not make it faster, and where the memory has no room for them, there are fewer."""
INSTEAD = {
    "teacher": "Make room, lower distill.views, or set distill.cache=false, which asks the teacher in the loop.",
    "features": "Make room, or set train.cache=false, which computes them in the loop.",
}
"""What is left to a user whose disk is too small for outputs."""


def finetuned(session: Session) -> bool:
    """Has the model been adapted, of just this? Not where its folder was deleted, to make it again.

    Raises:
        UserError: the adapter was made of other contents: training again must be the user's own wish.
    """
    facts = session.run.facts("finetune")
    if not facts or session.hash("adapter") is None:
        return False
    refuse(session, "the adapter", facts["made_of"], lineage.adapter(session), "adapter")
    return True


def taught(session: Session) -> bool:
    """Has this student been taught, of just this?

    Raises:
        UserError: it was made of other contents, or with other options: training again must be the user's own wish.
    """
    facts = session.run.facts(f"distill {session.called}")
    if not facts or session.hash(f"student/{session.called}") is None:
        return False
    before, now = facts["made_of"], lineage.student(session)
    now["start"] = now["start"] or before["start"]  # out of reach by now, it is no other
    if options := [name.partition(".")[2] for name in changed(before, now) if name.startswith("options")]:
        raise UserError(
            f"distill: {session.run.path / 'student' / session.called} was taught with other options: {', '.join(options)} changed; nothing "
            "was touched. Name another student with distill.as=…, or delete that folder to make it again."
        )
    refuse(session, "the student", before, now, f"student/{session.called}")
    return True


def refuse(session: Session, what: str, before: dict[str, Any], now: dict[str, Any], folder: str) -> None:
    """Refuse to go on with something that cost a training and is of other contents than the recipe now means.

    Raises:
        UserError: with what has changed.
    """
    # data that choose nothing by now were read all the same
    read = {split: session.fingerprints.get(split) for split in before.get("data", {})}
    if names := changed(before, now | {"data": read}):
        raise UserError(
            f"{', '.join(names)} changed since {what} in {session.run.path} was made; nothing was touched. Put back what changed, or "
            f"begin another run with name=…, or delete {session.run.path / folder} to make it again."
        )


def adapted(session: Session):
    """The family with what the run folder's adapter holds.

    Raises:
        UserError: there is no adapter yet.
    """
    from adapt.methods import adapter

    if not finetuned(session):
        raise UserError(f"{session.run.path}: no adapter yet. First: adapt finetune with the same recipe and overrides.")
    if not session.learns:
        session.apply_method()
        adapter.load(session.family, session.processes.fetched(session.run.path / "adapter"))
    return session.family.to(session.accelerator.device)


def student(session: Session):
    """The student that `distill` left, from its folder alone."""
    from adapt.students import open_student

    if not taught(session):
        raise UserError(
            f"{session.run.path}: no student {session.called!r} yet. First: adapt distill with the same recipe and overrides."
        )
    return open_student(session.processes.fetched(session.run.path / "student" / session.called)).to(session.accelerator.device)


def teacher(session: Session):
    """Who teaches; where people's labels do, the model as it comes: the student takes over its input and its classes."""
    return adapted(session) if session.recipe.distill.teacher == "adapted" else session.as_it_comes()


def outputs(
    session: Session,
    name: str,
    made: dict,
    function: Callable,
    module,
    rows,
    views: int = 1,
    augmentation=None,
    packing: Packing | None = None,
    half: bool = False,
    called: str = "",
):
    """A predictor's outputs for the views of rows, computed once; what a batch then brings under `name`.

    Args:
        made: what the outputs are made of; others are computed anew.
        packing, half: see `Lesson`.
        called: what begins the folder's name, where there are several of one name.
    """
    from adapt.distill import cache
    from adapt.train.views import Views

    module.eval()
    views = Views(rows, lambda sample, _: module.preprocess(sample, False), session.recipe.seed, views, keep=0)
    height, width = module.input["size"]
    gpu = session.accelerator.device.type != "cpu"
    if half and packing is None and gpu and session.precision == "bf16":
        packing = cache.HALF
    batch = max(1, min(BATCH, BATCH * 64 * 64 // (height * width)))  # large pictures have large outputs too
    batch *= ON_GPU if gpu else 1
    made = made | {"layout": cache.VERSION} | ({"packing": dict(packing.made_of)} if packing else {})
    folder = place(session, called or name, made)
    share = session.processes.place
    return cache.build(
        folder, function, views, augmentation, batch, session.accelerator, name, share, packing, INSTEAD.get(name, "")
    )


def place(session: Session, name: str, made: dict) -> Path:
    """Where something computed once lies: named after all that it is made of; a line says why it is computed again."""
    folder = session.run.path / "cache" / f"{name}-{of(made)}"
    others = sorted(folder.parent.glob(f"{name}-*.json"), key=lambda path: path.stat().st_mtime)
    record = folder.with_name(f"{folder.name}.json")
    if session.processes.keeps and not record.exists():
        if others:
            print(f"{name}: computed again: {', '.join(changed(json.loads(others[-1].read_text()), made))} changed")
        with atomic(record) as temporary:
            temporary.write_text(json.dumps(made))
    return folder
