"""What SAM answers of a picture that is encoded once: masks of clicks and boxes, of words, and of all that is like one of them.

    mask, score = prompted(desk, "sam-tiny", upload, points=[(40, 60, True), (90, 20, False)], box=None)

Clicks run the decoder alone. Words look at what a grid of points finds, an example at what boxes of its size find, asked once too; CLIP
compares it with words, DINOv2 with the example. They look at a larger picture scaled down, about as fine as SAM's own answers are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from adapt.demo.desk import Desk, Model
from adapt.demo.parts import Upload
from adapt.demo.regions import Point, sized
from adapt.plug import UserError
from adapt.prompting import automatic, text_masks
from adapt.prompting.alike import alike, around
from adapt.prompting.automatic import Automatic
from adapt.prompting.text_masks import TextMasks
from adapt.vision.masks import box, rle, unrle, unrle_many

if TYPE_CHECKING:
    from PIL import Image as Picture
    from torch import Tensor

GRID = Automatic(points_per_side=12, pred_iou_thresh=0.6, stability_score_thresh=0.7)
"""How everything is asked for; less sure than SAM's own, since a word or an example chooses among the answers."""
WORDS = TextMasks(background="white", templates=["{}"], against=[])
"""How words are compared with masks: see `text_masks.py`."""
LEAST, SURE, TWICE = 0.1, 0.5, 0.8
"""Of what may be like an example: the least cosine that is kept, SAM's least predicted IoU, and the IoU of boxes of one thing."""
SMALLEST = 256
"""Pixels: a picture's longer side is not scaled below this, before everything in it is asked for."""
BATCH = 64
"""Cut-outs that are embedded at once."""


@dataclass(frozen=True)
class Proposals:
    """Masks of a picture, as COCO's run lengths."""

    codes: tuple[dict, ...]
    scores: tuple[float, ...] = ()
    """Cosines, of those that are like an example; falling."""

    @property
    def nbytes(self) -> int:
        """That it has."""
        return sum(len(code["counts"]) for code in self.codes)


def features(desk: Desk, model: Model, upload: Upload) -> Tensor:
    """float[C, h, w]: what the image encoder makes of a picture, once. The model is in use by the caller."""

    def encode() -> Tensor:
        if "masks" not in model.module.predictors():
            raise UserError(
                f"{model.choice.name}: it does not answer clicks. Choose a SAM, or a student that learnt its masks."
            )
        view = model.module.preprocess({"id": "picture", "image": desk.picture(upload.path)}, False)["image"]
        return model.module.image_features(view[None].float().to(model.device))[0].cpu()

    return desk.answers.get((model.choice.name, upload.path, "features"), encode)


def ready(desk: Desk, name: str, upload: Upload) -> None:
    """Encode a picture before it is asked about."""
    import torch

    with desk.using(name) as model, torch.inference_mode():
        features(desk, model, upload)


def prompted(
    desk: Desk, name: str, upload: Upload, points: Sequence[Point], box: Sequence[float] | None
) -> tuple[np.ndarray, float]:
    """The mask bool[H, W] of points and a box (one of them at least), in pixels of the picture, and its predicted IoU.

    Raises:
        UserError: a place is not on the picture.
    """
    import torch

    options: dict[str, Any] = {"boxes": [[box]]} if box is not None else {}
    if points:
        options["points"] = [(np.array([[point[:2] for point in points]]), np.array([[int(point[2]) for point in points]]))]
    row = {"id": "picture", "image": desk.picture(upload.path)}
    with desk.using(name) as model, torch.inference_mode():
        known = features(desk, model, upload)
        answer = model.module.predictors()["masks"]([row], features=[known], **options)[0]
    return answer["masks"][0], float(answer["scores"][0])


def proposals(desk: Desk, name: str, upload: Upload) -> tuple[Picture.Image, np.ndarray]:
    """All that a grid of points finds, once: the picture as it was looked at, w × h, and the masks bool[N, h, w].

    Raises:
        UserError: nothing is found.
    """
    import torch

    def find() -> Proposals:
        known = features(desk, model, upload)[None].to(model.device), _inside(model, picture), picture.size[::-1]
        _, decode, grow = automatic.functions(model.module)
        return Proposals(tuple(automatic.generate(GRID, np.array(picture), lambda image: known, decode, grow)["mask"]))

    with desk.using(name) as model, torch.inference_mode():
        picture = _working(desk, model, upload)
        codes = desk.answers.get((name, upload.path, "proposals"), find).codes
    if not codes:
        raise UserError("The model found nothing in this picture that it is sure of. Click on the thing.")
    return picture, unrle_many(codes)


def _working(desk: Desk, model: Model, upload: Upload) -> Picture.Image:
    """The picture, no finer than a model's answers need."""
    side = max(SMALLEST, model.module.input["size"][0] // 2)  # SAM's logits have a fourth of its input's side

    def smaller() -> Picture.Image:
        small = desk.picture(upload.path).copy()
        small.thumbnail((side, side))
        return small

    return desk.pictures.get((upload.path, side), smaller)


def _inside(model: Model, picture: Picture.Image) -> list[int]:
    """Height and width that the picture has in the model's input, pixels."""
    return model.module.preprocess({"id": "picture", "image": picture}, False)["size"].tolist()


def named(
    desk: Desk, name: str, words_by: str, upload: Upload, words: str
) -> tuple[list[tuple[str, np.ndarray, float]], list[str]]:
    """For each name the mask that shows it best: (name, bool[H, W] of the picture's size, cosine); and the names without one, since each
    mask shows another name better.

    Args:
        words_by: a CLIP.
        words: names or requests ("the red apple"), with commas or semicolons between them.

    Raises:
        UserError: there are no words, or no masks.
    """
    requests = list(dict.fromkeys(part.strip() for part in words.replace(",", ";").split(";") if part.strip()))
    if not requests:
        raise UserError("words: none yet. Write what to find, such as the red apple; the bus.")
    names = [text_masks.subject(text) for text in requests]
    picture, masks = proposals(desk, name, upload)
    kept = (words_by, upload.path, name, "crops")
    found = text_masks.find_all(WORDS, picture, masks, requests, _embedded(desk, words_by, kept), _texts(desk, words_by))
    best: dict[int, int] = {}
    for place, number in enumerate(found["request"].tolist()):
        best.setdefault(number, place)  # they come the best first
    shown = [
        (names[number], sized(found["masks"][place], upload.size), float(found["score"][place]))
        for number, place in sorted(best.items())
    ]
    return shown, [text for number, text in enumerate(names) if number not in best]


def like(desk: Desk, name: str, example_by: str, upload: Upload, example: dict, least: float) -> list[tuple[np.ndarray, float]]:
    """All that shows the same as a mask (COCO's run lengths, of the picture's size): (bool[H, W], cosine), the most alike first. SAM is asked
    with boxes of its size all over the picture, once.

    Args:
        example_by: a DINOv2, or a CLIP.
        least: the cosine from which it is the same.

    Raises:
        UserError: the example is empty.
    """
    import torch

    def find() -> Proposals:
        mask = sized(unrle(example), picture.size)
        with desk.using(name) as model, torch.inference_mode():
            candidates = _in_boxes(desk, model, upload, picture, around(mask)) if mask.any() else mask[None][:0]
        found = alike(picture, mask, candidates, _embedded(desk, example_by), LEAST)
        return Proposals(tuple(rle(candidates[i]) for i in found["order"]), tuple(found["similarity"].tolist()))

    with desk.using(name) as model:
        picture = _working(desk, model, upload)
    found = desk.answers.get((name, example_by, upload.path, example["counts"]), find)
    near = [(code, score) for code, score in zip(found.codes, found.scores, strict=True) if score >= least]
    return [(sized(unrle(code), upload.size), score) for code, score in near]


def _in_boxes(desk: Desk, model: Model, upload: Upload, picture: Picture.Image, boxes: np.ndarray) -> np.ndarray:
    """Masks bool[N, h, w] of what lies in boxes, those that SAM is sure of; of two with nearly the same box the surer one."""
    import torch
    from torchvision.ops import nms

    row = {"id": "picture", "image": picture}
    answer = model.module.predictors()["masks"]([row], boxes=[boxes], features=[features(desk, model, upload)])[0]
    sure = (answer["scores"] > SURE) & answer["masks"].any((1, 2))
    masks, scores = answer["masks"][sure], torch.from_numpy(answer["scores"][sure])
    places = torch.tensor([box(mask) for mask in masks]).view(-1, 4)
    return masks[nms(places, scores, TWICE).numpy()]


def _embedded(desk: Desk, name: str, kept: tuple | None = None) -> Callable[[list], np.ndarray]:
    """Pictures → float32[N, D]; with a key kept, for the same pictures each time."""
    import torch

    def embed(pictures: list) -> np.ndarray:
        with desk.using(name) as model, torch.inference_mode():

            def encode() -> np.ndarray:
                views = [model.module.preprocess({"image": picture}, False)["image"] for picture in pictures]
                parts = torch.stack(views).split(BATCH)
                return np.concatenate(
                    [model.module.image_embedding(part.float().to(model.device)).float().cpu().numpy() for part in parts]
                )

            return desk.answers.get(kept, encode) if kept else encode()

    return embed


def _texts(desk: Desk, name: str) -> Callable[[list[str]], np.ndarray]:
    import torch

    def embed(texts: list[str]) -> np.ndarray:
        with desk.using(name) as model, torch.inference_mode():
            return model.module.text_embedding(texts).float().cpu().numpy()

    return embed
