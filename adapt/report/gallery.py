"""Pictures in rows with words below them, as a notebook shows them: of data as they are, and with a model's answers drawn on them."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.plug import UserError, counted
from adapt.report.html import data_uri

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from PIL import Image as Picture

MOST = 60
"""Pictures that are shown at once."""
NAMED = 5
"""Classes that are named of a map of classes, the largest first."""
FITTED = "<style>figure svg{max-width:100%;height:auto}</style>"
"""Before plots, in a notebook: they are as wide as its column at most."""


@dataclass(frozen=True, repr=False)
class Gallery:
    """Pictures in rows, the words of each below it."""

    pictures: list[Picture.Image]
    words: list[str]
    side: int = 128
    """Pixels of a picture's longer side on the screen."""

    def __str__(self) -> str:
        return "\n".join(words or "(a picture)" for words in self.words)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        figures = (figure(picture, words, self.side) for picture, words in zip(self.pictures, self.words, strict=True))
        return f'<div style="display:flex;flex-wrap:wrap;gap:12px;align-items:flex-start">{"".join(figures)}</div>'


def figure(picture: Picture.Image, words: str, side: int) -> str:
    """A picture with its words as HTML, `side` pixels at its longer side; the file inside has at most twice as many."""
    small, out = picture.convert("RGB"), io.BytesIO()
    small.thumbnail((2 * side, 2 * side))
    small.save(out, "PNG", optimize=True)
    width = max(1, round(side * picture.width / max(picture.size)))
    return (
        f'<figure style="margin:0;width:{width}px"><img src="{data_uri(out.getvalue())}" alt="{escape(words)}" '
        f'style="width:100%"><figcaption style="font-size:12px;line-height:1.3;overflow-wrap:anywhere">{escape(words)}</figcaption></figure>'
    )


def show(
    rows: Dataset | Sequence[str | os.PathLike | Picture.Image | np.ndarray],
    answers: Sequence[dict[str, Any]] | None = None,
    words: Sequence[str] | None = None,
    side: int = 128,
) -> Gallery:
    """Pictures in rows, with what is known and what was answered.

    Args:
        rows: of a data set, such as `load_data(recipe)["test"].select(range(8))`: classes are named, masks or boxes of objects are drawn;
            or pictures: paths, PIL images, arrays uint8[H, W, 3].
        answers: of `Outcome.predict`, one a picture: classes are held against the row's own (✓, ✗), boxes drawn in red, maps laid over.
        words: to stand below the pictures, in place of what is known of them.
        side: pixels of a picture's longer side on the screen.

    Raises:
        UserError: there are more pictures than fit a screen, or as many answers or words as there are pictures is not what was given.
    """
    from datasets import Dataset

    from adapt.vision.classes import category_names

    if len(rows) > MOST:
        raise UserError(f"show: {len(rows)} pictures are too many to look at. Give {MOST} at most: rows.select(range({MOST})).")
    for what, given in (("answers", answers), ("words", words)):
        if given is not None and len(given) != len(rows):
            raise UserError(
                f"show: {counted(len(given), what.removesuffix('s'))} for {counted(len(rows), 'picture')}. Give one each."
            )
    known = isinstance(rows, Dataset)
    names = category_names(rows.features) if known else []
    labels = rows.features["label"].names if known and "label" in rows.features else []
    found: tuple[list, list] = ([], [])
    for i in range(len(rows)):
        row = rows[i] if known else {"image": _opened(rows[i])}
        picture, said = _drawn(row, answers[i] if answers else {}, names, labels, side)
        found[0].append(picture)
        found[1].append(said if words is None else str(words[i]))
    return Gallery(*found, side)


def _opened(picture: str | os.PathLike | Picture.Image | np.ndarray) -> Picture.Image:
    """A picture of any kind in RGB."""
    from adapt.vision.pictures import held, open_picture, reason, rgb

    try:
        if isinstance(picture, str | os.PathLike):
            return rgb(open_picture({"path": str(Path(picture).expanduser())}))
        return held(picture)
    except Exception as error:  # decoders raise nearly anything on broken bytes
        name = str(picture) if isinstance(picture, str | os.PathLike) else "an array"
        raise UserError(f"show: {name}: {reason(error)}. Give another file.") from None


def _drawn(
    row: dict[str, Any], answer: dict[str, Any], names: list[str], labels: list[str], side: int
) -> tuple[Picture.Image, str]:
    """A row's picture with its objects and the answer drawn on it, and what stands below it."""
    from adapt.vision.draw import PALETTE, overlay
    from adapt.vision.masks import unrle_many

    image, objects = row["image"], row.get("objects")
    label = labels[row["label"]] if labels and row["label"] >= 0 else None
    if "objects" in answer:
        return _boxes(image, objects, answer["objects"], side), ", ".join(_named(one) for one in answer["objects"]) or "nothing"
    if "classes" in answer:
        return _map(image, answer["classes"], answer["names"])
    if "label" in answer:
        mark = "" if label is None else "✓ " if answer["label"] == label else "✗ "
        there = f" (it is {label})" if mark == "✗ " else ""
        return image, f"{mark}{answer['label']} {answer['probability']:.0%}{there}"
    if "text" in answer:
        return image, answer["text"] or "(no words)"
    if label is not None or not objects:  # a thing alone on its picture needs no outline
        return image, label or _caption(row)
    said = ", ".join(names[k] for k in objects["category"]) if names else _caption(row)
    if "mask" in objects:
        return overlay(image, unrle_many(objects["mask"]), PALETTE), said
    return _boxes(image, objects, [], side), said


def _caption(row: dict[str, Any]) -> str:
    """What is said of a picture, the first of several; empty without."""
    said = row.get("caption") or ""
    return said if isinstance(said, str) else said[0]


def _named(one: dict[str, Any]) -> str:
    """An object that was found, in words."""
    return f"{one['name'] or 'another name'} {one['score']:.0%}"


def _boxes(image: Picture.Image, there: dict | None, found: Sequence[dict[str, Any]], side: int) -> Picture.Image:
    """The boxes that are there in green, and those that were found in red with their names."""
    from adapt.evals.detection.boxes import draw

    said = {"bbox": [one["box"] for one in found], "score": [one["score"] for one in found], "category": range(len(found))}
    return draw(image, there or {"bbox": [], "category": []}, said, [one["name"] or "?" for one in found], side=side)


def _map(image: Picture.Image, classes: np.ndarray, names: list[str]) -> tuple[Picture.Image, str]:
    """A map uint8[H, W] laid over its picture, 0 left as it is; and the names of its largest classes."""
    import numpy as np

    from adapt.vision.draw import PALETTE, overlay

    there, pixels = np.unique(classes[classes > 0], return_counts=True)
    order = np.argsort(-pixels, kind="stable")
    colours = [PALETTE[k % len(PALETTE)] for k in there]
    said = ", ".join(names[there[i]] for i in order[:NAMED]) + (", …" if len(there) > NAMED else "")
    return overlay(image, np.stack([classes == k for k in there]) if len(there) else [], colours), said or "nothing"
