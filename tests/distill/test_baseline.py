"""People's labels teach the same student directly: the baseline that a distillation is held against."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from adapt import pipeline
from adapt.cli import main
from adapt.distill import boxes, logits
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.students import open_student

SMALL = [
    "data.path=photos",
    "model.train_templates=1",
    "train={epochs: 1, batch: 16}",
    "evals.0.bootstrap=100",
    "distill={name: logits, student: test_resnet, pretrained: false, views: 1, baseline: true, train: {epochs: 2, batch: 16}}",
    "export=[]",
    "tracker=none",
]


def test_a_road_with_a_baseline_teaches_two_students_and_says_which_is_better(photos, capsys):
    outcome = pipeline.road(load_recipe("clip_lora", SMALL))
    entries = {entry["name"]: entry for entry in outcome.entries}
    assert list(entries) == ["zero-shot", "adapted", "student logits-test_resnet", "student logits-test_resnet-labels"]
    theirs = entries["student logits-test_resnet-labels"]
    assert theirs["against"] == "student logits-test_resnet" and len(theirs["change"]) == 3
    points = 100 * (entries["student logits-test_resnet"]["metrics"]["top1"] - theirs["metrics"]["top1"])
    said = capsys.readouterr().out
    assert f"by people's labels alone {theirs['metrics']['top1']:.1%}: {points:+.1f} points" in said
    assert not [guard for guard in outcome.guards if "labels within its budget" in guard["name"]], "it has no teacher"
    assert open_student(outcome.path / "student" / "logits-test_resnet-labels").classes
    history = (outcome.path / "distill" / "logits-test_resnet-labels" / "history.jsonl").read_text()
    assert '"accuracy"' in history and '"agreement"' not in history
    made = json.loads((outcome.path / "manifest.json").read_text())["stages"]["distill logits-test_resnet-labels"]["made_of"]
    assert list(made["data"]) == ["train", "validation"]
    again = pipeline.distill(load_recipe("clip_lora", SMALL))
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
    data = "data={source: emoji_scenes, train: 16, validation: 2, test: 4, size: 64}"
    options = [data, "evals=[{name: detection, pictures: 0, bootstrap: 100}]", "export=[]", "tracker=none"]
    outcome = pipeline.distill(load_recipe("clip_lora", [*options, own]))  # CLIP finds no boxes
    (entry,) = outcome.entries
    assert entry["name"] == "student boxes-test_resnet-labels" and "map50" in entry["metrics"]
    assert boxes.Config(name="boxes", teacher="labels").called == "boxes-resnet18-labels"


TINY = "student: test_resnet, pretrained: false, size: 64, width: 16, stride: 4, train: {epochs: 1}"


def test_peoples_class_maps_teach_a_student_of_pixels(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    for folder in ("images", "masks"):
        (tmp_path / "shapes" / folder).mkdir(parents=True)
    for i in range(12):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8)).save(
            tmp_path / f"shapes/images/{i}.png"
        )
        mask = np.zeros((48, 64), np.uint8)
        mask[4:30, i : i + 20], mask[40:] = 1 + i % 2, 255
        Image.fromarray(mask).save(tmp_path / f"shapes/masks/{i}.png")
    data = f"data={{source: masks, path: {tmp_path / 'shapes'}}}"
    options = [data, "evals=[{name: semantic, pictures: 0, bootstrap: 100}]", "export=[]", "tracker=none"]
    outcome = pipeline.distill(
        load_recipe("sam_semantic_student", [*options, f"distill={{name: semantic, teacher: labels, {TINY}}}"])
    )
    (entry,) = outcome.entries
    assert entry["name"] == "student semantic-test_resnet-labels" and entry["main"] == "miou"
    assert open_student(outcome.path / "student" / "semantic-test_resnet-labels").classes == ["1", "2"]
    assert not list((outcome.path / "cache").glob("labels-*")), "no teacher was asked"
    made = json.loads((outcome.path / "manifest.json").read_text())["stages"]["distill semantic-test_resnet-labels"]["made_of"]
    assert made["others"] == {}, "nor CLIP"


def test_a_student_of_pixels_is_held_against_its_baseline(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    few = ["data.train=6", "data.validation=2", "data.test=4", "data.size=64", "export=[]", "tracker=none"]
    own = f"distill={{name: semantic, teacher: zero-shot, proposals: boxes, min_probability: 0, baseline: true, {TINY}}}"
    quick = "pictures: 0, bootstrap: 100"
    recipe = load_recipe(
        "sam_semantic_student", [*few, f"evals=[{{name: semantic, {quick}}}, {{name: segmentation, {quick}}}]", own]
    )
    pipeline.evaluate(recipe)
    outcome = pipeline.distill(recipe)
    entries = {entry["name"]: entry for entry in outcome.entries}
    names = [f"{role} semantic-test_resnet" for role in ("labels", "student")]
    assert list(entries) == ["zero-shot", *names, f"{names[1]}-labels"]
    theirs = entries[f"{names[1]}-labels"]
    assert theirs["against"] == names[1] and len(theirs["change"]) == 3
    assert f"by people's labels alone {theirs['metrics']['miou']:.1%}: " in capsys.readouterr().out
    assert "| CNN student semantic-test_resnet-labels |" in (outcome.path / "report.md").read_text()


def test_without_class_maps_and_masks_it_is_one_clear_line_before_any_training(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            noise = np.random.default_rng(ord(name[0]) + 9 * i).integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "photos" / name / f"{i}.png")
    data = [f"data={{source: folder, path: {tmp_path / 'photos'}}}", "evals=[{name: zeroshot}]", "export=[]", "tracker=none"]
    said = r"but the training data have no column segmentation or objects\.mask\. Have: id, image, label\."
    own = f"distill={{name: semantic, teacher: labels, {TINY}}}"
    with pytest.raises(UserError, match=rf"distill\.teacher: 'labels', {said} Set distill\.teacher=adapted\."):
        pipeline.road(load_recipe("clip_lora", [*data, own]))
    with pytest.raises(UserError, match=rf"distill\.baseline: true, {said} Leave it out\."):
        pipeline.road(load_recipe("clip_lora", [*data, f"distill={{name: semantic, baseline: true, {TINY}}}"]))
    assert not list(tmp_path.glob("runs/*/adapter")), "it is told before the model is trained"


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
