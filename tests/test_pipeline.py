"""The road, small: every verb, in order, again, and with what goes wrong."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from adapt import pipeline
from adapt.cli import main
from adapt.plug import UserError
from adapt.prompting.text import placed_templates
from adapt.provenance import of
from adapt.recipe import load_recipe
from adapt.train import loop
from adapt.verbs import export as exporting
from adapt.verbs import kept, lineage
from adapt.verbs.session import Session

NAME = "logits-resnet10t"
STUDENT, FP32, INT8 = (f"{role} {NAME}" for role in ("student", "onnx fp32", "onnx int8"))
SMALL = [
    "data.shots=2",
    "data.unlabelled=[]",
    "train.epochs=2",
    "distill.train.epochs=2",
    "distill.views=1",
    "export.0.calibration=32",
    "evals.0.bootstrap=100",
    "model.train_templates=1",
]
QUICK = ["evals.0.bootstrap=100", "model.train_templates=1", "tracker=none"]


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("clip_lora", SMALL)


COUNTED = {"loaded": 0, "hashed": 0, "rows": 0}
"""Of the road in `done`: checkpoints loaded; pictures hashed, and how many there are."""


@pytest.fixture(scope="module")
def done(recipe, tmp_path_factory):
    """The run folder of a whole road."""
    from adapt import plug
    from adapt.verbs import session
    from adapt.vision import fingerprint

    load, pictures, splits = plug.load("models", "clip").load, fingerprint._pictures, session.fingerprint

    def loaded(config):
        COUNTED["loaded"] += 1
        return load(config)

    def hashed(column):
        COUNTED["hashed"] += len(column)
        return pictures(column)

    def counted(rows):
        COUNTED["rows"] += len(rows)
        return splits(rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("road"))
        patch.setattr(plug.load("models", "clip"), "load", loaded)
        patch.setattr(fingerprint, "_pictures", hashed)
        patch.setattr(session, "fingerprint", counted)
        outcome = pipeline.road(recipe)
        return outcome, Path.cwd() / outcome.path


def test_a_road_loads_its_checkpoint_once_and_reads_each_picture_once_for_hashing(done, recipe):
    data = Session(recipe).data
    assert {"loaded": 1, "hashed": sum(map(len, data.values())), "rows": sum(map(len, data.values()))} == COUNTED


def test_the_road_leaves_what_the_design_says(done):
    _, folder = done
    for name in [
        "recipe.yaml",
        "manifest.json",
        "metrics.json",
        "history.jsonl",
        "report.html",
        "report.md",
        "adapter/adapter_model.safetensors",
        "student/logits-resnet10t/model.safetensors",
        "student/logits-resnet10t/config.json",
        "export/logits-resnet10t/onnx/model.onnx",
        "export/logits-resnet10t/onnx/model.int8.onnx",
        "predictions/adapted.parquet",
    ]:
        assert (folder / name).is_file(), name
    assert not list(folder.rglob(".*")), "no temporary file is left"


def test_the_table_has_the_four_rows_with_their_numbers(done):
    outcome, _ = done
    entries = {entry["name"]: entry for entry in outcome.entries}
    assert list(entries) == ["zero-shot", "adapted", STUDENT, FP32, INT8]
    for name in ("zero-shot", "adapted", FP32, INT8):
        entry = entries[name]
        assert 0 <= entry["metrics"]["top1"] <= 1
        assert entry["intervals"]["top1"][0] <= entry["metrics"]["top1"] <= entry["intervals"]["top1"][1]
        assert entry["latency"]["p50_ms"] <= entry["latency"]["p99_ms"]
        assert entry["size_bytes"] > 1e6
    assert entries[FP32]["metrics"]["top1"] == entries[STUDENT]["metrics"]["top1"], "fp32 ONNX is the student"


def test_every_number_can_be_traced_to_the_base_checkpoint(done):
    outcome, folder = done
    stages = json.loads((folder / "manifest.json").read_text())["stages"]
    exported = next(entry for entry in outcome.entries if entry["name"] == INT8)
    from adapt.export.onnx import Runner
    from adapt.provenance import hash_path
    from adapt.students.cnn import weights_file

    assert (
        exported["hash"]
        == hash_path(folder / exported["file"])
        == stages[f"export {NAME}"]["files"][f"export/{NAME}/onnx/model.int8.onnx"]
    )
    metadata = {
        key: json.loads(value)
        for key, value in Runner(folder / exported["file"]).metadata.items()
        if key in ("student", "adapter", "base", "prompts")
    }
    assert metadata["student"] == stages[f"distill {NAME}"]["student"] == hash_path(folder / "student" / NAME)
    assert metadata["adapter"] == stages["finetune"]["adapter"] == stages[f"distill {NAME}"]["parent"]
    assert metadata["base"] == stages["finetune"]["base"]
    assert metadata["prompts"] == {"templates": placed_templates(load_recipe(folder / "recipe.yaml").prompts)}
    assert stages[f"distill {NAME}"]["start"] == hash_path(weights_file("cnn-tiny"))


def test_the_page_is_self_contained_and_says_the_same(done):
    outcome, folder = done
    page = (folder / "report.html").read_text()
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)""", page)
    assert all(link.startswith(("data:", "#")) for link in loaded)
    assert "<script" not in page
    for entry in outcome.entries:
        if entry["name"] != STUDENT:
            assert f"{100 * entry['metrics']['top1']:.1f} %" in page
            assert f"{100 * entry['metrics']['top1']:.1f} %" in (folder / "report.md").read_text()


def test_the_report_can_be_rebuilt_from_the_folder(done):
    _, folder = done
    (folder / "report.html").unlink()
    assert pipeline.report(folder).read_text().startswith("<!doctype html>")


def test_text_of_users_is_escaped(done, tmp_path):
    import shutil

    _, folder = done
    copy = tmp_path / "<b>run"
    shutil.copytree(folder, copy)
    metrics = json.loads((copy / "metrics.json").read_text())
    metrics["entries"][0]["title"] = "<img src=x onerror=alert(1)>"
    metrics["guards"] = [{"name": "<u>g", "state": "broken", "message": "bad & red"}]
    (copy / "metrics.json").write_text(json.dumps(metrics))
    page = pipeline.report(copy).read_text()
    assert "<img src=x" not in page
    assert "<b>run" not in page
    assert "<li class=broken>" in page
    assert "Bad &amp; red" in page


def test_a_second_road_does_nothing_again(done, recipe, monkeypatch):
    _, folder = done
    monkeypatch.chdir(folder.parents[1])
    before = {
        name: (folder / name).stat().st_mtime_ns
        for name in ("adapter/adapter_model.safetensors", f"student/{NAME}/model.safetensors")
    }
    # its start may be out of reach by now
    monkeypatch.setattr("adapt.students.cnn.create", lambda *args: pytest.fail("a student that is taught needs no start"))
    again = pipeline.road(recipe)
    assert before == {name: (folder / name).stat().st_mtime_ns for name in before}
    assert (again.entries, again.guards) == (done[0].entries, done[0].guards)


def test_guards_and_changes_are_those_of_the_numbers(done, recipe):
    outcome, _ = done
    broken = {guard["name"]: guard["state"] == "broken" for guard in outcome.guards}
    entries = {entry["name"]: entry for entry in outcome.entries}
    top = {name: entry["metrics"]["top1"] for name, entry in entries.items()}
    assert broken[f"{STUDENT} within its budget"] == (top["adapted"] - top[STUDENT] > recipe.distill.budget)
    assert broken[f"{STUDENT} within its budget"], "two epochs are too few, and that is said"
    assert broken[f"{INT8} within its budget"] == (top[FP32] - top[INT8] > recipe.export[0].budget)
    speed = {name: entries[f"onnx {name} {NAME}"]["latency"]["p50_ms"] for name in ("fp32", "int8")}
    assert broken[f"{INT8} is faster than fp32"] == (speed["int8"] >= speed["fp32"])
    assert entries["adapted"]["change"][0] == pytest.approx(top["adapted"] - top["zero-shot"])
    assert entries[INT8]["change"][0] == pytest.approx(top[INT8] - top[FP32])


def test_teacher_and_files_are_timed_in_one_runtime_and_it_is_said(done):
    """The teacher's tower is written for the files' runtime and proven; torch's own latency stands beside it."""
    outcome, _ = done
    entries = {entry["name"]: entry for entry in outcome.entries}
    for name, what in (("zero-shot", "image tower"), ("adapted", "image tower"), (FP32, "whole model")):
        latency = entries[name]["latency"]
        assert (latency["runtime"], latency["what"], latency["threads"]) == ("onnxruntime", what, 1)
        assert latency["calls"] >= 50
    assert (entries["adapted"]["latency_torch"]["runtime"], entries["adapted"]["latency_torch"]["what"]) == (
        "torch",
        "image tower",
    )
    assert "latency_torch" not in entries[INT8]


def test_a_file_was_proven_on_pictures_and_int8_says_how_its_ranges_were_found(done):
    outcome, folder = done
    entries = {entry["name"]: entry for entry in outcome.entries}
    assert entries[FP32]["proof"]["samples"] == 32, "as many as were given for the calibration"
    assert entries[INT8]["int8"]["pictures"] == 128, "the validation split"
    assert entries[INT8]["conversions"] == {}
    for name in ("fp32", "int8"):
        entry = entries[f"onnx {name} {NAME}"]
        assert entry["size_bytes"] == (folder / entry["file"]).stat().st_size
        assert entry["protocol"]["precision"] == name


def test_what_int8_changes_in_each_class_is_noted(done):
    outcome, folder = done
    accuracy = {}
    for name in ("fp32", "int8"):
        rows = pq.read_table(folder / "predictions" / f"onnx_{name}_{NAME}.parquet").to_pylist()
        for label in {row["label"] for row in rows}:
            mine = [row["correct"] for row in rows if row["label"] == label]
            accuracy[name, label] = sum(mine) / len(mine)
    (change,) = [entry["class_change"] for entry in outcome.entries if entry["name"] == INT8]
    assert len({label for _, label in accuracy}) > 20
    for label in change:
        assert change[label] == pytest.approx(accuracy.get(("int8", label), 0) - accuracy.get(("fp32", label), 0)), label
    (message,) = [guard["message"] for guard in outcome.guards if guard["name"] == f"{INT8} within its budget"]
    largest = max(map(abs, change.values()))
    broken = any(guard["name"] == f"{INT8} within its budget" and guard["state"] == "broken" for guard in outcome.guards)
    assert ("most of all classes" in message) == bool(largest and broken)
    assert f"{100 * largest:.1f} points." in message or not (largest and broken)


def test_an_exported_file_says_how_to_use_it(done):
    from adapt.export.onnx import Runner

    _, folder = done
    about = json.loads(Runner(folder / "export" / NAME / "onnx" / "model.onnx").metadata["input"])
    assert about["size"] == [48, 48]
    assert about["range"] == [0, 255]
    assert {"resize", "crop", "interpolation", "preparation", "normalisation"} <= set(about)
    assert not {"mean", "std"} & set(about), "the file applies them itself"
    assert json.loads((folder / "student" / NAME / "config.json").read_text())["input"]["size"] == [48, 48]


def test_a_kill_before_the_guard_does_not_lose_it(tmp_path, monkeypatch):
    from adapt.verbs import measuring

    monkeypatch.chdir(tmp_path)
    few = [*QUICK, "data.unlabelled=[]", "data.shots=1", "train.epochs=1", "distill=null", "export=[]"]
    spoils = ["method={name: full}", "train.lr=0.3", "train.clip=0", "train.warmup=0"]
    recipe, whole = load_recipe("clip_lora", [*few, *spoils]), measuring.measure

    def killed(session, name, *given, **more):
        if name == "adapted":
            raise KeyboardInterrupt
        return whole(session, name, *given, **more)

    monkeypatch.setattr(measuring, "measure", killed)
    with pytest.raises(KeyboardInterrupt):
        pipeline.finetune(recipe)
    monkeypatch.setattr(measuring, "measure", whole)
    assert not pipeline.finetune(recipe).ok


def test_who_is_chosen_taught_and_cached(monkeypatch):
    """Validation alone chooses; unlabelled pictures teach; a cache is named after all that it depends on."""
    from adapt.verbs import distill, measuring

    base = ["tracker=none", "data.shots=1"]
    session = Session(load_recipe("clip_lora", base))
    rows = distill.student_rows(session)
    assert len(rows) == len(session.data["train"]) + 3 * 849
    assert rows["label"][-1] is None

    def place(*given: str) -> str:
        session = Session(load_recipe("clip_lora", [*base, "data.unlabelled=[twemoji]", *given]))
        options = session.recipe.distill
        return of(lineage.answers(session, "class_logits", options.views, options.train.augment))

    changes = ["distill.views=2", "distill.train.augment.crop=0.5", "distill.teacher=zero-shot", "data.shots=2", "seed=1"]
    changes += ["data.unlabelled=[noto]", "method.rank=3", "prompts.templates=simple"]
    assert len({place(), *map(place, changes)}) == 1 + len(changes)
    for idle in ("distill.student=resnet14t", "distill.train.lr=0.1", "distill.budget=0.5", "distill.train.epochs=3"):
        assert place(idle) == place(), "the teacher says the same to any student"
    asked, whole = [], measuring.evaluated
    monkeypatch.setattr(
        measuring,
        "evaluated",
        lambda session, config, predict, split, module: asked.append(split) or whole(session, config, predict, split, module),
    )
    measuring.validate(session, session.family)
    assert asked == ["validation"]


def test_features_computed_once_are_those_of_their_rows(tmp_path, monkeypatch):
    import torch

    from adapt.verbs.finetune import _views

    monkeypatch.chdir(tmp_path)
    session = Session(
        load_recipe("dinov2_linear", ["train.cache=true", "method={name: head}", "data.shots=1", "tracker=none", "evals=[]"])
    )
    session.apply_method()
    views = _views(session)
    for row in (0, 5):
        image = session.family.preprocess(session.data["train"][row], False)["image"][None].float()
        with torch.no_grad():
            expected = session.family.frozen_features()(image)[0]
        for views.epoch in (0, 3):
            assert "image" not in views[row], "its features stand for it"
            torch.testing.assert_close(views[row]["features"], expected, atol=1e-4, rtol=1e-4)


def test_other_evals_are_measured_anew_and_nothing_is_learnt_again(done, tmp_path, monkeypatch):
    _, folder = done
    shutil.copytree(folder, tmp_path / "runs" / folder.name)
    monkeypatch.chdir(tmp_path)
    other = load_recipe("clip_lora", [*SMALL, "evals.0.split=validation"])
    outcome = pipeline.evaluate(other)
    assert {entry["name"]: entry["split"] for entry in outcome.entries if entry["name"] in ("zero-shot", "adapted")} == {
        "zero-shot": "validation",
        "adapted": "validation",
    }
    before = (outcome.path / "student" / NAME / "model.safetensors").stat().st_mtime_ns
    student = next(entry for entry in pipeline.distill(other).entries if entry["name"] == STUDENT)
    assert student["split"] == "validation"
    assert (outcome.path / "student" / NAME / "model.safetensors").stat().st_mtime_ns == before


def test_lora_is_merged_before_it_is_timed_and_weighed(done):
    from adapt.models.checkpoint import EMBEDDED

    outcome, _ = done
    sizes = {entry["name"]: entry["size_bytes"] for entry in outcome.entries if entry["name"] in ("zero-shot", "adapted")}
    stored = (EMBEDDED / "clip-tiny" / "model.safetensors").stat().st_size
    assert sizes["zero-shot"] == sizes["adapted"] == pytest.approx(2 * stored, rel=0.01), "the file is in half precision"


def test_data_that_changed_are_noticed(tmp_path, monkeypatch):
    from PIL import Image

    for number, name in enumerate(("red", "green")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            colour = [10 * i] * 3
            colour[number] = 255
            Image.new("RGB", (20, 20), tuple(colour)).save(tmp_path / "photos" / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    more = [*QUICK, "train.epochs=1", "distill=null", "export=[]"]
    recipe = load_recipe("clip_lora", ["data.path=photos", *more])
    pipeline.finetune(recipe)
    adapter = next((tmp_path / "runs").glob("*/adapter/*.safetensors"))
    before = adapter.stat().st_mtime_ns
    pipeline.finetune(recipe)
    assert adapter.stat().st_mtime_ns == before
    stopped = load_recipe("clip_lora", ["data.path=photos", "train.batch=4", "train.checkpoint_every=1", "seed=3", *more])
    step, count = loop._step, itertools.count()

    def dies(*given):
        if next(count) == 2:
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(loop, "_step", dies)
    with pytest.raises(KeyboardInterrupt):
        pipeline.finetune(stopped)
    monkeypatch.setattr(loop, "_step", step)
    unmeasured = load_recipe("clip_lora", ["data.path=photos", "seed=4", *more])
    fresh = pipeline.evaluate(unmeasured).entries[0]["protocol"]["data"]
    Image.new("RGB", (20, 20), (250, 100, 100)).save(tmp_path / "photos" / "red" / "new.png")
    for changed in (recipe, stopped):
        with pytest.raises(UserError, match="changed since"):
            pipeline.finetune(changed)
    for i in range(9, 12):  # enough of them that the test split changes too
        Image.new("RGB", (20, 20), (250, 10 * i, 100)).save(tmp_path / "photos" / "red" / f"new{i}.png")
    assert pipeline.evaluate(unmeasured).entries[0]["protocol"]["data"] != fresh, "old numbers are of old pictures"


def test_captions_alone_train_a_clip_without_classes(tmp_path, monkeypatch):
    from datasets import Dataset, Features, Image, Value
    from PIL import Image as Picture

    pictures = [Picture.new("RGB", (20, 20), (20 * i, 0, 99)) for i in range(12)]
    features = Features(image=Image(), caption=Value("string"))
    rows = Dataset.from_dict({"image": pictures, "caption": [f"a thing of {i}" for i in range(12)]}, features)
    rows.to_parquet(tmp_path / "rows.parquet")
    monkeypatch.chdir(tmp_path)
    source = [
        "data.source=hub",
        f"data.path={tmp_path}/*.parquet",
        "distill=null",
        "export=[]",
        "tracker=none",
        "train.epochs=1",
    ]
    outcome = pipeline.finetune(
        load_recipe("clip_lora", [*source, "evals=[{name: retrieval, split: train}]", "model.loss=contrastive"])
    )
    assert [entry["main"] for entry in outcome.entries] == ["r1", "r1"]
    (history,) = pipeline.finetune(load_recipe("zoo/clip_tiny", [*source[1:2], "train.epochs=1", "train.batch=4"])).path.glob(
        "history.jsonl"
    )
    assert len(history.read_text().splitlines()) >= 2


def test_students_live_side_by_side_and_the_adapter_stays(done, tmp_path, monkeypatch):
    _, folder = done
    shutil.copytree(folder, tmp_path / "runs" / folder.name)
    monkeypatch.chdir(tmp_path)
    small = ["distill.student=test_resnet", "distill.train.epochs=1", "distill.as=small", "export.0.bench=0.1"]
    recipe = load_recipe("clip_lora", [*SMALL, *small])
    assert recipe.distill.pretrained == "auto", "the recipe's start is its own student's"
    pipeline.distill(recipe)
    outcome = pipeline.export(load_recipe("clip_lora", [*SMALL, *small, "export.0.int8=false"]))
    assert outcome.path.name == folder.name
    assert json.loads((outcome.path / "student" / "small" / "config.json").read_text())["architecture"] == "test_resnet"
    steps = [json.loads(line) for line in (outcome.path / "distill" / "small" / "history.jsonl").read_text().splitlines()]
    assert steps[0]["step"] == 1
    kept = [
        path for path in folder.rglob("*") if path.is_file() and {"student", "distill", "adapter", "export"} & set(path.parts)
    ]
    assert len(kept) > 10
    assert all((outcome.path / path.relative_to(folder)).read_bytes() == path.read_bytes() for path in kept)
    names = [entry["name"] for entry in outcome.entries]
    assert names == ["zero-shot", "adapted", STUDENT, FP32, INT8, "student small", "onnx fp32 small"]
    assert [entry.get("student") for entry in outcome.entries] == [None, None, NAME, NAME, NAME, "small", "small"]
    manifest = json.loads((outcome.path / "manifest.json").read_text())["stages"]
    assert manifest["distill small"]["pretrained"] is False, "there is nothing that it could start from"
    assert manifest[f"distill {NAME}"] == json.loads((folder / "manifest.json").read_text())["stages"][f"distill {NAME}"]
    page = (outcome.path / "report.md").read_text()
    assert "CNN student small, fp32 ONNX" in page and f"CNN student {NAME}, int8 ONNX" in page
    assert f"| CNN student {NAME} |" not in page, "it gives way to its files"


def test_a_student_of_that_name_with_other_options_is_refused_and_left_alone(done, tmp_path, monkeypatch):

    _, folder = done
    shutil.copytree(folder, tmp_path / "runs" / folder.name)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "runs" / folder.name / "student" / NAME / "model.safetensors"
    before = file.stat().st_mtime_ns
    for verb in (pipeline.distill, pipeline.export):
        with pytest.raises(UserError, match=r"other options: train\.epochs changed.*distill\.as=…"):
            verb(load_recipe("clip_lora", [*SMALL, "distill.train.epochs=3"]))
    assert file.stat().st_mtime_ns == before
    shutil.rmtree(file.parent)
    assert not kept.taught(Session(load_recipe("clip_lora", [*SMALL, "distill.train.epochs=3"]))), "as the line says"


def test_an_export_opens_the_student_without_its_teacher(done, tmp_path, monkeypatch):

    _, folder = done
    shutil.copytree(folder, tmp_path / "runs" / folder.name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Session, "loaded", lambda self: pytest.fail("the teacher is not needed"))
    session = Session(load_recipe("clip_lora", SMALL))
    student = kept.student(session)
    assert [artifact.precision for artifact in exporting._convert(session, session.recipe.export[0], student)] == [
        "fp32",
        "int8",
    ]


def test_predictions_carry_pictures_of_the_surest_mistakes(done):
    _, folder = done
    rows = pq.read_table(folder / "predictions" / f"onnx_int8_{NAME}.parquet").to_pylist()
    pictured = [row for row in rows if row["thumbnail"]]
    assert pictured
    assert not any(row["correct"] for row in pictured)
    assert len(pictured) <= 24
    left = [row["confidence"] for row in rows if not row["correct"] and not row["thumbnail"]]
    assert min(row["confidence"] for row in pictured) >= max(left, default=0)


def test_a_worse_model_is_said_in_red_and_by_the_exit_status(capsys):

    worse = [
        "data.shots=1",
        "train.epochs=1",
        "train.lr=0.3",
        "train.clip=0",
        "train.warmup=0",
        "distill=null",
        "export=[]",
        "strict=true",
        *QUICK,
    ]
    # one step at an absurd rate spoils the model for certain
    status = main(["finetune", "recipe=clip_lora", "method={name: full}", "data.unlabelled=[]", *worse])
    assert status == 1
    assert "Guard broken: adapted is no worse than zero-shot on validation." in " ".join(capsys.readouterr().out.split())


def test_distilling_before_adapting_says_what_comes_first():
    with pytest.raises(UserError, match="First: adapt finetune"):
        pipeline.distill(load_recipe("clip_lora", [*SMALL, "seed=5"]))


def test_a_tracker_that_is_not_installed_is_said():
    if importlib.util.find_spec("trackio"):
        pytest.skip("trackio is installed here")
    with pytest.raises(UserError, match="tracker: 'trackio' is not installed"):
        pipeline.finetune(load_recipe("clip_lora", [*SMALL, "tracker=trackio"]))


def test_a_source_without_the_column_is_refused_with_both_names():
    with pytest.raises(UserError, match="no column label; training needs image, label"):
        pipeline.finetune(
            load_recipe(
                "clip_lora",
                ["data={source: emoji_scenes, train: 4, validation: 2, test: 2}", "model.loss=classification", "tracker=none"],
            )
        )


def test_pictures_that_are_left_out_are_listed_and_counted(tmp_path, monkeypatch):
    from PIL import Image

    for number, name in enumerate(("red", "green", "blue")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            colour = [10 * i] * 3
            colour[number] = 255
            Image.new("RGB", (20, 20), tuple(colour)).save(tmp_path / "photos" / name / f"{i}.png")
    (tmp_path / "photos" / "red" / "broken.png").write_bytes(b"\x89PNG")
    monkeypatch.chdir(tmp_path)
    overrides = ["data.path=photos", "data.on_error=skip", "train.epochs=1", "distill=null", "export=[]", *QUICK]
    outcome = pipeline.finetune(load_recipe("clip_lora", overrides))
    assert "broken.png" in (outcome.path / "data_problems.csv").read_text()
    assert outcome.entries[0]["left_out"] == 1
    assert "could not be used: 1;" in (outcome.path / "report.html").read_text()


def test_a_family_that_uses_no_words_is_not_stopped_by_them(tmp_path, monkeypatch):
    from PIL import Image

    for name in ("red_ant", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (20, 20), (60 * i, ord(name[0]), 0)).save(tmp_path / "photos" / name / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    own = ["data.path=photos", "prompts.classes=emoji", "prompts.templates=['no place for a name']", "tracker=none"]
    assert Session(load_recipe("dinov2_linear", own)).family.classes == ["dog", "red_ant"], "the labels' own names"
    with pytest.raises(UserError, match=r"prompts\.templates\.0"):
        _ = Session(load_recipe("clip_lora", own)).family


def test_a_student_that_is_named_by_words_has_them_though_its_teacher_uses_none():

    scenes = ["data.train=2", "data.validation=1", "data.test=1", "tracker=none"]
    session = Session(load_recipe("sam_semantic_student", scenes))
    words = {name: f"thing {number}" for number, name in enumerate(session.labels)}
    told = [*scenes, f"prompts.classes={json.dumps(words)}"]
    assert Session(load_recipe("sam_semantic_student", told)).family.classes == [f"thing {i}" for i in range(8)]
    assert Session(load_recipe("sam_semantic_student", [*told, "distill=null"])).family.classes == session.labels


def test_a_finished_run_is_trained_further_where_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = [*QUICK, "data.unlabelled=[]", "data.shots=2", "train.epochs=1", "train.lr=1e-5", "distill=null", "export=[]"]
    recipe = load_recipe("clip_lora", few)
    folder = pipeline.finetune(recipe).path
    before = json.loads((folder / "manifest.json").read_text())["stages"]["finetune"]
    longer = load_recipe("clip_lora", [*few])
    assert main(["finetune", f"run={folder}", "extend=2"]) == 0
    after = json.loads((folder / "manifest.json").read_text())["stages"]["finetune"]
    said = capsys.readouterr().out
    if "no better on validation" in said:
        assert after == before
    else:
        (step,) = after["extended"]
        assert (step["epochs"], step["from"]) == (2, before["adapter"]) and step["after"] > step["before"]
        assert after["adapter"] != before["adapter"]
        assert (
            len([row for row in (folder / "extensions" / "1" / "history.jsonl").read_text().splitlines() if "loss" in row]) > 0
        )
        assert "measured again: adapter changed" in said
    assert pipeline.finetune(longer).path == folder, "what has been trained further is finished too"


def test_what_is_no_better_after_more_training_is_not_kept(photos, monkeypatch, capsys):
    from adapt.verbs import finetune as verb

    few = [*QUICK, "data.path=photos", "train.epochs=1", "train.batch=16", "distill=null", "export=[]"]
    recipe = load_recipe("clip_lora", few)
    folder = pipeline.finetune(recipe).path
    kept_files = {file.name: file.read_bytes() for file in (folder / "adapter").iterdir()}
    scored = iter([0.5, *[0.5] * 9])
    monkeypatch.setattr(verb.measuring, "validate", lambda session, module: next(scored))
    pipeline.finetune(recipe, extend=1)
    assert (
        "extend: no better on validation: 50.0% before, 50.0% after. The adapter is left as it was." in capsys.readouterr().out
    )
    assert {file.name: file.read_bytes() for file in (folder / "adapter").iterdir()} == kept_files
    assert not (folder / "extensions" / "1").exists()


def test_nothing_is_trained_further_that_is_not_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["finetune", "recipe=clip_lora", "tracker=none", "extend=2"]) == 2
    assert "no adapter yet" in capsys.readouterr().err
    assert main(["finetune", "recipe=clip_lora", "extend=some"]) == 2
    assert "extend: 'some' is not a number of epochs" in capsys.readouterr().err


def test_the_adapters_card_says_of_what_it_is_what_it_reaches_and_how_it_is_loaded(done):
    outcome, folder = done
    text = (folder / "adapter" / "README.md").read_text()
    assert "`clip-tiny` adapted by `lora`" in text
    assert 'base = CLIPModel.from_pretrained("clip-tiny")' in text
    top1 = {entry["name"]: entry["metrics"]["top1"] for entry in outcome.entries}
    for name in ("zero-shot", "adapted"):
        assert f"| {100 * top1[name]:.1f} % (" in text
