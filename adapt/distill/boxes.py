"""Detection by pseudo-labels: a teacher says where things are in unlabelled pictures, a small CNN learns from its boxes alone.

    distill: {name: boxes, student: resnet10t, score: 0.3, nms: 0.6, train: {epochs: 30, batch: 16, lr: 2e-3}}

The student sees no human label. Nor does the teacher when it labels, but with `ask: present`: then it is told which categories each
picture shows. What an adapted teacher has learned from labels before is another matter.

Source: Lee 2013 (pseudo-labels); Tian et al. 2019, arXiv:1904.01355 (the student, FCOS).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from adapt.plug import Plugin, UserError, counted
from adapt.recipe import Augment, Train

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from torch import nn

    from adapt.students.detector import Detector

VERSION = 1
"""Raised when what it makes changes, so that kept results are made again."""
PREDICTOR = None
"""Nothing of the teacher is cached a view: its boxes, found once in whole pictures, are the student's data."""
USES_WORDS = False
"""Does it ask about classes by the words of `prompts`, whatever its teacher does?"""
LABELS = "detections"
"""The teacher's row predictor that `label` asks."""
HUMAN = ("objects", "label", "caption", "suffix", "count")
"""Columns that the teacher must not see when it labels."""
LABELLED_BY = ("ask", "score", "nms", "empty")
"""The options that the teacher's labels depend on; no others make them again."""


class Config(Plugin):
    """A detector, and which of the teacher's boxes it learns from."""

    teacher: Literal["adapted", "zero-shot"] = "adapted"
    """Who teaches: the adapted model, or the model as it comes."""
    student: str = "resnet18"
    """A timm architecture with feature maps."""
    pretrained: bool | str = False
    """Start from timm's weights (true), an embedded student's (`cnn-tiny`), a safetensors file's (its path), or nothing (false)."""
    size: int | None = Field(None, ge=64, le=2048, multiple_of=32)
    """The student's input, pixels a side; pictures are squeezed into a square. None: about the teacher's."""
    width: int = Field(64, ge=8, le=512)
    """Channels of the fused map and of the head."""
    convs: int = Field(2, ge=1, le=8)
    """Convolutions in each of the head's two towers."""
    ask: Literal["all", "present"] = "all"
    """A teacher that is asked for categories by name: all of them, so that no label is needed; or present, those on the picture, which
    someone has to know (of `objects`, only the categories reach the teacher)."""
    score: float = Field(0.3, ge=0, le=1)
    """The teacher's boxes with a lower score teach nothing."""
    nms: float = Field(0.6, gt=0, le=1)
    """Of two boxes of a class with a higher IoU, the better stays: among the teacher's boxes and the student's own."""
    least: float = Field(0.05, ge=0, lt=1)
    """The student's boxes with a lower score are not given out; small, since metrics weigh boxes by score."""
    empty: bool = False
    """Learn from pictures in which the teacher finds nothing, as background; false: leave them out."""
    views: int = Field(0, ge=0)
    """Random views of each picture; 0: a new one in every epoch."""
    cache: Literal[True] = True
    """The teacher's boxes are always found once and kept; there is no teacher in the loop."""
    batch: int = Field(16, ge=1)
    """Pictures that the teacher labels at a time."""
    budget: float = Field(0.1, ge=0, le=1)
    """mAP that the student may lose against its teacher before the guard fires."""
    keep: float | None = Field(None, gt=0, le=1)
    """Share of its teacher's main metric that the student must keep; given, it takes the place of `budget`."""
    train: Train = Train(epochs=30, batch=16, lr=2e-3, weight_decay=0.02, augment=Augment(crop=0.5))
    """The student's training loop."""


def label(config: Config, family, rows: Dataset) -> Dataset:
    """The teacher's boxes as a data set: those above the score, duplicates removed, clipped to the picture.

    Args:
        family: has the row predictor `detections`.
        rows: pictures; what people wrote about them (`HUMAN`) is left out before the teacher sees them.

    Returns:
        the rows with id, image, objects (bbox float[N, 4] XYXY in pixels, category int[N]) and score (list of float[N]).

    Raises:
        UserError: the family finds no boxes at all, or has no such predictor.
    """
    from datasets import ClassLabel, List, Value

    from adapt.progress import progress

    function = _predictor(family)
    asked = rows.remove_columns([name for name in HUMAN if name in rows.column_names])
    found = []
    family.eval()
    with progress("teacher", len(asked)) as tick:
        for start in range(0, len(asked), config.batch):
            samples = [asked[i] for i in range(start, min(start + config.batch, len(asked)))]
            if config.ask == "present":
                for i, sample in enumerate(samples, start):
                    sample["objects"] = {"category": sorted(set((rows[i]["objects"] or {"category": []})["category"]))}
            for sample, answer in zip(samples, function(samples), strict=True):
                found.append(clean(answer, sample["image"].size, config.score, config.nms))
                tick()
    keep = [i for i, one in enumerate(found) if config.empty or len(one["score"])]
    if not any(len(one["score"]) for one in found):
        raise UserError(
            f"distill: the teacher finds nothing above distill.score={config.score} in {len(found)} pictures. "
            "Lower distill.score, or train the teacher longer."
        )
    counts = [len(one["score"]) for one in found]
    shown = sum(count > 0 for count in counts)
    print(
        f"teacher: {sum(counts):,} boxes with a score of {config.score} or more, on {shown:,} of {counted(len(found), 'picture')}"
    )
    names = _names(rows)
    category = ClassLabel(names=names) if names else Value("int64")
    boxes = List(List(Value("float32"), length=4))
    objects = [{"bbox": one["bbox"].tolist(), "category": one["category"].tolist()} for one in found]
    given = asked.select_columns([name for name in ("id", "image") if name in asked.column_names])
    given = given.add_column("objects", objects, feature={"bbox": boxes, "category": List(category)})
    given = given.add_column("score", [one["score"].tolist() for one in found], feature=List(Value("float32")))
    return given.select(keep)


def clean(answer: dict, size: tuple[int, int], score: float, overlap: float) -> dict[str, np.ndarray]:
    """A teacher's answer for one picture: boxes of known categories inside it, at or above the score, without duplicates.

    Args:
        answer: bbox float[N, 4] XYXY in pixels, category int[N], score float[N].
        size: (width, height) of the picture, pixels.

    Returns:
        the same, best first.
    """
    import numpy as np
    import torch
    from torchvision.ops import nms

    bbox = np.asarray(answer["bbox"], np.float32).reshape(-1, 4)
    category, scores = np.asarray(answer["category"], np.int64).ravel(), np.asarray(answer["score"], np.float32).ravel()
    real = np.isfinite(bbox).all(1) & np.isfinite(scores)
    bbox = np.clip(np.where(real[:, None], bbox, 0), 0, np.array(2 * size, np.float32))
    real &= category >= 0  # a teacher that answers in words may name what is no category
    keep = np.flatnonzero(real & (scores >= score) & (bbox[:, 2:] - bbox[:, :2] >= 1).all(1))
    kept = []
    for one in np.unique(category[keep]):
        places = keep[category[keep] == one]
        kept.extend(places[nms(torch.from_numpy(bbox[places]), torch.from_numpy(scores[places]), overlap).numpy()])
    order = np.array(sorted(kept, key=lambda i: -scores[i]), np.int64)
    return {"bbox": bbox[order], "category": category[order], "score": scores[order]}


def build(config: Config, family, live: Callable | None = None) -> Detector:
    """The student: learns from batches of pictures with boxes, as `label` gives them.

    Args:
        family: the teacher, for its `input` and its number of `classes`.
        live: no use here: a teacher in the loop would be asked for the same boxes again and again.
    """
    from adapt.students.detector import Detector

    return Detector(config.student, len(family.classes), family.input, config)


def _predictor(family: nn.Module) -> Callable:
    predictors = family.predictors()
    if LABELS not in predictors:
        raise UserError(f"distill.name: 'boxes' needs a teacher that finds {LABELS}. This one has: {', '.join(predictors)}.")
    return predictors[LABELS]


def _names(rows: Dataset) -> list[str] | None:
    """Names of the categories, where the data know them."""
    objects = rows.features.get("objects")
    category = objects.get("category") if isinstance(objects, dict) else None
    return getattr(getattr(category, "feature", None), "names", None)
