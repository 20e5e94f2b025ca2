"""Two pictures and two captions of the same words in another order: does each picture find its caption, and each caption its picture?

A pair is two rows, each a picture with its own caption. What scores as high as the right one is against it. By chance the text score and
the image score are 1/4 each, and the group score, both together, is 1/6.

Source: Winoground, Thrush et al. 2022, arXiv:2204.03162, §4; chance: its Table 3.

    >>> evaluate(Config(name="pairs"), predict, dataset, {}).metrics
    {'group_score': 0.08, 'text_score': 0.31, 'image_score': 0.11}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adapt.contracts import EvalConfig
from adapt.plug import UserError, counted

if TYPE_CHECKING:
    import numpy as np

    from adapt.evals.result import Result

CHANCE = 1 / 6


class Config(EvalConfig):
    """Winoground's text, image and group score."""

    main = "group_score"
    predictor = "class_logits"
    asks_texts = True


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set, texts=…) → similarities float32[N, len(texts)].
        dataset: rows with `id`, `caption`, the picture's own text, and `pair`, which two rows share.
        protocol: what the caller knows.

    Raises:
        UserError: a column is not there, a row has no caption, or a pair has not two rows.
    """
    import numpy as np

    from adapt.evals.bootstrap import interval, mean
    from adapt.evals.by_set import winoground
    from adapt.evals.captions import columns, scored
    from adapt.evals.result import Result

    captions, numbers = columns(dataset, "pairs", ("caption", "pair"))
    pairs = _pairs(numbers)
    asked: list[list[str]] = [[]] * len(captions)
    for pair in pairs:
        for row in pair:
            asked[row] = [captions[other] for other in pair]
    scores = np.stack(scored(predict, dataset, asked))[pairs]  # [pairs, picture, caption]
    found = winoground(scores)
    ids, own = dataset["id"][:], np.array(captions, object)[pairs]
    chosen = np.where(
        found["text_score"][:, None], scores.argmax(1), scores.argmax(2)
    )  # what is wrong: captions, or else pictures
    return Result(
        metrics={name: float(values.mean()) for name, values in sorted(found.items())},
        protocol=protocol | {"eval": "pairs", "split": config.split, "pairs": len(pairs)},
        intervals={name: interval(mean(values), config.bootstrap) for name, values in found.items()},
        floor=CHANCE,
        table={
            "id": [ids[first] for first, _ in pairs],
            "label": [" / ".join(each) for each in own],
            "prediction": [" / ".join(each[best]) for each, best in zip(own, chosen, strict=True)],
            "text": found["text_score"].tolist(),
            "image": found["image_score"].tolist(),
            "correct": found["group_score"].tolist(),
        },
    )


def statistic(table: dict[str, list]):
    """The group score of a table, as a function of how often each pair was drawn."""
    from adapt.evals.bootstrap import mean

    return mean(table["correct"])


def _pairs(numbers: list) -> np.ndarray:
    """The rows of each pair, int64[P, 2]."""
    import numpy as np

    rows: dict[Any, list[int]] = {}
    for row, number in enumerate(numbers):
        rows.setdefault(number, []).append(row)
    for number, several in rows.items():
        if len(several) != 2:
            raise UserError(
                f"evals: pair {number!r} has {counted(len(several), 'row')}, and pairs needs two, each a picture with its own caption."
            )
    return np.array(list(rows.values()), np.int64).reshape(-1, 2)
