"""The worst group, by hand and of a real network's answers."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from adapt.evals import groups
from adapt.plug import UserError

NAMES = [f"class {i}" for i in range(7)]


def rows(names: list, labels: list[int] | None = None) -> Dataset:
    kinds = {"id": Value("string"), "label": ClassLabel(names=NAMES), "group": Value("string")}
    columns = {"id": [f"r{i}" for i in range(len(names))], "label": labels or [0] * len(names), "group": names}
    return Dataset.from_dict(columns, Features(kinds))


def measure(dataset: Dataset, ranks: list[int], **options):
    """Of a model that puts the label of each row behind so many other classes."""
    logits = np.tile(-np.arange(1.0, 8.0), (len(ranks), 1))
    logits[np.arange(len(ranks)), dataset["label"][:]] = [-rank - 0.5 if rank else 0 for rank in ranks]
    return groups.evaluate(groups.Config(name="groups", **options), lambda _: logits, dataset, {})


def test_the_group_that_fares_worst_by_hand():
    dataset = rows(["Asia", "Asia", "Africa", "Africa", "Africa", "Other"])
    result = measure(dataset, [0, 0, 0, 3, 6, 6])
    assert result.metrics == {"worst_group": 0, "top5_worst_group": 0}, "Other has none right"
    result = measure(dataset, [0, 0, 0, 3, 6, 6], without=["Other"])
    assert result.metrics == {"worst_group": pytest.approx(1 / 3), "top5_worst_group": pytest.approx(2 / 3)}
    assert result.table["group"] == ["Asia", "Asia", "Africa", "Africa", "Africa", None]
    assert result.table["correct"] == [True, True, True, False, False, False]
    assert result.protocol["groups"] == ["Africa", "Asia"] and result.protocol["without"] == ["Other"]
    assert result.remark == (
        "the worst of 2 groups, without Other, is 'Africa', with 33.3 % of 3 pictures; the best is 'Asia', with 100.0 %."
    )
    for name, (low, high) in result.intervals.items():
        assert low <= result.metrics[name] <= high


def test_pictures_of_no_group_count_in_none():
    result = measure(rows(["a", None, "b"]), [0, 6, 0])
    assert result.metrics["worst_group"] == 1 and result.remark == "all 2 groups have 100.0 % right."


def test_one_answer_for_all_reaches_the_share_of_its_class_in_the_worst_group():
    result = measure(rows(["a", "a", "b", "b", "b"], [0, 1, 0, 0, 1]), [0] * 5)
    assert result.floor == pytest.approx(1 / 2), "who always says class 0"


def test_data_without_groups_are_a_user_error():
    with pytest.raises(UserError, match=r"groups needs a column 'group'. Have: id, label"):
        measure(rows(["a"]).remove_columns("group"), [0])
    with pytest.raises(UserError, match=r"no group is left without a, b. Have: a, b."):
        measure(rows(["a", "b", None]), [0, 0, 0], without=["a", "b"])
