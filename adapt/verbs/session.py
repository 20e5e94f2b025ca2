"""What the verbs stand on: the recipe's data, model, run folder and processes, built when first asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from adapt import plug
from adapt.plug import UserError
from adapt.provenance import hash_path
from adapt.recipe import Recipe
from adapt.run import Run, recover
from adapt.verbs.processes import Processes
from adapt.vision.classes import class_names
from adapt.vision.fingerprint import fingerprint

if TYPE_CHECKING:
    from datasets import DatasetDict
    from torch import Tensor

    from adapt.contracts import SourceConfig

PATIENCE = timedelta(hours=24)
"""How long processes wait for each other: one of them labels, or measures, for all."""


class Session:
    """One recipe at work: its run folder, processes, data and model, handed from verb to verb."""

    def __init__(self, recipe: Recipe):
        warnings.filterwarnings(
            "ignore", message="IProgress not found"
        )  # of tqdm, as it is imported; our bars need no ipywidgets

        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.tracking import get_available_trackers
        from accelerate.utils import InitProcessGroupKwargs, set_seed

        from adapt import hardware

        _quiet()
        precision = "bf16" if hardware.precision(recipe.train.precision) == "bf16" else "no"
        tracker = None if recipe.tracker == "none" else recipe.tracker
        if tracker and tracker not in {kind.value for kind in get_available_trackers()}:
            raise UserError(
                f"tracker: {tracker!r} is not installed. pip install {tracker}, or set tracker=tensorboard or none."
            )
        if AcceleratorState._shared_state.get("_mixed_precision", precision) != precision:
            AcceleratorState._reset_state()  # another recipe's, in this process
        self.recipe = recipe
        self.accelerator = Accelerator(
            cpu=hardware.device() == "cpu",
            mixed_precision=precision,
            log_with=tracker,
            project_dir="runs",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        )
        self.processes = Processes(self.accelerator)
        self.run = Run.open(recipe, writes=self.processes.main, share=self.processes.share)
        self.accelerator.project_configuration.logging_dir = str(self.run.path)
        self.told: set[str] = set()
        """What has been said once, and need not be said again."""
        self.learns = False
        """Is the family, as it is in memory, the adapted one?"""
        self.guests: list = []
        """The sets of the canary, once somebody has asked for them; see `guests.guests`."""
        self.shared: Callable[[str, int], Callable[[int, int], dict[str, Tensor]]] | None = None
        """Features of a split's rows, kept for several sessions: (split, views) → what `features.cached` gives; none: its own."""
        self.later: dict[str, float] = {}
        """Of a road: what comes after finetune → about how many seconds it takes, as far as that is known before."""
        self.quiet = False
        """Is it a part of something larger, which speaks for it?"""
        set_seed(recipe.seed)

    # ------------------------------------------------------------------------------------------------------------- parts

    @cached_property
    def data(self):
        """The splits, a `DatasetDict`, with train.

        Raises:
            UserError: they cannot be read, or there is no train.
        """
        config = self.recipe.data
        with self.processes.in_turn():
            splits = splits_of(config)
        if "train" not in splits:
            more = " data.train=true reads train, where the set has it." if "train" in type(config).model_fields else ""
            raise UserError(
                f"data.source: {config.source!r} gives {', '.join(splits)} and no train, which a recipe learns from.{more} For numbers "
                "alone, name the data in a suite: adapt evaluate suite=FILE.yaml."
            )
        return splits

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        data = self.data
        with self.processes.in_turn():
            return {split: fingerprint(rows) for split, rows in data.items()}

    @property
    def labels(self) -> list[str]:
        """The names of the data's classes, of the pictures or of the objects on them; empty without any."""
        return class_names(self.data["train"].features)

    @cached_property
    def family(self):
        """The model as it comes, told the classes of the data, on the device: by the method, if that places it itself."""
        family, method = self.loaded(), self.recipe.method
        if method.places:
            plug.load("methods", method.name).place(family, method, self.accelerator.device)
        return family.to(self.accelerator.device)

    def loaded(self):
        """The model as it comes, told the classes of the data, in full precision on the CPU."""
        family = plug.load("models", self.recipe.model.name).load(self.recipe.model)
        rows = self.data["train"]
        family.bind(rows.column_names)
        if self.labels:
            family.set_classes(**self.words)
        return family

    @cached_property
    def words(self) -> dict[str, Any]:
        """What the family is told of the classes, the arguments of its `set_classes`; who uses no words is told the labels' own names."""
        from adapt.prompting.text import words

        if not (self.labels and self.recipe.uses_words):
            return {"classes": self.labels, "templates": []}
        found = words(self.recipe.prompts, self.labels)
        for note in found.notes:
            self.say(note)
        return found.told

    def apply_method(self) -> None:
        """Decide what learns; its first weights are a function of the seed, whatever has been measured before."""
        from accelerate.utils import set_seed

        set_seed(self.recipe.seed)
        plug.load("methods", self.recipe.method.name).apply(self.family, self.recipe.method, self.data["train"])
        self.family.to(self.accelerator.device)
        self.learns = True

    def as_it_comes(self):
        """The family before any adaptation: loaded again, if the one in memory has learnt."""
        if self.learns:
            self.forget()
        return self.family.to(self.accelerator.device)

    def rest(self) -> None:
        """Put the family on the CPU, where it waits for the next verb: a student trains without it on the device."""
        if "family" in self.__dict__:
            self.family.cpu()

    def forget(self) -> None:
        """Let go of the family; the next time it is asked for, it is as it comes."""
        self.__dict__.pop("family", None)
        self.learns = False

    # ------------------------------------------------------------------------------------------------------------- the run

    @property
    def called(self) -> str:
        """The student's name: of its folders `student/NAME`, `distill/NAME` and `export/NAME`, and of its entries."""
        return self.recipe.distill.called

    def student_entry(self, role: str = "student") -> str:
        """The name of the student's entry, or of the one of its teacher's `labels`."""
        return f"{role} {self.called}"

    def file_entry(self, config, precision: str) -> str:
        """The name of the entry of an exported file."""
        return f"{config.name} {precision} {self.called}"

    def say(self, text: str) -> None:
        """A line for the user, once, whatever the number of processes."""
        if not self.quiet:
            self.accelerator.print(text)

    def track(self, name: str) -> None:
        """Begin curves of this name, where the recipe has a tracker."""
        if self.accelerator.log_with:
            self.accelerator.init_trackers(name)

    def record(self, verb: str, **facts: Any) -> None:
        """Note in the manifest that a verb has done its work, with what it came from."""
        self.run.record(verb, processes=self.accelerator.num_processes, **facts)
        self.accelerator.wait_for_everyone()

    @cached_property
    def base(self) -> dict[str, str]:
        """The checkpoint that all comes from: its name, and its `hash` or its `commit` on the hub."""
        from adapt.models.checkpoint import origin

        found = origin(self.recipe.model.checkpoint)
        if not any(found[name] for name in ("hash", "commit") if name in found):
            _ = self.family  # its commit is known when it is there
            found = origin(self.recipe.model.checkpoint)
        return found

    @property
    def selects(self) -> bool:
        """Are the best weights of a training chosen, by an eval on the validation split?"""
        return bool(self.recipe.evals) and "validation" in self.data

    @property
    def precision(self) -> str:
        """Of the networks: fp32, or bf16 under autocast."""
        return {"no": "fp32"}.get(self.accelerator.mixed_precision, self.accelerator.mixed_precision)

    def hash(self, name: str) -> str | None:
        """Of a file or folder of the run, none when it is missing; the main process's, on all."""
        path = self.run.path / name
        if self.run.writes:
            recover(path)
        return self.processes.share(hash_path(path, without=".md") if self.run.writes and path.exists() else None)


def splits_of(config: SourceConfig) -> DatasetDict:
    """What a source has, its pictures decoded as `draft` says.

    Raises:
        UserError: it cannot be read, or has boxes or masks, which `draft` would move.
    """
    from adapt.vision.pictures import drafted

    splits = plug.load("data", config.source).load(config)
    for split, rows in splits.items() if config.draft else ():
        splits[split] = drafted(rows, config.draft)
    return splits


def _quiet() -> None:
    """Libraries that talk about themselves are asked not to; our own lines are what a user should see."""
    from logging import ERROR, getLogger

    import datasets
    from transformers.utils import logging

    getLogger("bitsandbytes").setLevel(ERROR)  # before peft imports it: it tells of kernels that it has not found
    getLogger("huggingface_hub.utils._http").addFilter(_no_attempt)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    warnings.filterwarnings("ignore", message="Detected pickle protocol")


def _no_attempt(record) -> bool:
    """Not each failed attempt to reach the hub: what comes of them is told at the end. That it asks us to wait is told."""
    text = record.getMessage()
    return "thrown while requesting" not in text and not text.startswith("Retrying in")
