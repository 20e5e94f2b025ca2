"""Boxes and masks as words: `<loc0000>` … `<loc1023>` and `<seg000>` … `<seg127>`, the language of PaliGemma.

    encode_box([16, 32, 64, 96], (128, 128)) → '<loc0256><loc0128><loc0767><loc0512>'     # y1 x1 y2 x2

Source: big_vision, `pp/proj/paligemma/segmentation.py`: location = round(1023 · coordinate / side), half to even, cut to 0 … 1023;
back: location / 1023 (`evaluators/proj/paligemma/transfers/segmentation.py`). So a round trip errs by half a bin at most.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from adapt.plug import UserError

if TYPE_CHECKING:
    from torch import Tensor

LOCATIONS, SEGMENTS = 1024, 128
MASK_TOKENS, MASK_SIDE = 16, 64
WORDS = [f"<loc{i:04d}>" for i in range(LOCATIONS)] + [f"<seg{i:03d}>" for i in range(SEGMENTS)]
"""All of them, in the order of PaliGemma's vocabulary."""

RUN = re.compile(r"((?:<loc\d{4}>)+)\s*((?:<seg\d{3}>)*)([^<;]*)")
NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Found:
    """One object of a generated text."""

    locations: tuple[int, int, int, int]
    """Numbers of the location words: of PaliGemma y1 x1 y2 x2, each 0 … 1023."""
    segments: tuple[int, ...]
    """Sixteen codewords of its mask, or none."""
    name: str
    """The words that follow."""
    spans: tuple[tuple[int, int], tuple[int, int]]
    """Where in the text its four locations stand, and its name."""


def encode_box(box: Sequence[float], size: tuple[int, int]) -> str:
    """A box XYXY in pixels of an image of `size` (width, height) → four location words."""
    width, height = size
    left, top, right, bottom = box
    shares = np.array([top / height, left / width, bottom / height, right / width])
    return "".join(WORDS[i] for i in np.clip(np.rint(shares * (LOCATIONS - 1)), 0, LOCATIONS - 1).astype(int))


def decode_box(locations: Sequence[int], size: tuple[int, int]) -> list[float]:
    """Four locations y1 x1 y2 x2 → a box XYXY in pixels of an image of `size` (width, height)."""
    width, height = size
    top, left, bottom, right = (value / (LOCATIONS - 1) for value in locations)
    return [left * width, top * height, right * width, bottom * height]


def encode_segments(segments: Sequence[int]) -> str:
    """Codewords 0 … 127 → their words."""
    return "".join(WORDS[LOCATIONS + i] for i in segments)


def parse(text: str) -> tuple[list[Found], int]:
    """What a generated text says of objects.

    Returns:
        the objects in their order, and how many could not be read: a run of locations whose length is no multiple of four, a box
        that is reversed or empty, a location above 1023, codewords that are not sixteen in 0 … 127.
    """
    found, unread = [], 0
    for run in RUN.finditer(text):
        places = [int(number) for number in NUMBER.findall(run[1])]
        codes = tuple(int(number) for number in NUMBER.findall(run[2]))
        if len(places) % 4:
            unread += 1
            continue
        for start in range(0, len(places), 4):
            top, left, bottom, right = places[start : start + 4]
            whole = not codes or (len(codes) == MASK_TOKENS and max(codes) < SEGMENTS)
            if top < bottom < LOCATIONS and left < right < LOCATIONS and whole:
                first = run.start() + start * len(WORDS[0])
                spans = ((first, first + 4 * len(WORDS[0])), run.span(3))
                found.append(Found((top, left, bottom, right), codes, run[3].strip(), spans))
            else:
                unread += 1
    return found, unread


def overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of float[N, 4] and float[M, 4] XYXY: float[N, M]."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [np.clip(part[:, 2:] - part[:, :2], 0, None).prod(1) for part in (boxes, others)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)


def distinct(boxes: np.ndarray, categories: np.ndarray, scores: np.ndarray, most: float) -> np.ndarray:
    """Greedy suppression inside each category: numbers of the boxes that stay, the surest first.

    Args:
        boxes: float[N, 4] XYXY; `categories` int[N]; `scores` float[N].
        most: an intersection over union above this is the same object twice.
    """
    shared = overlap(boxes, boxes) * (categories[:, None] == categories[None])
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if not kept or shared[i, kept].max() <= most:
            kept.append(int(i))
    return np.array(kept, int)


# ------------------------------------------------------------------------------------------------------------------ masks


class Codebook:
    """The VQ-VAE between masks and codewords, from big_vision's published weights (`vae-oid.npz`, Apache-2.0).

    Architecture: Ning et al. 2023, arXiv:2301.02229.
    """

    def __init__(self, path: str | Path | None, place: str = "model.masks"):
        if path is None:
            raise UserError(
                f"{place}: masks are written with <seg> words, and these need the weights of their codebook. Give the path of "
                "big_vision's vae-oid.npz (gs://big_vision/paligemma/vae-oid.npz)."
            )
        try:
            with np.load(Path(path).expanduser(), allow_pickle=False) as file:
                self.weights = {name: file[name].astype(np.float32) for name in file.files}
        except (OSError, ValueError, EOFError, AttributeError) as error:
            raise UserError(f"{place}: {str(path)!r} cannot be read as .npz ({' '.join(str(error).split())[:100]}).") from None
        lacking = [name for name in ("_vq_vae._embedding", "encoder.0.weight", "decoder.12.weight") if name not in self.weights]
        if lacking:
            raise UserError(f"{place}: {str(path)!r} lacks {', '.join(lacking)}. Give big_vision's vae-oid.npz.")

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        import torch

        return {name: torch.from_numpy(value) for name, value in self.weights.items()}

    def _convolve(self, x: Tensor, layer: str, stride: int = 1, grow: bool = False) -> Tensor:
        import torch.nn.functional as F

        kernel, bias = self._tensors[f"{layer}.weight"], self._tensors[f"{layer}.bias"]
        padding = (kernel.shape[-1] - 1) // 2
        return (F.conv_transpose2d if grow else F.conv2d)(x, kernel, bias, stride=stride, padding=padding)

    def _residual(self, x: Tensor, layer: str) -> Tensor:
        inner = self._convolve(self._convolve(x, f"{layer}.net.0").relu(), f"{layer}.net.2").relu()
        return x + self._convolve(inner, f"{layer}.net.4")

    def decode(self, segments: np.ndarray) -> np.ndarray:
        """Codewords int[N, 16] → masks float32[N, 64, 64]; inside where above 0."""
        import torch

        with torch.inference_mode():
            codes = self._tensors["_vq_vae._embedding"][torch.as_tensor(np.asarray(segments))]
            x = codes.view(len(codes), 4, 4, -1).permute(0, 3, 1, 2)
            x = self._convolve(x, "decoder.0").relu()
            for layer in ("decoder.2", "decoder.3"):
                x = self._residual(x, layer)
            for layer in ("decoder.4", "decoder.6", "decoder.8", "decoder.10"):
                x = self._convolve(x, layer, stride=2, grow=True).relu()
            return self._convolve(x, "decoder.12")[:, 0].numpy()

    def encode(self, masks: np.ndarray) -> np.ndarray:
        """Masks float[N, 64, 64] in 0 … 1, cut out by their boxes → codewords int64[N, 16]."""
        import torch

        with torch.inference_mode():
            x = 2 * (torch.as_tensor(masks, dtype=torch.float32)[:, None] - 0.5)
            for layer in ("encoder.0", "encoder.2", "encoder.4", "encoder.6"):
                x = self._convolve(x, layer, stride=2).relu()
            for layer in ("encoder.8", "encoder.9"):
                x = self._residual(x, layer)
            x = self._convolve(x, "encoder.10").permute(0, 2, 3, 1).flatten(1, 2)
            return torch.cdist(x, self._tensors["_vq_vae._embedding"][None]).argmin(-1).numpy()

    def write(self, mask: np.ndarray, box: Sequence[float]) -> str:
        """A mask bool[H, W] and its box XYXY in pixels → sixteen words."""
        import torch
        import torch.nn.functional as F

        left, top, right, bottom = (round(value) for value in box)
        cut = torch.from_numpy(np.ascontiguousarray(mask[top : max(bottom, top + 1), left : max(right, left + 1)]))
        small = F.interpolate(cut[None, None].float(), (MASK_SIDE, MASK_SIDE), mode="bilinear", antialias=True)
        return encode_segments(self.encode(small[0].numpy())[0])

    def read(self, segments: Sequence[int], box: Sequence[float], size: tuple[int, int]) -> np.ndarray:
        """Sixteen codewords and their box XYXY in pixels → the mask bool[H, W] of an image of `size` (width, height)."""
        from PIL import Image

        canvas = np.zeros((size[1], size[0]), bool)
        left, top, right, bottom = (int(value) for value in box)
        if right > left and bottom > top:
            small = Image.fromarray(self.decode(np.array([segments]))[0])
            inside = np.asarray(small.resize((right - left, bottom - top), Image.Resampling.BILINEAR)) > 0
            canvas[top:bottom, left:right] = inside[: size[1] - top, : size[0] - left]
        return canvas
