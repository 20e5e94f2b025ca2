"""Each template alone: how much does top-1 depend on the words that a class name is put in?

All texts are asked of a picture together, so that pictures are encoded once, unless there are more numbers than memory is meant to hold.
With one template the classifier is the texts themselves, as in `zeroshot` with this template. Ties as there.

Source: CLIP §3.1.4, arXiv:2103.00020, which takes the mean of many templates because single ones differ.

    >>> evaluate(Config(name="templates"), predict, dataset, {"classes": ["cat", "dog"], "templates": ["{}", "a {}"]}).metrics
    {'template_mean': 0.40, 'template_sd': 0.02, 'template_min': 0.37, 'template_max': 0.42}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adapt.contracts import EvalConfig
from adapt.plug import UserError

if TYPE_CHECKING:
    import numpy as np

    from adapt.evals.result import Result

BLOCK = 2**27
"""Similarities that are in memory together."""


class Config(EvalConfig):
    """Top-1 with each template alone: mean, standard deviation, the least and the greatest."""

    main = "template_mean"
    predictor = "class_logits"
    asks_texts = True

    limit: int = Field(2000, ge=0)
    """Pictures that are measured, drawn from the split by `seed`; 0: all."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of the pictures that are drawn."""


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set, texts=…) → similarities float32[N, len(texts)].
        dataset: rows with `id` and `label`.
        protocol: what the caller knows; of it, `classes` and `templates` are asked.

    Raises:
        UserError: there are no templates, or a class has several texts.
    """
    import numpy as np

    from adapt.evals.bootstrap import draws, interval, mean
    from adapt.evals.calibration import spread
    from adapt.evals.result import Result

    classes, templates = _words(protocol)
    rows = _chosen(config, dataset)
    labels, names = np.asarray(rows["label"][:]), rows.features["label"].names
    hits = _hits(predict, rows, labels, classes, templates)
    found = spread(dict(zip(templates, hits.mean(0).tolist(), strict=True)))
    drawn = draws([mean(each) for each in hits.T], config.bootstrap)
    parts = {"sd": drawn.std(1), "min": drawn.min(1), "max": drawn.max(1)}
    ends = {f"template_{name}": tuple(np.percentile(values, [2.5, 97.5]).tolist()) for name, values in parts.items()}
    table = {"id": rows["id"][:], "label": [names[i] for i in labels], "hits": hits.astype(int).tolist()}
    about = {"eval": "templates", "split": config.split, "measured": len(rows), "seed": config.seed}
    return Result(
        metrics={f"template_{name}": found[name] for name in ("mean", *parts)},
        protocol=protocol | about,
        intervals={"template_mean": interval(statistic(table), config.bootstrap)} | ends,
        floor=float(np.bincount(labels).max() / len(labels)),
        table=table,
        remark=f"of {len(templates)} templates alone, {found['best']!r} is right most often ({100 * found['max']:.1f} %), "
        f"{found['worst']!r} least often ({100 * found['min']:.1f} %).",
    )


def statistic(table: dict[str, list]):
    """The mean top-1 of single templates of a table, as a function of how often each picture was drawn."""
    import numpy as np

    from adapt.evals.bootstrap import mean

    return mean(np.asarray(table["hits"], float).mean(1))


def _words(protocol: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The class names, and the templates, each once."""
    if not protocol.get("templates"):
        raise UserError("evals: templates asks about class names in templates, and there are none here. Leave this eval out.")
    if "texts" in protocol:
        raise UserError(
            "evals: templates asks about one name a class, and these words have several, or descriptions. Leave this eval out, or use "
            "prompts without texts, descriptions and aliases."
        )
    return list(protocol["classes"]), list(dict.fromkeys(protocol["templates"]))


def _chosen(config: Config, dataset):
    """The rows that are measured, in their order."""
    import numpy as np

    if not config.limit or config.limit >= len(dataset):
        return dataset
    return dataset.select(np.sort(np.random.default_rng(config.seed).permutation(len(dataset))[: config.limit]))


def _hits(predict: Callable, rows, labels: np.ndarray, classes: list[str], templates: list[str]) -> np.ndarray:
    """Is the answer right, of each picture with each template: bool[N, T]."""
    import numpy as np

    from adapt.evals.metrics import rank

    step = max(1, BLOCK // max(1, len(rows) * len(classes)))
    found = []
    for start in range(0, len(templates), step):
        part = templates[start : start + step]
        scores = predict(rows, texts=[template.replace("{}", name) for template in part for name in classes])
        found += [rank(each, labels) < 1 for each in np.split(np.asarray(scores), len(part), axis=1)]
    return np.stack(found, 1)
