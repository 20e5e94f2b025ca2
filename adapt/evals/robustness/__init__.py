"""Robustness: what is left of the accuracy on your own pictures under 15 corruptions, each at 5 severities.

A corruption's retained accuracy is its top-1, in the mean over the severities, divided by the top-1 on the same pictures as they are. All
models see the same corrupted pictures: a function of the picture's id, the corruption, the severity and `seed`. The main metric is the mean
top-1 on corrupted pictures, not the retained share of it: a model that knows little has little to lose.

Pictures whose shorter side is longer than `size` are made smaller before, as ImageNet-C's were: noise on single pixels of a large photograph would
be gone when it is resized for the network. So "as they are" means as small, and `clean_top1` may differ a little from `zeroshot`'s top-1.

This is not ImageNet-C's mCE, and the two cannot be compared. The mCE divides the error under each corruption by AlexNet's, which is known for
ImageNet alone. And ImageNet-C's pictures were stored as JPEG after they had been corrupted, while these are made in memory, which is easier for
a model (Ford et al. 2019, arXiv:1901.10513 §6): with noise on Tiny ImageNet one model was right on about 20 % of the published files, and on
31 % of files made anew by the published code (hendrycks/robustness, issue 16). The frost is drawn: see `adapt/vision/corrupt`.

Source: Hendrycks and Dietterich 2019, arXiv:1903.12261 (corruptions and severities); ties as in `zeroshot`.

    >>> evaluate(Config(name="robustness", corruptions=["fog", "snow"]), predict, dataset, {}).metrics
    {'corrupted_top1': 0.31, 'clean_top1': 0.42, 'retained': 0.74, 'retained_snow': 0.69, 'retained_fog': 0.79}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from adapt.contracts import EvalConfig
from adapt.plug import UserError, nearest
from adapt.vision.corrupt import GROUPS, NAMES, SEVERITIES

if TYPE_CHECKING:
    import numpy as np

    from adapt.evals.result import Result

BLOCK = 2**24
"""Logits that are in memory together."""


class Config(EvalConfig):
    """Top-1 on corrupted pictures, and the share of the clean top-1 that is retained."""

    main = "corrupted_top1"
    predictor = "class_logits"
    quick = {"severities": [3], "pictures": 0}

    corruptions: list[str] = [*GROUPS]
    """Which: names, or noise, blur, weather, digital for all of a kind."""
    severities: list[int] = [*SEVERITIES]
    """How strong, 1 to 5; in the validations of a training 3 alone."""
    limit: int = Field(200, ge=0)
    """Pictures that are measured, drawn from the split by `seed`; 0: all. Each is looked at 76 times, once as it is."""
    size: int = Field(224, ge=16)
    """The shorter side, pixels, of larger pictures before they are corrupted."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of what is drawn: the pictures, and their noise."""
    pictures: int = Field(15, ge=0, le=15)
    """Corruptions of which the report shows a picture."""

    @field_validator("corruptions", mode="before")
    @classmethod
    def _known(cls, value: object) -> object:
        given = [value] if isinstance(value, str) else value
        if not isinstance(given, list) or not given:
            raise ValueError(f"write a list of corruptions, such as [fog, noise]. Have: {', '.join([*GROUPS, *NAMES])}")
        for name in given:
            if not isinstance(name, str) or name not in (*GROUPS, *NAMES):
                raise ValueError(f"there is no corruption {name!r}.{nearest(name, [*GROUPS, *NAMES])}".rstrip("."))
        return given

    @field_validator("severities", mode="before")
    @classmethod
    def _from_one_to_five(cls, value: object) -> object:
        given = value if isinstance(value, list) else [value]
        if not given or not all(type(one) is int and one in SEVERITIES for one in given):
            raise ValueError("a severity can be 1, 2, 3, 4 or 5; give one or more, such as [1, 3, 5]")
        return sorted(set(given))

    @property
    def named(self) -> list[str]:
        """The corruptions by their own names, in the paper's order."""
        asked = set(self.corruptions)
        return [name for group, names in GROUPS.items() for name in names if asked & {name, group}]


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (rows, "class_logits") → logits float32[N, C].
        dataset: rows with `id`, `image` and `label`.
        protocol: what the caller knows: data, class names, templates, input.

    Raises:
        UserError: the rows have no labels.
    """
    import numpy as np

    from adapt.evals.bootstrap import interval, mean
    from adapt.evals.result import Result

    rows = chosen(config, dataset)
    labels, names = np.asarray(rows["label"][:]), dataset.features["label"].names
    hits = _hits(config, predict, rows, labels, len(names))
    clean, corrupted = hits[:, 0], hits[:, 1:].reshape(len(hits), len(config.named), -1)
    accuracy = corrupted.mean(0)
    table = {
        "id": rows["id"][:],
        "label": [names[i] for i in labels],
        "clean": clean.tolist(),
        "corrupted": corrupted.mean((1, 2)).tolist(),
        "hits": corrupted.reshape(len(hits), -1).astype(int).tolist(),
    }
    shares, ends = _retained(config, clean, corrupted)
    metrics = {"corrupted_top1": float(np.mean(table["corrupted"])), "clean_top1": float(clean.mean())} | shares
    intervals = {
        "corrupted_top1": interval(statistic(table), config.bootstrap),
        "clean_top1": interval(mean(clean), config.bootstrap),
    } | ends
    asked = {"corruptions": config.named, "severities": config.severities}
    about = {"eval": "robustness", "split": config.split, "measured": len(rows), "largest": config.size, "seed": config.seed}
    drawn = {"accuracy": accuracy.tolist(), "clean": metrics["clean_top1"], "pictures": len(rows)}
    return Result(
        metrics=metrics,
        protocol=protocol | about | asked,
        intervals=intervals,
        floor=float(np.bincount(labels).max() / len(labels)),
        table=table,
        figures={"robustness": asked | drawn},
        pictures=_pictures(config, rows, accuracy),
    )


def statistic(table: dict[str, list]):
    """The mean top-1 on corrupted pictures of a table, as a function of how often each picture was drawn."""
    from adapt.evals.bootstrap import mean

    return mean(table["corrupted"])


def chosen(config: Config, dataset):
    """The rows that are measured, in their order.

    Raises:
        UserError: they, or some of them, have no labels; there are none.
    """
    import numpy as np
    from datasets import ClassLabel

    if not isinstance(dataset.features.get("label"), ClassLabel):
        raise UserError(
            f"evals: robustness counts right answers, and the data have no label for each picture; the columns are "
            f"{', '.join(dataset.column_names)}. Use data with a class for each picture, or leave this eval out."
        )
    if not len(dataset):
        raise UserError(f"evals: robustness has no picture to measure: the split {config.split!r} is empty.")
    if unknown := sum(label is None or label < 0 for label in dataset["label"][:]):
        raise UserError(
            f"evals: robustness counts right answers, and {unknown:,} of {len(dataset):,} pictures have no label. Leave these out, or "
            "name a split with labels, such as split: validation."
        )
    if not config.limit or config.limit >= len(dataset):
        return dataset
    return dataset.select(np.sort(np.random.default_rng(config.seed).permutation(len(dataset))[: config.limit]))


def _hits(config: Config, predict: Callable, rows, labels: np.ndarray, classes: int) -> np.ndarray:
    """Is the answer right, of each picture as it is and under each corruption at each severity: bool[N, 1 + corruptions · severities]."""
    import numpy as np

    from adapt.evals.metrics import rank
    from adapt.evals.robustness.versions import Versions

    count = 1 + len(config.named) * len(config.severities)
    step = max(1, BLOCK // (count * classes))
    found = []
    for start in range(0, len(rows), step):
        part = rows.select(range(start, min(start + step, len(rows))))
        logits = predict(Versions(config, part), config.predictor)
        found.append(rank(logits, labels[start : start + step].repeat(count)).reshape(-1, count) < 1)
    return np.concatenate(found)


def _retained(config: Config, clean: np.ndarray, corrupted: np.ndarray) -> tuple[dict[str, float], dict[str, tuple]]:
    """The share of the clean top-1 that is left, under all corruptions and under each, and their intervals; nothing where it is 0.

    Args:
        clean: bool[N]; corrupted: bool[N, corruptions, severities].
    """
    import numpy as np

    from adapt.evals.bootstrap import Sums, draws

    if not clean.any():
        return {}, {}
    left = {"retained": corrupted.mean((1, 2))}
    left |= {f"retained_{name}": corrupted[:, i].mean(1) for i, name in enumerate(config.named)}
    values = {name: float(each.sum() / clean.sum()) for name, each in left.items()}
    drawn = draws([Sums(np.stack([each, clean], 1), _ratio) for each in left.values()], config.bootstrap)
    return values, dict(zip(left, map(tuple, np.nanpercentile(drawn, [2.5, 97.5], axis=0).T.tolist()), strict=True))


def _ratio(sums: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)


def _pictures(config: Config, rows, accuracy: np.ndarray) -> list[tuple[str, Any]]:
    """The first picture under each corruption, at the middle one of the severities."""
    from adapt.evals.robustness.versions import Versions

    if not config.pictures:
        return []
    versions, middle = Versions(config, rows.select([0])), len(config.severities) // 2
    return [
        (
            f"{name.replace('_', ' ')}, severity {config.severities[middle]}: top-1 {100 * accuracy[i, middle]:.1f} %",
            versions[1 + i * len(config.severities) + middle]["image"],
        )
        for i, name in enumerate(config.named[: config.pictures])
    ]
