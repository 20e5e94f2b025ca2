"""CLIP beside a segmenter: which of its masks show the words; for questions, and for evals that ask for masks of words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from adapt import plug
from adapt.contracts import Predictor
from adapt.evals import concepts
from adapt.plug import UserError
from adapt.prompting import text_masks
from adapt.vision.masks import rle, unrle_many

if TYPE_CHECKING:
    import numpy as np

    from adapt.verbs.session import Session

BATCH = 64
"""Pictures at a time."""


def embedders(session: Session, checkpoint: str) -> tuple[Any, Callable[[list], np.ndarray], Callable[[list[str]], np.ndarray]]:
    """A CLIP by its checkpoint, and the two functions of it that `prompting/text_masks.py` needs; a text is embedded once.

    Raises:
        UserError: it cannot be had, or is no CLIP.
    """
    import numpy as np
    import torch

    module, device = plug.load("models", "clip"), session.accelerator.device
    try:
        clip = module.load(module.Config(name="clip", checkpoint=checkpoint)).to(device).eval()
    except UserError as error:
        raise UserError(str(error).replace("model.checkpoint", "clip", 1)) from None
    known: dict[str, np.ndarray] = {}

    @torch.no_grad()
    def embed_images(pictures: list) -> np.ndarray:
        views = (torch.stack([clip.preprocess({"image": one}, False)["image"] for one in part]) for part in _parts(pictures))
        return np.concatenate([clip.image_embedding(part.float().to(device)).float().cpu().numpy() for part in views])

    @torch.no_grad()
    def embed_texts(texts: list[str]) -> np.ndarray:
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            known.update(zip(new, clip.text_embedding(new).float().cpu().numpy(), strict=True))
        return np.stack([known[text] for text in texts])

    return clip, embed_images, embed_texts


def asked(session: Session, config, predict: Callable) -> Callable:
    """The predictor of an eval: one that asks for masks of words gets them, of proposals that CLIP names; every other asks as before.

    Args:
        config: of an eval, any.
        predict: see `measuring.predictor`.
    """
    if not isinstance(config, concepts.Config):
        return predict
    from adapt.train.predict import predict as over

    clip, embed_images, embed_texts = embedders(session, config.clip)

    def shown(
        samples: list[dict[str, Any]], words: Sequence[Sequence[str]], masks: Sequence[list[dict]]
    ) -> list[dict[str, Any]]:
        return [_shown(config, *row, embed_images, embed_texts) for row in zip(samples, words, masks, strict=True)]

    def run(rows, name: str = "class_logits", texts: list[str] | None = None, **options: Any):
        if name != concepts.ASKED:
            return predict(rows, name, texts, **options)
        found = predict(rows, config.predictor, automatic=[config.automatic] * len(rows))
        masks = [row["mask"] for row in found]
        return over(
            Predictor(shown, "rows"), clip, rows, BATCH, session.accelerator, title="words", name=name, masks=masks, **options
        )

    return run


def _shown(config: concepts.Config, sample: dict[str, Any], words: Sequence[str], codes: list[dict], *embed: Callable):
    """Of one picture: the masks of each word, COCO run lengths, their scores, and the number of the word that each shows."""
    if not (codes and words):
        return {"mask": [], "score": [], "word": []}
    found = text_masks.find_each(config.words, sample["image"], unrle_many(codes), words, config.least, *embed)
    return {"mask": [rle(mask) for mask in found["masks"]], "score": found["score"].tolist(), "word": found["name"].tolist()}


def _parts(things: list) -> list[list]:
    return [things[start : start + BATCH] for start in range(0, len(things), BATCH)]
