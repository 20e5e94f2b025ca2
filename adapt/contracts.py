"""What a plug-in of each kind promises. Read this before you write one: it takes ten minutes, and nothing here imports torch.

A plug-in is one file `adapt/KIND/NAME.py`, or a folder `adapt/KIND/NAME/` whose light `__init__.py` is that file; your own lie in a folder
of yours with the same subfolders (`ADAPT_PLUGINS=FOLDER`). Each has a `Config`, a subclass of its kind's base below, and these functions:

    kind      Config           functions
    data      SourceConfig     load(config) -> Splits
    models    FamilyConfig     load(config) -> a Family, an `nn.Module`; see `models/base.py`
    methods   MethodConfig     apply(family, config, rows) -> None
    evals     EvalConfig       evaluate(config, predict, rows, protocol, bank) -> Result;  statistic(table) -> function
    distill   ObjectiveConfig  lesson(config, teacher, load) -> Lesson;  learner(config, teacher, live) -> see `distill/taught.py`
    students  (none)           Student, a class: Student(…), .save(folder), Student.open(folder); see `students/base.py`
    export    TargetConfig     convert(config, deployable, samples, folder, metadata, validation) -> [Artifact];  Runner(path)

What is optional is declared here with its default. Nobody asks `hasattr` of our own objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import ConfigDict, Field

from adapt.plug import Plugin, Source
from adapt.recipe import Train

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn


# ------------------------------------------------------------------------------------------------------------ predictors


@dataclass(frozen=True)
class Predictor:
    """A named function of a family, a student or an exported file, which all answer alike; its outputs are fp32 and finite.

    Of images: float[B, 3, H, W] RGB 0–255, resized and cropped → Tensor[B, …]; it can be cached and exported.
    Of rows: a list of samples with the data's columns → a list of results, one a sample.
    """

    function: Callable[..., Any]
    takes: Literal["images", "rows"] = "images"

    def __call__(self, *given: Any, **options: Any) -> Any:
        return self.function(*given, **options)


# ------------------------------------------------------------------------------------------------------------------ data


class SourceConfig(Source):
    """Base of the `Config` of a source of data."""

    version: ClassVar[int] = 1
    """Raised when the rows it makes change, so that kept results are made again."""


class Splits(Protocol):
    """What a source returns: a mapping from split (`train`, `validation`, `test`, `unlabelled`) to its rows, a `datasets.Dataset`."""

    origin: Mapping[str, str]
    """Split → where it came from, such as `15 % drawn from train/`."""
    report: Any
    """What was found wrong or left out: a `data.problems.Report`."""


# ---------------------------------------------------------------------------------------------------------------- models


class FamilyConfig(Plugin):
    """Base of the `Config` of a model family."""

    title: ClassVar[str]
    """Its name in tables."""
    uses_words: ClassVar[bool] = False
    """Does it ask about classes by the words of `prompts`?"""

    checkpoint: str
    """An embedded name, a local folder, or a hub id."""


# --------------------------------------------------------------------------------------------------------------- methods


class MethodConfig(Plugin):
    """Base of the `Config` of a method: how a family is changed."""

    title: ClassVar[str]
    """Its name in tables."""
    places: ClassVar[bool] = False
    """Does it put the family on its device itself, by `place(family, config, device)`, rounded? Then `placed(config)` says so in tables."""
    train: ClassVar[dict[str, Any]] = {}
    """The paper's own defaults of `train`, such as `{"optimizer": "sgd"}`: what a recipe says beats them, and they beat the global ones."""


# ----------------------------------------------------------------------------------------------------------------- evals


class EvalConfig(Plugin):
    """Base of the `Config` of an eval."""

    version: ClassVar[int] = 1
    """Raised when what it measures changes, so that kept results are made again."""
    main: ClassVar[str]
    """The metric by which guards compare and weights are chosen, a key of the result's metrics; a fraction."""
    higher_is_better: ClassVar[bool] = True
    """Which way `main` is better."""
    predictor: ClassVar[str]
    """What it asks of a module; where that is lacking, the eval is left out."""
    asks_texts: ClassVar[bool] = False
    """Does it ask the predictor about texts of its own?"""
    quick: ClassVar[dict[str, Any]] = {}
    """Options in a validation during training: what only a report needs is left out."""

    split: str = "test"
    """The split that is measured."""
    bootstrap: int = Field(1000, ge=100, le=100_000)
    """Resamples of the 95 % intervals."""

    @property
    def bank(self) -> str | None:
        """The split of labelled rows that it needs beside the measured one."""
        return None


class BankedEvalConfig(EvalConfig):
    """Base of the `Config` of an eval on frozen embeddings, which learns from the labelled rows of another split."""

    bank_split: str = "train"
    """The split with the labelled rows."""

    @property
    def bank(self) -> str | None:
        return self.bank_split


# --------------------------------------------------------------------------------------------------------------- distill


class ObjectiveConfig(Plugin):
    """Base of the `Config` of an objective: what a student learns from its teacher, and by which loss."""

    version: ClassVar[int] = 1
    """Raised when what it makes changes, so that kept results are made again."""
    uses_words: ClassVar[bool] = False
    """Does it ask about classes by the words of `prompts`, whatever its teacher does?"""
    labelled_by: ClassVar[tuple[str, ...]] = ()
    """The options that a teacher's labels depend on; no others make them again."""

    model_config = ConfigDict(serialize_by_alias=True)
    idle = frozenset({"as_"})

    as_: str | None = Field(None, alias="as", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)
    """The student's name, of its folders and in tables, so that several live side by side. None: objective-architecture."""
    teacher: Literal["adapted", "zero-shot"] = "adapted"
    """Who teaches: the adapted model, or the model as it comes."""
    student: str = "resnet18"
    """A timm architecture."""
    size: int | None = Field(None, ge=16, le=2048)
    """The student's input, pixels a side; cut or squeezed as the teacher's. None: the teacher's."""
    pretrained: bool | str = "auto"
    """Start from timm's weights (true), an embedded student's (`cnn-tiny`), a safetensors file's (its path), or nothing (false). auto:
    timm's where they can be fetched, else an embedded student's of the same architecture, else nothing."""
    views: int = Field(4, ge=0)
    """Random views of each picture; the teacher sees each once, the student again in every `views`-th epoch. 0: new ones in every epoch."""
    cache: bool = True
    """Compute the teacher's outputs once and keep them on disk; false: with the teacher in the loop."""
    budget: float = Field(0.05, ge=0, le=1)
    """Of the first eval's main metric, how many points (0.05: five) the student may lose against its teacher before the guard fires."""
    keep: float | None = Field(None, gt=0, le=1)
    """Share of its teacher's main metric that the student must keep; given, it takes the place of `budget`."""
    train: Train = Train()
    """The student's training loop."""

    @property
    def called(self) -> str:
        """The student's name."""
        return self.as_ or f"{self.name}-{self.student}"

    @property
    def others(self) -> tuple[str, ...]:
        """Checkpoints of the models that it asks beside the teacher."""
        return ()


@dataclass(frozen=True)
class Lesson:
    """What is asked of the teacher before the student learns."""

    predictor: str | None = None
    """The teacher's function of images whose outputs a batch brings as `teacher`, cached a view or live."""
    label: Callable[[Dataset], Dataset] | None = None
    """Pictures → the rows with the teacher's labels, found once, that the student learns from."""
    reference: Callable[[], Mapping[str, Predictor]] | None = None
    """Where the labels answer another question than the teacher itself: makes the predictors by which the labels are measured."""


# ------------------------------------------------------------------------------------------------------ students, export


@dataclass(frozen=True)
class Deployable:
    """A module as it is written for a device."""

    module: nn.Module
    """Its forward takes float tensors by the names of its arguments, such as `images` float[N, 3, H, W] 0–255, and returns a tensor, or a
    tuple of them."""
    outputs: tuple[str, ...] = ("logits",)
    """What it returns."""
    dynamic: Mapping[str, Mapping[int, str]] | None = None
    """Argument → {dimension: its name}; an argument without an entry keeps its shape. None: the first dimension of each is the batch."""
    nms: Mapping[str, float] | None = None
    """Of a detector with boxes float[B, N, 4] and scores float[B, C, N]: `score` and `nms`, by which duplicates are removed in the file."""
    parts: Mapping[str, Deployable] = field(default_factory=dict)
    """What is written beside it, such as a mask decoder."""
    samples: Sequence[Sequence[np.ndarray]] = ()
    """Sets of inputs by which its file is proven; the last one is the example that it is converted with. A part has them; else pictures of
    the data are taken."""
    example: str = ""
    """A script of `adapt/export/examples/` that uses the files, copied beside them."""


@dataclass(frozen=True)
class Artifact:
    """What a target has written in one precision."""

    precision: str
    """`fp32`, `int8` …"""
    path: Path
    """The file that a `Runner` opens."""
    files: tuple[Path, ...]
    """All files that it needs, the first among them."""
    parts: Mapping[str, Path] = field(default_factory=dict)
    """The files of `Deployable.parts`, by their names."""
    before_nms: Path | None = None
    """The same file with boxes and scores as its outputs, if there is one: for the gate alone, which removes it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What is known of it, noted beside its numbers. `conversions`, operator → how often the file leaves int8 for it and comes back,
    explains to a user why it is slow."""
    remark: str = ""
    """A sentence for the user on how it was made."""

    @property
    def bytes(self) -> int:
        """The size of all its files."""
        return sum(file.stat().st_size for file in self.files)


class TargetConfig(Plugin):
    """Base of the `Config` of an export target, which converts and runs; the verb calls gate and bench."""

    runtime: ClassVar[str]
    """What runs its files."""

    int8: bool = True
    """Write a quantised file too."""
    calibration: int = Field(512, ge=1)
    """Training images by which int8 ranges are found."""
    max_abs_error: float = Field(1e-4, gt=0)
    """The gate of the fp32 file against torch."""
    budget: float = Field(0.01, ge=0, le=1)
    """Of the first eval's main metric, how many points (0.01: one) int8 may lose against fp32 before the guard fires."""
    keep: float | None = Field(None, gt=0, le=1)
    """Share of fp32's main metric that int8 must keep; given, it takes the place of `budget`."""
    bench: float = Field(1.5, gt=0)
    """Seconds for which each file, and the teacher, is timed; what takes longer for a single call is called once."""


class Runner:
    """Base of an exported file that runs: numpy in, numpy out, on one thread.

    With `Deployable.nms` it gives boxes float[M, 4] XYXY in pixels of the input, scores float[M] best first, labels int64[M] and
    rows int64[M]: of which image of the batch.
    """

    metadata: Mapping[str, str] = {}
    """What is noted in the file; values are JSON. Empty where a format keeps nothing."""

    def __init__(self, path: Path):
        self.path = path

    def __call__(self, *arrays: np.ndarray) -> np.ndarray | list[np.ndarray]:
        """Inputs in the order of the module's forward → its output, or a list where it has several."""
        raise NotImplementedError

    def layers(self, names: Sequence[str], arrays: Sequence[np.ndarray]) -> Mapping[str, np.ndarray]:
        """What the file computes for the modules of these names, as far as it can be said: by it the gate names the first that differs."""
        return {}

    def note(self, facts: Mapping[str, Any]) -> None:
        """Add to what is noted in the file, if the format keeps anything."""


# ---------------------------------------------------------------------------------------------------------- what is learnt


class Trained(Protocol):
    """What the loop trains: a module whose forward returns (loss, scalars to log); the base is `train/learner.py`."""

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]: ...

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]: ...

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]: ...

    def predictors(self, texts: list[str] | None = None) -> Mapping[str, Predictor]: ...
