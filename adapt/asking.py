"""One picture and one question: masks for words, a point, a box or an example; answers; classes.

For example: `ask(Stage(load_recipe("sam_semantic_student")), Question(image="scene.png", text="segment the red apple"))`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from adapt import plug
from adapt.plug import UserError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image as Picture

    from adapt.stage import Stage

MOST = 5
"""Classes that are told."""
FINER = 2
"""By example, a picture is looked at with so many times the pixels a side of the recipe's input: a thing is more than a patch or two."""


@dataclass
class Question:
    """What is asked of a picture; which of these go together is the family's to say."""

    image: str
    """A file."""
    text: str = ""
    """Words: a thing ("segment the red apple"), a question ("detect cat ; dog"), or class names apart by semicolons."""
    point: tuple[float, float] | None = None
    """x, y in pixels, on the thing."""
    box: tuple[float, float, float, float] | None = None
    """Left, top, right, bottom in pixels."""
    example: str = ""
    """A file: another picture of the thing, with its `mask`."""
    mask: str = ""
    """A file: not 0 where the example shows the thing."""


def ask(stage: Stage, question: Question) -> tuple[list[str], Picture.Image]:
    """The answer of the recipe's model, adapted if its run is finished, in lines, and drawn on the picture.

    Raises:
        UserError: a file is no picture, or the family cannot be asked this.
    """
    family = stage.adapted() if stage.finished("finetune") else stage.family
    family.eval()
    image, have = _open(question.image, "image"), family.predictors()
    prompted = question.point is not None or question.box is not None
    if "masks" in have and (question.text or prompted):
        return _masks(stage, family, image, question)
    if "text" in have and question.text:
        return _words(family, image, question.text)
    if "patch_features" in have and question.example:
        return _alike(stage, family, image, question)
    if hasattr(family, "text_embedding") and not prompted and not question.example:
        return _classes(stage, family, image, question.text)
    wanted = {"masks": "text, point or box", "text": "text", "patch_features": "example and mask", "class_logits": "text"}
    raise UserError(
        f"prompt: {stage.recipe.model.name!r} is asked with {next((w for name, w in wanted.items() if name in have), 'nothing')}."
    )


def _open(path: str, name: str) -> Picture.Image:
    from PIL import Image as Picture
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(Picture.open(path)).convert("RGB")
    except OSError as error:
        raise UserError(f"{name}: {path!r} is no picture that can be read ({type(error).__name__}). Give its file.") from None


def _masks(stage: Stage, family, image: Picture.Image, question: Question) -> tuple[list[str], Picture.Image]:
    import numpy as np

    from adapt.evals._draw import PALETTE, overlay

    if question.text:
        masks, scores, title = _named(stage, family, image, question.text)
    else:
        options: dict = {} if question.box is None else {"boxes": [[question.box]]}
        options |= {} if question.point is None else {"points": [(np.array([[question.point]]), np.array([[1]]))]}
        answer = family.predictors()["masks"]([{"id": question.image, "image": image}], **options)[0]
        masks, scores, title = answer["masks"], answer["scores"], "predicted IoU"
    lines = [
        f"{title} {score:.2f}, {int(mask.sum())} pixels, box {_box(mask)}" for mask, score in zip(masks, scores, strict=True)
    ]
    return lines, overlay(image, masks[:1], PALETTE)


def _named(stage: Stage, family, image: Picture.Image, text: str) -> tuple[np.ndarray, np.ndarray, str]:
    """Masks bool[N, H, W] of what is named and their scores float[N], the best first; and what the scores are."""
    import torch

    from adapt.distill import semantic
    from adapt.prompting import text_masks

    own = stage.recipe.distill
    config = own if isinstance(own, semantic.Config) else semantic.Config(name="semantic")
    text_masks.subject(text)  # refuses words that name nothing, before work begins
    masks = semantic.proposals(config, family)({"image": image})
    if not len(masks):
        raise UserError(
            "prompt: the model finds no thing that it is sure of. Lower distill.automatic.pred_iou_thresh and stability_score_thresh "
            "of a recipe with distill.name=semantic, such as sam_semantic_student."
        )
    module = plug.load("models", "clip")
    clip = module.load(module.Config(name="clip", checkpoint=config.clip)).to(stage.accelerator.device).eval()

    @torch.no_grad()
    def embed_images(pictures: list) -> np.ndarray:
        views = torch.stack([clip.preprocess({"image": picture}, False)["image"] for picture in pictures])
        return clip.image_embedding(views.float().to(stage.accelerator.device)).cpu().numpy()

    @torch.no_grad()
    def embed_texts(texts: list[str]) -> np.ndarray:
        return clip.text_embedding(texts).cpu().numpy()

    found = text_masks.find(config.words, image, masks, text, embed_images, embed_texts)
    return found["masks"], found["score"], "probability" if config.words.against else "similarity"


def _words(family, image: Picture.Image, text: str) -> tuple[list[str], Picture.Image]:
    from adapt.evals._boxes import draw

    (answer,) = family.answer([{"image": image}], [text])
    found = family.read(answer, image.size)
    return [family.words(answer)], draw(image, {"bbox": [], "category": []}, found, list(family.classes))


def _alike(stage: Stage, family, image: Picture.Image, question: Question) -> tuple[list[str], Picture.Image]:
    import numpy as np
    import torch

    from adapt.evals._draw import PALETTE, overlay
    from adapt.prompting.matching import Example, segment, similarity

    if not question.mask:
        raise UserError("mask: missing. Give the file that marks the thing on the example.")
    example, marked = _open(question.example, "example"), _open(question.mask, "mask")
    if example.size != marked.size:
        raise UserError(f"mask: {marked.size} pixels, and the example {example.size}. Give one of the example's size.")

    @torch.no_grad()
    def features(picture: Picture.Image) -> torch.Tensor:
        height, width = family.input["size"]
        whole = picture.resize((FINER * width, FINER * height))  # squeezed, not cut: its patches cover all of it
        view = torch.from_numpy(np.array(whole)).permute(2, 0, 1)[None].float()
        return family.patch_features(view.to(stage.accelerator.device)).cpu()

    inside = torch.from_numpy(np.array(marked.convert("L")) > 0)[None]
    mask = segment(similarity(features(image), Example.of(features(example), inside)), image.size[::-1])[0].numpy()
    line = f"{int(mask.sum())} pixels, box {_box(mask)}" if mask.any() else "nothing alike"
    return [line], overlay(image, mask[None], PALETTE)


def _classes(stage: Stage, family, image: Picture.Image, text: str) -> tuple[list[str], Picture.Image]:
    import torch

    names = [name.strip() for name in text.split(";") if name.strip()] or list(family.classes)
    view = family.preprocess({"image": image}, False)["image"][None].float().to(stage.accelerator.device)
    texts = [family.templates[0].replace("{}", name) for name in names] if text else None
    with torch.no_grad():
        chances = family.predictors(texts)["class_logits"](view).softmax(1)[0].cpu()
    best = chances.topk(min(MOST, len(names)))
    return [f"{chance:6.1%}  {names[i]}" for chance, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)], image


def _box(mask: np.ndarray) -> str:
    from adapt.masks import box

    return " ".join(f"{value:.0f}" for value in box(mask)) if mask.any() else "none"


def parse(arguments: list[str]) -> tuple[Question, Path]:
    """Take a question's own arguments out of those of a verb: the question, and the file that the drawn answer goes to."""
    given: dict = {}
    for argument in list(arguments):
        name, _, value = argument.partition("=")
        if name in (*Question.__dataclass_fields__, "out"):
            arguments.remove(argument)
            given[name] = value
    if not given.get("image"):
        raise UserError("image: missing. Write adapt prompt recipe=NAME image=FILE text='segment the red apple'.")
    for name, count in (("point", 2), ("box", 4)):
        if name in given:
            try:
                numbers = tuple(float(part) for part in given[name].split(","))
            except ValueError:
                numbers = ()
            if len(numbers) != count:
                raise UserError(f"{name}: {given[name]!r} is not {count} numbers. Write {name}={','.join(['20'] * count)}.")
            given[name] = numbers
    out = Path(given.pop("out", "prompt.png"))
    if not out.parent.is_dir():
        raise UserError(f"out: no folder {str(out.parent)!r}. Give a file in a folder that is there.")
    return Question(**given), out
