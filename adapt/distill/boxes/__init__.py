"""Detection by pseudo-labels: a teacher says where things are in unlabelled pictures, a small CNN learns from its boxes alone.

    distill: {name: boxes, student: resnet10t, score: 0.3, nms: 0.6, train: {epochs: 30, batch: 16, lr: 2e-3}}

The student sees no human label. Nor does the teacher when it labels, but with `ask: present`: then it is told which categories each
picture shows. What an adapted teacher has learned from labels before is another matter.

Source: Lee 2013 (pseudo-labels); Tian et al. 2019, arXiv:1904.01355 (the student, FCOS).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from adapt.contracts import Augment, LabelsObjectiveConfig, Lesson, Predictor, Train
from adapt.plug import UserError, counted
from adapt.vision.classes import category_names

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from adapt.contracts import Family
    from adapt.distill.boxes.training import Learner

LABELS = "detections"
"""The teacher's row predictor that is asked."""
HUMAN = ("objects", "label", "caption", "suffix", "count")
"""Columns that the teacher must not see when it labels."""


class Config(LabelsObjectiveConfig):
    """A detector, and which of the teacher's boxes it learns from."""

    needs = ("objects",)
    labelled_by = ("ask", "score", "nms", "empty")
    renamed = {"least": "min_score"}

    student: str = "resnet18"
    """A timm architecture with feature maps."""
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
    min_score: float = Field(0.05, ge=0, lt=1)
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
    train: Train = Train(epochs=30, batch=16, lr=2e-3, weight_decay=0.02, augment=Augment(crop=0.5))
    """The student's training loop."""


def lesson(config: Config, teacher: Family, load: Callable) -> Lesson:
    """The teacher's boxes, found once in whole pictures; nothing of it is cached a view. Where people's boxes teach, nothing.

    Raises:
        UserError: it finds no boxes.
    """
    if config.from_labels:
        return Lesson()
    have = teacher.predictors()
    if LABELS not in have:
        raise UserError(f"distill.name: 'boxes' needs a teacher that finds {LABELS}. This one has: {', '.join(have)}.")
    return Lesson(label=partial(label, config, have[LABELS]), labels_batch=config.batch, choose=partial(choose, config))


def learner(config: Config, teacher: Family, live: Callable | None = None) -> Learner:
    """A detector that learns from batches of pictures with boxes, as `label` gives them.

    Args:
        live: no use here: a teacher in the loop would be asked for the same boxes again and again.
    """
    from adapt.distill.boxes.training import Learner
    from adapt.students.cnn import seen_by, squeezed
    from adapt.students.detector import Student

    seen = seen_by(config.student, squeezed(teacher.input, config.size))
    options = {"width": config.width, "convs": config.convs, "min_score": config.min_score, "nms": config.nms}
    return Learner(Student(config.student, seen, teacher.classes, **options, pretrained=config.pretrained), teacher)


def label(config: Config, teacher: Predictor, rows: Dataset) -> Dataset:
    """The teacher's boxes: those above the score, duplicates removed, clipped to the picture.

    Args:
        teacher: its row predictor `detections`.
        rows: pictures; what people wrote about them (`HUMAN`) is left out before the teacher sees them.

    Returns:
        for each row objects (bbox float[N, 4] XYXY in pixels, category int[N]) and score (list of float[N]).
    """
    from datasets import ClassLabel, Dataset, Features, List, Value

    from adapt.distill.labels import samples

    asked = rows.remove_columns([name for name in HUMAN if name in rows.column_names])
    known = rows.select_columns(["objects"])["objects"] if config.ask == "present" else []
    present = [sorted(set((objects or {"category": []})["category"])) for objects in known]
    found: list[dict[str, np.ndarray]] = []
    with closing(samples(asked)) as coming:
        while some := list(islice(coming, config.batch)):
            for sample, categories in zip(some, present[len(found) :], strict=False):
                sample["objects"] = {"category": categories}
            for sample, answer in zip(some, teacher(some), strict=True):
                found.append(clean(answer, sample["image"].size, config.score, config.nms))
    names = category_names(rows.features)
    category = ClassLabel(names=names) if names else Value("int64")
    boxes = {"bbox": List(List(Value("float32"), length=4)), "category": List(category)}
    objects = [{"bbox": one["bbox"].tolist(), "category": one["category"].tolist()} for one in found]
    columns = {"objects": objects, "score": [one["score"].tolist() for one in found]}
    return Dataset.from_dict(columns, Features(objects=boxes, score=List(Value("float32"))))


def choose(config: Config, labelled: Dataset) -> tuple[Dataset, str]:
    """The pictures with boxes, or all of them with `empty`.

    Raises:
        UserError: there are no boxes at all.
    """
    import numpy as np
    import pyarrow.compute as pc

    counts = pc.list_value_length(labelled.data.column("score")).to_numpy()
    shown = np.flatnonzero(counts)
    if not len(shown):
        raise UserError(
            f"distill: the teacher finds nothing above distill.score={config.score} in {len(labelled)} pictures. "
            "Lower distill.score, or train the teacher longer."
        )
    pictures = counted(len(labelled), "picture")
    said = f"{counts.sum():,} boxes with a score of {config.score} or more, on {len(shown):,} of {pictures}"
    return labelled if config.empty else labelled.select(shown), said


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
