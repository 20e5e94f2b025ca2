"""What the verbs of `pipeline.py` stand on: the recipe's data, model, run folder and processes, built when first asked for."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import Any

from adapt import plug
from adapt.plug import UserError
from adapt.processes import Processes
from adapt.provenance import changed, class_names, fingerprint, hash_path
from adapt.recipe import Recipe
from adapt.run import Run, atomic
from adapt.verbs import lineage
from adapt.verbs.exporting import Exports
from adapt.verbs.measuring import Numbers
from adapt.verbs.teaching import Students

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
        self.processes = Processes(self.accelerator)
        self.run = Run.open(recipe, writes=self.processes.main, share=self.processes.share)
        self.accelerator.project_configuration.logging_dir = str(self.run.path)
        self._told: set[str] = set()
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
        family = plug.load("models", self.recipe.model.name).load(self.recipe.model)
        rows = self.data["train"]
        family.bind(rows.column_names)
        if self.labels:
            family.set_classes(**self.words)
        return family

    @cached_property
    def words(self) -> dict[str, list[str]]:
        """The texts that stand for the classes, `classes` and `templates`; who uses none is told the labels' own names."""
        from adapt.prompting.templates import words

        distill = self.recipe.distill
        asked = plug.load("models", self.recipe.model.name).USES_WORDS
        asked |= bool(distill) and distill.uses_words
        classes, templates = words(self.recipe.prompts, self.labels) if self.labels and asked else (self.labels, [])
        return {"classes": classes, "templates": templates}

    def apply_method(self) -> None:
        """Decide what learns; its first weights are a function of the seed, whatever has been measured before."""
        from accelerate.utils import set_seed

        set_seed(self.recipe.seed)
        plug.load("methods", self.recipe.method.name).apply(self.family, self.recipe.method)
        self.family.to(self.accelerator.device)
        self.learns = True

    def adapted(self):
        """The family with what the run folder's adapter holds."""
        from adapt.methods import adapter

        if not self.finished("finetune"):
            raise UserError(f"{self.run.path}: no adapter yet. First: adapt finetune with the same recipe and overrides.")
        if not self.learns:
            self.apply_method()
            adapter.load(self.family, self.processes.fetched(self.run.path / "adapter"))
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
        made = lineage.adapter(self)
        if self.processes.share((self.run.path / "checkpoints" / "last.pt").exists()):
            self._refuse("the training", self.run.read_json("checkpoints/made_of.json", {}), made, "checkpoints")
        self.run.write_json("checkpoints/made_of.json", made)
        views = Views(self.data["train"], self.family.preprocess, self.recipe.seed, extra=self._features())
        validate = self.validate if self.selects else None
        self._track("finetune")
        options = {"title": "finetune", "selection": self.selection(self.family)}
        self.history = fit(
            self.family, views, self.recipe.train, self.recipe.seed, self.run.path, self.accelerator, validate, **options
        )

    def _list_problems(self) -> None:
        """What the source found wrong with the data or left out, into the run folder."""
        report = self.data.report
        if not report.problems or not self.run.writes:
            return
        path = report.write(self.run.path / "data_problems.csv")
        self.say(f"data: {report.summary()}; severe ones are left out. The list: {path}")

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
        cached = self.cache("features", lineage.features(self), function, self.family, self.data["train"], 1, None)
        # one view serves every epoch; what is random beside it follows the epoch's seeds
        return lambda view, row: cached(0, row)

    def _track(self, name: str) -> None:
        if self.accelerator.log_with:
            self.accelerator.init_trackers(name)

    def save_adapter(self, **facts: Any) -> None:
        """Write what was learned, and from what."""
        from adapt.methods import adapter

        if self.run.writes:
            with atomic(self.run.path / "adapter") as folder:
                adapter.save(self.family, folder)
        made = {"made_of": lineage.adapter(self), "selection": self.selection(self.family)}
        self.record("finetune", base=self.base, adapter=self.hash("adapter"), **made, **facts)

    def record(self, stage: str, **facts: Any) -> None:
        self.run.record(stage, processes=self.accelerator.num_processes, **facts)
        self.accelerator.wait_for_everyone()

    # -------------------------------------------------------------------------------------------------------- what is kept

    def finished(self, verb: str) -> bool:
        """Has `finetune` been done, of just this?

        Raises:
            UserError: it was made of other contents: training again must be the user's own wish.
        """
        facts = self.run.facts(verb)
        if not facts:
            return False
        self._refuse("the adapter", facts["made_of"], lineage.adapter(self), "adapter")
        return True

    def _refuse(self, what: str, before: dict[str, Any], now: dict[str, Any], folder: str) -> None:
        """Refuse to go on with something that cost a training and is of other contents than the recipe now means."""
        # data that choose nothing by now were read all the same
        kept = {split: self.fingerprints.get(split) for split in before.get("data", {})}
        if names := changed(before, now | {"data": kept}):
            raise UserError(
                f"{', '.join(names)} changed since {what} in {self.run.path} was made; nothing was touched. Put back what changed, or "
                f"begin another run with name=…, or delete {self.run.path / folder} to make it again."
            )

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
        return self.processes.share(hash_path(path) if self.run.writes and path.exists() else None)


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
