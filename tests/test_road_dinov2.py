"""DINOv2's road, small, with random weights: adapted by LoRA, measured by its neighbours, its features learnt by a CNN."""

from __future__ import annotations

import json

import pytest
import torch

from adapt import pipeline
from adapt.recipe import load_recipe

pytestmark = pytest.mark.usefixtures("fewer")

SMALL = ["model.weights=random", "tracker=none", "data.shots=1", "train.epochs=1", "train.cache=false", "evals.0.bootstrap=100"]


@pytest.mark.slow
def test_lora_on_an_embedding_without_class_words():
    outcome = pipeline.road(load_recipe("dinov2_lora", [*SMALL, "evals.0.pictures=2"]))
    before, after = outcome.entries
    assert before["name"] == "zero-shot"
    assert before["main"] == after["main"] == "knn"
    assert "top1" in after["metrics"], "it has a head now"
    assert "top1" not in before["metrics"]
    assert {path.name for path in (outcome.path / "adapter").iterdir()} >= {"adapter_model.safetensors", "head.safetensors"}
    assert len(list((outcome.path / "pictures" / "adapted").glob("*.png"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("zeroshot", "knn"), ("knn", "zeroshot")])
def test_a_change_is_of_one_metric_though_the_model_as_it_comes_has_no_head(first, second):
    evals = f"evals=[{{name: {first}, bootstrap: 100}}, {{name: {second}, bootstrap: 100}}]"
    overrides = [one for one in SMALL if not one.startswith("evals")]
    before, after = pipeline.finetune(load_recipe("dinov2_linear", [*overrides, evals])).entries
    assert (before["main"], after["main"]) == ("knn", {"zeroshot": "top1", "knn": "knn"}[first])
    if first == "zeroshot":
        assert "change" not in after and "against" not in after
    else:
        assert after["change"][0] == pytest.approx(after["metrics"]["knn"] - before["metrics"]["knn"])


@pytest.mark.slow
def test_a_students_embedding_is_exported_and_measured_as_its_teachers():
    small = ["data.unlabelled=[]", "distill.views=1", "distill.train.epochs=1", "export.0.calibration=32", "evals.1.steps=20"]
    small += ["distill.student=test_resnet", "distill.pretrained=false", "export.0.bench=0.1", "evals.1.bootstrap=100"]
    outcome = pipeline.road(load_recipe("dinov2_distill", [*SMALL, *small, "method={name: head}", "evals.0.pictures=0"]))
    entries = {entry["name"]: entry for entry in outcome.entries}
    assert list(entries) == [
        "zero-shot",
        "adapted",
        *(f"{role} features-test_resnet" for role in ("student", "onnx fp32", "onnx int8")),
    ]
    assert all(entry["main"] == "knn" for entry in entries.values())
    assert entries["zero-shot"]["metrics"] == entries["adapted"]["metrics"], "a head does not move the embedding"
    assert (
        abs(
            entries["onnx fp32 features-test_resnet"]["metrics"]["knn"]
            - entries["student features-test_resnet"]["metrics"]["knn"]
        )
        < 0.01
    )
    assert (
        json.loads((outcome.path / "student" / "features-test_resnet" / "config.json").read_text())["architecture"]
        == "test_resnet"
    )


def test_a_teacher_teaches_without_dropout():
    from adapt.verbs import kept
    from adapt.verbs.session import Session

    recipe = load_recipe("dinov2_lora", [*SMALL, "method.dropout=0.5", "evals=[]", "export=[]"])
    pipeline.finetune(recipe)
    session = Session(recipe)
    teacher = kept.adapted(session).train()
    rows = session.data["train"].select(range(8))
    cache = kept.outputs(
        session, "teacher", {"of": "eight rows"}, teacher.predictors()["image_embedding"], teacher, rows, 1, None
    )
    images = teacher.collate([teacher.preprocess(row, False) for row in rows])["image"].float()
    with torch.no_grad():
        expected = teacher.eval().image_embedding(images)
    torch.testing.assert_close(torch.stack([cache(0, row)["teacher"] for row in range(8)]), expected)


def test_a_users_own_masks_name_the_classes_of_segmentation(tmp_path):
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "cells" / folder).mkdir(parents=True)
    for i in range(12):
        mask = np.zeros((40, 48), np.uint8)
        mask[5:25, 4 + i : 20 + i], mask[28:38, 10:30] = 1, 2
        colours = np.array([[240, 240, 240], [220, 30, 30], [30, 30, 220]], np.uint8)[mask]
        noisy = np.clip(colours.astype(int) + random.integers(-9, 10, colours.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(tmp_path / "cells" / "images" / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / "cells" / "masks" / f"{i}.png")
    (tmp_path / "cells" / "classes.yaml").write_text("{0: background, 1: nucleus, 2: debris}")
    own = ["data.source=masks", "data.path=cells", "data.seed=1", "train.batch=4", "train.epochs=20", "tracker=none"]
    outcome = pipeline.finetune(load_recipe("dinov2_segment", own))
    (entry,) = (entry for entry in outcome.entries if entry["name"] == "adapted")
    assert entry["classes"] == ["background", "nucleus", "debris"]
    assert entry["metrics"]["miou"] > 0.5, "red, blue and white"
