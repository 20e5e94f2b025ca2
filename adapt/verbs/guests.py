"""Sets of a canary at work: other data with words of their own, asked of the session's model.

A `Guest` has of its data what a `Session` has of the recipe's, so that `measuring.evaluated` takes either.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from adapt import plug
from adapt.plug import UserError
from adapt.recipe import EvalSet, Recipe

if TYPE_CHECKING:
    from adapt.verbs.session import Session

CLASSES = ("class_logits", "semantic_logits")
"""Predictors whose answers are the data's own classes."""


def check(recipe: Recipe) -> None:
    """Look for the files that the canary names, and at its words, before anything heavy is imported.

    Raises:
        UserError: every problem, one a line.
    """
    from adapt.prompting import text

    problems = []
    for number, config in enumerate(recipe.canary):
        for look in (config.data.check_paths, lambda config=config: text.check(config.prompts)):
            try:
                look()
            except UserError as error:
                problems.append(placed(number, error))
    if problems:
        raise UserError("\n".join(problems))


def placed(number: int, error: UserError) -> str:
    """A message of a section `data` or `prompts`, with the set's place before it."""
    text = str(error)
    return f"canary.{number}.{text}" if text.startswith(("data", "prompts", "evals")) else f"canary.{number}: {text}"


class Guest:
    """A set at work beside the session's model: `data`, `words` and `fingerprints`, as a `Session` has them of the recipe's own."""

    def __init__(self, session: Session, number: int, config: EvalSet):
        self.session, self.number, self.config, self.called = session, number, config, config.called

    @property
    def accelerator(self):
        """The session's: models that an eval needs beside the measured one are on its device."""
        return self.session.accelerator

    @cached_property
    def data(self):
        """The splits."""
        try:
            return plug.load("data", self.config.data.source).load(self.config.data)
        except UserError as error:
            raise UserError(placed(self.number, error)) from None

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        from adapt.vision.fingerprint import fingerprint

        splits = {split for config in self.config.evals for split in self.read(config)}
        return {split: fingerprint(self.data[split]) for split in sorted(splits)}

    @cached_property
    def labels(self) -> list[str]:
        from adapt.vision.classes import class_names

        return class_names(
            next((self.data[split] for split in ("test", "validation") if split in self.data), self.data["train"]).features
        )

    @cached_property
    def words(self) -> dict[str, Any]:
        """What the family is told of its classes, the arguments of `set_classes`; who uses no words is told the labels' own names."""
        from adapt.prompting.text import words

        asked = [self.session.recipe.model, *self.config.evals]
        if not (self.labels and any(section.uses_words for section in asked)):
            return {"classes": self.labels, "templates": []}
        try:
            found = words(self.config.prompts, self.labels)
        except UserError as error:
            raise UserError(placed(self.number, error)) from None
        for note in found.notes:
            self.session.say(f"{self.called}: {note}")
        return found.told

    def chosen_by(self, config) -> str:
        """The split by which something is chosen, so that its eval's own split can be reported; that one itself, where no other is."""
        return "validation" if "validation" in self.data else config.split

    def read(self, config) -> list[str]:
        """The splits that an eval of it reads, where they are there."""
        wanted = [config.split, "validation", *([config.bank] if config.bank else [])]
        return [split for split in wanted if split in self.data]

    def can(self, family, config) -> bool:
        """Does the family answer about these classes?

        Raises:
            UserError: it does not offer what the eval asks for, or the data have no classes to ask about.
        """
        if not config.higher_is_better:
            raise UserError(
                f"canary.{self.number}.evals: {config.name} is better when {config.main} is lower, so no share of it can be kept."
            )
        have = family.predictors(None)
        if config.predictor not in have or (config.asks_texts and not family.knows_texts):
            raise UserError(
                f"canary.{self.number}.evals: {config.name} asks for {config.predictor}, which this model does not offer. "
                f"Have: {', '.join(have)}."
            )
        if config.predictor not in CLASSES:
            return True
        if not self.labels:
            raise UserError(f"canary.{self.number}.data: these data have no classes, which {config.name} asks about.")
        return self.labels == self.session.labels or not family.own_classes_alone

    @contextmanager
    def asked(self, family) -> Iterator[None]:
        """The family asked about the set's classes, and then about its own again."""
        if not self.labels:
            yield
            return
        before = {"classes": list(family.classes), "templates": list(family.templates)}
        if family.combine != "mean" or [list(each) for each in family.texts] != [[name] for name in family.classes]:
            before |= {"texts": [list(each) for each in family.texts], "combine": family.combine}
        family.set_classes(**self.words)
        try:
            yield
        finally:
            family.set_classes(**before)


def guests(session: Session) -> list[Guest]:
    """The sets of the recipe's canary, checked.

    Raises:
        UserError: see `check`.
    """
    if not session.guests:
        check(session.recipe)
        session.guests, problems = [Guest(session, i, config) for i, config in enumerate(session.recipe.canary)], []
        for guest in session.guests:
            try:
                _ = guest.words  # reads its data
            except UserError as error:
                problems.append(str(error))
        if problems:
            raise UserError("\n".join(problems))
    return session.guests
