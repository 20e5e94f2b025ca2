"""Models that load when they are asked, pictures that are read once, and what is refused."""

from __future__ import annotations

import shutil
import threading

import pytest
from PIL import Image

from adapt.demo.desk import ADAPTED, COMES, Desk, Shelf, choices
from adapt.plug import ROOT, UserError
from adapt.recipe import load_recipe
from adapt.run import Run


def test_a_shelf_keeps_what_was_used_last_up_to_its_bytes():
    shelf, made = Shelf(10, len), []

    def get(name: str, size: int) -> bytes:
        return shelf.get(name, lambda: made.append(name) or bytes(size))

    for name in ("a", "b", "a", "c", "a", "b"):
        get(name, 4)
    assert made == ["a", "b", "c", "b"] and shelf.bytes == 8
    get("large", 50)
    assert "large" in shelf and shelf.bytes == 50, "one that is larger than the shelf stays, alone"


def test_a_thing_is_made_once_however_many_ask_at_once_and_a_failure_is_not_kept():
    shelf, made, start = Shelf(10, len), [], threading.Barrier(4)

    def ask():
        start.wait()
        shelf.get("a", lambda: made.append(1) or b"x")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]
    with pytest.raises(ZeroDivisionError):
        shelf.get("b", lambda: 1 / 0)
    assert shelf.get("b", lambda: b"y") == b"y"


def test_the_embedded_checkpoints_are_offered_and_nothing_is_loaded():
    desk = Desk(choices())
    assert list(desk.choices) == ["clip-tiny", "sam-tiny", "dinov2-tiny", "paligemma-tiny"]
    assert desk.names("sam", "dinov2") == ["sam-tiny", "dinov2-tiny"] and desk.models.bytes == 0
    with pytest.raises(UserError, match=r"there is no 'clip-tinny' here\. Did you mean 'clip-tiny'"), desk.using("clip-tinny"):
        pass


def test_a_checkpoint_is_asked_by_its_familys_recipe(tmp_path):
    shutil.copytree(ROOT / "assets" / "checkpoints" / "dinov2-tiny", tmp_path / "mine: a copy")
    first = choices(checkpoint="mine: a copy")[0]
    assert (first.name, first.family, first.recipe.model.checkpoint) == ("mine: a copy", "dinov2", "mine: a copy")
    assert choices(checkpoint="sam-tiny")[0].name == "sam-tiny" and len(choices(checkpoint="sam-tiny")) == 4
    assert choices(checkpoint="open_clip:ViT-B-16/none")[0].family == "clip"


def test_a_run_is_offered_with_what_it_has_and_its_student_answers(photos, small):
    recipe = load_recipe("clip_lora", ["data.path=photos", "data.source=folder", "tracker=none"])
    assert [choice.by for choice in choices(recipe)[:-4]] == [COMES]
    run = Run.open(recipe).begin(recipe)
    small(run.path / "student" / "small")
    run.write_text("adapter/adapter_config.json", "{}")
    run.record("finetune", made_of={})
    found = choices(recipe)
    assert [choice.name for choice in found[:-4]] == [f"{run.path.name}: {by}" for by in (ADAPTED, COMES, "small")]
    desk = Desk(found)
    assert desk.names("clip")[:3] == [*(f"{run.path.name}: {by}" for by in (ADAPTED, COMES)), "clip-tiny"]
    student = desk.names("clip", students=True)[2]
    with desk.using(student) as model:
        assert model.choice.student and model.classes == ["red", "blue", "green"] and not model.module.training
    with pytest.raises(UserError, match="changed since the adapter"), desk.using(found[0].name):
        pass
    shutil.rmtree(run.path / "adapter")  # to make it again
    assert [choice.by for choice in choices(recipe)[:-4]] == [COMES, "small"]


def test_a_picture_is_read_upright_in_rgb_and_once(tmp_path):
    picture = Image.new("RGBA", (6, 4), (255, 0, 0, 0))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=exif)
    desk = Desk([])
    read = desk.picture(str(tmp_path / "a.png"))
    assert (read.mode, read.size, read.getpixel((0, 0))) == ("RGB", (4, 6), (255, 255, 255))
    assert desk.picture(str(tmp_path / "a.png")) is read


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("text.png", "not a usable picture: unreadable"),
        ("none.png", "not a usable picture"),
        ("huge.png", "its pixels are too many"),
        ("large.png", "7,000 × 7,000 pixels are too many; up to 40 million"),
    ],
)
def test_what_is_no_picture_or_too_large_is_one_line(name, told, tmp_path, huge):
    (tmp_path / "text.png").write_text("no picture at all\n")
    Image.new("1", (7000, 7000)).save(tmp_path / "large.png")
    (tmp_path / "huge.png").write_bytes(huge["buffer"])
    with pytest.raises(UserError, match=told) as error:
        Desk([]).picture(str(tmp_path / name))
    assert "\n" not in str(error.value) and str(tmp_path) not in str(error.value)


def test_an_exported_file_answers_as_its_student_does(small, tmp_path):
    import numpy as np

    from adapt.demo.desk import Choice
    from adapt.demo.parts import Upload
    from adapt.demo.zero_shot import classified
    from adapt.export import gate
    from adapt.export import onnx as target
    from adapt.students import open_student

    small(tmp_path / "small")
    student = open_student(tmp_path / "small")
    samples = (np.random.default_rng(0).random((4, 3, 32, 32)) * 255).astype(np.float32)
    config = target.Config(name="onnx", int8=False)
    file = gate.export(target, config, student.deployed(), samples, tmp_path, student.about())[0].path
    Image.linear_gradient("L").save(tmp_path / "a.png")
    found = choices(file=str(file))
    desk = Desk([*found, Choice("student", found[1].recipe, "small", tmp_path / "small")])
    assert desk.names("clip", students=True) == ["model.onnx", "clip-tiny", "student"]
    upload = Upload(str(tmp_path / "a.png"), (256, 256))
    (ours, note), (theirs, _) = (classified(desk, name, upload, None, "", "") for name in ("model.onnx", "student"))
    assert dict(ours) == pytest.approx(dict(theirs), abs=1e-3) and "3 classes" in note
    with pytest.raises(UserError, match=r"is no ONNX file"):
        choices(file=str(tmp_path / "a.png"))
