"""What a predictor says of a picture, as a user reads it; shared by `Outcome.predict` and the verb `predict`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from adapt.contracts import Predictor

    Size = Callable[[], tuple[int, int]]
    Answer = Callable[[Any, Size, list[str]], dict[str, Any]]

VALUES = 2**24
"""Logits in memory when a map is enlarged to its picture's size, about."""


def _class(logits: np.ndarray, size: Size, names: list[str]) -> dict[str, Any]:
    shares = probabilities(logits)
    best = int(shares.argmax())
    return {"label": names[best], "probability": float(shares[best])}


def _objects(found: dict, size: Size, names: list[str]) -> dict[str, Any]:
    parts = zip(found["bbox"], found["category"], found["score"], strict=True)
    return {
        "objects": [
            {"name": names[k] if k >= 0 else None, "box": [float(side) for side in box], "score": float(score)}
            for box, k, score in parts
        ]
    }


def _pixels(logits: np.ndarray, size: Size, names: list[str]) -> dict[str, Any]:
    return {"classes": enlarged(logits, *size()), "names": ["background", *names]}


ANSWERS: dict[str, Answer] = {
    "class_logits": _class,
    "semantic_logits": _pixels,
    "detections": _objects,
    "text": lambda text, *_: {"text": text},
    "image_embedding": lambda embedding, *_: {"embedding": embedding},
}
"""Predictor → its answer for a picture: (result, the picture's width and height when they are asked for, class names); the first that
there is."""


def offered(module: Any) -> dict[str, Predictor]:
    """What a family or a student can be asked as it is: without classes no class logits, which their words would make."""
    found = dict(module.predictors(None))
    if not module.classes:
        found.pop("class_logits", None)
    return found


def probabilities(logits: np.ndarray) -> np.ndarray:
    """float[C, …] → its softmax over the classes."""
    from scipy.special import softmax

    return softmax(logits, axis=0)


def enlarged(logits: np.ndarray, width: int, height: int) -> np.ndarray:
    """Logits float[C, h, w] → the class of each pixel of a picture, uint8[height, width], by bilinear interpolation.

    Columns are interpolated at once and rows in runs, so that a large picture with many classes does not fill the memory.
    """
    import numpy as np
    import torch
    import torch.nn.functional as F

    wide = F.interpolate(torch.from_numpy(logits)[None], (logits.shape[1], width), mode="bilinear", align_corners=False)[0]
    places = ((torch.arange(height) + 0.5) * (logits.shape[1] / height) - 0.5).clamp(min=0)
    above = places.long().clamp(max=logits.shape[1] - 1)
    below, share = (above + 1).clamp(max=logits.shape[1] - 1), (places - above).float()[None, :, None]
    step = max(1, VALUES // (len(logits) * width))
    classes = np.empty((height, width), np.uint8)
    for start in range(0, height, step):
        rows = slice(start, start + step)
        part = torch.lerp(wide[:, above[rows]], wide[:, below[rows]], share[:, rows])
        classes[rows] = part.argmax(0).byte().numpy()
    return classes
