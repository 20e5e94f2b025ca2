"""One picture and one question: masks for words, points, a box or an example; answers; classes.

For example: `ask(Session(load_recipe("sam_semantic_student")), Question(image="scene.png", text="segment the red apple"))`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapt.plug import UserError
from adapt.prompting.visual import checked
from adapt.verbs import kept, naming
from adapt.verbs.question import Answer, Question, called

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image as Picture

    from adapt.verbs.session import Session

MOST = 5
"""Answers that are printed, where there are more; all of them are written."""
DRAWN = 512
"""Pixels of the longer side of a picture with boxes and names on it: on a smaller one names have no room."""
FINER = 2
"""By example, a picture is looked at with so many times the pixels a side of the recipe's input: a thing is more than a patch or two."""
PLACES = {"point", "outside", "box"}
# predictor → what its questions must have and may have, and how a refusal names them
WAYS = {
    "masks": (
        [({"text"}, {"text", "without"}), ({"point"}, PLACES), ({"box"}, {*PLACES, "jitter"}), ({"grid"}, {"grid"})],
        "text (and without), point or box (and outside, beside these two, and jitter beside a box), or grid",
    ),
    "text": ([({"text"}, {"text"})], "text"),
    "patch_features": ([({"example", "mask"}, {"example", "mask"})], "example and mask"),
    "class_logits": ([(set(), {"text"})], "text (names), or nothing (the classes of the data)"),
    "region_scores": (
        [({"box"}, {"box", "text"}), ({"text", "boxes"}, {"text", "boxes"})],
        "box (and text: names), or boxes and text",
    ),
}
LISTED = ("class_logits", "region_scores")
"""What may be asked with a list of names."""


def ask(session: Session, question: Question) -> Answer:
    """The answer of the recipe's model, adapted if its run is finished.

    Raises:
        UserError: a file is no picture, or the family cannot be asked this.
    """
    image = _open(question.image, "image")
    _on(image.size, question)
    adapted = kept.finetuned(session)
    family = kept.adapted(session) if adapted else session.family
    family.eval()
    about = {"name": session.recipe.model.name, "checkpoint": session.recipe.model.checkpoint, "adapted": adapted}
    functions = {"masks": _masks, "text": _words, "patch_features": _alike, "class_logits": _classes, "region_scores": _placed}
    answer = functions[_way(family, question, about["name"])](session, family, image, question)
    start = {"image": called(question.image), "size": list(image.size), "model": about, "question": question.told()}
    answer.found = start | answer.found
    return answer


def _way(family, question: Question, name: str) -> str:
    """The predictor that answers the question; refuses what family `name` cannot be asked."""
    given, offered = question.given(), family.predictors()
    ways = {predictor: way for predictor, way in WAYS.items() if predictor in offered}
    if "class_logits" in ways and not family.knows_texts:
        ways["class_logits"] = [(set(), set())], "nothing (the classes of the data)"
    for predictor, (asked, _) in ways.items():
        if any(must <= given.keys() <= may for must, may in asked):
            if predictor not in LISTED and not isinstance(question.text, str):
                raise UserError(f"text: {question.text!r} is a list; ask {name!r} with one text.")
            return predictor
    wanted = "; or with ".join(words for _, words in ways.values()) or "nothing"
    raise UserError(f"prompt: ask {name!r} with {wanted}. Given: {', '.join(given) or 'nothing'}.")


# -------------------------------------------------------------------------------------------------------------- pictures


def _open(path: str | os.PathLike | Picture.Image | np.ndarray, name: str) -> Picture.Image:
    """A file → its picture in RGB, by the same door as the sources' pictures; `name`: the part of the question."""
    from adapt.data.problems import KINDS
    from adapt.data.scan import inspect, quiet
    from adapt.vision.pictures import held, open_picture, reason, rgb

    if not isinstance(path, str | os.PathLike):
        try:
            return held(path)
        except (TypeError, ValueError) as error:
            raise UserError(f"{name}: the picture is not usable: {reason(error)}. Give one of 8 bits, or a file.") from None
    value = {"path": str(Path(path).expanduser()), "bytes": None}
    with quiet():
        problems = inspect(value).problems
    for kind, detail in problems:
        if KINDS[kind][0]:
            why = f"{kind} ({detail})" if detail else kind
            raise UserError(f"{name}: {path!r} is not a usable picture: {why}. Give another file.")
    return rgb(open_picture(value))


def _marked(mask: str | os.PathLike | Picture.Image | np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask, or its file → where it is not 0 and not transparent, bool[H, W]; of an example of `size` (width, height)."""
    import numpy as np
    from PIL import Image, ImageOps

    from adapt.vision.pictures import open_picture

    _open(mask, "mask")
    path = called(mask)
    if isinstance(mask, str | os.PathLike):
        picture = ImageOps.exif_transpose(open_picture({"path": str(Path(mask).expanduser())}))
    else:
        picture = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
    bands = picture.getbands()
    values = np.asarray(picture).reshape(*picture.size[::-1], len(bands)) > 0
    inside = values[..., :-1].any(-1) & values[..., -1] if bands[-1] == "A" else values.any(-1)
    if picture.size != size:
        sizes = [f"{width} × {height}" for width, height in (picture.size, size)]
        raise UserError(f"mask: {path!r} has {sizes[0]} pixels, and the example {sizes[1]}. Give a mask of the example's size.")
    if not inside.any():
        raise UserError(f"mask: {path!r} is 0 everywhere. Mark the thing with another value.")
    return inside


def _drawn(image: Picture.Image, mask: np.ndarray, question: Question | None = None) -> Picture.Image:
    """The mask bool[H, W] as a red veil; points on the thing in green, points outside and the box in blue."""
    from PIL import ImageDraw

    from adapt.vision.draw import PALETTE, clicked, overlay

    picture = overlay(image, mask[None], PALETTE)
    if question is None:
        return picture
    if question.box is not None:
        width = max(1, round(max(image.size) / 300))
        ImageDraw.Draw(picture).rectangle(tuple(question.box), outline=PALETTE[1], width=width)
    return clicked(picture, [*((x, y, 1) for x, y in question.point), *((x, y, 0) for x, y in question.outside)])


def _shown(masks: np.ndarray, scores: np.ndarray | None, title: str) -> dict[str, Any]:
    """Masks bool[N, H, W] and scores float[N] for JSON; `title`: what the scores are."""
    from adapt.vision.masks import box, rle

    found = [{"rle": rle(mask), "box": box(mask), "pixels": int(mask.sum())} for mask in masks]
    if scores is None:
        return {"masks": found}
    return {"score": title, "masks": [one | {"score": float(score)} for one, score in zip(found, scores, strict=True)]}


def _line(one: dict[str, Any], title: str = "") -> str:
    """An entry of `_shown` in words."""
    score = f"{title} {one['score']:.2f}, " if "score" in one else ""
    name = f"{one['name']}: " if "name" in one else ""
    return f"{name}{score}{one['pixels']} pixels, box {' '.join(f'{value:.0f}' for value in one['box']) if one['pixels'] else 'none'}"


# -------------------------------------------------------------------------------------------------------- one a question


def _masks(session: Session, family, image: Picture.Image, question: Question) -> Answer:
    names: Sequence[str] = ()
    if question.text:
        masks, scores, title, names = _named(session, family, image, question)
    elif question.grid:
        masks, scores, title = _everything(session, family, image, question.grid)
    else:
        masks, scores, title = _prompted(family, image, question)
    found = _shown(masks, scores, title)
    for one, name in zip(found["masks"], names, strict=False):
        one["name"] = name
    lines = [_line(one, title) for one in found["masks"][:MOST]]
    if len(masks) > MOST:
        lines.append(f"… and {len(masks) - MOST} more masks")
    return Answer(lines, found, _drawn(image, masks[0], question), masks[0])


def _prompted(family, image: Picture.Image, question: Question) -> tuple[np.ndarray, np.ndarray, str]:
    """The mask bool[1, H, W] for points and a box, its score float[1], and what the score is."""
    import numpy as np

    from adapt.prompting.agreed import NOISE, jittered, medoid

    boxes = [] if question.box is None else [question.box]
    if boxes and question.jitter > 1:
        boxes = jittered(question.box, question.jitter, NOISE, image.size)
    options: dict = {"boxes": [boxes]} if len(boxes) else {}
    points = [*question.point, *question.outside]
    if points:
        labels = [1] * len(question.point) + [0] * len(question.outside)
        many = max(1, len(boxes))
        options["points"] = [(np.array([points] * many), np.array([labels] * many))]
    answer = family.predictors()["masks"]([{"id": called(question.image), "image": image}], **options)[0]
    if len(boxes) < 2:
        return answer["masks"], answer["scores"], "predicted IoU"
    best, agreement = medoid(answer["masks"])
    return answer["masks"][best : best + 1], np.array([agreement]), "agreement"


def _everything(session: Session, family, image: Picture.Image, side: int) -> tuple[np.ndarray, np.ndarray, str]:
    """All masks bool[N, H, W] that a grid of points finds, their scores float[N], and what the scores are."""
    import numpy as np

    from adapt.distill import semantic
    from adapt.prompting.automatic import Automatic, functions, generate
    from adapt.vision.masks import unrle_many

    own = isinstance(session.recipe.distill, semantic.Config)
    config = session.recipe.distill.automatic if own else Automatic()
    found = generate(config.model_copy(update={"points_per_side": side}), np.array(image), *functions(family))
    if not found["mask"]:
        raise UserError(_nothing(config, own))
    return unrle_many(found["mask"]), found["score"], "predicted IoU"


def _on(size: tuple[int, int], question: Question) -> None:
    """Refuse points and boxes that are not on a picture of `size` (width, height)."""
    for name, places in (("point", question.point), ("outside", question.outside)):
        for place in places:
            if not all(0 <= value <= side for value, side in zip(place, size, strict=True)):
                text = f"{name}: {','.join(f'{value:g}' for value in place)}"
                raise UserError(f"{text} leaves the picture, which has {size[0]} × {size[1]} pixels.")
    if question.box is not None:
        checked(question.box, size)
    for number, box in enumerate(question.boxes, 1):
        checked(box, size, f"boxes: box {number}")


def _named(session: Session, family, image: Picture.Image, question: Question) -> tuple[np.ndarray, np.ndarray, str, list[str]]:
    """Masks bool[N, H, W] of what is named and their scores float[N], the best first; what the scores are, and of several
    things the name of each."""
    from adapt.distill import semantic
    from adapt.prompting import text_masks

    own = isinstance(session.recipe.distill, semantic.Config)
    config = session.recipe.distill if own else semantic.Config(name="semantic")
    config = config.model_copy(update={"proposals": "automatic"})  # a question brings no boxes
    requests = [part.strip() for part in question.text.split(";") if part.strip()] or [question.text]
    others = [part.strip() for part in question.without.replace(",", ";").split(";") if part.strip()]
    names = [text_masks.subject(text) for text in [*requests, *others]]  # refuses words that name nothing, before work begins
    masks = semantic.proposals(config, family)({"image": image})
    if not len(masks):
        raise UserError(_nothing(config.automatic, own))
    _, embed_images, embed_texts = naming.embedders(session, config.clip)
    title = "probability" if config.words.against or others else "similarity"
    if len(requests) == 1 and not others:
        found = text_masks.find(config.words, image, masks, question.text, embed_images, embed_texts)
        return found["masks"], found["score"], title, []
    found = text_masks.find_all(config.words, image, masks, requests, embed_images, embed_texts, others)
    if not len(found["masks"]):
        raise UserError(
            f"without: every mask shows {' or '.join(map(repr, names[len(requests) :]))} as well as what is asked for, or better."
        )
    return found["masks"], found["score"], title, [names[i] for i in found["request"]]


def _nothing(automatic, own: bool) -> str:
    """What to do when no mask is proposed; `own`: has the recipe a section that says how masks are proposed?"""
    now = {name: getattr(automatic, name) for name in ("pred_iou_thresh", "stability_score_thresh")}
    start = "prompt: the model found no mask in this picture that it is sure of."
    if own:
        return f"{start} Lower {' and '.join(f'distill.automatic.{name} (now {value:g})' for name, value in now.items())}."
    lower = ", ".join(f"{name}: {value - 0.2:.2g}" for name, value in now.items())
    section = f"distill='{{name: semantic, automatic: {{{lower}}}}}'"
    return f"{start} Show the thing with point= or box=, or accept masks that are less sure: {section}."


def _words(session: Session, family, image: Picture.Image, question: Question) -> Answer:
    from adapt.evals.detection.boxes import draw

    (answer,) = family.answer([{"image": image}], [question.text])
    text, found, names = family.words(answer), family.read(answer, image.size), list(family.classes)
    objects = [
        {"name": names[k] if k >= 0 else None, "box": [float(value) for value in box], "score": float(score)}
        for box, k, score in zip(found["bbox"], found["category"], found["score"], strict=True)
    ]
    lines = [
        f"{one['name'] or 'another name'} {one['score']:.2f}, box {' '.join(f'{value:.0f}' for value in one['box'])}"
        for one in objects
    ]
    drawn = draw(image, {"bbox": [], "category": []}, found, names, side=DRAWN) if objects else None
    return Answer([text or "(no words)", *lines], {"text": text, "objects": objects}, drawn)


def _alike(session: Session, family, image: Picture.Image, question: Question) -> Answer:
    import numpy as np
    import torch

    from adapt.prompting.matching import Example, segment, similarity

    example = _open(question.example, "example")
    inside = _marked(question.mask, example.size)

    @torch.no_grad()
    def features(picture: Picture.Image) -> torch.Tensor:
        height, width = family.input["size"]
        whole = picture.resize((FINER * width, FINER * height))  # squeezed, not cut: its patches cover all of it
        view = torch.from_numpy(np.array(whole)).permute(2, 0, 1)[None].float()
        return family.patch_features(view.to(session.accelerator.device)).cpu()

    shown = Example.of(features(example), torch.from_numpy(inside)[None])
    mask = segment(similarity(features(image), shown), image.size[::-1])[0].numpy()
    found = _shown(mask[None] if mask.any() else mask[None][:0], None, "")
    return Answer([_line(one) for one in found["masks"]] or ["nothing alike"], found, _drawn(image, mask), mask)


def _placed(session: Session, family, image: Picture.Image, question: Question) -> Answer:
    from adapt.verbs.boxes import chosen, named

    return named(session, family, image, question) if question.box is not None else chosen(session, family, image, question)


def _classes(session: Session, family, image: Picture.Image, question: Question) -> Answer:
    import torch

    names = question.names() if question.text else list(family.classes)
    if not names:
        raise UserError("text: missing, and the data have no class names. Give names, such as text='ants, bees'.")
    if len(names) == 1:
        classes = f", or leave text out for the {len(family.classes)} classes of the data" if len(family.classes) > 1 else ""
        raise UserError(
            f"text: the share of one name, {names[0]!r}, is always 100 %: there is nothing to compare it with. "
            f"Give two or more, such as text='{names[0]}, something else'{classes}."
        )
    view = family.preprocess({"image": image}, False)["image"][None].float().to(session.accelerator.device)
    texts = [family.templates[0].replace("{}", name) for name in names] if question.text else None
    with torch.no_grad():
        shares = family.predictors(texts)["class_logits"](view).float().softmax(1)[0].cpu()
    ranked = sorted(zip(shares.tolist(), names, strict=True), key=lambda pair: -pair[0])
    lines = [f"{share:6.1%}  {name}" for share, name in (ranked if question.text else ranked[:MOST])]
    return Answer(lines, {"classes": [{"name": name, "share": share} for share, name in ranked]})
