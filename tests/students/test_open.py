"""A student's folder is all that is needed: it answers as before, without teacher, recipe, data or transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from adapt import plug
from adapt.distill import boxes, features, logits, masks, semantic
from adapt.models.sam import Config as SamConfig
from adapt.models.sam import load as load_sam
from adapt.plug import UserError
from adapt.prompting.automatic import Automatic
from adapt.students import open_student
from adapt.students.base import told

SPEC = {"size": (64, 64), "resize": 72, "interpolation": "bicubic", "crop": "floor", "mean": [0.5] * 3, "std": [0.5] * 3}
TEACHER = SimpleNamespace(input=SPEC, classes=["ant", "bee", "cat"], width=24)
MADE = {
    "classifier": (logits, {"name": "logits"}),
    "embedder": (features, {"name": "features", "embedding": "pooled"}),
    "detector": (boxes, {"name": "boxes", "width": 24, "convs": 1, "min_score": 0.001, "nms": 0.5}),
    "pixels": (semantic, {"name": "semantic", "width": 16, "stride": 4}),
    "promptable": (masks, {"name": "masks", "width": 24}),
}


@pytest.fixture(scope="module")
def sam():
    return load_sam(SamConfig(name="sam")).eval()


def student_of(kind: str, sam, **options):
    objective, own = MADE[kind]
    config = objective.Config.model_validate({"student": "test_resnet", "pretrained": False} | own | options)
    torch.manual_seed(0)
    return objective.learner(config, sam if kind == "promptable" else TEACHER).student.eval()


def sample() -> dict:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    return {"id": "a", "image": Image.fromarray(pixels), "objects": {"bbox": [[10, 12, 60, 50]]}}


def answers(student) -> dict:
    """What each of its predictors says of one picture."""
    found = {}
    for name, predictor in student.predictors().items():
        images = student.preprocess(sample(), False)["image"][None].float()
        with torch.no_grad():
            options = {"automatic": [Automatic(points_per_side=4)]} if name == "proposals" else {}
            found[name] = predictor([sample()], **options)[0] if predictor.takes == "rows" else {"": predictor(images).numpy()}
    return found


def test_there_is_a_test_for_each_kind():
    assert set(MADE) == set(plug.names("students"))


@pytest.mark.parametrize("kind", MADE)
def test_a_student_comes_back_from_its_folder_alone(kind, sam, tmp_path):
    student = student_of(kind, sam)
    assert student.kind == kind
    student.save(tmp_path / "student")
    other = open_student(tmp_path / "student")
    assert (type(other), other.input, other.classes) == (type(student), student.input, student.classes)
    assert other.about() == student.about()
    ours, theirs = answers(student), answers(other)
    assert ours.keys() == theirs.keys() != set()
    for name, one in ours.items():
        for part, value in one.items():
            np.testing.assert_array_equal(theirs[name][part], value, err_msg=f"{name} {part}")


def test_opening_needs_no_teacher_recipe_or_data_and_only_sams_student_transformers(sam, tmp_path):
    for kind in MADE:
        student_of(kind, sam).save(tmp_path / kind)
    code = (
        "import sys; from adapt.students import open_student; print(*sys.modules)\n"
        f"for kind in {sorted(MADE, key='promptable'.__eq__)}:\n"
        "    student = open_student(kind); student.predictors(); student.deployed(); student.about(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    light, *others, last = (set(line.split()) for line in done.stdout.splitlines())
    assert "torch" not in light, "importing adapt.students is light"
    assert len(others) == len(MADE) - 1
    for loaded in others:
        assert not {"transformers", "peft", "datasets", "accelerate"} & loaded
    assert "transformers" in last, "SAM's own decoder"
    homes = {name.split(".")[1] for name in last if name.startswith("adapt.")}
    assert not {"models", "data", "distill", "verbs", "methods", "pipeline", "evals"} & homes


def test_what_is_no_student_is_one_clear_line(sam, tmp_path):
    folder = tmp_path / "student"
    with pytest.raises(UserError, match=r"no config\.json in '.*student'.*runs/…/student/NAME"):
        open_student(folder)
    student_of("classifier", sam).save(folder)
    whole, weights = json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")

    def says(pattern: str, **changed) -> None:
        (folder / "config.json").write_text(json.dumps(whole | changed))
        with pytest.raises(UserError, match=pattern) as error:
            open_student(folder)
        assert len(str(error.value).splitlines()) == 1

    says(r"no kind of student 'clasifier'\. Did you mean 'classifier'", kind="clasifier")
    says("model.safetensors' do not fit", classes=["ant"])
    says("'test_resnt' is not a model of timm", architecture="test_resnt")
    (folder / "config.json").write_text(json.dumps({"architecture": "resnet10t", "input": {}}))
    with pytest.raises(UserError, match=r"lacks kind, classes, options: it is not of this version\. Distil it again"):
        open_student(folder)
    save_file({name: value for name, value in weights.items() if name != "fc.weight"}, folder / "model.safetensors")
    says("do not fit.*fc.weight")
    (folder / "model.safetensors").unlink()
    says("do not fit")
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json' cannot be read"):
        open_student(folder)


@pytest.mark.parametrize("kind", MADE)
def test_a_student_has_an_input_of_its_own_size(kind, sam):
    student = student_of(kind, sam, size=96)
    assert student.input["size"] == (96, 96)
    assert student.preprocess(sample(), False)["image"].shape == (3, 96, 96)
    for name, found in answers(student).items():
        assert all(np.isfinite(np.asarray(value)).all() for value in found.values()), name
    if kind == "classifier":
        assert student.input["resize"] == 108, "cut as the teacher's: 72 of 64"
    if kind == "promptable":
        assert answers(student)["masks"]["masks"].shape == (1, 60, 80)
        assert student.image_features(torch.zeros(1, 3, 96, 96)).shape[2:] == (16, 16), "the teacher's grid"
        with pytest.raises(UserError, match=r"distill\.size: got 72; the teacher's features are 16 × 16"):
            student_of(kind, sam, size=72)


def test_a_teacher_in_the_loop_sees_the_same_view_in_its_own_size():
    from adapt.contracts import Augment

    config = logits.Config(name="logits", student="test_resnet", pretrained=False, size=32, cache=False)
    asked = []

    def teacher(images):
        asked.append(images)
        return images.mean((2, 3))

    learner = logits.learner(config, TEACHER, teacher)
    plain = logits.learner(config.model_copy(update={"size": None}), TEACHER, teacher)
    for one in (learner, plain):
        batch = one.augment(one.collate([one.preprocess(sample(), True) | {"seed": 5}]), Augment(crop=0.5))
        one.eval()(batch)
    assert [tuple(images.shape[2:]) for images in asked] == [(64, 64), (64, 64)]
    assert torch.equal(*asked)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "shorter side to 72 pixels, bicubic, then the centre 64×64"),
        ({"resize": (64, 48), "crop": None, "size": (64, 48)}, "to 48×64 pixels (width × height), bicubic, whatever its shape"),
        ({"resize": None}, "not resized, then the centre 64×64"),
        (
            {"resize": "longest", "crop": None, "mean": [0.2, 0.4, 0.6]},
            "longer side to 64 pixels, bicubic, then filled up on the right and below with RGB [51.0, 102.0, 153.0]",
        ),
    ],
)
def test_how_a_picture_is_prepared_is_said_in_words_and_numbers(changed, words):
    about = told(SPEC | changed)
    assert about["preparation"] == words
    assert about["resize"] == (SPEC | changed)["resize"]
    assert not {"mean", "std"} & set(about)
