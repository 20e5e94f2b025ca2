"""What CLIP says of the things in boxes: each thing is drawn in several ways, each drawing is encoded once, and so is each text.

region_embedding   rows → float32[B, D, E] of B boxes and D drawings, L2-normalised: what a search over words keeps
region_scores      rows → `classes` float32[B, D, C] and `texts` float32[B, D, T]: their scaled similarities with words
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adapt.contracts import Predictor
from adapt.plug import UserError
from adapt.prompting.visual import MARKS, SUMMED, TOKENS, Visual, asked, shown, things

IMAGES = 64
"""Drawings that are encoded together, at most."""
Text = str | Sequence[str]
"""A text, or several that stand for one thing: their embeddings are averaged, and normalised again."""


def predictors(family, texts: Sequence[Text] | None) -> dict[str, Predictor]:
    """What can be asked of rows with boxes.

    Args:
        family: a `Clip`.
    """
    classes, words = functools.cache(lambda: _classes(family)), functools.cache(lambda: _words(family, texts or []))

    def scores(samples: list[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
        return _scores(family, samples, classes(), words(), **options)

    embed = functools.partial(embedded, family)
    return {"region_scores": Predictor(scores, "rows"), "region_embedding": Predictor(embed, "rows")}


@torch.no_grad()
def embedded(
    family,
    samples: list[dict[str, Any]],
    visual: Sequence[Visual] | None = None,
    boxes: Sequence | None = None,
    plain: Sequence[bool] | None = None,
) -> list[Tensor]:
    """Each drawing of each box, encoded once.

    Args:
        samples: rows with `image`, and `objects` where no boxes are given; their masks are used where there are some.
        visual: for each row, how its things are drawn.
        boxes: for each row float[B, 4] XYXY in pixels of its picture, in the place of its objects.
        plain: for each row, is the plain crop encoded too, behind its drawings?

    Returns:
        for each row float32[B, D, E], L2-normalised; drawings in the order of `names`.

    Raises:
        UserError: a box is reversed, or off its picture; no picture is encoded then.
    """
    family.eval()
    visual, boxes = visual or [Visual()] * len(samples), boxes or [None] * len(samples)
    drawings = [names(own, also) for own, also in zip(visual, plain or [False] * len(samples), strict=True)]
    marked = [things(sample, given) for sample, given in zip(samples, boxes, strict=True)]
    views = (
        shown(own, sample["image"], thing, drawing, family.input)
        for sample, own, row, wanted in zip(samples, visual, marked, drawings, strict=True)
        for thing in row
        for drawing in wanted
    )
    device, parts = family.normalise.mean.device, []
    while part := list(itertools.islice(views, IMAGES)):
        parts.append(family.image_embedding(torch.stack(part).to(device).float()).cpu())
    encoded = torch.cat(parts) if parts else torch.zeros(0, 1)
    sizes = [(len(row), len(wanted)) for row, wanted in zip(marked, drawings, strict=True)]
    pieces = encoded.split([count * wanted for count, wanted in sizes])
    return [piece.reshape(*size, encoded.shape[1]) for piece, size in zip(pieces, sizes, strict=True)]


def names(visual: Visual, plain: bool = False) -> list[str]:
    """The drawings that are asked for; `plain`: and the one that others are compared with.

    Raises:
        UserError: CLIP does not read the box's words.
    """
    if TOKENS in (visual.drawings or []):
        raise UserError(
            f"visual.drawings: {TOKENS!r} is for models that read boxes as words. CLIP takes drawings of {', '.join(MARKS)}."
        )
    return asked(visual, SUMMED, plain)


def _scores(
    family,
    samples: list[dict[str, Any]],
    classes: Callable[[Tensor], Tensor] | None,
    words: Tensor,
    visual: Sequence[Visual] | None = None,
    boxes: Sequence | None = None,
    plain: Sequence[bool] | None = None,
    columns: Sequence[Sequence[int]] | None = None,
) -> list[dict[str, Any]]:
    """For each row what is said of its B boxes.

    Args:
        visual, boxes, plain: see `embedded`.
        columns: for each row, the numbers of the texts that are asked; none: all.

    Returns:
        `drawings`, the names of the D, of which the first `summed` are those of `visual`; `texts` float32[B, D, T]; and, where the family
        has classes, `classes` float32[B, D, C].
    """
    found = []
    for number, images in enumerate(embedded(family, samples, visual, boxes, plain)):
        config = visual[number] if visual else Visual()
        own = words if columns is None else words[list(columns[number])]
        row: dict[str, Any] = {"summed": len(names(config)), "drawings": names(config, bool(plain and plain[number]))}
        row["texts"] = _of(images, functools.partial(_logits, family, own)) if len(own) else _nothing(images)
        if classes is not None:
            row["classes"] = _of(images, classes)
        found.append(row)
    return found


@torch.no_grad()
def _of(images: Tensor, function: Callable[[Tensor], Tensor]):
    """A function of embeddings float32[N, E] → float32[N, K], of float32[B, D, E]: float32[B, D, K], as an array."""
    values = function(images.flatten(0, 1)).float().cpu()
    return values.reshape(*images.shape[:2], values.shape[1]).numpy()


def _logits(family, words: Tensor, images: Tensor) -> Tensor:
    device = family.normalise.mean.device
    return family.logits(images.to(device), words.to(device))


def _nothing(images: Tensor):
    return torch.zeros(*images.shape[:2], 0).numpy()


def _classes(family) -> Callable[[Tensor], Tensor] | None:
    """Embeddings → logits of the family's own classes: by its head, by what a method has learned, or by its words; none: it has no classes."""
    device = family.normalise.mean.device
    if family.head is not None:
        return lambda images: family.head_logits(images.to(device))
    if not family.classes:
        return None
    weight = family.fixed_classifier(family.templates)
    return lambda images: family.logits(images.to(device), weight)


@torch.no_grad()
def _words(family, texts: Sequence[Text]) -> Tensor:
    """float32[T, E], each different text encoded once."""
    groups = [[text] if isinstance(text, str) else list(text) for text in texts]
    place = {text: number for number, text in enumerate(dict.fromkeys(text for group in groups for text in group))}
    if not place:
        return torch.zeros(0, 1)
    encoded = family.text_embedding(list(place)).cpu()
    means = [encoded[[place[text] for text in group]].mean(0) for group in groups]
    return F.normalize(torch.stack(means), dim=-1)
