"""Finetune: measure the model as it comes, let the method change it, train, measure again."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from copy import deepcopy
from functools import partial
from io import StringIO
from typing import Any

from adapt import plug
from adapt.plug import UserError, counted
from adapt.run import atomic
from adapt.verbs import canary, card, features, kept, lineage, measuring, scores
from adapt.verbs.evaluate import evaluate, judge
from adapt.verbs.guests import guests
from adapt.verbs.session import Session

FEW = 4
"""Validation pictures of each class, at most, by which a method chooses numbers of its own, as few-shot papers do since Tip-Adapter."""


def finetune(session: Session, extend: int = 0) -> None:
    """Adapt the model with the recipe's method; measure it before and after.

    Args:
        extend: of a finished run, epochs by which it is trained further.

    Raises:
        UserError: the method does not fit the family, or there is nothing yet to be trained further.
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
    features.need_still(session, session.recipe.train.cache_views if session.recipe.train.cache else 0)
    _forget(session)
    if session.recipe.canary or (session.recipe.evals and not scores.measured(session, "zero-shot")):
        try_method(session)
    offered = measuring.offered(session, session.family)  # a family without a head yet has no class logits
    if offered:
        if not scores.measured(session, "zero-shot"):
            measuring.measure(session, "zero-shot", scores.title(session, "zero-shot"), session.family)
        if session.selects and offered[0] is session.recipe.evals[0]:
            measuring.validated(session, "zero-shot", session.family)
    if session.recipe.canary:
        canary.measured(session, "zero-shot", session.as_it_comes)
    session.apply_method()
    session.run.begin(session.recipe)
    _list_problems(session)
    began = time.perf_counter()
    prepare(session)
    if session.recipe.method.trains:
        fit(session)
    chosen = search(session)
    _save(session, seconds=round(time.perf_counter() - began, 1), **chosen)
    if session.recipe.evals:
        judge(session)
    else:
        canary.judge(session)


def _forget(session: Session) -> None:
    """Let go of a finished training whose adapter was deleted, to make it again; one that was killed goes on."""
    if session.run.facts("finetune"):
        session.run.forget("checkpoints")
        session.run.strike("finetune")


def try_method(session: Session) -> None:
    """Refuse what the method does not fit before minutes go into measuring; see `tried`."""
    with tried(session):
        pass


@contextmanager
def tried(session: Session) -> Iterator[Any]:
    """A copy of the family, as it comes, that shares its weights, and that the method has changed; afterwards all learns as before.

    Raises:
        UserError: the method does not fit the family.
    """
    family, method = session.family, session.recipe.method
    learns = {parameter: parameter.requires_grad for parameter in family.parameters()}
    trial = deepcopy(family, {id(tensor): tensor for tensor in (*family.parameters(), *family.buffers())})
    try:
        with redirect_stdout(StringIO()):  # what it has to say, it says when it is applied
            plug.load("methods", method.name).apply(trial, method, session.data["train"])
        yield trial
    finally:
        for parameter, learnt in learns.items():
            parameter.requires_grad_(learnt)


def prepare(session: Session) -> None:
    """Let the method look at what the frozen encoder makes of the training pictures, where it wants to."""
    method, rows = session.recipe.method, session.data["train"]
    if not method.prepares:
        return
    if lacking := sorted(set(range(len(session.labels))) - set(rows["label"][:])):
        names = ", ".join(session.labels[label] for label in lacking[:3]) + (", …" if len(lacking) > 3 else "")
        session.say(
            f"finetune: {counted(len(lacking), 'class')} of {len(session.labels)} without a training picture: {names}. What is known of "
            "them is their words."
        )
    plug.load("methods", method.name).prepare(session.family, method, rows, partial(features.table, session, "train"))


def search(session: Session) -> dict[str, Any]:
    """Let the method choose numbers of its own on a few validation pictures of each class, where it wants to; what it chose.

    They are as many as the largest class has training pictures, `FEW` at most, drawn by the recipe's seed; never of the test split.
    """
    import torch

    method = session.recipe.method
    if not method.searches:
        return {}
    if "validation" not in session.data:
        session.say(f"finetune: there is no validation split, so {method.title} keeps the numbers that it started with")
        return {}
    labels = session.data["validation"]["label"][:]
    most = min(FEW, max(Counter(session.data["train"]["label"][:]).values()))
    rows = few(labels, most, session.recipe.seed)
    seen = features.table(session, "validation", rows=rows)[0]
    known = torch.tensor([labels[row] for row in rows], device=seen.device)
    chosen = plug.load("methods", method.name).search(session.family, method, seen, known)
    told = ", ".join(f"{name} {value:.3g}" for name, value in chosen.items())
    session.say(f"finetune: {method.title}: {told}, by {counted(len(rows), 'validation picture')}, {most} of a class at most")
    return {"chosen": chosen}


def few(labels: Sequence[int], most: int, seed: int) -> list[int]:
    """The numbers of at most so many rows of each label, drawn by the seed, rising."""
    import numpy as np

    taken: Counter[int] = Counter()
    rows = []
    for row in np.random.default_rng([seed, most]).permutation(len(labels)).tolist():
        if taken[labels[row]] < most:
            taken[labels[row]] += 1
            rows.append(row)
    return sorted(rows)


def fit(session: Session, apart: float = 0.0) -> None:
    """Train what the method lets learn; the best weights on validation stay.

    Args:
        apart: seconds between the states from which a killed training goes on, at least, at ends of epochs.
    """
    from adapt.train import loop

    run, recipe, family = session.run, session.recipe, session.family
    made = lineage.adapter(session)
    if session.processes.share((run.path / "checkpoints" / "last.pt").exists()):
        kept.refuse(session, "the training", run.read_json("checkpoints/made_of.json", {}), made, "checkpoints")
    run.write_json("checkpoints/made_of.json", made)
    session.track("finetune")
    options = {"title": "finetune", "selection": measuring.selection(session, family), "apart": apart, "later": session.later}
    seen, validate = _views(session), _validation(session)
    loop.fit(family, seen, recipe.train, recipe.seed, run.path, session.accelerator, validate, **options)


def _extend(session: Session, epochs: int) -> None:
    """Train the adapter further, with a schedule of its own; what is no better on validation is not kept.

    The training lies in `extensions/NUMBER/`, and goes on there after a kill.
    """
    from adapt.train import loop

    if not session.recipe.method.trains:
        raise UserError(f"extend: method {session.recipe.method.name!r} with these options has no training. Leave extend out.")
    family, run, recipe = kept.adapted(session), session.run, session.recipe
    if _noted(session) == epochs:
        return
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
    session.track("extend")
    began, seed = time.perf_counter(), recipe.seed + len(done) + 1  # another order of the rows than before
    options = {"title": "extend", "selection": measuring.selection(session, family)}
    seen, validate = _views(session), _validation(session)
    loop.fit(family, seen, train, seed, run.path / place, session.accelerator, validate, **options)
    chosen = search(session)
    after = measuring.validate(session, family) if session.selects else None
    step = {"epochs": epochs, "from": facts["adapter"], "before": before, "after": after}
    if after is not None and after <= before:
        session.say(f"extend: no better on validation: {before:.1%} before, {after:.1%} after. The adapter is left as it was.")
        run.forget(place)
        session.forget()
        return
    learnt = {"seconds": round(facts["seconds"] + time.perf_counter() - began, 1), "extended": [*done, step]} | chosen
    run.write_json(f"{place}/learnt.json", learnt)
    _save(session, **learnt)


def _noted(session: Session) -> int:
    """Note an extension whose adapter was written when a kill came, and that nothing tells of; its epochs, 0: there is none."""
    facts = session.run.facts("finetune")
    learnt = session.run.read_json(f"extensions/{len(facts.get('extended', [])) + 1}/learnt.json")
    if learnt is None or session.hash("adapter") == facts["adapter"]:
        return 0
    _record(session, **learnt)
    return learnt["extended"][-1]["epochs"]


def _list_problems(session: Session) -> None:
    """What the source found wrong with the data or left out, into the run folder."""
    report = session.data.report
    if not report.problems or not session.run.writes:
        return
    path = report.write(session.run.path / "data_problems.csv")
    session.say(f"data: {report.summary()}{'; these are left out' if report.severe else ''}. The list: {path}")


def _views(session: Session):
    """The training rows; with `train.cache`, with a frozen encoder's features in the place of their pictures."""
    from adapt.train.views import Views

    train, rows, preprocess = session.recipe.train, session.data["train"], session.family.preprocess
    if not train.cache:
        return Views(rows, preprocess, session.recipe.seed)
    cached = features.cached(session, "train", train.cache_views)

    def extra(view: int, row: int) -> dict[str, Any]:
        # the same views serve again; what is random beside them follows the epoch's seeds
        return cached(view % max(1, train.cache_views), row)

    def unseen(sample: dict[str, Any], training: bool) -> dict[str, Any]:
        return {name: value for name, value in preprocess(sample, training).items() if name != "image"}

    return Views(rows, unseen, session.recipe.seed, extra=extra)


def _validation(session: Session):
    """The score by which weights are chosen; of features, where the encoder is frozen and the eval asks for class logits."""
    if not session.selects:
        return None
    if session.family.frozen_features() is None or not measuring.by_logits(session, session.family):
        return partial(measuring.validate, session)
    return partial(measuring.validate, session, features=features.table(session, "validation")[0])


def _save(session: Session, **facts: Any) -> None:
    """Write what was learned, and from what."""
    from adapt.methods import adapter

    if session.run.writes:
        with atomic(session.run.path / "adapter") as folder:
            adapter.save(session.family, folder)
            (folder / card.FILE).write_text(card.text(session), encoding="utf-8")
    _record(session, **facts)


def _record(session: Session, **facts: Any) -> None:
    """Note what the adapter that lies in the run folder was made of."""
    if scores.metrics(session).get("sweep"):
        scores.save(session, sweep=None)  # it was of other weights
    made = {"made_of": lineage.adapter(session), "selection": measuring.selection(session, session.family)}
    session.record("finetune", base=session.base, adapter=session.hash("adapter"), **made, **facts)
