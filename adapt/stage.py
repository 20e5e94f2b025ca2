"""What the verbs of `pipeline.py` stand on: the recipe's data, model, run folder and processes, built when first asked for."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from adapt import plug
from adapt.exporting import Exports
from adapt.measuring import Numbers
from adapt.plug import UserError
from adapt.recipe import Recipe
from adapt.run import SECTIONS, Run, atomic, fingerprint, hash_path
from adapt.teaching import Students

PATIENCE = timedelta(hours=24)
"""How long processes wait for each other: one of them labels, or measures, for all."""


class Stage(Students, Exports, Numbers):
    """One recipe at work in its run folder."""

    def __init__(self, recipe: Recipe):
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
        self.run = Run.open(recipe, writes=self.accelerator.is_main_process)
        self.accelerator.project_configuration.logging_dir = str(self.run.path)
        self.key = recipe.key(*SECTIONS)
        self.distill_key = recipe.key(*SECTIONS, "distill")
        self.learns = False
        """Is the family, as it is in memory, the adapted one?"""
        set_seed(recipe.seed)

    # ------------------------------------------------------------------------------------------------------------- parts

    @cached_property
    def data(self):
        """The splits, a `DatasetDict`."""
        return plug.load("data", self.recipe.data.source).load(self.recipe.data)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        return {split: fingerprint(rows) for split, rows in self.data.items()}

    @property
    def labels(self) -> list[str]:
        """The names of the data's classes, of the pictures or of the objects on them; empty without any."""
        return class_names(self.data["train"].features)

    @cached_property
    def family(self):
        """The model as it comes, told the classes of the data, on the device: by the method, if that places it itself."""
        family, method = self.loaded(), plug.load("methods", self.recipe.method.name)
        if method.PLACES:
            method.place(family, self.recipe.method, self.accelerator.device)
        return family.to(self.accelerator.device)

    def loaded(self):
        """The model as it comes, told the classes of the data, in full precision on the CPU."""
        from adapt.prompting.templates import words

        family = plug.load("models", self.recipe.model.name).load(self.recipe.model)
        rows = self.data["train"]
        family.bind(rows.column_names)
        names = self.labels
        if names:
            family.set_classes(*words(self.recipe.prompts, names))
        return family

    @cached_property
    def words(self) -> dict[str, list[str]]:
        """The texts that stand for the classes, as the family was told them."""
        return {"classes": list(self.family.classes), "templates": list(self.family.templates)}

    def apply_method(self) -> None:
        """Decide what learns."""
        plug.load("methods", self.recipe.method.name).apply(self.family, self.recipe.method)
        self.family.to(self.accelerator.device)
        self.learns = True

    def finished(self, verb: str, key: str) -> bool:
        """Has `finetune` or `distill` been done, with these settings and these data?

        Raises:
            UserError: the data are no longer those that it was done with.
        """
        if not self.run.done(verb, key):
            return False
        self._unchanged(self.run.facts(verb).get("data", self.fingerprints))
        return True

    def _unchanged(self, before: dict[str, str]) -> None:
        """Refuse data that are not those of these fingerprints."""
        changed = sorted(
            split for split in before.keys() | self.fingerprints if before.get(split) != self.fingerprints.get(split)
        )
        if changed:
            raise UserError(
                f"data: {', '.join(changed)} changed since {self.run.path} was made. Begin another run with name=…, or delete that folder."
            )

    def adapted(self):
        """The family with what the run folder's adapter holds."""
        from adapt.methods import _adapter

        if not self.finished("finetune", self.key):
            raise UserError(f"{self.run.path}: no adapter yet. First: adapt finetune with the same recipe and overrides.")
        if not self.learns:
            self.apply_method()
            _adapter.load(self.family, self.run.path / "adapter")
        return self.family

    def forget(self) -> None:
        """Let go of the family; the next time it is asked for, it is as it comes."""
        self.__dict__.pop("family", None)
        self.learns = False

    # ---------------------------------------------------------------------------------------------------------- training

    def fit(self) -> None:
        """Train what the method lets learn; the best weights on validation stay."""
        from adapt.train.loop import fit
        from adapt.train.views import Views

        self.run.begin(self.recipe)
        self._list_problems()
        if (self.run.path / "checkpoints" / "last.pt").exists():
            self._unchanged(self.run.read_json("checkpoints/data.json", self.fingerprints))
        self.run.write_json("checkpoints/data.json", self.fingerprints)
        views = Views(self.data["train"], self.family.preprocess, self.recipe.seed, extra=self._features())
        validate = self.validate if self.recipe.evals and "validation" in self.data else None
        self._track("finetune")
        self.history = fit(
            self.family, views, self.recipe.train, self.recipe.seed, self.run.path, self.accelerator, validate, title="finetune"
        )

    def _list_problems(self) -> None:
        """What the source found wrong with the data or left out, into the run folder."""
        report = getattr(self.data, "report", None)
        if report is None or not report.problems or not self.run.writes:
            return
        path = report.write(self.run.path / "data_problems.csv")
        self.say(f"data: {len(report.problems)} problems, {len(report.severe)} of them left out; the list is {path}")

    def _features(self):
        """With `train.cache`: a frozen encoder's features of the training rows, computed once."""
        if not self.recipe.train.cache:
            return None
        function = self.family.frozen_features()
        if function is None:
            raise UserError(
                f"train.cache: with method {self.recipe.method.name!r} the encoder of {self.recipe.model.name!r} learns, or this "
                "family has no features to keep. Set train.cache=false."
            )
        cached = self.cache("features", function, self.family, self.data["train"], 1, None)
        # one view serves every epoch; what is random beside it follows the epoch's seeds
        return lambda view, row: cached(0, row)

    def _track(self, name: str) -> None:
        if self.accelerator.log_with:
            self.accelerator.init_trackers(name)

    def save_adapter(self, **facts: Any) -> None:
        """Write what was learned, and from what."""
        from adapt.methods import _adapter

        if self.run.writes:
            with atomic(self.run.path / "adapter") as folder:
                _adapter.save(self.family, folder)
        self.record(
            "finetune",
            self.key,
            base=self._base(),
            data=self.fingerprints,
            adapter=self.hash(self.run.path / "adapter"),
            **facts,
        )

    def record(self, stage: str, key: str, **facts: Any) -> None:
        self.run.record(stage, key, processes=self.accelerator.num_processes, **facts)
        self.accelerator.wait_for_everyone()

    def hash(self, path: Path) -> str | None:
        """Of a file or folder, none when it is missing."""
        return hash_path(path) if path.exists() else None

    def _base(self) -> dict[str, Any]:
        from adapt.models._checkpoint import EMBEDDED

        checkpoint = self.recipe.model.checkpoint
        place = EMBEDDED / checkpoint if (EMBEDDED / checkpoint).is_dir() else Path(checkpoint)
        return {"checkpoint": checkpoint, "hash": hash_path(place) if place.exists() else "hub"}


def _quiet() -> None:
    """Libraries that talk about themselves are asked not to; our own lines are what a user should see."""
    import warnings
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


def class_names(features) -> list[str]:
    """The names of a data set's classes: those of `label`, else of the objects' `category`; empty without either."""
    kind = features.get("label")
    if kind is None and isinstance(features.get("objects"), dict):
        kind = features["objects"].get("category")
        kind = kind[0] if isinstance(kind, list) else getattr(kind, "feature", kind)
    return list(getattr(kind, "names", None) or [])
