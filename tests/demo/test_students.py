"""The tab Students: a student beside its teacher and its files, and many pictures labelled."""

from __future__ import annotations

import csv
import io
import re
from zipfile import ZipFile

import pytest
from PIL import Image
from playwright.sync_api import expect

from adapt.demo.desk import Choice, Desk, embedded_student
from adapt.demo.parts import Upload
from adapt.demo.students import asked, label, road, students
from adapt.plug import UserError, load, schema

PICTURE, ANSWERS, FILES, TOLD = "#students-picture", "#students-answers", "#students-files", "#students-told"


@pytest.fixture(scope="module")
def exported(desk):
    """The files of the desk's small student, where `adapt export` would put them."""
    from adapt.export import gate

    with desk.using("a student") as model:
        student = model.module
        views = 255 * _noise(16, student.input["size"])
        folder = model.choice.place.parents[1] / "export" / "small" / "onnx"
        folder.mkdir(parents=True, exist_ok=True)
        config = schema("export", "onnx")(name="onnx", int8=True, calibrate="minmax")
        gate.export(load("export", "onnx"), config, student.deployed(), views, folder, student.about())
    recipe = desk.choices["a student"].recipe
    files = {f"small {stem}": folder / f"{stem}.onnx" for stem in ("model.int8", "model")}
    desk.choices |= {name: Choice(name, recipe, name, path) for name, path in files.items()}
    yield folder
    for name in files:
        del desk.choices[name]


def _noise(count: int, size: tuple[int, int]):
    import numpy as np

    return np.random.default_rng(0).random((count, 3, *size)).astype(np.float32)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    Image.radial_gradient("L").convert("RGB").save(path)
    return path


def test_teacher_student_and_files_answer_side_by_side(desk, exported, scene):
    titles = ["teacher", "CNN", "fp32 file", "int8 file"]
    assert [each.title for each in road(desk, "a student")] == titles
    *_, found = asked(desk, "a student", Upload(str(scene), (256, 256)))
    teacher, cnn, fp32, int8 = found
    assert not any(one.problem for one in found) and all(one.milliseconds > 0 for one in found)
    assert fp32.bytes == (exported / "model.onnx").stat().st_size > int8.bytes == (exported / "model.int8.onnx").stat().st_size
    assert len(teacher.line["probabilities"]) == 49 and teacher.line["label"] in teacher.answerer.names
    assert cnn.line["label"] == fp32.line["label"]
    assert cnn.line["probabilities"] == pytest.approx(fp32.line["probabilities"], abs=1e-4)
    assert int8.line["probabilities"] == pytest.approx(fp32.line["probabilities"], abs=0.1)


def test_an_exported_file_is_asked_alone(exported, desk, scene):
    path = exported / "model.int8.onnx"
    alone = Desk([Choice(path.name, None, path.name, path), *desk.choices.values()])
    assert students(alone) == ["model.int8.onnx", "a student"]
    assert [each.title for each in road(alone, "model.int8.onnx")] == ["int8 file"]
    *_, (one,) = asked(alone, "model.int8.onnx", Upload(str(scene), (256, 256)))
    assert one.line["label"] in ("red", "blue", "green")
    with pytest.raises(UserError, match=r"student: there is no 'clip-tiny' here"):
        road(alone, "clip-tiny")


def test_who_cannot_answer_says_so_beside_the_others(desk, scene):
    from adapt.demo.students import _shown

    found = desk.choices["sam-tiny"]
    place = desk.choices["a student"].place
    other = Desk([found, Choice("of sam", found.recipe, "small", place)])
    upload = Upload(str(scene), (256, 256))
    *_, (teacher, cnn, *_) = asked(other, "of sam", upload)
    assert "answers prompts" in teacher.problem and cnn.line["label"]
    assert "answers prompts" in _shown(other, upload, [teacher, cnn])


def test_labels_are_those_of_the_verb_predict(desk, exported, scene, tmp_path):
    from adapt.verbs import predict
    from adapt.verbs.predicting.request import Request

    who = road(desk, "a student")[-1]
    table, said, problems = label(desk, who, [str(scene)], tmp_path / "ours")
    predict.of_file(Request(str(scene), to="csv", out=str(tmp_path / "theirs"), file=str(exported / "model.int8.onnx")))
    assert table.read_text() == (tmp_path / "theirs" / "predictions.csv").read_text()
    assert said == "1 picture labelled by small model.int8." and not problems
    with pytest.raises(UserError, match=r"files: there is no picture among them"):
        label(desk, who, [str(exported / "model.onnx")], tmp_path / "none")


@pytest.mark.slow
def test_the_embedded_cnn_gets_its_last_layer_and_its_files(desk):
    import numpy as np
    import torch

    choice, *files = embedded_student()
    own = Desk([desk.choices["clip-tiny"], choice, *files])
    with own.using(choice.name) as model:
        rows = model.session.data["test"]
        views = np.stack([model.module.preprocess(row, False)["image"].numpy() for row in rows])
        shares = model.module.predictors()["class_logits"](torch.from_numpy(views).float()).softmax(1)
        right = (shares.argmax(1).numpy() == np.array(rows["label"][:])).mean()
    assert right > 0.33, "better than its teacher without training"
    assert shares.amax(1).mean().item() == pytest.approx(right, abs=0.1), "as sure as it is right"
    assert [each.title for each in road(own, choice.name)] == ["teacher", "CNN", "fp32 file", "int8 file"]
    assert all(each.place.is_file() for each in files)


# ---------------------------------------------------------------------------------------------------------------- browser


def zipped(*members: tuple[str, bytes]) -> dict:
    """A zip as playwright's `set_input_files` takes it."""
    out = io.BytesIO()
    with ZipFile(out, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return {"name": "all.zip", "mimeType": "application/zip", "buffer": out.getvalue()}


def test_one_picture_then_many_then_a_zip_that_writes_outside(page, exported, picture, upload):
    page.get_by_role("tab", name="Students").click()
    upload(page, PICTURE, picture("red"))
    expect(page.locator(f"{ANSWERS} tbody tr")).to_have_count(4)
    expect(page.locator(ANSWERS)).not_to_contain_text("…")
    rows = [row.inner_text() for row in page.locator(f"{ANSWERS} tbody tr").all()]
    assert all(re.search(r"\d\.\d%.*\d ms.*\d MB", row, re.DOTALL) for row in rows)

    page.locator("#students-label").click()
    page.get_by_text("Upload pictures or a zip first").wait_for()
    one = picture("red")
    good = zipped(("a/red.png", one["buffer"]), ("a/text.png", b"no picture at all"), ("notes.txt", b"no"))
    page.set_input_files(f"{FILES} input[type=file]", [good])
    page.locator(FILES).get_by_text("all").first.wait_for()
    page.locator("#students-label").click()
    page.get_by_text(re.compile(r"^1 picture labelled by .*\. Passed over: 1 other file\.")).wait_for()
    page.get_by_text("a/text.png: unreadable").wait_for()
    with page.expect_download() as download:
        page.locator("#students-table a").first.click()
    with open(download.value.path(), newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["path"] == "a/red.png" and row["label"] in ("red", "blue", "green")

    page.locator(FILES).get_by_label("Clear").click()
    page.set_input_files(f"{FILES} input[type=file]", [zipped(("../evil.png", one["buffer"]))])
    page.locator(FILES).get_by_text("all").first.wait_for()
    page.locator("#students-label").click()
    page.get_by_text("would lie outside its folder; nothing was unpacked").wait_for()
    assert page.locator("#students-table a").count() == 0
