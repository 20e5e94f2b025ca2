"""Image → name retrieval: is the picture's own caption the nearest among all captions of the split?

Source: CLIP §3.1, arXiv:2103.00020; recall@k over distinct captions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adapt.plug import Plugin, UserError

if TYPE_CHECKING:
    from adapt.evals._result import Result

MAIN = "r1"
"""The metric by which guards compare."""
PREDICTOR = "class_logits"
"""What it asks of a module; where it is lacking, the eval is left out."""
TEXTS = True
"""Does it ask the predictor about texts of its own?"""


class Config(Plugin):
    """Recall at 1 and at 5 over the distinct captions."""

    split: str = "test"
    """The split that is measured."""


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any]) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set, texts=…) → similarities float32[N, len(texts)].
        dataset: rows with `id` and `caption`, one text or several, of which the first counts.
        protocol: what the caller knows.

    Raises:
        UserError: there are no captions.
    """
    import numpy as np

    from adapt.evals._metrics import bootstrap
    from adapt.evals._result import Result

    if "caption" not in dataset.column_names:
        raise UserError(f"evals: retrieval needs a column 'caption'. Have: {', '.join(dataset.column_names)}.")
    captions = [caption if isinstance(caption, str) else caption[0] for caption in dataset["caption"]]
    texts = list(dict.fromkeys(captions))
    scores = predict(dataset, texts=texts)
    own = scores[np.arange(len(captions)), [texts.index(caption) for caption in captions]]
    rank = (scores > own[:, None]).sum(1)
    hits = {"r1": (rank < 1).astype(float), "r5": (rank < 5).astype(float)}
    return Result(
        metrics={name: float(values.mean()) for name, values in hits.items()},
        protocol=protocol | {"eval": "retrieval", "split": config.split, "texts": len(texts)},
        intervals={name: bootstrap(values, 1000) for name, values in hits.items()},
    )
