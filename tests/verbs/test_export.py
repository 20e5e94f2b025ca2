"""The teacher is timed in the files' runtime where that is within bounds, and a line says why where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adapt import pipeline
from adapt.recipe import load_recipe
from adapt.verbs import export as exporting
from adapt.verbs.session import Session

pytestmark = pytest.mark.usefixtures("fewer")


@pytest.fixture(scope="module")
def stage():
    return Session(load_recipe("clip_lora", ["data.unlabelled=[]", "tracker=none"]))


@pytest.fixture
def tower(stage, tmp_path):
    """(function) → the runners of the stage's family by runtime."""
    views = (np.random.default_rng(0).random((3, 3, 48, 48)) * 255).astype(np.float32)

    def run(function, whole=True):
        return exporting._towers(stage, stage.recipe.export[0], stage.family.eval(), function, whole, views, tmp_path), views

    return run


def test_a_towers_file_answers_as_the_teacher(stage, tower):
    function = stage.family.predictors()["class_logits"]
    runners, views = tower(function)
    assert list(runners) == ["torch", "onnxruntime"]
    theirs = runners["onnxruntime"](views[:1])
    with torch.inference_mode():
        np.testing.assert_allclose(theirs, function(torch.from_numpy(views[:1])).numpy(), atol=1e-3)


@pytest.mark.parametrize(
    ("bound", "value", "said"),
    [
        ("TOWER", 1000, "it has 0.0 GB, more than 0.0"),
        ("PATIENCE", 0.0, "for an image, more than 0"),
        (None, None, "in 4 bits"),
    ],
)
def test_beyond_a_bound_it_is_timed_in_torch_alone(stage, tower, bound, value, said, monkeypatch, capsys):
    if bound:
        monkeypatch.setattr(exporting, bound, value)
    runners, _ = tower(stage.family.predictors()["image_embedding"], whole=bound is not None)
    assert list(runners) == ["torch"]
    assert said in capsys.readouterr().out


def test_a_tower_that_cannot_be_written_or_proven_is_timed_in_torch_alone(tower, capsys):
    assert list(tower(lambda images: torch.linalg.eigvals(images[:, 0]).abs())[0]) == ["torch"]
    assert list(tower(lambda images: images.flatten(1).mean(1) * torch.nan)[0]) == ["torch"]
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 2
    assert all(line.startswith("export: the teacher is timed in torch alone: ") for line in told)
    assert "not finite" in told[1]


def test_what_int8_does_in_float_is_said():
    assert exporting.in_float({}) == ""
    text = exporting.in_float({"GELU": 2, "HardSwish": 5})
    assert text == "It leaves int8 and comes back 7 times: 5 for HardSwish, 2 for GELU. "


@pytest.mark.parametrize("confusion", [[[3, 1], [0, 0]], {"label": [0, 0], "prediction": [0, 1], "count": [3, 1]}])
def test_a_classs_share_of_right_answers_is_read_from_either_confusion(confusion):
    assert exporting._recall({"classes": ["a", "b"], "confusion": confusion}) == [0.75, 0]


def test_a_student_of_another_size_is_timed_beside_its_teacher_each_on_its_own_input():
    small = [
        "data.shots=1",
        "data.unlabelled=[]",
        "train.epochs=1",
        "tracker=none",
        "evals.0.bootstrap=100",
        "model.train_templates=1",
    ]
    small += [
        "distill.student=test_resnet",
        "distill.pretrained=false",
        "distill.views=1",
        "distill.train.epochs=1",
        "distill.size=64",
    ]
    outcome = pipeline.road(load_recipe("clip_lora", [*small, "export.0.calibration=16", "export.0.bench=0.05"]))
    ran = {entry["name"]: entry["latency"] for entry in outcome.entries if "latency" in entry}
    assert {"zero-shot", "adapted", "onnx fp32 logits-test_resnet"} <= set(ran)
    assert {each["runtime"] for each in ran.values()} == {"onnxruntime"}
