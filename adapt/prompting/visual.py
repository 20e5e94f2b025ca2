"""Drawn prompts: pictures on which one thing is marked, for models that see whole pictures, such as CLIP.

    blur      all outside the mask is blurred (FGVP's blur reverse mask)
    grey      all outside the mask loses its colours
    white     all outside the mask is white; for drawings on white, such as icons
    ellipse   the red ellipse inside the box (RedCircle)
    box       the box's red outline
    contour   the mask's red outline
    crop      the box alone

Names joined by `+` are one drawing, and are drawn in the order of this table: `crop+white` is the box alone, white around the thing. What a
model says of several drawings is summed. Where there is no mask, the box is the mask.

Each step is a function of its own, so that the expensive part (a picture through a network) is done once and combined again for nothing:

    drawn(config, image, box, mask, "blur")      # → a picture; a function of these values alone
    seen(picture, family.input, config.fit)      # → what the network sees: squashed or padded, nothing is cut; both: `shown`
    combine(scores, texts=negatives)             # scores of drawings → one score: sum, and subtraction

Sources: Shtedritski et al. 2023 (RedCircle), arXiv:2304.06712; Yang et al. 2023 (FGVP), arXiv:2306.04356; written from the papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from adapt.contracts import EvalConfig
from adapt.plug import Spec, UserError, nearest

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image as Picture
    from torch import Tensor

AROUND, LINES = ("blur", "grey", "white"), ("ellipse", "box", "contour")
MARKS = (*AROUND, *LINES, "crop")
"""What a drawing is made of, in the order of drawing."""
MASKED = (*AROUND, "contour")
"""What is drawn along a mask."""
PLAIN = "crop"
"""The drawing that others are compared with."""
SUMMED = ("crop", "blur", "grey", "contour")
"""The default of models that compare pictures with texts."""
TOKENS = "tokens"
"""No drawing: the box's own words `<loc…>`, of models that read them."""
NEAR = 0.5
"""Pixels by which a box may leave its picture; it is clipped."""


class Visual(Spec):
    """How a thing in a box is shown to a model, and how the scores are combined. Lengths are relative to the picture's long side."""

    drawings: list[str] | None = Field(None, min_length=1)
    """Whose scores are summed; see above. None: the model's own, which are crop, blur, grey, contour for CLIP, and tokens for PaliGemma."""
    expand: float = Field(0.01, ge=0, le=2)
    """The box is wider by this share of its sides at each side, inside the picture."""
    line: float = Field(0.3, gt=0, le=20)
    """Width of lines, per cent of the long side; a pixel at least. 0.3 is FGVP's 2 pixels on photographs of 640."""
    blur: float = Field(16.0, gt=0, le=100)
    """Standard deviation of the blur, per cent of the long side; a pixel at least. 16 is FGVP's 100 pixels on photographs of 640."""
    colour: tuple[int, int, int] = (255, 0, 0)
    """Of lines: red, green, blue, 0–255."""
    fit: Literal["squash", "pad"] = "squash"
    """How a drawn picture becomes the model's input: squashed, or padded to its shape. It is never cut: the marked thing could be lost."""
    subtract: float = Field(1.0, ge=0, le=2)
    """Which box is meant: how much of a box's mean score over negative texts is subtracted; 0: nothing."""
    segmenter: str | None = None
    """A SAM checkpoint, such as sam-tiny or facebook/sam-vit-base, that turns boxes into masks where there are none."""

    @field_validator("drawings")
    @classmethod
    def _known(cls, drawings: list[str] | None) -> list[str] | None:
        known: set[tuple[str, ...]] = set()
        for drawing in drawings or []:
            parts = (TOKENS,) if drawing == TOKENS else parse(drawing)
            if parts in known or len(parts) != len(set(parts)):
                raise ValueError(f"{drawing!r} is there twice")
            known.add(parts)
        return drawings

    @field_validator("colour")
    @classmethod
    def _bytes(cls, colour: tuple[int, int, int]) -> tuple[int, int, int]:
        if not all(0 <= value <= 255 for value in colour):
            raise ValueError("red, green and blue are numbers from 0 to 255")
        return colour


class VisualEvalConfig(EvalConfig):
    """Base of the `Config` of an eval that asks about the things in boxes."""

    visual: Visual = Visual()
    """How a thing is shown to the model."""

    @property
    def others(self) -> tuple[str, ...]:
        return (self.visual.segmenter,) if self.visual.segmenter else ()


def asked(visual: Visual, own: Sequence[str], plain: bool = False) -> list[str]:
    """The drawings that a question wants.

    Args:
        own: those of the model, where `visual` names none.
        plain: is the one that others are compared with wanted too? It comes last, unless it is there.
    """
    drawings = list(visual.drawings or own)
    return drawings + [PLAIN] * (plain and PLAIN not in drawings)


def parse(drawing: str) -> tuple[str, ...]:
    """'crop+white' → ('white', 'crop'), in the order of drawing.

    Raises:
        ValueError: a part is no mark; with the nearest name.
    """
    parts = drawing.replace(" ", "").split("+")
    for part in parts:
        if part == TOKENS:
            raise ValueError(f"{TOKENS!r} is no drawing, and cannot be joined with one; name it alone")
        if part not in MARKS:
            raise ValueError(f"there is no drawing {part!r}.{nearest(part, (*MARKS, TOKENS))}".rstrip("."))
    return tuple(sorted(parts, key=MARKS.index))


# ---------------------------------------------------------------------------------------------------------------- boxes


def checked(box: Sequence[float], size: tuple[int, int], where: str = "box") -> tuple[float, float, float, float]:
    """A box XYXY in pixels of a picture of `size` (width, height), clipped to it.

    Args:
        where: for messages, such as `evals: row 'a', box 2`.

    Raises:
        UserError: it is no box, reversed or empty, or leaves the picture by more than half a pixel.
    """
    width, height = size
    try:
        left, top, right, bottom = (float(value) for value in box)
    except (TypeError, ValueError):
        raise UserError(f"{where}: {box!r:.80} is not four numbers: left, top, right, bottom in pixels.") from None
    text = f"{where}: {left:g},{top:g},{right:g},{bottom:g}"
    if not (left < right and top < bottom):
        raise UserError(f"{text} is reversed or empty. Write left,top,right,bottom, with left < right and top < bottom.")
    if not (left >= -NEAR and top >= -NEAR and right <= width + NEAR and bottom <= height + NEAR):
        raise UserError(f"{text} leaves the picture, which has {width} × {height} pixels. Give a box on the picture.")
    return max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom)


def things(sample: dict[str, Any], boxes: Sequence | None = None) -> list[tuple[tuple[float, ...], np.ndarray | None]]:
    """The boxes of a row, and their masks bool[H, W], where there are some.

    Args:
        sample: with `image`, and `objects` where no boxes are given; regions of crowds are left out.
        boxes: float[B, 4] XYXY in pixels of its picture.

    Raises:
        UserError: a box is reversed or off the picture.
    """
    from adapt.vision.masks import singles, unrle

    where, size = f"row {sample.get('id', '?')!r}", sample["image"].size
    objects = singles(sample.get("objects") or {"bbox": []}) if boxes is None else {"bbox": boxes}
    codes = objects.get("mask") or [None] * len(objects["bbox"])
    found = [checked(box, size, f"{where}: box {number}") for number, box in enumerate(objects["bbox"], 1)]
    return [(box, None if code is None else unrle(code)) for box, code in zip(found, codes, strict=True)]


def expanded(box: Sequence[float], size: tuple[int, int], expand: float) -> tuple[int, int, int, int]:
    """Whole pixels of a box that is wider by a share of its sides at each side, inside a picture of `size` (width, height)."""
    left, top, right, bottom = box
    wide, high = expand * (right - left), expand * (bottom - top)
    x, y = (min(max(0, round(value)), side - 1) for value, side in zip((left - wide, top - high), size, strict=True))
    ends = (min(round(value), side) for value, side in zip((right + wide, bottom + high), size, strict=True))
    return x, y, *(max(end, start + 1) for end, start in zip(ends, (x, y), strict=True))


# ------------------------------------------------------------------------------------------------------------- drawings


def drawn(config: Visual, image: Picture.Image, box: Sequence[float], mask: np.ndarray | None, drawing: str) -> Picture.Image:
    """A picture on which a thing is marked.

    Args:
        image: RGB, W × H.
        box: XYXY in pixels, as `checked` gives it.
        mask: bool[H, W], of the thing; none, or without a pixel: the box.
        drawing: see above.

    Returns:
        RGB, W × H, or the box's size after `crop`.
    """
    import numpy as np
    from PIL import Image as Picture

    parts, frame = parse(drawing), expanded(box, image.size, config.expand)
    if any(part in MASKED for part in parts) and (mask is None or not mask.any()):
        left, top, right, bottom = frame
        mask = np.zeros(image.size[::-1], bool)
        mask[top:bottom, left:right] = True
    picture = image.convert("RGB")
    for part in parts:
        if part in AROUND:
            inside = Picture.fromarray(mask.astype(np.uint8) * 255)
            picture = Picture.composite(image.convert("RGB"), _around(config, picture, part), inside)
        elif part in LINES:
            picture = _lined(config, picture, frame, mask, part)
        else:
            picture = picture.crop(frame)
    return picture


def _around(config: Visual, image: Picture.Image, mark: str) -> Picture.Image:
    """What lies around the thing: the picture blurred, without colour, or white."""
    from PIL import Image as Picture
    from PIL import ImageFilter

    if mark == "blur":
        return image.filter(ImageFilter.GaussianBlur(max(1.0, config.blur / 100 * max(image.size))))
    return image.convert("L").convert("RGB") if mark == "grey" else Picture.new("RGB", image.size, "white")


def _lined(config: Visual, image: Picture.Image, frame: tuple[int, ...], mask: np.ndarray | None, mark: str) -> Picture.Image:
    """With a line: inside the frame's edges (box, ellipse), or just outside the mask (contour)."""
    import numpy as np
    from PIL import Image as Picture
    from PIL import ImageDraw
    from scipy.ndimage import distance_transform_edt

    width = max(1, round(config.line / 100 * max(image.size)))
    if mark == "contour":
        away = distance_transform_edt(~mask)
        pixels = np.array(image)
        pixels[(away > 0) & (away <= width)] = config.colour
        return Picture.fromarray(pixels)
    picture, (left, top, right, bottom) = image.copy(), frame
    pen = ImageDraw.Draw(picture)
    draw = pen.ellipse if mark == "ellipse" else pen.rectangle
    draw((left, top, right - 1, bottom - 1), outline=tuple(config.colour), width=width)
    return picture


def shown(
    config: Visual, image: Picture.Image, thing: tuple[Sequence[float], np.ndarray | None], drawing: str, spec: Any
) -> Tensor:
    """A thing, its box and its mask or none, drawn and as a network sees it: `drawn` and `seen`."""
    fill = (255, 255, 255) if "white" in parse(drawing) else None
    return seen(drawn(config, image, *thing, drawing), spec, config.fit, fill)


def seen(picture: Picture.Image, spec: Any, fit: str = "squash", fill: tuple[int, int, int] | None = None) -> Tensor:
    """A drawn picture as a network sees it, uint8[3, H, W] (float32 where its input is padded), without a pixel cut off.

    Args:
        spec: the network's `Input`.
        fit: `squash`: each side to the input's; `pad`: with `fill` around it, until it has the input's shape.
        fill: a colour; none: the channels' means, which are normalised to nothing.
    """
    from PIL import Image as Picture

    from adapt.vision.images import view

    if spec["resize"] == "longest":
        return view(picture, spec)
    high, wide = spec["size"]
    if fit == "pad" and picture.width * high != picture.height * wide:
        scale = max(picture.width / wide, picture.height / high)
        size = max(picture.width, round(scale * wide)), max(picture.height, round(scale * high))
        sheet = Picture.new("RGB", size, fill or tuple(round(255 * value) for value in spec["mean"]))
        sheet.paste(picture, ((size[0] - picture.width) // 2, (size[1] - picture.height) // 2))
        picture = sheet
    return view(picture, {**spec, "resize": (high, wide), "crop": None})


# --------------------------------------------------------------------------------------------------------------- scores


def combine(
    scores: np.ndarray,
    texts: np.ndarray | None = None,
    boxes: np.ndarray | None = None,
    subtract: float = 1.0,
) -> np.ndarray:
    """One score of what was said of several drawings, less what is said of anything.

    score(b, t) = 1/D Σ_d [ s(b, d, t) − subtract · 1/Q Σ_q s_q ]

    The mean over drawings chooses as their sum does, and keeps the softmax's temperature. Which box is meant by a text is asked with
    negative texts, s_q = s(b, d, t_q): a number for each box (RedCircle and FGVP call this subtraction). Which class is in a box is asked
    with negative boxes, s_q = s(b_q, d, t): a number for each class, since a number for each box would change no order there.

    Args:
        scores: float[B, D, T] of B boxes, D drawings, T texts.
        texts: float[B, D, Q], of negative texts; none: nothing is subtracted.
        boxes: float[Q, D, T], of negative boxes; none: nothing is subtracted.

    Returns:
        float[B, T].
    """
    total = scores.mean(1)
    if texts is not None and texts.shape[2]:
        total = total - subtract * texts.mean((1, 2))[:, None]
    if boxes is not None and len(boxes):
        total = total - subtract * boxes.mean((0, 1))[None]
    return total


def told(metrics: dict[str, float], name: str, what: str, subtracted: bool = True) -> str:
    """What each step brought, for a reader.

    Args:
        metrics: `NAME_plain`, `NAME_templates`, `NAME_drawings` and `NAME`, fractions.
        what: that is measured.
        subtracted: is anything?
    """
    steps = {"plain crop and template": f"{name}_plain", "with the templates": f"{name}_templates"}
    steps |= {"with the drawings": f"{name}_drawings"} | ({"with subtraction": name} if subtracted else {})
    return f"{what}: {', '.join(f'{words} {100 * metrics[step]:.1f} %' for words, step in steps.items())}."
