"""Sets at work beside a session's model, of a canary or of a suite: other data with words of their own.

A `Guest` has of its data what a `Session` has of the recipe's, so that `measuring.evaluated` takes either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from functools import cached_property
from typing import TYPE_CHECKING, Any

from adapt.contracts import EvalConfig, SourceConfig
from adapt.plug import UserError
from adapt.recipe import EvalSet, Prompts, Recipe

if TYPE_CHECKING:
    from adapt.verbs.session import Session


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
                problems.append(placed(f"canary.{number}", error))
    if problems:
        raise UserError("\n".join(problems))


def placed(place: str, error: UserError) -> str:
    """A message of a section `data`, `prompts` or `evals`, with the set's place before it; as it is, where it has none."""
    text = str(error)
    if not place:
        return text
    return f"{place}.{text}" if text.startswith(("data", "prompts", "evals")) else f"{place}: {text}"


class Guest:
    """A set at work beside the session's model: `data`, `words` and `fingerprints`, as a `Session` has them of the recipe's own.

    Args:
        place: what stands before its errors, such as `canary.0`; empty: who asks says so.
        called: its name.
        source: of its data; none: the recipe's own data.
        evals: what is asked of it.
        prompts: the names of its classes → its words.
        chooses: is something chosen by its validation split, too?
    """

    def __init__(
        self,
        session: Session,
        place: str,
        called: str,
        source: SourceConfig | None,
        evals: Sequence[EvalConfig],
        prompts: Callable[[list[str]], Prompts],
        chooses: bool = False,
    ):
        self.session, self.place, self.called = session, place, called
        self.source, self.evals, self.prompts, self.chooses = source, evals, prompts, chooses

    def beside(self, session: Session) -> Guest:
        """The same set, read once, beside another session's model."""
        other = copy(self)
        other.session = session
        if other.session.recipe.model.uses_words != self.session.recipe.model.uses_words:
            other.__dict__.pop("words", None)
        return other

    @property
    def accelerator(self):
        """The session's: models that an eval needs beside the measured one are on its device."""
        return self.session.accelerator

    @cached_property
    def data(self):
        """The splits."""
        if self.source is None:
            return self.session.data
        from adapt.verbs.session import splits_of

        try:
            with self.session.processes.in_turn():
                return splits_of(self.source)
        except UserError as error:
            raise UserError(placed(self.place, error)) from None

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        from adapt.vision.fingerprint import fingerprint

        data, splits = self.data, {split for config in self.evals for split in self.read(config)}
        with self.session.processes.in_turn():
            return {split: fingerprint(data[split]) for split in sorted(splits)}

    @cached_property
    def labels(self) -> list[str]:
        from adapt.vision.classes import class_names

        there = [
            split for split in (*(config.split for config in self.evals), "test", "validation", "train") if split in self.data
        ]
        return class_names(self.data[there[0]].features)

    @cached_property
    def words(self) -> dict[str, Any]:
        """What the family is told of its classes, the arguments of `set_classes`; who uses no words is told the labels' own names."""
        from adapt.prompting.text import words

        asked = [self.session.recipe.model, *self.evals]
        if not (self.labels and any(section.uses_words for section in asked)):
            return {"classes": self.labels, "templates": []}
        try:
            found = words(self.prompts(self.labels), self.labels)
        except UserError as error:
            raise UserError(placed(self.place, error)) from None
        for note in found.notes:
            self.session.say(f"{self.called}: {note}")
        return found.told

    @property
    def precision(self) -> str:
        """Of the networks, as the session has it."""
        return self.session.precision

    def chosen_by(self, config) -> str:
        """The split by which something is chosen, so that its eval's own split can be reported; that one itself, where no other is."""
        return "validation" if "validation" in self.data else config.split

    def read(self, config) -> list[str]:
        """The splits that an eval of it reads, where they are there."""
        wanted = [config.split, *(["validation"] if self.chooses else []), *([config.bank] if config.bank else [])]
        return [split for split in wanted if split in self.data]

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
        session.guests, problems = [_of_canary(session, i, config) for i, config in enumerate(session.recipe.canary)], []
        for guest in session.guests:
            try:
                _ = guest.words  # reads its data
            except UserError as error:
                problems.append(str(error))
        if problems:
            raise UserError("\n".join(problems))
    return session.guests


def _of_canary(session: Session, number: int, config: EvalSet) -> Guest:
    return Guest(session, f"canary.{number}", config.called, config.data, config.evals, lambda _: config.prompts, chooses=True)
