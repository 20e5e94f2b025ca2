"""Retrieval, both ways: is one of a picture's own captions among the k nearest of all captions, and a caption's own picture among the
k nearest of all pictures?

Of several captions any is a hit; a caption that several pictures have is one text, and any of them is its picture. What scores as
high as the best right one stands before it: embeddings that are all alike find nothing.

Source: CLIP §3.1, arXiv:2103.00020; recall at 1, 5 and 10 as CLIP_benchmark counts it (`metrics/zeroshot_retrieval.py`).

    >>> evaluate(Config(name="retrieval"), predict, dataset, {}).metrics
    {'r1': 0.31, 'r5': 0.58, 'r10': 0.70, 'text_r1': 0.29, 'text_r5': 0.55, 'text_r10': 0.67, 'mean_r1': 0.30}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adapt.contracts import EvalConfig
from adapt.plug import UserError

if TYPE_CHECKING:
    import numpy as np

    from adapt.evals.result import Result

KS = (1, 5, 10)
BLOCK = 1024
"""Rows of similarities that are looked at together."""


class Config(EvalConfig):
    """Recall at 1, 5 and 10 from pictures to captions (`r1` …), from captions to pictures (`text_r1` …), and the mean of both at 1."""

    version = 2
    main = "r1"
    predictor = "class_logits"
    asks_texts = True


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set, texts=…) → similarities float32[N, len(texts)].
        dataset: rows with `id` and `caption`, one text or several.
        protocol: what the caller knows.

    Raises:
        UserError: there are no captions, or a row has none.
    """
    import numpy as np

    from adapt.evals.bootstrap import interval, mean, pictures
    from adapt.evals.resampled import two_ways
    from adapt.evals.result import Result

    captions = _captions(dataset, pictures(dataset))
    ids = list(captions)
    texts = {text: place for place, text in enumerate(dict.fromkeys(text for each in captions.values() for text in each))}
    own = [[texts[text] for text in each] for each in captions.values()]
    shown: list[list[int]] = [[] for _ in texts]
    for row, each in enumerate(own):
        for text in each:
            shown[text].append(row)
    place = {name: row for row, name in enumerate(dataset["id"][:])}
    scores = predict(dataset.select([place[name] for name in ids]), texts=list(texts))
    found, nearest = ranks(scores, own)
    back, _ = ranks(scores.T, shown)
    first = np.array([rows[0] for rows in shown], np.int64)
    homes = [ids[row] for row in first]  # a text is drawn again with the first picture that has it
    told, right = (np.bincount(first, values, len(ids)).astype(int).tolist() for values in (None, back < 1))
    hits = {f"r{k}": (found < k, ids) for k in KS} | {f"text_r{k}": (back < k, homes) for k in KS}
    words = list(texts)
    metrics = {name: float(values.mean()) for name, (values, _) in hits.items()}
    intervals = {name: interval(mean(*each), config.bootstrap) for name, each in hits.items()}
    return Result(
        metrics=metrics | {"mean_r1": (metrics["r1"] + metrics["text_r1"]) / 2},
        protocol=protocol | {"eval": "retrieval", "split": config.split, "texts": len(texts)},
        intervals=intervals | {"mean_r1": interval(two_ways(found < 1, told, right), config.bootstrap)},
        floor=max(map(len, shown), default=0) / max(1, len(ids)),
        table={
            "id": ids,
            "label": [words[each[0]] for each in own],
            "prediction": [words[place] for place in nearest],
            "correct": (found < 1).tolist(),
            "texts": told,
            "texts_found": right,
        },
    )


def statistic(table: dict[str, list]):
    """Recall at 1 from pictures to captions of a table, as a function of how often each picture was drawn."""
    from adapt.evals.bootstrap import mean

    return mean(table["correct"])


def ranks(scores: np.ndarray, own: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """How many wrong columns score as high as a row's best right one or higher, and which column is taken for the right one.

    Args:
        scores: float[N, M].
        own: for each row its right columns, one or more.

    Returns:
        int64[N] each; a row is found among the k best when its number is below k, and a tie is against it.
    """
    import numpy as np

    ahead, nearest = np.zeros((2, len(own)), np.int64)
    for start in range(0, len(own), BLOCK):
        rows = slice(start, start + BLOCK)
        block, counts = np.array(scores[rows]), [len(each) for each in own[rows]]
        row, column = np.repeat(np.arange(len(block)), counts), np.concatenate(own[rows])
        first = np.cumsum([0, *counts[:-1]])
        near = ~(block < np.maximum.reduceat(block[row, column], first)[:, None])  # also what is not a number is against it
        ahead[rows] = near.sum(1) - np.add.reduceat(near[row, column].astype(np.int64), first)
        lost = ahead[rows][row] > 0
        block[row[lost], column[lost]] = -np.inf
        nearest[rows] = block.argmax(1)
    return ahead, nearest


def _captions(dataset, shown: list[str]) -> dict[str, list[str]]:
    """The captions of each picture, by the id of the first row that shows it: those of all its rows, each once."""
    if "caption" not in dataset.column_names:
        raise UserError(f"evals: retrieval needs a column 'caption'. Have: {', '.join(dataset.column_names)}.")
    captions: dict[str, list[str]] = {}
    for name, picture, value in zip(dataset["id"], shown, dataset["caption"], strict=True):
        texts = [value] if isinstance(value, str) else list(value or [])
        if not texts:
            raise UserError(f"evals: row {name!r} has no caption, and retrieval asks for it. Write one, or leave the row out.")
        captions[picture] = list(dict.fromkeys([*captions.get(picture, []), *texts]))
    return captions
