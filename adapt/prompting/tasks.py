"""What a vision-language model is asked, and what it should answer, made from the columns of any source.

The public syntax of PaliGemma (its README in big_vision; arXiv:2407.07726 §3.2):

    caption    caption en                                    → a pig face and a bus
    detect     detect ground vehicle ; mammal animal         → <loc…>×4 mammal animal ; <loc…>×4 ground vehicle
    detect_all detect fruit ; ground vehicle ; mammal animal → the same
    segment    segment mammal animal                         → <loc…>×4<seg…>×16 mammal animal
    count      answer en how many things are there?          → 2
    classify   answer en what is this?                       → mammal animal
    ocr        ocr                                           → the caption, taken for the text in the picture
    given      the columns prefix and suffix as they are

Protocol: `detect` names the categories that are present, in alphabetical order; `detect_all` names all that there are, as evaluation
and labelling ask with `ask: all`, so that the model learns to say which are present and nobody has to tell it. Objects are answered
from left to right (by their left edge, then their top). `segment` names one present category, drawn by the view's seed, and answers
all its objects. Where there is no object, `detect` and `segment` name one category, drawn by the seed, and nothing is answered.
`count` without such a column counts the objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from adapt.plug import UserError
from adapt.prompting.tokens import Codebook, encode_box
from adapt.vision.masks import unrle

COLUMNS: dict[str, tuple[str, ...]] = {
    "given": ("prefix", "suffix"),
    "caption": ("caption",),
    "detect": ("objects",),
    "detect_all": ("objects",),
    "segment": ("objects",),
    "count": ("count",),
    "classify": ("label",),
    "ocr": ("caption",),
}
"""Task → the columns that its answers come from."""
CAPTION, COUNT, CLASSIFY, OCR = (
    "caption en",
    "answer en how many things are there?",
    "answer en what is this?",
    "ocr",
)
SEPARATOR = " ; "


def needs(task: str, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns that a task takes from data with these columns."""
    return ("objects",) if task == "count" and "count" not in columns and "objects" in columns else COLUMNS[task]


def pair(task: str, sample: dict[str, Any], classes: Sequence[str], seed: int = 0, codebook: Codebook | None = None):
    """A question and its answer: (prefix, suffix).

    Args:
        task: a key of `COLUMNS`.
        sample: a row; where there are objects, `size` (width, height) of the image in pixels as well.
        classes: words of the categories and labels 0, 1, ….
        seed: chooses among several captions or categories.
        codebook: of masks, for `segment`.

    Raises:
        UserError: the answer is empty.
    """
    prefix, suffix = ANSWERS[task](sample, classes, seed, codebook)
    if not str(suffix or "").strip() and task not in ("detect", "detect_all", "segment"):
        raise UserError(
            f"data: row {sample.get('id', '?')!r} has an empty {'suffix' if task == 'given' else f'answer to {task!r}'}. "
            "A model learns nothing from it: fill it in, or leave the row out."
        )
    return prefix, str(suffix)


def detect(words: Sequence[str]) -> str:
    """The question after objects of these categories, each named once, in alphabetical order."""
    return f"detect {SEPARATOR.join(sorted(set(words)))}"


def named(prefix: str) -> list[str]:
    """The categories that a question `detect …` or `segment …` names."""
    return [word.strip() for word in prefix.partition(" ")[2].split(";") if word.strip()]


def category_words(categories: Sequence[int], classes: Sequence[str]) -> list[str]:
    """Words of categories; raises a `UserError` when there are none."""
    if not classes:
        raise UserError(
            "prompts.classes: objects are asked for by name, and the categories have none. Name them in prompts.classes."
        )
    return [classes[category] for category in categories]


# ------------------------------------------------------------------------------------------------------------- one a task


def _given(sample, classes, seed, codebook) -> tuple[str, str]:
    return sample["prefix"], sample["suffix"]


def _text(prefix: str) -> Callable:
    def answer(sample, classes, seed, codebook) -> tuple[str, str]:
        caption = sample["caption"]
        return prefix, caption if isinstance(caption, str | None) else caption[seed % len(caption)] if caption else ""

    return answer


def _count(sample, classes, seed, codebook) -> tuple[str, str]:
    return COUNT, str(sample["count"] if sample.get("count") is not None else len(sample["objects"]["bbox"]))


def _classify(sample, classes, seed, codebook) -> tuple[str, str]:
    return CLASSIFY, category_words([sample["label"]], classes)[0]


def _detect(sample, classes, seed, codebook) -> tuple[str, str]:
    objects = sample["objects"]
    words = category_words(objects["category"], classes)
    order = reading(objects["bbox"])
    return detect(words or [_absent(classes, seed)]), SEPARATOR.join(
        f"{encode_box(objects['bbox'][i], sample['size'])} {words[i]}" for i in order
    )


def _detect_all(sample, classes, seed, codebook) -> tuple[str, str]:
    return detect(category_words(range(len(classes)), classes)), _detect(sample, classes, seed, codebook)[1]


def _segment(sample, classes, seed, codebook) -> tuple[str, str]:
    codebook = codebook or Codebook(None)
    objects = sample["objects"]
    words = category_words(objects["category"], classes)
    present = sorted(set(words))
    chosen = present[seed % len(present)] if present else _absent(classes, seed)
    answers = []
    for i in reading(objects["bbox"]):
        if words[i] == chosen:
            box = objects["bbox"][i]
            answers.append(f"{encode_box(box, sample['size'])}{codebook.write(unrle(objects['mask'][i]), box)} {chosen}")
    return f"segment {chosen}", SEPARATOR.join(answers)


def _absent(classes: Sequence[str], seed: int) -> str:
    return classes[seed % len(classes)]


def reading(boxes: Sequence[Sequence[float]]) -> list[int]:
    """From left to right."""
    return sorted(range(len(boxes)), key=lambda i: (boxes[i][0], boxes[i][1]))


ANSWERS = {
    "given": _given,
    "caption": _text(CAPTION),
    "detect": _detect,
    "detect_all": _detect_all,
    "segment": _segment,
    "count": _count,
    "classify": _classify,
    "ocr": _text(OCR),
}
