"""Several classes a picture: by hand, and what is refused. CLIP_benchmark's own formula: test_parity.py."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Sequence, Value

from adapt.evals import multilabel
from adapt.plug import UserError
from adapt.vision.classes import class_names

NAMES = ["cat", "dog", "bird"]


def rows(labels: list[list[int]], kind=List) -> Dataset:
    features = Features({"id": Value("string"), "labels": kind(ClassLabel(names=NAMES))})
    return Dataset.from_dict({"id": [f"r{i}" for i in range(len(labels))], "labels": labels}, features)


def measure(dataset: Dataset, scores):
    config = multilabel.Config(name="multilabel")
    return multilabel.evaluate(config, lambda _: np.array(scores, np.float32), dataset, {})


def test_the_mean_over_classes_by_hand():
    result = measure(rows([[0, 1], [1], []]), [[1, 3, 0], [2, 1, 0], [3, 2, 0]])
    cat, dog = 1 / 3, (1 / 1 + 2 / 3) / 2  # cats: the third of three; dogs: the first and the third
    assert result.metrics["map"] == pytest.approx((cat + dog + 0) / 3)
    assert result.table["label"] == ["cat, dog", "dog", ""]
    assert result.remark == (
        "the class that is found worst is 'cat', with an average precision of 33.3 %. 1 of 3 classes have no picture, and count with 0."
    )
    assert result.floor == pytest.approx((1 / 3 + (1 / 2 + 2 / 3) / 2) / 3), "who scores all pictures alike"
    low, high = result.intervals["map"]
    assert low <= result.metrics["map"] <= high


@pytest.mark.parametrize("kind", [List, Sequence])
def test_the_classes_of_such_data_are_those_of_their_labels(kind):
    assert class_names(rows([[0]], kind).features) == NAMES


def test_data_without_labels_are_a_user_error():
    with pytest.raises(UserError, match=r"needs a column 'labels'. Have: id"):
        measure(rows([[0]]).remove_columns("labels"), np.ones((1, 3)))
    with pytest.raises(UserError, match="no picture has any class"):
        measure(rows([[], []]), np.ones((2, 3)))
