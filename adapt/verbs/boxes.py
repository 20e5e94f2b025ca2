"""Questions about boxes: which thing is in this box, and which box do these words mean; and masks of boxes, by SAM."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from adapt import plug
from adapt.contracts import Predictor
from adapt.plug import UserError
from adapt.prompting.visual import Visual, VisualEvalConfig, checked, combine
from adapt.verbs.question import Answer, Question

if TYPE_CHECKING:
    from PIL import Image as Picture

    from adapt.verbs.session import Session

BATCH = 64
"""Pictures at a time."""
NEGATIVES = ("background", "a texture", "a part of a thing", "a thing")
"""Words that are true of any box, where the data have no classes."""


def named(session: Session, family, image: Picture.Image, question: Question) -> Answer:
    """Which of the names, or of the data's classes, is in the box: their shares, by a softmax of the scores.

    Raises:
        UserError: the box is off the picture, or there are fewer than two names.
    """
    import numpy as np

    from adapt.vision.draw import boxed

    box = checked(question.box, image.size)
    names = question.names() if question.text else list(family.classes)
    if len(names) < 2:
        raise UserError(
            f"text: there is nothing to compare {(names or ['nothing'])[0]!r} with. Give two names or more, such as 'cat, dog'."
        )
    visual = settings(session)
    texts = [_prompts(family, name) for name in names] if question.text else None
    row = _scores(session, family, image, [box], visual, texts)
    logits = combine(row["texts"] if question.text else row["classes"])[0]
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    ranked = sorted(zip(shares.tolist(), names, strict=True), key=lambda pair: -pair[0])
    lines = [f"{share:6.1%}  {name}" for share, name in (ranked if question.text else ranked[:5])]
    found = {
        "box": list(box),
        "drawings": row["drawings"],
        "classes": [{"name": name, "share": share} for share, name in ranked],
    }
    return Answer(lines, found, boxed(image, box))


def chosen(session: Session, family, image: Picture.Image, question: Question) -> Answer:
    """Which of the boxes the words mean: their shares, by a softmax of the scores less what each box says of any words.

    Raises:
        UserError: a box is off the picture, or there are fewer than two.
    """
    import numpy as np

    from adapt.vision.draw import boxed

    boxes = [checked(box, image.size, f"boxes: box {number}") for number, box in enumerate(question.boxes, 1)]
    if len(boxes) < 2:
        raise UserError("boxes: one box is always the one that is meant. Give two or more: boxes='20,30,80,90; 5,5,40,60'.")
    if not isinstance(question.text, str):
        raise UserError(f"text: {question.text!r} is a list; ask which box is meant with one text.")
    visual = settings(session)
    others = [name for name in family.classes if name not in question.text] or list(NEGATIVES)
    row = _scores(session, family, image, boxes, visual, [question.text, *others])
    logits = combine(row["texts"][..., :1], texts=row["texts"][..., 1:], subtract=visual.subtract)[:, 0]
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    order = np.argsort(-shares, kind="stable")
    lines = [f"{shares[i]:6.1%}  box {' '.join(f'{value:g}' for value in boxes[i])}" for i in order]
    found = [{"box": list(boxes[i]), "share": float(shares[i])} for i in order]
    return Answer(lines, {"drawings": row["drawings"], "boxes": found}, boxed(image, boxes[order[0]]))


def settings(session: Session) -> Visual:
    """How the recipe shows things in boxes: as its first eval of boxes says, else as by default."""
    return next((config.visual for config in session.recipe.evals if isinstance(config, VisualEvalConfig)), Visual())


def _prompts(family, name: str) -> list[str]:
    """The texts of a name: in the family's templates, where it is asked in such."""
    return [template.replace("{}", name) for template in family.templates] if family.knows_texts else [name]


def _scores(
    session: Session, family, image: Picture.Image, boxes: Sequence[Sequence[float]], visual: Visual, texts: list | None
) -> dict[str, Any]:
    """What the family says of boxes of one picture; see its `region_scores`."""
    row = {"id": "image", "image": image, "objects": {"bbox": [list(box) for box in boxes]}}
    if visual.segmenter:
        row["objects"]["mask"] = _codes(segmenter(session, visual.segmenter), [row])[0]
    return family.predictors(texts)["region_scores"]([row], visual=[visual])[0]


def masked(session: Session, config, rows):
    """The rows of an eval's data set, with SAM's masks of their boxes, where `visual.segmenter` names one and the data have no masks.

    Args:
        config: of an eval, any.
        rows: a `datasets.Dataset`; none: none.
    """
    if not isinstance(config, VisualEvalConfig) or not config.visual.segmenter or rows is None:
        return rows
    objects = rows.features.get("objects")
    if objects is None or "mask" in objects:
        return rows
    from datasets import Features

    from adapt.train.predict import predict
    from adapt.vision.pictures import MASKS

    sam = segmenter(session, config.visual.segmenter)
    codes = predict(Predictor(partial(_codes, sam), "rows"), sam, rows, BATCH, session.accelerator, title="masks of boxes")
    features = Features({**rows.features, "objects": {**objects, "mask": MASKS}})
    column = [row and {**row, "mask": code} for row, code in zip(rows["objects"][:], codes, strict=True)]
    return rows.remove_columns("objects").add_column("objects", column, feature=features["objects"])


def segmenter(session: Session, checkpoint: str):
    """A SAM, by its checkpoint: see `model.checkpoint` of `sam`."""
    module = plug.load("models", "sam")
    return module.load(module.Config(name="sam", checkpoint=checkpoint)).to(session.accelerator.device).eval()


def _codes(sam, samples: list[dict[str, Any]]) -> list[list[dict]]:
    """For each row the masks of its boxes, as COCO run lengths."""
    from adapt.vision.masks import rle

    out: list[list[dict]] = []
    for sample in samples:
        boxes = (sample.get("objects") or {}).get("bbox")
        answer = sam.predictors()["masks"]([sample], boxes=[boxes])[0] if boxes else {"masks": []}
        out.append([rle(mask) for mask in answer["masks"]])
    return out
