"""Evaluate: the model as it comes, and adapted, if the run folder has an adapter."""

from __future__ import annotations

from adapt.plug import UserError
from adapt.verbs import canary, card, guards, kept, measuring, scores
from adapt.verbs.guests import guests
from adapt.verbs.session import Session


def evaluate(session: Session) -> None:
    """Measure the model as it comes, and adapted, if the run folder has an adapter."""
    need(session.recipe.evals, "evals", "[{name: zeroshot}]")
    guests(session)
    if not scores.measured(session, "zero-shot") and measuring.offered(session, family := session.as_it_comes()):
        measuring.measure(session, "zero-shot", scores.title(session, "zero-shot"), family)
    if session.recipe.canary:
        canary.measured(session, "zero-shot", session.as_it_comes)
    if kept.finetuned(session):
        judge(session)


def judge(session: Session) -> None:
    """Measure the adapted model, and hold it against the model as it came; what has been done before is left alone."""
    facts = session.run.facts("finetune")
    if not scores.measured(session, "adapted"):
        chosen = facts["selection"].partition(" (")[0]
        notes = [f"its weights are {f'the best by {chosen}' if chosen else 'those of the last step'}."]
        if not session.recipe.method.trains:
            notes = ["nothing of it was trained."]
        if numbers := facts.get("chosen"):
            notes += [f"chosen on validation: {', '.join(f'{name} {value:.3g}' for name, value in numbers.items())}."]
        title = scores.title(session, "adapted")
        measuring.measure(session, "adapted", title, kept.adapted(session), seconds=facts["seconds"], notes=notes)
    card.update(session)
    entry = scores.entry(session, "adapted")
    scores.guard(session, guards.varied("the adapted model's answers vary", entry["collapse"]))
    canary.judge(session)
    before = measuring.kept_validation(session, "zero-shot")
    if before is None:
        return
    after = measuring.kept_validation(session, "adapted") or measuring.validated(session, "adapted", kept.adapted(session))
    guard = guards.loss(
        "adapted is no worse than zero-shot on validation",
        before["value"],
        after["value"],
        0.0,
        after.get("change"),
        after["pictures"],
        before["floor"],
        "Try a lower train.lr, fewer train.epochs, or more data.",
    )
    change = entry.get("change") if entry.get("against") == "zero-shot" else None
    scores.guard(session, guards.contradicted(guard, change, entry["split"]))


def need(section: object, name: str, example: str) -> None:
    """Refuse a recipe without a section that the verb works by.

    Raises:
        UserError: it has none.
    """
    if not section:
        raise UserError(f"{name}: this recipe has no such section. Add, for example, {name}={example}.")
