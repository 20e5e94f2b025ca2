"""People's labels teach the same student directly: the baseline that a distillation is held against."""

from __future__ import annotations

import json

import pytest
import torch

from adapt import pipeline
from adapt.cli import main
from adapt.distill import boxes, logits
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.students import open_student

SMALL = [
    "data.shots=2",
    "train.epochs=1",
    "distill.train.epochs=2",
    "distill.views=1",
    "data.unlabelled=[]",
    "export=[]",
    "tracker=none",
]


def test_a_road_with_a_baseline_teaches_two_students_and_says_which_is_better(capsys):
    outcome = pipeline.road(load_recipe("clip_lora", [*SMALL, "distill.baseline=true"]))
    entries = {entry["name"]: entry for entry in outcome.entries}
    assert list(entries) == ["zero-shot", "adapted", "student logits-resnet10t", "student logits-resnet10t-labels"]
    theirs = entries["student logits-resnet10t-labels"]
    assert theirs["against"] == "student logits-resnet10t" and len(theirs["change"]) == 3
    points = 100 * (entries["student logits-resnet10t"]["metrics"]["top1"] - theirs["metrics"]["top1"])
    said = capsys.readouterr().out
    assert f"by people's labels alone {theirs['metrics']['top1']:.1%}: {points:+.1f} points" in said
    assert not [guard for guard in outcome.guards if "labels within its budget" in guard["name"]], "it has no teacher"
    assert open_student(outcome.path / "student" / "logits-resnet10t-labels").classes
    history = (outcome.path / "distill" / "logits-resnet10t-labels" / "history.jsonl").read_text()
    assert '"accuracy"' in history and '"agreement"' not in history
    made = json.loads((outcome.path / "manifest.json").read_text())["stages"]["distill logits-resnet10t-labels"]["made_of"]
    assert list(made["data"]) == ["train", "validation"]
    again = pipeline.distill(load_recipe("clip_lora", [*SMALL, "distill.baseline=true"]))
    assert again.entries == outcome.entries, "what is finished is left alone"


def test_the_loss_of_labels_alone_is_the_cross_entropy():
    torch.manual_seed(0)
    given, labels = torch.randn(5, 7), torch.randint(0, 7, (5,))
    config = logits.Config(name="logits", teacher="labels")
    loss, logs = logits.loss(config, given, None, {"label": labels})
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(given, labels))
    assert logs.keys() == {"accuracy"}
    assert logits.lesson(config, None, None).predictor is None


def test_peoples_boxes_teach_a_detector_where_no_teacher_finds_any():
    own = "distill={name: boxes, teacher: labels, student: test_resnet, pretrained: false, size: 64, width: 16, convs: 1, train: {epochs: 1}}"
    options = ["data.shots=1", "data.unlabelled=[]", "evals=[{name: detection, pictures: 0}]", "export=[]", "tracker=none"]
    outcome = pipeline.distill(load_recipe("clip_lora", [*options, own]))  # a picture's thing has its box
    (entry,) = outcome.entries
    assert entry["name"] == "student boxes-test_resnet-labels" and "map50" in entry["metrics"]
    assert boxes.Config(name="boxes", teacher="labels").called == "boxes-resnet18-labels"


def test_without_labels_it_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    few = [
        "data.train=2",
        "data.validation=2",
        "data.test=2",
        "distill={name: logits, teacher: labels, student: test_resnet}",
        "tracker=none",
    ]
    with pytest.raises(
        UserError, match=r"distill\.teacher: 'labels', but the training data have no column label\. Have: id, image"
    ):
        pipeline.distill(load_recipe("sam_semantic_student", few))
    assert main(["distill", "recipe=sam_distill", "distill.teacher=labels"]) == 2
