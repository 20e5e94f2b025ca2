"""What a plug-in of each kind promises. Read this before you write one: it takes ten minutes, and nothing here imports torch.

A plug-in is one file `adapt/KIND/NAME.py`, or a folder `adapt/KIND/NAME/` whose light `__init__.py` is that file; your own lie in a folder
of yours with the same subfolders (`ADAPT_PLUGINS=FOLDER`). Each has a `Config`, a subclass of its kind's base below, and these functions:

    kind      Config           functions
    data      SourceConfig     load(config) -> Splits
    models    FamilyConfig     load(config) -> a Family, an `nn.Module`; see `models/base.py`
    methods   MethodConfig     apply(family, config, rows) -> None;  some: prepare(…), search(…)
    evals     EvalConfig       evaluate(config, predict, rows, protocol, bank) -> Result;  statistic(table) -> function
    distill   ObjectiveConfig  lesson(config, teacher, load) -> Lesson;  learner(config, teacher, live) -> see `distill/taught.py`
    students  (none)           Student, a class: Student(…), .save(folder), Student.open(folder); see `students/base.py`
    export    TargetConfig     convert(config, deployable, samples, folder, metadata, validation) -> [Artifact];  Runner(path)

What is optional is declared here with its default. Nobody asks `hasattr` of our own objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import ConfigDict, Field, field_validator

from adapt.plug import Plugin, Spec

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import Tensor, nn


# -------------------------------------------------------------------------------------------------------------- training


class Drawing(Spec):
    """Random changes for pictures drawn on white: icons, signs, line art."""

    line: float = Field(0.0, ge=0, le=1)
    """Probability of thickening or thinning dark lines by one pixel."""
    background: float = Field(0.0, ge=0, le=1)
    """Probability of tinting the white background (multiply blend with a random colour)."""
    invert: float = Field(0.0, ge=0, le=1)
    """Probability of inverting the colours."""


class Augment(Spec):
    """Random views of a training image; batched, and a function of the view's seed alone."""

    renamed = {name: f"drawing.{name}" for name in Drawing.model_fields}

    crop: float = Field(0.6, gt=0, le=1)
    """Smallest share of the image's area that a random crop keeps; 1 = no crop."""
    rotate: float = Field(0.0, ge=0, le=180)
    """Largest rotation, degrees."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    colour: float = Field(0.2, ge=0, le=1)
    """Strength of brightness, contrast and saturation changes; 0 = none."""
    hue: float = Field(0.0, ge=0, le=1)
    """Probability of permuting the colour channels and of grey (each)."""
    drawing: Drawing = Drawing()
    """For pictures drawn on white, such as icons; photographs need none of it."""


class Train(Spec):
    """The training loop."""

    idle = frozenset({"workers", "checkpoint_every"})

    epochs: int = Field(10, ge=1)
    """Passes over the training split."""
    steps: int | None = Field(None, ge=1)
    """Optimiser steps in all; given, it takes the place of `epochs`."""
    batch: int | Literal["all"] = 32
    """Images for each optimiser step, over all processes and accumulation steps together; all: the whole training split."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches that each optimiser step is split into; doubled by itself when memory runs out."""
    optimizer: Literal["adamw", "sgd", "muon", "paged_adamw_8bit"] = "adamw"
    """AdamW (β .9/.999); SGD with momentum .9; timm's Muon for the layers' matrices and convolutions, with AdamW for the rest; AdamW
    with its state in 8 bits, paged to the CPU when the GPU is full (on CPU it is plain AdamW)."""
    lr: float = Field(2e-4, gt=0)
    """Peak learning rate."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay; not on biases, norms and scales."""
    eps: float = Field(1e-8, gt=0)
    """ε of AdamW."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of all steps that warm up."""
    warmup_lr: float | None = Field(None, gt=0)
    """A fixed learning rate of the warm-up; none: it rises linearly."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up."""
    min_lr: float = Field(0.0, ge=0)
    """Where the cosine ends."""
    clip: float = Field(1.0, ge=0)
    """Largest gradient norm; 0 = no clipping."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 on GPU, fp32 on CPU."""
    validate_every: int = Field(1, ge=1)
    """Epochs between validations; the best weights on validation are kept."""
    patience: int = Field(0, ge=0)
    """Validations without improvement before training stops; 0 = never."""
    checkpoint_every: int = Field(200, ge=1)
    """Optimiser steps between checkpoints, from which a killed run resumes."""
    cache: bool = False
    """Compute a frozen encoder's features once and train on them; for families and methods that can."""
    cache_views: int = Field(0, ge=0, le=10_000)
    """With `cache`: random views of each picture, an epoch each in turn; 0: the picture as it is, as where boxes or masks are learnt."""
    workers: int | Literal["auto"] = "auto"
    """Threads of each process that decode pictures while a network learns or is measured; 0: none; auto: a core each. Changes no bit."""
    augment: Augment = Augment()
    """Random views."""

    @field_validator("batch", mode="before")
    @classmethod
    def _pictures(cls, batch: object) -> object:
        if batch == "all" or (type(batch) is int and batch >= 1):
            return batch
        raise ValueError("it can be all, or a whole number from 1")

    @field_validator("workers", mode="before")
    @classmethod
    def _threads(cls, workers: object) -> object:
        if workers == "auto" or (type(workers) is int and 0 <= workers <= 256):
            return workers
        raise ValueError("it can be auto, or a number of threads from 0 to 256")


# ------------------------------------------------------------------------------------------- pictures, and who is asked


@dataclass(frozen=True, eq=False)
class Input(Mapping[str, Any]):
    """How a picture becomes what a network sees, as `vision/images.py` does it; a mapping too, as `config.json` has it."""

    size: tuple[int, int]
    """Height and width, pixels."""
    resize: int | tuple[int, int] | Literal["longest"] | None
    """The shorter side's pixels; height and width, whatever the picture's shape; the longer side to `size`, padded; or none."""
    interpolation: str
    """bicubic, bilinear, nearest, lanczos."""
    crop: Literal["floor", "round"] | None
    """How the centre is rounded that is cut out; none: nothing is."""
    mean: Sequence[float] = ()
    """Of the channels, 0–1, float[3]; the normalisation is inside a family, a student and a file."""
    std: Sequence[float] = ()
    """float[3]."""

    def __getitem__(self, name: str) -> Any:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)

    def __or__(self, other: Mapping[str, Any]) -> Input:
        """The same, with other values of some."""
        return Input(**{**self, **other})


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


class Asked:
    """Base of what has predictors, a family or a student: what a predictor may be asked."""

    knows_texts: ClassVar[bool] = False
    """Can it be asked about texts: `predictors(texts)`?"""
    asked_by_name: ClassVar[bool] = False
    """Is it asked for objects by their categories' names, so that who asks may tell it which are there?"""
    tokens_per_second: float = 0.0
    """Of what it has generated since it was made; 0: nothing."""
    logit_scale: float | None = None
    """By what cosines with texts are multiplied; none: it has no text tower."""


# ------------------------------------------------------------------------------------------------------------------ data


class SourceConfig(Spec):
    """Base of the `Config` of a source of data."""

    version: ClassVar[int] = 1
    """Raised when the rows it makes change, so that kept results are made again."""

    source: str
    """The source: the name of its file, without `.py`."""
    draft: int | None = Field(None, ge=16)
    """Pixels: JPEGs are decoded at a half, quarter or eighth of their size where both sides keep so many. Quicker, but other pixels; twice what
    the model sees is good. null: as they are."""

    def check_paths(self) -> None:
        """Look for the files and folders that it names, before anything heavy is imported.

        Raises:
            UserError: one is missing.
        """


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


@dataclass(frozen=True)
class TextSlot:
    """Where learned context can be put: among the token embeddings of a text tower, of transformers or of open_clip."""

    tokens: Callable[[list[str]], Tensor]
    """N texts → int64[N, T], with begin and end."""
    embed: Callable[[Tensor], Tensor]
    """int64[N, T] → float[N, T, W], before positions are added."""
    encode: Callable[[Tensor, Tensor], Tensor]
    """(int64[N, T], which say where texts end; float[N, T, W] in the place of their embeddings) → float32[N, D], L2-normalised."""
    classifier: Callable[[], Tensor]
    """() → float32[C, D], L2-normalised: the classes' words in all templates; without a gradient."""
    logits: Callable[[Tensor, Tensor], Tensor]
    """(images float32[B, D], texts float32[N, D], both L2-normalised) → float32[B, N], as the zero-shot classifier scales them."""
    scale: Callable[[], Tensor]
    """() → float32[], by which they multiply cosines."""
    vocabulary: Callable[[], list[str]]
    """The tokens by their numbers, as their tokenizer writes them."""


@dataclass(frozen=True)
class VisionSlot:
    """Where learned tokens can be put: among the hidden states of an image tower."""

    layers: Sequence[nn.Module]
    """Each takes hidden states float[B, N, W] as its first argument, and returns such."""
    width: int
    """W."""
    first: int
    """Tokens before the patches: the class token, registers. What a method puts behind them, it takes out behind the last layer."""
    patch: int
    """The side of a patch, pixels."""


@dataclass(frozen=True)
class ProjectionSlot:
    """The linear map from what an image tower makes of a picture into the space that it shares with texts."""

    weight: nn.Parameter
    """float[D, W] or float[W, D], as its library has it; a parameter of the backbone."""
    before: Callable[[Tensor], Tensor]
    """float[B, 3, H, W] 0–255 → float32[B, W], what is projected."""
    after: Callable[[Tensor], Tensor]
    """float32[B, W] → float32[B, D], projected by `weight` and L2-normalised."""


@dataclass(frozen=True)
class Slots:
    """Where a method can put what it learns, beside adapters. What is put there is trained, saved and loaded with the family."""

    text: TextSlot | None = None
    vision: VisionSlot | None = None
    projection: ProjectionSlot | None = None
    classifier: Callable[[nn.Module], None] | None = None
    """Put a module in the place of the class words: () → float32[C, D], L2-normalised."""
    head: Callable[[nn.Module], None] | None = None
    """Put a module that makes class logits of image embeddings: float32[B, D], L2-normalised → float32[B, C]."""
    penalty: Callable[[Callable[[], Tensor]], None] | None = None
    """Add a term to the loss of the training: () → float32[], such as the distance of what learns from where it began."""
    pixels: nn.Module | None = None
    """What makes of images float[B, 3, H, W], 0–255, the normalised pixels that the image tower sees."""
    prompts: Callable[[nn.Module], None] | None = None
    """Put a module that changes, by hooks on `vision.layers` or on `pixels`, what the image tower sees: none of its features is kept then."""
    no_vision: str = "this family has none"
    """Where there is no vision slot: why, as the end of a sentence."""


class Family(Protocol):
    """A foundation model with its loss, an `nn.Module`; `models/base.py` is the base to inherit, with the defaults.

    `images` are always float[B, 3, H, W], RGB, 0–255, resized and cropped by `preprocess`; normalisation happens inside.
    """

    backbone: nn.Module
    """The foundation model; a `peft.PeftModel` around it after LoRA."""
    adapter_targets: ClassVar[dict[str, str]]
    """LoRA targets: what a recipe calls them (`q`, `k`, `mlp`, …) → the end of the module's name."""
    quantised: ClassVar[str]
    """A regular expression of the backbone's modules that QLoRA puts in 4 bit; empty: none can be."""
    image_parts: Sequence[str]
    """Where a tower for images stands beside one for words: the backbone's children that see images; empty: not so."""
    located: bool
    """Has its truth places in the picture (boxes, masks, words for places), which go where a random view moves its pixels?"""
    decoder: nn.Module | None
    """The part that answers, where an encoder in front of it can stay frozen (`method: decoder`)."""
    classes: Sequence[str]
    """The words that stand for the labels 0, 1, …, where the family has such."""
    templates: Sequence[str]
    """The templates these words are put in."""
    texts: Sequence[Sequence[str]]
    """For each class the texts that stand in the templates, its name or others."""
    combine: str
    """How several texts of a class become one score: mean, similarity, max."""

    @property
    def input(self) -> Input:
        """How pictures become its input."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data that the loss needs."""

    @property
    def slots(self) -> Slots:
        """Where a method can put what it learns."""

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a collated batch, and scalars to log."""

    def weight(self, batch: dict[str, Any]) -> float | Tensor:
        """What the loss of a batch is a mean over: its pictures, tokens, pixels or objects."""

    def preprocess(self, sample: dict[str, Any], train: bool) -> dict[str, Any]:
        """One row → one item: `image` is uint8[3, H, W], resized and cropped as the checkpoint's own processor does."""

    def collate(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Items → a batch."""

    def augment(self, batch: dict[str, Any], config: Augment) -> dict[str, Any]:
        """A batch with random views in the place of its images, by its `seed`s."""

    def predictors(self, texts: list[str] | None = None) -> dict[str, Predictor]:
        """What it can be asked; `texts` stand for the classes, if given."""

    def bind(self, columns: list[str]) -> None:
        """Refuse data that lack a column; a family with several losses chooses here, by the columns there are."""

    def set_classes(self, classes: list[str], templates: list[str], texts: list | None = None, combine: str = "mean") -> None:
        """Say which texts stand for the labels 0, 1, …: `texts` (list[list[str]]; none: the name) in `templates` with one `{}` each."""

    def frozen_features(self) -> Callable[[Tensor], Tensor] | None:
        """What a frozen encoder makes of images, computed once (`train.cache`); none: it learns, or random views are needed."""

    def feature_logits(self, features: Tensor) -> Tensor:
        """Class logits float32[B, C] of what `frozen_features` gives, where it gives something."""

    def new_head(self, init: str = "auto") -> None:
        """Put a fresh linear head, which learns, on the frozen features (`method: head`)."""

    def complete(self) -> None:
        """What a method that changes the backbone calls last: a family that needs a head to learn its task makes it here."""


# --------------------------------------------------------------------------------------------------------------- methods


class MethodConfig(Plugin):
    """Base of the `Config` of a method: how a family is changed."""

    title: ClassVar[str]
    """Its name in tables."""
    places: ClassVar[bool] = False
    """Does it put the family on its device itself, by `place(family, config, device)`, rounded? Then `placed(config)` says so in tables."""
    train: ClassVar[dict[str, Any]] = {}
    """The paper's own defaults of `train`, such as `{"optimizer": "sgd"}`: what a recipe says beats them, and they beat the global ones."""
    merges: ClassVar[bool] = True
    """Is what it has learnt a part of the checkpoint, or a linear layer on it, which `adapt merge` can write?"""
    prepares: ClassVar[bool] = False
    """Does it look at the training pictures before the training, by `prepare(family, config, rows, features)`? There `features(views)`
    gives float32[views, N, …], what `frozen_features` makes of random views of the N rows; of 0 views [1, N, …] of the rows as they are.
    What it puts into the family has its final shapes after `apply`: a saved family is loaded without `prepare`."""
    searches: ClassVar[bool] = False
    """Does it choose numbers of its own after the training, by `search(family, config, features, labels)`, on a few validation pictures
    of each class: float32[N, …], what `frozen_features` makes of them, and int64[N]? It returns what it chose, name → number."""

    @property
    def trains(self) -> bool:
        """Is there a training? Not where `prepare` and `search` are all that is done."""
        return True

    @property
    def only_learnt_classes(self) -> str:
        """Why it cannot be asked about classes that it has not learnt, in a few words; empty: it can, by their words."""
        return ""

    def few(self, shots: int) -> dict[str, Any]:
        """The paper's own `train` for so many labelled pictures a class, which beats `train`; what a recipe says beats both."""
        return {}


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
    uses_words: ClassVar[bool] = False
    """Does it ask about classes by the words of `prompts`, whatever its model does?"""
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

    @property
    def others(self) -> tuple[str, ...]:
        """Checkpoints of the models that it needs beside the measured one."""
        return ()


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
    steps_alike: ClassVar[bool] = True
    """Does each step of the student's training take about as long as the first ones, so that its time can be foretold?"""
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
        return self.as_ or f"{self.name}-{self.student}{'-labels' if self.from_labels else ''}"

    @property
    def from_labels(self) -> bool:
        """Does the student learn from people's labels, without a teacher?"""
        return False

    @property
    def wants_baseline(self) -> bool:
        """Is a second student to be taught by people's labels alone?"""
        return False

    @property
    def others(self) -> tuple[str, ...]:
        """Checkpoints of the models that it asks beside the teacher."""
        return ()


class LabelsObjectiveConfig(ObjectiveConfig):
    """Base of the `Config` of an objective whose student can learn from people's labels too, without a teacher: its baseline."""

    needs: ClassVar[tuple[str, ...]]
    """Columns of people's labels, of which one is enough; `objects.mask` is a part of `objects`."""
    idle = frozenset({"as_", "baseline"})

    teacher: Literal["adapted", "zero-shot", "labels"] = "adapted"
    """Who teaches: the adapted model, the model as it comes, or nobody: people's labels alone."""
    baseline: bool = False
    """Teach a second student, NAME-labels, by people's labels alone, and say which of the two is better."""

    @property
    def from_labels(self) -> bool:
        return self.teacher == "labels"

    @property
    def wants_baseline(self) -> bool:
        return self.baseline


@dataclass(frozen=True)
class Packing:
    """How a predictor's outputs lie on disk, where that is not as they come."""

    pack: Callable[[np.ndarray], np.ndarray]
    """float32[B, …] → [B, …] of any type, records too."""
    unpack: Callable[[np.ndarray], np.ndarray]
    """One item of these → float32[…], as it was or near that."""
    made_of: Mapping[str, Any] = field(default_factory=dict)
    """The settings that it depends on."""


@dataclass(frozen=True)
class Lesson:
    """What is asked of the teacher before the student learns."""

    predictor: str | None = None
    """The teacher's function of images whose outputs a batch brings as `teacher`, cached a view or live."""
    packing: Packing | None = None
    """How these outputs lie on disk; none: in float32."""
    half: bool = False
    """May they lie there in fp16, where a GPU has computed them in bf16? For outputs that are large and of which no bit decides."""
    label: Callable[[Dataset], Dataset] | None = None
    """Some pictures → as many rows with the teacher's labels, without the pictures; called for parts, by all processes, and kept."""
    labels_batch: int = 1
    """Pictures that `label` looks at together."""
    choose: Callable[[Dataset], tuple[Dataset, str]] | None = None
    """All pictures with their labels → the rows that the student learns from, and a line for the user; none: all of them."""
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
