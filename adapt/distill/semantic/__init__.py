"""A class for each pixel by pseudo-labels: a promptable teacher finds things, CLIP names them, a small CNN learns the maps.

    distill: {name: semantic, clip: openai/clip-vit-base-patch16, student: resnet18}

    teacher's masks (automatic, or of given boxes) → each named by CLIP among the class words → a map of classes → the student

With `proposals: automatic` no label is used here, with `proposals: boxes` the boxes of `objects` are; masks and categories never are. An
adapted teacher has learned from masks before.

    distill: {name: semantic, teacher: labels, student: resnet18}

people's class maps → the student: the column `segmentation`, or the masks of `objects` (`vision/maps.py`). Neither a teacher nor CLIP is
asked. Pixels of 255, and those of crowds, teach nothing.

Sources: Kirillov et al. 2023 (SAM), arXiv:2304.02643; Lee 2013 (pseudo-labels); Howard et al. 2019 (LR-ASPP), arXiv:1905.02244.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from adapt.contracts import Augment, LabelsObjectiveConfig, Lesson, Predictor, Train
from adapt.plug import UserError, counted
from adapt.prompting.automatic import Automatic
from adapt.prompting.text_masks import TextMasks
from adapt.vision.masks import unrle_many

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from adapt.contracts import Family
    from adapt.distill.semantic.training import Learner

Draw = Callable[[dict[str, Any]], "np.ndarray"]
"""A row → its map of classes, uint8[H, W]."""
LABELS = "masks"
"""The teacher's row predictor that is asked, with `proposals: boxes`."""
IGNORE = 255
"""Pixels that teach nothing."""


class Config(LabelsObjectiveConfig):
    """How the maps are made, and the CNN that learns them."""

    version = 3
    uses_words = True
    needs = ("segmentation", "objects.mask")
    labelled_by = ("proposals", "automatic", "clip", "words", "min_probability", "max_area")
    renamed = {"sure": "min_probability", "most": "max_area"}

    teacher: Literal["adapted", "zero-shot", "labels"] = "adapted"
    """Who finds the things: the adapted model, the model as it comes, or nobody: people's class maps alone."""
    proposals: Literal["automatic", "boxes"] = "automatic"
    """automatic: all that the teacher finds; boxes: the masks of the boxes in `objects`, whose categories are not looked at. A
    picture without `objects` then teaches nothing; one with an empty list of them is background."""
    automatic: Automatic = Automatic()
    """How densely the teacher is asked, and what is kept."""
    clip: str = "clip-tiny"
    """The checkpoint that names the masks; see `model.checkpoint` of `clip`."""
    words: TextMasks = TextMasks()
    """How a mask is shown to CLIP, and the words that mean background."""
    min_probability: float = Field(0.3, ge=0, le=1)
    """Masks whose best class has a lower probability teach nothing: neither a class, nor background."""
    max_area: float = Field(0.7, gt=0, le=1)
    """Masks of a larger share of the picture are background."""
    student: str = "resnet18"
    """A timm architecture with feature maps."""
    size: int | None = Field(None, ge=32, le=2048, multiple_of=32)
    """The student's input, pixels a side; pictures are squeezed into a square. None: about the teacher's."""
    stride: Literal[4, 8, 16] = 8
    """Pixels of the input to a cell of the student's map."""
    width: int = Field(128, ge=8, le=1024)
    """Channels of its coarse map."""
    views: int = Field(0, ge=0)
    """Random views of each picture; 0: a new one in every epoch."""
    cache: Literal[True] = True
    """The teacher's maps are always made once; there is no teacher in the loop."""
    budget: float = Field(0.1, ge=0, le=1)
    """mIoU that the student may lose against its teacher before the guard fires."""
    train: Train = Train(epochs=30, batch=16, lr=2e-3, weight_decay=0.02, augment=Augment(crop=0.5))
    """The student's training loop."""

    @property
    def others(self) -> tuple[str, ...]:
        return () if self.from_labels else (self.clip,)


def lesson(config: Config, teacher: Family, load: Callable[[str, str], Family]) -> Lesson:
    """The maps of the teacher and CLIP, made once of whole pictures; nothing of the teacher is cached a view. Where people's maps teach,
    nothing.

    Args:
        teacher: with the `classes` to be told apart; see `adapt/prompting/automatic.py` for what else it needs.
        load: (family, checkpoint) → another model.

    Raises:
        UserError: there are no class words, or the teacher is not promptable.
    """
    if not 1 <= len(teacher.classes) < IGNORE:
        raise UserError(
            f"distill.name: 'semantic' needs 1 to {IGNORE - 1} class words; the data names {len(teacher.classes)} classes."
        )
    if config.from_labels:
        return Lesson()
    propose = proposals(config, teacher)

    @cache
    def drawing() -> Draw:
        import numpy as np

        from adapt.distill.semantic.naming import Namer, paint

        namer = Namer(config.words, load("clip", config.clip), teacher.classes)

        def draw(row: dict[str, Any]) -> np.ndarray:
            size = row["image"].size[::-1]
            if config.proposals == "boxes" and row.get("objects") is None:
                return np.full(size, IGNORE, np.uint8)  # where its things are, nobody has said
            masks = propose(row)
            return paint(masks, *namer(row["image"], masks), size, config.min_probability, config.max_area)

        return draw

    return Lesson(label=partial(label, drawing), choose=choose, reference=partial(reference, drawing))


def learner(config: Config, teacher: Family, live: Callable | None = None) -> Learner:
    """A student of pixels that learns from rows as `label` gives them, or from people's.

    Args:
        live: no use here: a teacher in the loop would make the same maps again and again.
    """
    from adapt.distill.semantic.training import Learner
    from adapt.students.cnn import seen_by, squeezed
    from adapt.students.pixels import Student

    seen = seen_by(config.student, squeezed(teacher.input, config.size))
    return Learner(Student(config.student, seen, teacher.classes, config.stride, config.width, config.pretrained), teacher)


def label(drawing: Callable[[], Draw], rows: Dataset) -> Dataset:
    """Maps of classes by the teacher and CLIP.

    Args:
        drawing: makes the function that draws a row's map.
        rows: `image`, and `objects` with `proposals: boxes`; no mask, category or label is looked at.

    Returns:
        segmentation (PNG: 0 background, k + 1 the class k, 255 not judged), and found: does it show any class? None: nothing of it is
        judged.
    """
    import numpy as np
    from datasets import Dataset, Features, Image, Value

    from adapt.distill.labels import samples
    from adapt.distill.semantic.naming import encoded

    draw = drawing()
    with closing(samples(rows)) as coming:
        maps = [draw(row) for row in coming]
    found = [bool(np.any(seen)) if len(seen := classes[classes != IGNORE]) else None for classes in maps]
    columns = {"segmentation": list(map(encoded, maps)), "found": found}
    return Dataset.from_dict(columns, Features(segmentation=Image(), found=Value("bool")))


def choose(labelled: Dataset) -> tuple[Dataset, str]:
    """The pictures of which anything is judged, with their maps; and on how many there is a class.

    Raises:
        UserError: on none.
    """
    found = labelled.data.column("found").to_pylist()
    judged, shown = [row for row, one in enumerate(found) if one is not None], found.count(True)
    if not judged:
        raise UserError(
            f"distill: nothing can be said of {counted(len(found), 'picture')}. With distill.proposals=boxes they need a column "
            "`objects` with boxes; distill.proposals=automatic needs none."
        )
    if not shown:
        raise UserError(
            f"distill: no mask in {len(judged)} pictures was surely one of the classes. Lower distill.min_probability, or "
            "distill.automatic.pred_iou_thresh and stability_score_thresh, or train the teacher longer."
        )
    said = f"maps of classes for {shown:,} of {counted(len(judged), 'picture')}"
    if left := len(found) - len(judged):
        labelled, said = (
            labelled.select(judged),
            f"{said}; {left:,} of which nothing can be said, such as those without boxes, are left out",
        )
    return labelled.remove_columns("found"), said


def reference(drawing: Callable[[], Draw]) -> dict[str, Predictor]:
    """What the student is to be compared with: the maps of the teacher and CLIP; what is not judged when teaching is background here.

    Returns:
        `semantic_logits`, of rows: samples → a list of classes uint8[H, W].
    """
    draw = drawing()

    def maps(samples: list[dict[str, Any]]) -> list[np.ndarray]:
        return [drawn * (drawn != IGNORE) for drawn in map(draw, samples)]

    return {"semantic_logits": Predictor(maps, "rows")}


def proposals(config: Config, family) -> Callable[[dict[str, Any]], np.ndarray]:
    """A row → masks bool[N, H, W]."""
    import numpy as np

    from adapt.prompting import automatic

    predictors = family.predictors()
    if LABELS not in predictors:
        raise UserError(
            f"distill.name: 'semantic' needs a teacher that offers {LABELS}. This one has: {', '.join(predictors)}."
        )
    if config.proposals == "automatic":
        two = automatic.functions(family)

        def propose(row: dict[str, Any]) -> np.ndarray:
            image = np.array(row["image"].convert("RGB"))
            masks = unrle_many(automatic.generate(config.automatic, image, *two)["mask"])
            return masks.reshape(-1, *image.shape[:2])

        return propose

    def prompted(row: dict[str, Any]) -> np.ndarray:
        boxes = np.asarray(row["objects"]["bbox"] or [], np.float32).reshape(-1, 4)
        answer = predictors[LABELS]([{"image": row["image"]}], boxes=[boxes])[0]
        masks = np.asarray(answer["masks"], bool)
        return masks[masks.any((1, 2))]

    return prompted
