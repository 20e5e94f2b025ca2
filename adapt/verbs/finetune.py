"""Finetune: measure the model as it comes, let the method change it, train, measure again."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from adapt.plug import UserError
from adapt.run import atomic
from adapt.verbs import canary, card, kept, lineage, measuring, scores
from adapt.verbs.evaluate import evaluate, judge
from adapt.verbs.guests import guests
from adapt.verbs.session import Session


def finetune(session: Session, extend: int = 0) -> None:
    """Adapt the model with the recipe's method; measure it before and after.

    Args:
        extend: of a finished run, epochs by which it is trained further.

    Raises:
        UserError: there is nothing yet to be trained further.
    """
    guests(session)
    if extend:
        _extend(session, extend)
    if kept.finetuned(session):
        if not extend:
            session.say(f"finetune: finished before, in {session.run.path}")
        if session.recipe.evals:
            evaluate(session)
        return
    offered = measuring.offered(session, session.family)  # a family without a head yet has no class logits
    if offered:
        if not scores.measured(session, "zero-shot"):
            measuring.measure(session, "zero-shot", scores.title(session, "zero-shot"), session.family)
        if session.selects and offered[0] is session.recipe.evals[0]:
            measuring.validated(session, "zero-shot", session.family)
    if session.recipe.canary:
        canary.measured(session, "zero-shot", session.as_it_comes)
    session.apply_method()
    began = time.perf_counter()
    fit(session)
    _save(session, seconds=round(time.perf_counter() - began, 1))
    if session.recipe.evals:
        judge(session)
    else:
        canary.judge(session)


def fit(session: Session) -> None:
    """Train what the method lets learn; the best weights on validation stay."""
    from adapt.train import loop
    from adapt.train.views import Views

    run, recipe, family = session.run, session.recipe, session.family
    run.begin(recipe)
    _list_problems(session)
    made = lineage.adapter(session)
    if session.processes.share((run.path / "checkpoints" / "last.pt").exists()):
        kept.refuse(session, "the training", run.read_json("checkpoints/made_of.json", {}), made, "checkpoints")
    run.write_json("checkpoints/made_of.json", made)
    views = Views(session.data["train"], family.preprocess, recipe.seed, extra=_features(session))
    validate = partial(measuring.validate, session) if session.selects else None
    session.track("finetune")
    options = {"title": "finetune", "selection": measuring.selection(session, family)}
    loop.fit(family, views, recipe.train, recipe.seed, run.path, session.accelerator, validate, **options)


def _extend(session: Session, epochs: int) -> None:
    """Train the adapter further, with a schedule of its own; what is no better on validation is not kept.

    The training lies in `extensions/NUMBER/`, and goes on there after a kill.
    """
    from adapt.train import loop
    from adapt.train.views import Views

    family, run, recipe = kept.adapted(session), session.run, session.recipe
    facts = run.facts("finetune")
    done = facts.get("extended", [])
    place = f"extensions/{len(done) + 1}"
    before = measuring.validate(session, family) if session.selects else None
    made = lineage.adapter(session) | {"adapter": facts["adapter"], "epochs": epochs}
    if run.read_json(f"{place}/made_of.json") != made:
        run.forget(place)
        run.write_json(f"{place}/made_of.json", made)
    session.accelerator.wait_for_everyone()
    train = recipe.train.model_copy(update={"epochs": epochs, "steps": None})
    views = Views(session.data["train"], family.preprocess, recipe.seed, extra=_features(session))
    validate = partial(measuring.validate, session) if session.selects else None
    session.track("extend")
    began, seed = time.perf_counter(), recipe.seed + len(done) + 1  # another order of the rows than before
    options = {"title": "extend", "selection": measuring.selection(session, family)}
    loop.fit(family, views, train, seed, run.path / place, session.accelerator, validate, **options)
    after = measuring.validate(session, family) if session.selects else None
    step = {"epochs": epochs, "from": facts["adapter"], "before": before, "after": after}
    if after is not None and after <= before:
        session.say(f"extend: no better on validation: {before:.1%} before, {after:.1%} after. The adapter is left as it was.")
        run.forget(place)
        session.forget()
        return
    _save(session, seconds=round(facts["seconds"] + time.perf_counter() - began, 1), extended=[*done, step])


def _list_problems(session: Session) -> None:
    """What the source found wrong with the data or left out, into the run folder."""
    report = session.data.report
    if not report.problems or not session.run.writes:
        return
    path = report.write(session.run.path / "data_problems.csv")
    session.say(f"data: {report.summary()}{'; these are left out' if report.severe else ''}. The list: {path}")


def _features(session: Session):
    """With `train.cache`: a frozen encoder's features of the training rows, computed once."""
    if not session.recipe.train.cache:
        return None
    function = session.family.frozen_features()
    if function is None:
        raise UserError(
            f"train.cache: with method {session.recipe.method.name!r} the encoder of {session.recipe.model.name!r} learns, or this "
            "family has no features to keep. Set train.cache=false."
        )
    rows = session.data["train"]
    cached = kept.outputs(session, "features", lineage.features(session), function, session.family, rows)
    # one view serves every epoch; what is random beside it follows the epoch's seeds
    return lambda view, row: cached(0, row)


def _save(session: Session, **facts: Any) -> None:
    """Write what was learned, and from what."""
    from adapt.methods import adapter

    if session.run.writes:
        with atomic(session.run.path / "adapter") as folder:
            adapter.save(session.family, folder)
            (folder / card.FILE).write_text(card.text(session), encoding="utf-8")
    if scores.metrics(session).get("sweep"):
        scores.save(session, sweep=None)  # it was of other weights
    made = {"made_of": lineage.adapter(session), "selection": measuring.selection(session, session.family)}
    session.record("finetune", base=session.base, adapter=session.hash("adapter"), **made, **facts)
