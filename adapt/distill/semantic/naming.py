"""Masks named by CLIP, and painted into one map."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture
from torch import nn

from adapt.distill.semantic import IGNORE
from adapt.prompting import text_masks
from adapt.prompting.text_masks import TextMasks
from adapt.train.precision import full

BATCH = 64


class Namer:
    """CLIP, asked what a mask shows.

    Args:
        config: how masks are shown; its `against` are words for the background.
        clip: the family, on its device.
        names: the classes' words.
    """

    def __init__(self, config: TextMasks, clip: nn.Module, names: Sequence[str]):
        self.clip, self.device = clip, next(clip.parameters()).device
        self.config, self.count = config.model_copy(update={"against": []}), len(names)
        texts = [*names, *config.against]
        templates = [config.templates] * len(names) + [["{}"]] * len(config.against)
        with torch.no_grad(), full():
            parts = [
                self.clip.text_embedding([t.replace("{}", text) for t in some]).mean(0) for text, some in zip(texts, templates)
            ]
        self.texts = torch.nn.functional.normalize(torch.stack(parts), dim=1)

    @torch.no_grad()
    def __call__(self, image: Picture.Image, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What masks bool[N, H, W] show: classes int64[N] (0 background, k + 1 the name k), and their probabilities float64[N]."""
        crops = [text_masks.crop(self.config, image, mask) for mask in masks]
        views = [self.clip.preprocess({"image": crop}, False)["image"] for crop in crops]
        if not views:
            return np.zeros(0, np.int64), np.zeros(0)
        images = torch.stack(views).to(self.device).float()
        embeddings = torch.cat([self.clip.image_embedding(part).float() for part in images.split(BATCH)])
        with full():
            values = (self.config.scale * embeddings @ self.texts.T).double().softmax(1)
        things, rest = values[:, : self.count], values[:, self.count :].sum(1)
        best = things.max(1)
        background = rest > best.values
        classes = torch.where(background, 0, best.indices + 1)
        return classes.cpu().numpy(), torch.where(background, rest, best.values).cpu().numpy()


def paint(
    masks: np.ndarray,
    classes: np.ndarray,
    probability: np.ndarray,
    size: tuple[int, int],
    min_probability: float,
    max_area: float,
) -> np.ndarray:
    """Masks bool[N, H, W] with their classes int[N] → a map uint8[H, W].

    The surest is painted last; a thing less probable than `min_probability` is not judged, one on a larger share of the picture than
    `max_area` is background.
    """
    canvas = np.zeros(size, np.uint8)
    for number in np.argsort(probability, kind="stable"):
        if classes[number] and masks[number].mean() <= max_area:
            canvas[masks[number]] = classes[number] if probability[number] >= min_probability else IGNORE
    return canvas


def encoded(canvas: np.ndarray) -> dict[str, Any]:
    """uint8[H, W] as an `Image` column stores it."""
    out = io.BytesIO()
    Picture.fromarray(canvas).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}
