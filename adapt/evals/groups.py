"""Top-1 and top-5 of the group of pictures that fares worst: of the regions, incomes or cameras that the column `group` names.

Intervals are of resamples of all pictures, in each of which the worst group is found anew. Ties as in `zeroshot`.

Source: WILDS, arXiv:2012.07421 (FMoW: the worst region, without Other); DataComp, eval_utils/fairness_eval.py (GeoDE: region; Dollar Street:
income, top-5).

    >>> evaluate(Config(name="groups", without=["Other"]), predict, dataset, {}).metrics
    {'worst_group': 0.31, 'top5_worst_group': 0.60}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adapt.contracts import EvalConfig
from adapt.plug import UserError

if TYPE_CHECKING:
    from adapt.evals.result import Result

TOP = 5


class Config(EvalConfig):
    """Top-1 and top-5 of the worst group of pictures."""

    main = "worst_group"
    predictor = "class_logits"

    without: list[str] = []
    """Groups that are passed over, such as Other."""


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: a data set → logits float32[N, C].
        dataset: rows with `id`, `label` and `group`, a name or number; none: the picture is of no group.
        protocol: what the caller knows.

    Raises:
        UserError: there are no groups, or none is left.
    """
    import numpy as np

    from adapt.evals.bootstrap import interval
    from adapt.evals.by_set import group_means, worst
    from adapt.evals.metrics import Judged
    from adapt.evals.resampled import statistic as of_table
    from adapt.evals.result import Result

    groups = _groups(config, dataset)
    labels, names = np.asarray(dataset["label"][:]), dataset.features["label"].names
    rows = Judged.of(predict(dataset), labels)
    table = rows.table(dataset["id"][:], labels, names) | {"group": groups}
    counted = np.array([group is not None for group in groups])
    named = [group for group in groups if group is not None]
    first, fifth = (group_means(rows.rank[counted] < k, named) for k in (1, TOP))
    metrics = {"worst_group": worst(first)[1], f"top{TOP}_worst_group": worst(fifth)[1]}
    return Result(
        metrics=metrics,
        protocol=protocol
        | {"eval": "groups", "split": config.split, "groups": sorted(first), "without": sorted(config.without)},
        intervals={name: interval(of_table(name, table), config.bootstrap) for name in metrics},
        floor=float(max(min(group_means(labels[counted] == each, named).values()) for each in np.unique(labels))),
        table=table,
        remark=_told(first, config.without, groups),
    )


def statistic(table: dict[str, list]):
    """The worst group's top-1 of a table, as a function of how often each picture was drawn."""
    from adapt.evals.resampled import worst

    return worst(table["group"], table["correct"])


def _groups(config: Config, dataset) -> list[str | None]:
    """The group of each picture; none where it does not count."""
    if "group" not in dataset.column_names:
        raise UserError(f"evals: groups needs a column 'group'. Have: {', '.join(dataset.column_names)}.")
    found = [None if group is None or str(group) in config.without else str(group) for group in dataset["group"][:]]
    if not any(group is not None for group in found):
        have = sorted({str(group) for group in dataset["group"][:] if group is not None})
        raise UserError(f"evals.groups.without: no group is left without {', '.join(config.without)}. Have: {', '.join(have)}.")
    return found


def _told(means: dict[str, float], without: list[str], groups: list[str | None]) -> str:
    """Which group is the worst, how many pictures it has, and the best beside it."""
    from adapt.evals.by_set import worst

    name, mean = worst(means)
    best = max(means, key=means.__getitem__)
    if means[best] == mean:
        return f"all {len(means)} groups have {100 * mean:.1f} % right."
    passed = f", without {', '.join(without)}," if without else ""
    return (
        f"the worst of {len(means)} groups{passed} is {name!r}, with {100 * mean:.1f} % of {groups.count(name):,} pictures; "
        f"the best is {best!r}, with {100 * means[best]:.1f} %."
    )
