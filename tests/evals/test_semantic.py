"""Class maps against scikit-learn and the formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Picture
from sklearn.metrics import confusion_matrix, jaccard_score

from adapt.evals import semantic
from adapt.evals.semantic import class_maps
from adapt.plug import UserError
from adapt.vision.masks import rle
from adapt.vision.pictures import BOXES, MASKS

SIZE = (24, 32)
NAMES = ["sun", "moon", "star"]


def maps(n: int = 12) -> np.ndarray:
    """Coarse random classes; the star (class 3) never occurs; a stripe is not judged."""
    random = np.random.default_rng(0)
    classes = random.integers(0, 3, (n, 6, 8)).repeat(4, 1).repeat(4, 2)
    classes[:, :2, :5] = 255
    return classes


def data(classes: np.ndarray, column: bool = True) -> Dataset:
    objects = {"bbox": BOXES, "category": List(ClassLabel(names=NAMES)), "mask": MASKS}
    features = Features(id=Value("string"), image=Image(), objects=objects)
    rows = []
    for i, one in enumerate(classes):
        present = [c for c in (1, 2, 3) if (one == c).any()]
        thing = {
            "bbox": [[0, 0, 1, 1]] * len(present),
            "category": [c - 1 for c in present],
            "mask": [rle(one == c) for c in present],
        }
        row = {"id": str(i), "image": Picture.new("RGB", SIZE[::-1]), "objects": thing}
        if column:
            row["segmentation"] = Picture.fromarray(one.astype(np.uint8))
        rows.append(row)
    return Dataset.from_list(rows, Features(**features, segmentation=Image()) if column else features)


def noisy(classes: np.ndarray, share: float = 0.2) -> np.ndarray:
    random = np.random.default_rng(1)
    return np.where((random.random(classes.shape) < share) | (classes == 255), random.integers(0, 3, classes.shape), classes)


def predictor(found):
    """Rows are known by their ids."""
    return lambda rows, name: found[[int(i) for i in rows["id"]]] if name == "semantic_logits" else None


def test_the_metrics_are_scikit_learns():
    truth = maps()
    found = noisy(truth)
    result = semantic.evaluate(semantic.Config(name="semantic"), predictor(found), data(truth), {"data": "x"})
    judged = truth != 255
    expected = jaccard_score(truth[judged], found[judged], labels=[0, 1, 2], average=None)
    assert result.metrics["miou"] == pytest.approx(expected.mean()), "a class that nobody sees does not count"
    assert result.metrics["pixel_accuracy"] == pytest.approx((truth == found)[judged].mean())
    matrix = confusion_matrix(truth[judged], found[judged])
    assert result.metrics["mean_accuracy"] == pytest.approx((matrix.diagonal() / matrix.sum(1)).mean())
    assert result.metrics["weighted_iou"] == pytest.approx((expected * matrix.sum(1) / matrix.sum()).sum())
    low, high = result.intervals["miou"]
    assert low < result.metrics["miou"] < high
    assert result.protocol["classes"] == ["background", *NAMES]
    assert len(result.pictures) == 12 and result.pictures[0][1].size == SIZE[::-1]
    assert not {"correct", "score"} & set(result.table), "a mean over images is not the mIoU: rows say nothing of its change"


def test_a_class_that_is_only_found_counts_as_nothing():
    matrix = np.array([[8, 2], [0, 0]])  # of ten pixels of background two are called otherwise
    assert class_maps.scores(matrix)["miou"] == pytest.approx((0.8 + 0) / 2)


def test_logits_are_resized_before_the_best_is_taken():
    truth = maps(3)[:, 2::4, 2::4].repeat(4, 1).repeat(4, 2)  # whole blocks, all judged
    logits = np.stack([(truth[:, 2::4, 2::4] == c) * 9.0 for c in range(4)], 1)  # a fourth of the size
    result = semantic.evaluate(semantic.Config(name="semantic"), predictor(logits), data(truth), {})
    assert result.metrics["pixel_accuracy"] > 0.9
    assert all(0.8 < sure <= 1 for sure in result.table["confidence"])
    small = semantic.evaluate(semantic.Config(name="semantic"), predictor(truth[:, 2::4, 2::4]), data(truth), {})
    assert small.metrics["miou"] == 1, "classes of whole blocks come back as they were"


def test_objects_are_painted_where_there_is_no_map():
    truth = maps()
    truth[truth == 255] = 0
    result = semantic.evaluate(semantic.Config(name="semantic"), predictor(truth), data(truth, column=False), {})
    assert result.metrics["miou"] == 1


def test_a_class_that_the_data_lacks_is_a_user_error():
    truth = maps(2)
    with pytest.raises(UserError, match="the model has class 7; the data has 4"):
        semantic.evaluate(semantic.Config(name="semantic"), predictor(np.full(truth.shape, 7)), data(truth), {})


def test_pixels_of_a_crowd_are_not_judged():
    crowd, thing = np.zeros((2, *SIZE), bool)
    crowd[:12], thing[8:20, :10] = True, True
    objects = {"category": [0, 1], "mask": [rle(thing), rle(crowd)], "iscrowd": [0, 1]}
    assert (class_maps.truth({"id": "x", "objects": objects}) == np.where(thing, 1, np.where(crowd, 255, 0))).all()


def test_the_floor_is_what_one_class_for_all_pixels_reaches():
    truth = maps()
    result = semantic.evaluate(semantic.Config(name="semantic"), predictor(noisy(truth)), data(truth), {})
    reached = [
        semantic.evaluate(semantic.Config(name="semantic"), predictor(np.full(truth.shape, c)), data(truth), {}).metrics["miou"]
        for c in range(4)
    ]
    assert result.floor == pytest.approx(max(reached))


def test_probabilities_are_in_single_precision_under_autocast():
    logits = np.random.default_rng(0).normal(20, 0.05, (4, 6, 8)).astype(np.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, sure = class_maps.classes(logits, SIZE)
    expected = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], SIZE, mode="bilinear")[0].softmax(0)
    assert (found == expected.argmax(0).numpy()).all() and sure == pytest.approx(float(expected.amax(0).mean()), abs=1e-6)
