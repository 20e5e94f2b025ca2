"""From words to masks: proposals of a segmenter, scored by a text–image model.

    "segment the red apple" → subject "red apple" → its prompt against the crop of each mask → masks, the best first

Two functions of a CLIP-like family are all it takes:

    embed_images(pictures: list of PIL RGB images) -> float[N, D], L2-normalised
    embed_texts(texts) -> float[T, D], L2-normalised

Measured with clip-tiny on scenes of two to four things: the right mask is first for 98 % of the names on white, 86 % on grey, 88 % blurred,
86 % kept; by chance 32 %.

Sources: Kirillov et al. 2023 (SAM, arXiv:2304.02643), appendix D.5, where crops of masks are embedded by CLIP; Yang et al. 2023
(FGVP, arXiv:2306.04356) for the blurred background.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from adapt.plug import Spec, UserError
from adapt.prompting.word_lists import placed
from adapt.vision.masks import box

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image as Picture

ASKED = re.compile(
    r"^(please\s+)?((can|could)\s+you\s+)?"
    r"((segment|find|select|show|mask|cut\s+out|outline|highlight|where\s+(is|are))\s+)?((me|out)\s+)?"
    r"((all|every|each)\s+)?((of\s+)?(the|a|an)\s+)?",
    re.IGNORECASE,
)
"""What stands before the thing in a request."""


class TextMasks(Spec):
    """How a mask is shown to the text–image model, and with what its words are compared."""

    expand: float = Field(0.0, ge=0, le=2)
    """The crop is the mask's box, wider by this share of its sides at each side."""
    background: Literal["keep", "grey", "white", "blur"] = "blur"
    """What is done to the crop outside the mask; drawings on white, such as icons, are best shown on white."""
    blur: float = Field(10.0, gt=0)
    """Standard deviation of the blur, in hundredths of the crop's side."""
    square: bool = True
    """Crops are made square, since text–image models cut their input to a square: a long thing would lose its ends."""
    templates: list[str] = Field(["a photo of a {}"], min_length=1)
    """What is said of the thing, each with one `{}` or `{c}` for its name; embeddings of several are averaged."""
    against: list[str] = ["background", "a texture", "a part of a thing"]
    """Words that stand for everything else; the score is a softmax over them and the request. Empty: the bare cosine."""
    scale: float = Field(100.0, gt=0)
    """Factor of the cosines in that softmax: CLIP's own logit scale."""
    same: float = Field(0.8, gt=0, le=1)
    """Of several things asked for: two masks of at least this intersection over union are one thing, and its best word is kept."""
    inside: float | None = Field(0.9, gt=0, le=1)
    """So are two masks of which this share of the smaller lies in the larger; null: parts of things stay."""

    @field_validator("templates")
    @classmethod
    def _each_has_a_place(cls, templates: list[str]) -> list[str]:
        if wrong := [template for template in templates if placed(template) is None]:
            raise ValueError(f"{wrong[0]!r} needs exactly one {{}} (or {{c}}), where the name goes")
        return [template.replace("{c}", "{}") for template in templates]


def find(
    config: TextMasks,
    image: Picture.Image,
    masks: np.ndarray,
    request: str,
    embed_images: Callable[[list[Picture.Image]], Any],
    embed_texts: Callable[[list[str]], Any],
) -> dict[str, Any]:
    """Masks in the order of how well they show what is asked for.

    Args:
        image: RGB, W × H.
        masks: bool[N, H, W], proposals, each with a pixel.
        request: "segment the red apple", or just "red apple".

    Returns:
        masks bool[N, H, W], bbox float32[N, 4] XYXY pixels, score float64[N] falling (see `against`), similarity float64[N] (cosine),
        order int64[N] (a mask's place among the proposals).

    Raises:
        UserError: the request names nothing, or a mask is empty or of another size.
    """
    import numpy as np

    scores, similarity = score(config, image, masks, [subject(request)], embed_images, embed_texts)
    order = np.argsort(-scores[:, 0], kind="stable")
    boxes = np.array([box(mask) for mask in masks], np.float32).reshape(-1, 4)
    found = {"masks": np.asarray(masks, bool), "bbox": boxes, "score": scores[:, 0], "similarity": similarity[:, 0]}
    return {name: value[order] for name, value in found.items()} | {"order": order}


def find_all(
    config: TextMasks,
    image: Picture.Image,
    masks: np.ndarray,
    requests: Sequence[str],
    embed_images: Callable,
    embed_texts: Callable,
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """Masks of several things, each with the word that it shows best; arguments as in `find`.

    Where two masks are one thing, by their pixels and not by their boxes, the better stays: see `same` and `inside`.

    Args:
        requests: what is asked for.
        without: words that are not meant: they are among those that speak against each request (`against`), and a mask that shows one of
            them as well as its best request, or better, goes.

    Returns:
        as `find`, and request int64[M]: the number of each mask's request.

    Raises:
        UserError: a request names nothing.
    """
    import numpy as np

    from adapt.prompting.agreed import distinct

    names, others = [subject(request) for request in requests], [subject(name) for name in without]
    told = config.model_copy(update={"against": [*config.against, *others]})
    values, similarity = score(told, image, masks, [*names, *others], embed_images, embed_texts)
    own = similarity[:, : len(names)]
    best = own.argmax(1) if len(masks) else np.zeros(0, int)
    meant = np.ones(len(masks), bool)
    if others:
        meant = own.max(1, initial=-np.inf) > similarity[:, len(names) :].max(1, initial=-np.inf)
    chosen = np.flatnonzero(meant)
    sure = values[chosen, best[chosen]]
    kept = chosen[distinct(np.asarray(masks, bool)[chosen], sure, config.same, config.inside)] if len(chosen) else chosen
    boxes = np.array([box(masks[i]) for i in kept], np.float32).reshape(-1, 4)
    return {
        "masks": np.asarray(masks, bool)[kept],
        "bbox": boxes,
        "score": values[kept, best[kept]],
        "similarity": similarity[kept, best[kept]],
        "order": kept,
        "request": best[kept],
    }


def find_each(
    config: TextMasks,
    image: Picture.Image,
    masks: np.ndarray,
    names: Sequence[str],
    least: float,
    embed_images: Callable,
    embed_texts: Callable,
) -> dict[str, Any]:
    """Of each name by itself the masks that show it, perhaps none; arguments as in `find`. No name speaks against another.

    Args:
        least: the score from which a mask shows a name.

    Returns:
        masks bool[M, H, W], score float64[M] and name int64[M], the number of the name that each shows; of two masks of a name that are one
        thing (`same`, `inside`) the better.
    """
    import numpy as np

    from adapt.prompting.agreed import distinct

    masks = np.asarray(masks, bool)
    values, _ = score(config, image, masks, names, embed_images, embed_texts)
    kept: list[tuple[int, int]] = []
    for number in range(len(names)):
        shown = np.flatnonzero(values[:, number] >= least)
        if len(shown):
            best = distinct(masks[shown], values[shown, number], config.same, config.inside)
            kept += [(int(shown[i]), number) for i in best]
    rows, columns = np.array(kept, int).reshape(-1, 2).T
    return {"masks": masks[rows], "score": values[rows, columns], "name": columns}


def score(
    config: TextMasks,
    image: Picture.Image,
    masks: np.ndarray,
    names: Sequence[str],
    embed_images: Callable,
    embed_texts: Callable,
) -> tuple[np.ndarray, np.ndarray]:
    """How well each mask shows each name: score and cosine, float64[N, T] each; arguments as in `find`."""
    import numpy as np

    texts = np.stack([_text(config.templates, name, embed_texts) for name in names])
    if not len(masks):
        return np.zeros((0, len(names))), np.zeros((0, len(names)))
    crops = [crop(config, image, mask) for mask in masks]
    images = _array(embed_images(crops))
    similarity = images @ texts.T
    if not config.against:
        return similarity, similarity
    others = np.exp(config.scale * (images @ _array(embed_texts(list(config.against))).T)).sum(1, keepdims=True)
    own = np.exp(config.scale * similarity)
    return own / (own + others), similarity


def subject(request: str) -> str:
    """What a request is about: "Segment the red apple, please." → "red apple".

    Raises:
        UserError: nothing is left.
    """
    text = re.sub(r"[\s,]*(please)?[\s.!?]*$", "", request.strip(), flags=re.IGNORECASE)
    text = ASKED.sub("", text, count=1).strip()
    if text.lower() in ("", "the", "a", "an"):
        raise UserError(f"text: {request!r} names nothing. Say what to segment, such as 'the red apple'.")
    return text


def crop(config: TextMasks, image: Picture.Image, mask: np.ndarray) -> Picture.Image:
    """What the text–image model sees of a mask bool[H, W]: its surroundings kept, greyed, whitened or blurred; grey off the image.

    Raises:
        UserError: the mask is empty, or not of the image's size.
    """
    import numpy as np
    from PIL import Image as Picture
    from PIL import ImageFilter

    if mask.shape != image.size[::-1] or not mask.any():
        size = f"{mask.shape[1]} × {mask.shape[0]} with {int(mask.sum())} pixels set"
        raise UserError(
            f"masks: a mask is {size}, the image {image.width} × {image.height}. Give masks of its size that are not empty."
        )
    left, top, right, bottom = _frame(config, box(mask))
    grey = (128, 128, 128)
    view = Picture.new("RGB", (right - left, bottom - top), grey)
    view.paste(image.convert("RGB"), (-left, -top))
    if config.background == "keep":
        return view
    if config.background == "blur":
        around = view.filter(ImageFilter.GaussianBlur(config.blur / 100 * max(view.size)))
    else:
        around = Picture.new("RGB", view.size, grey if config.background == "grey" else "white")
    place = Picture.new("L", view.size)
    place.paste(Picture.fromarray(mask.astype(np.uint8) * 255), (-left, -top))
    return Picture.composite(view, around, place)


def _frame(config: TextMasks, found: list[float]) -> tuple[int, int, int, int]:
    """The crop of a box, XYXY pixels; it may reach beyond the image."""
    left, top, right, bottom = found
    wide, high = ((1 + 2 * config.expand) * side for side in (right - left, bottom - top))
    if config.square:
        wide = high = max(wide, high)
    wide, high = max(1, round(wide)), max(1, round(high))
    x, y = round((left + right - wide) / 2), round((top + bottom - high) / 2)
    return x, y, x + wide, y + high


def _text(templates: Sequence[str], name: str, embed_texts: Callable) -> np.ndarray:
    """The prompt's embedding: normalised, averaged over the templates, normalised again (CLIP §3.1.4)."""
    import numpy as np

    mean = _array(embed_texts([template.replace("{}", name) for template in templates])).mean(0)
    return mean / max(np.linalg.norm(mean), 1e-12)


def _array(values) -> np.ndarray:
    """A tensor or an array → float64."""
    import numpy as np

    return np.asarray(values if isinstance(values, np.ndarray) else values.detach().cpu(), np.float64)
