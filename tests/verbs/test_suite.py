"""`adapt evaluate suite=`: sets of many kinds, models of many kinds, a kill that costs nothing, and failures that stop nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from adapt import literature, pipeline, plug
from adapt.cli import main
from adapt.contracts import Asked, Predictor
from adapt.data import emoji_scenes
from adapt.evals import bootstrap, zeroshot
from adapt.evals.semantic import class_maps
from adapt.export import gate
from adapt.export import onnx as target
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.students import classifier, detector
from adapt.suite import configs, load_suite
from adapt.train import predict as encoding
from adapt.verbs import suite as verb
from adapt.verbs.predicting import answerers
from adapt.verbs.session import Session
from adapt.verbs.suiting import asking, request
from adapt.verbs.suiting.models import File, _family, models
from adapt.vision.classes import category_names
from tests.suite_trees import SETS, write_set, write_suite, write_tree

pytestmark = pytest.mark.usefixtures("fewer")

SPEC = {"size": (48, 48), "resize": 48, "interpolation": "bicubic", "crop": "floor", "mean": [0.5] * 3, "std": [0.5] * 3}
COLOURS = {"red apple": (200, 30, 30), "lime": (60, 200, 60), "blue cup": (40, 60, 200), "snow": (240, 240, 240)}
CAPTIONS = {"source": "clip_benchmark", "path": "wds_flickr8k", "labels": "captions"}
WORDS = {"templates": ["a photo of a {}", "{}"]}
QUICK = ["data={source: folder, path: photos}", "prompts={templates: ['{}']}", "distill=null", "export=[]", "tracker=none"]
TRAIN = "train={epochs: 1, batch: 16, lr: 1e-3, augment: {crop: 1, flip: 0, colour: 0}}"
RECIPE = ["recipe=clip_lora", *QUICK, TRAIN]


def photos(place: Path, classes: dict[str, tuple[int, int, int]], each: int = 6) -> None:
    draw = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for name, colour in classes.items():
            (place / split / name).mkdir(parents=True)
            for i in range(each):
                pixels = np.clip(draw.normal(colour, 60, (48, 48, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(place / split / name / f"{i}.png")


def written(path: str, *sets: dict) -> str:
    """A suite's file."""
    Path(path).write_text(json.dumps({"about": "Of the tests.", "sets": list(sets)}))
    return path


def folder(name: str, **rest) -> dict:
    return {"name": name, "data": {"source": "folder", "path": name}, "metric": "top1", "prompts": WORDS} | rest


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working folder: the recipe's photos; `others`, of other classes; `fewer`, of some of the same; a suite of four sets."""
    here = tmp_path_factory.mktemp("suite")
    photos(here / "photos", COLOURS)
    photos(here / "others", {"ant": (60, 40, 30), "bee": (200, 160, 20)})
    photos(here / "fewer", {name: COLOURS[name] for name in ("snow", "lime")})
    write_set(here, next(one for one in SETS if one.name == "flickr8k"))
    sets = [
        {"name": "own", "metric": "top1", "also": ["mean_per_class"]},
        folder("others", also=["ece", "knn"]),
        folder("fewer", metric="mean_per_class"),
        {"name": "told/captions", "data": CAPTIONS, "labels": "captions", "metric": "r1"},
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        written("four.yaml", *sets)
    return here


@pytest.fixture(autouse=True)
def at_home(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setattr("adapt.verbs.suiting.models.SECONDS", 0.05)


@pytest.fixture(scope="module")
def adapted(home):
    """A run with an adapter, a student and an exported file; neither of these two has learnt anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        run = pipeline.finetune(load_recipe("clip_lora", [*QUICK, TRAIN, "name=trained"])).path.resolve()
        torch.manual_seed(0)
        student = classifier.Student("test_resnet", SPEC, ["snow", *(name for name in COLOURS if name != "snow")]).eval()
        student.save(run / "student" / "small")
        samples = (np.random.default_rng(0).random((4, 3, 48, 48)) * 255).astype(np.float32)
        (run / "export").mkdir()
        gate.export(
            target, target.Config(name="onnx", int8=False), student.deployed(), samples, run / "export", student.about()
        )
    return run


@pytest.fixture
def encoded(monkeypatch):
    """How many pictures have been encoded, a number a call."""
    asked: list[int] = []
    real = encoding.predict

    def counted(function, family, dataset, *rest, **options):
        asked.append(len(dataset))
        return real(function, family, dataset, *rest, **options)

    monkeypatch.setattr(encoding, "predict", counted)
    return asked


def summary(suite: str) -> dict:
    return json.loads(next(Path("runs").glob(f"*/suites/{suite}/summary.json")).read_text())


# -------------------------------------------------------------------------------------------------------------- sets, models


def test_a_suite_says_what_evaluate_says_of_each_set_and_encodes_pictures_once(encoded):
    suited = pipeline.evaluate(load_recipe("clip_lora", [*QUICK, TRAIN]), suite="four.yaml")
    found = {one["set"]: one for one in suited.document["results"]}
    assert list(found) == ["own", "others", "fewer", "told/captions"]
    assert encoded == [24, 12, 12, 12, 12, 10], "of others: the logits, and embeddings of train and test for kNN"
    alone = [
        "data={source: folder, path: others}",
        f"prompts={WORDS}",
        *QUICK[2:],
        TRAIN,
        "evals=[{name: zeroshot}, {name: knn}]",
    ]
    theirs = pipeline.evaluate(load_recipe("clip_lora", alone)).metrics["zero-shot"]
    assert found["others"]["metrics"] == {name: theirs[name] for name in ("top1", "ece", "knn")}
    assert found["others"]["protocol"]["templates"] == WORDS["templates"]
    assert (found["fewer"]["classes"], found["fewer"]["pictures"], found["own"]["floor"]) == (2, 12, 0.25)
    assert found["told/captions"]["metrics"].keys() == {"r1"} and found["told/captions"]["classes"] is None
    place = suited.path / "suites" / "four" / "zero-shot"
    assert (place / "told--captions.json").is_file() and (place.parent / "report.html").is_file()
    table = pq.read_table(place / "own.parquet").to_pydict()
    assert np.mean(table["correct"]) == found["own"]["metrics"]["top1"] and len(set(table["id"])) == 24
    assert suited.document["models"][0]["parameters"] > 5e6 and suited.document["models"][0]["milliseconds"] > 0
    assert list(suited.table["metric"]) == ["top1", "top1", "mean_per_class", "r1"]
    encoded.clear()
    again = pipeline.evaluate(load_recipe("clip_lora", [*QUICK, TRAIN]), suite="four.yaml")
    assert not encoded and again.document == suited.document
    sets = json.loads(Path("four.yaml").read_text())["sets"]
    sets[2]["prompts"] = {"templates": ["an icon of {}"]}
    written("four.yaml", *sets)
    pipeline.evaluate(load_recipe("clip_lora", [*QUICK, TRAIN]), suite="four.yaml")
    assert encoded == [12], "the set whose words are others now, and no other"


def test_students_and_files_stand_beside_models_on_the_sets_whose_classes_they_know(adapted, capsys):
    file = next((adapted / "export").glob("*.onnx"))
    models = [
        {"checkpoint": "clip-tiny"},
        {"run": str(adapted)},
        {"run": str(adapted), "student": "small"},
        {"file": str(file)},
    ]
    written("three.yaml", {"name": "own", "metric": "top1"}, folder("others"), folder("fewer"))
    assert main(["evaluate", *RECIPE, "suite=three.yaml", f"models={json.dumps(models)}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = [model["name"] for model in found["models"]]
    assert [model["kind"] for model in found["models"]] == ["checkpoint", "run", "student", "file"] and len(set(names)) == 4
    value = {(one["set"], one["model"]): one for one in found["results"]}
    assert {one["set"] for one in found["results"] if one["model"] == names[2]} == {"own", "fewer"}
    assert {(one["set"], one["model"]) for one in found["left_out"]} == {("others", names[2]), ("others", names[3])}
    assert all("2 of 2 are not its own, such as 'ant'" in one["why"] for one in found["left_out"]) and not found["failed"]
    for name in ("own", "fewer"):  # the file answers as the student does, and in the order of the set's classes
        assert value[name, names[2]]["metrics"] == value[name, names[3]]["metrics"]
    student, rows = classifier.Student.open(adapted / "student" / "small"), plug.load("data", "folder")
    rows = rows.load(rows.Config(path="fewer"))["test"]
    views = torch.stack([student.preprocess(row, False)["image"] for row in rows]).float()
    places = [student.classes.index(name) for name in rows.features["label"].names]
    right = student.predictors()["class_logits"](views)[:, places].argmax(1).numpy() == np.array(rows["label"][:])
    assert value["fewer", names[3]]["metrics"]["top1"] == right.mean()
    tables = [
        pq.read_table(adapted.parents[1] / found["run"] / "suites" / "three" / name / "own.parquet").to_pydict()
        for name in names[:2]
    ]
    assert (
        value["own", names[1]]["change"] == list(bootstrap.change(zeroshot, *tables))
        and value["own", names[0]]["change"] is None
    )
    costs = [(model["parameters"], model["bytes"]) for model in found["models"]]
    assert costs[0] == costs[1], "an adapter is merged before it is counted"
    assert costs[2][0] == sum(each.numel() for each in student.parameters()) and costs[3] == (None, file.stat().st_size)


SCENES = {"source": "emoji_scenes", "size": 64, "train": 2, "validation": 1, "test": 6}
SIGHTS = [
    {"name": "boxes", "data": SCENES, "labels": "objects", "evals": [{"name": "detection"}]},
    {"name": "maps", "data": SCENES, "labels": "maps", "metric": "class_miou", "prompts": WORDS},
]


def scenes():
    return emoji_scenes.load(emoji_scenes.Config(**SCENES))["test"]


class Knows(Asked):
    """A student that knows what is on some pictures; its classes are in an order of its own."""

    def __init__(self, rows, classes: list[str]):
        self.classes, self.input = classes, SPEC | {"size": (64, 64), "resize": 64}
        self.own = np.array([classes.index(name) for name in category_names(rows.features)])
        self.rows = {np.array(row["image"]).tobytes(): row for row in rows}

    def eval(self):
        return self

    def to(self, device):
        return self

    def preprocess(self, sample, train):
        return {"image": torch.from_numpy(np.array(sample["image"]).transpose(2, 0, 1).copy())}

    def collate(self, items):
        return {"image": torch.stack([item["image"] for item in items])}

    def predictors(self, texts=None):
        return {"semantic_logits": Predictor(self._maps), "detections": Predictor(self._boxes, "rows")}

    def _maps(self, images):
        rows = [self.rows[image.byte().permute(1, 2, 0).contiguous().numpy().tobytes()] for image in images]
        truth = torch.from_numpy(np.stack([class_maps.truth(row) for row in rows]))
        own = torch.from_numpy(np.concatenate([[0], self.own + 1]))[truth]
        return torch.nn.functional.one_hot(own, 1 + len(self.classes)).permute(0, 3, 1, 2).float()

    def _boxes(self, samples):
        known = [self.rows[np.array(sample["image"]).tobytes()]["objects"] for sample in samples]
        return [
            {
                "bbox": np.array(one["bbox"], np.float32).reshape(-1, 4),
                "category": self.own[one["category"]],
                "score": np.ones(len(one["bbox"]), np.float32),
            }
            for one in known
        ]


def test_boxes_and_maps_are_of_the_sets_classes_whatever_the_order_of_a_students(adapted, monkeypatch, capsys):
    known = Knows(scenes(), ["none of these", *reversed(category_names(scenes().features))])
    monkeypatch.setattr("adapt.students.open_student", lambda folder: known)
    models = json.dumps([{"run": str(adapted), "student": "small"}])
    command = ["evaluate", *RECIPE, f"suite={written('sights.yaml', *SIGHTS)}", f"models={models}", "--json"]
    assert main(command) == 0
    found = {one["set"]: one["metrics"] for one in json.loads(capsys.readouterr().out)["results"]}
    assert (found["boxes"]["map50"], found["maps"]["class_miou"]) == (1, 1)
    known.classes[1] = "other"
    agnostic = {**SIGHTS[0], "name": "any", "evals": [{"name": "detection", "class_agnostic": True}]}
    written("sights.yaml", {**SIGHTS[0], "name": "others"}, agnostic)
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["metrics"]["map50"] for one in found["results"]] == [1], "whatever its category"
    (left,) = found["left_out"]
    assert left["set"] == "others" and "closed-set model: other classes: 1 of" in left["why"]


def test_a_detectors_file_answers_in_pixels_of_each_picture(tmp_path, capsys):
    torch.manual_seed(0)
    spec, names = SPEC | {"size": (64, 64), "resize": (64, 64), "crop": None}, category_names(scenes().features)
    student = detector.Student("test_resnet", spec, names, width=24, convs=1, min_score=0.05).eval()
    samples = (np.random.default_rng(0).random((4, 3, 64, 64)) * 255).astype(np.float32)
    config = target.Config(name="onnx", int8=False)
    file = gate.export(target, config, student.deployed(), samples, tmp_path, student.about())[0].path
    rows = [{"image": Image.effect_noise(size, 90).convert("RGB")} for size in ((60, 40), (100, 200), (64, 64))] * 15
    asked = File(answerers.of_file(file)).predictors()["detections"]
    as_export_asks_it = student.file_predictors(target.Runner(file))["detections"]
    assert asked.takes == "rows"
    for one, other in zip(asked(rows), as_export_asks_it(rows), strict=True):
        assert len(one["bbox"]) and np.allclose(one["bbox"], other["bbox"], atol=1e-3)
        assert all(np.array_equal(one[name], other[name]) for name in ("category", "score"))
    command = ["evaluate", *RECIPE, f"suite={written('sights.yaml', SIGHTS[0])}", f"models=[{{file: {file}}}]", "--json"]
    assert main(command) == 0
    assert [one["set"] for one in json.loads(capsys.readouterr().out)["results"]] == ["boxes"]


def test_a_family_that_finds_objects_by_their_names_is_told_each_sets(vits):
    assert _family(vits["paligemma"](), ["cat"]).classes is None
    clip = vits["clip"]()
    assert _family(clip, ["cat"]).classes is None
    clip.head = torch.nn.Linear(256, 1)
    assert _family(clip, ["cat"]).classes == ["cat"]


def test_the_adapted_model_is_measured_where_there_is_one(adapted, capsys):
    written("two.yaml", {"name": "own", "metric": "top1"}, folder("others"))
    assert main(["evaluate", f"run={adapted}", "suite=two.yaml"]) == 0
    assert "clip-tiny + LoRA" in capsys.readouterr().out
    found = json.loads((adapted / "suites" / "two" / "summary.json").read_text())
    assert [one["model"] for one in found["results"]] == ["zero-shot", "adapted"] * 2
    metrics = {
        entry["name"]: entry["metrics"]["top1"] for entry in json.loads((adapted / "metrics.json").read_text())["entries"]
    }
    own = {one["model"]: one["metrics"]["top1"] for one in found["results"] if one["set"] == "own"}
    assert own["adapted"] == metrics["adapted"]


def test_a_published_figure_stands_beside_ours(monkeypatch):
    figure = literature.Figure("x", "own", "top1", 0.5, "here", "a table", {"words": "coop", "interpolation": "bicubic"}, "")
    monkeypatch.setattr(literature, "model", lambda checkpoint: "x" if checkpoint == "clip-tiny" else None)
    monkeypatch.setattr(
        literature, "beside", lambda checkpoint, place, metric: [figure] if (place, metric) == ("own", "top1") else []
    )
    monkeypatch.setattr(literature, "rivals", lambda figure, name="": [])
    written("one.yaml", {"name": "own", "metric": "top1", "prompts": {"templates": "clip/cifar10"}})
    found = pipeline.evaluate(load_recipe("clip_lora", [*QUICK, TRAIN]), suite="one.yaml").document["published"]
    said = "published 50.0 (words: coop against clip; resize, precision not said)"
    assert found == {"own": {"zero-shot": {"top1": {"value": 0.5, "where": "a table", "remark": said}}}}


# ----------------------------------------------------------------------------------------------------------------- failures


def test_a_broken_tar_a_missing_set_and_other_class_names_are_a_line_each_and_the_rest_is_done(tmp_path, capsys):
    tree = write_tree(tmp_path / "tree", without=["petals"], broken=["cups"], other_names=["shapes"])
    suite = write_suite(tmp_path / "ten.yaml")
    asked = ["evaluate", "recipe=clip_lora", "tracker=none", f"suite={suite}", f"data.path={tree}"]
    assert main([*asked, "strict=true"]) == 1
    said = capsys.readouterr().out
    found = summary("ten")
    assert [one["set"] for one in found["failed"]] == ["cups", "petals", "shapes"]
    why = [one["why"] for one in found["failed"]]
    assert "truncated" in why[0] and "there is no folder" in why[1] and "wds_petals" in why[1] and "prompts.classes" in why[2]
    assert said.splitlines()[-1] == "3 of 10 sets failed." and said.index("petals:") < said.index("[3 of 10]")
    assert [(one["set"], one["metric"]) for one in found["results"]] == [
        (one["name"], one["metric"])
        for one in yaml.safe_load(Path(suite).read_text())["sets"]
        if one["name"] not in ("cups", "petals", "shapes")
    ]
    assert main(asked) == 0, "without strict, what could be done was done"


def test_what_breaks_while_it_is_measured_is_told_too(monkeypatch, capsys):
    written("two.yaml", folder("others"), folder("fewer"))
    real = zeroshot.evaluate

    def breaks(config, predict, dataset, *rest):
        if "ant" in dataset.features["label"].names:
            raise OSError("the disk is gone")
        return real(config, predict, dataset, *rest)

    monkeypatch.setattr(zeroshot, "evaluate", breaks)
    assert main(["evaluate", *RECIPE, "name=breaks", "suite=two.yaml"]) == 0
    found = summary("two") if len(list(Path("runs").glob("*/suites/two"))) == 1 else None
    found = found or json.loads(next(Path("runs").glob("breaks-*/suites/two/summary.json")).read_text())
    assert found["failed"] == [{"set": "others", "model": "zero-shot", "why": "OSError: the disk is gone"}]
    assert [one["set"] for one in found["results"]] == ["fewer"]
    assert "1 of 2 sets failed." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("suite", "rest", "told"),
    [
        ([{"name": "cups", "folder": "cups", "metric": "top1"}], [], "cups: data.path: missing. This set is the folder 'cups'"),
        ([folder("others", prompts={"classes": ["ant", "wasp"]})], [], "'wasp'"),
        ([folder("others", split="val")], [], "others: split: there is no 'val' in the data. Have: train, validation, test."),
        ([{"name": "own", "labels": "captions", "metric": "r1"}], [], "own: labels: r1 needs captions a picture"),
        ([folder("others", metric="r1")], [], "sets.others.metric: 'r1' needs captions"),
        ([folder("others")], ["models=[{run: runs/none}, {checkpoint: a, file: b}]"], "models.1: got"),
        ([folder("others")], ["models=[{run: runs/none}]"], "models.0: run: 'runs/none' is not a run folder"),
        ([folder("others")], ["models=[{file: x.onnx}]"], "models.0: file: there is no 'x.onnx'"),
        ([folder("others")], ["models=[{checkpoint: nowhere}]"], "models.0: "),
        (
            [{"name": "cups", "folder": "cups", "metric": "top1"}],
            ["data.path=nowhere"],
            "data.path: there is no folder 'nowhere'",
        ),
    ],
)
def test_a_mistake_is_a_line_before_a_picture_is_encoded(suite, rest, told, capsys, monkeypatch):
    monkeypatch.setattr(encoding, "predict", lambda *_, **__: pytest.fail("a picture was encoded"))
    assert main(["evaluate", *RECIPE, f"suite={written('wrong.yaml', *suite)}", *rest]) == 2
    said = capsys.readouterr().err
    assert told in said and "Traceback" not in said


def test_models_need_a_suite_and_a_student_its_run():
    with pytest.raises(UserError, match="Add suite=NAME"):
        request.asks(["recipe=clip_lora", "models=[]"])
    with pytest.raises(UserError, match=r"models\.0: .*a student is a run's"):
        request.request("embedded", [{"checkpoint": "clip-tiny", "student": "x"}])
    for word in ("suit", "suites"):
        with pytest.raises(UserError, match=f"{word}: no such option. Did you mean 'suite'"):
            request.asks(["recipe=clip_lora", f"{word}=embedded", "data.path=x"])
    with pytest.raises(UserError, match=r"models\.1: this model is in the list twice"):
        request.request("embedded", [{"checkpoint": "clip-tiny"}, {"checkpoint": "clip-tiny"}])


def test_runs_of_one_name_in_two_folders_have_columns_of_their_own(adapted, tmp_path):
    shutil.copytree(adapted, tmp_path / adapted.name)
    asked = request.request("embedded", [{"run": str(adapted)}, {"run": str(tmp_path / adapted.name)}])
    found = models(Session(load_recipe("clip_lora", [*QUICK, TRAIN])), asked)
    assert [model.name for model in found] == [adapted.name, f"{adapted.name}-2"]


def test_numbers_stand_where_what_a_model_costs_cannot_be_timed(monkeypatch, capsys):
    def fails(*_):
        raise RuntimeError("no clock")

    monkeypatch.setattr(verb, "costs", fails)
    assert main(["evaluate", *RECIPE, "name=untimed", f"suite={written('untimed.yaml', folder('others'))}"]) == 0
    assert "clip-tiny: what it costs is not known: RuntimeError: no clock" in capsys.readouterr().out
    found = json.loads(next(Path("runs").glob("untimed-*/suites/untimed/summary.json")).read_text())
    assert [one["set"] for one in found["results"]] == ["others"] and found["models"][0]["milliseconds"] is None


def test_the_weights_of_a_model_that_an_eval_asks_beside_the_measured_one_are_part_of_what_is_kept():
    one = next(each for each in load_suite("sam").sets if "concepts" in each.asked())
    session = SimpleNamespace(precision="fp32", recipe=load_recipe("sam_lora"))
    guest = SimpleNamespace(evals=configs(one), fingerprints={"test": "x"}, source=None, words={})
    made = asking.made_of(SimpleNamespace(made_of={}, session=session), one, guest)
    assert list(made["beside"]) == ["clip-tiny"]


# --------------------------------------------------------------------------------------------------------------------- a kill


def test_a_killed_suite_goes_on_and_no_set_is_done_twice(tmp_path, capsys):
    sets = [folder(name) for name in ("others", "fewer")]
    sets += [
        {"name": f"hand-{hand}", "data": {"source": "emoji", "hand": hand}, "metric": "top1"} for hand in ("noto", "openmoji")
    ]
    suite = written("killed.yaml", *sets)
    command = ["evaluate", *RECIPE, "name=killed", f"suite={suite}"]
    process = subprocess.Popen([sys.executable, "-m", "adapt", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (kept := list(Path("runs").glob("killed-*/suites/killed/zero-shot/fewer.json"))) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    folder_ = kept[0].parent
    before = {path.name: path.stat().st_mtime_ns for path in folder_.glob("*.json")}
    assert "others.json" in before and "hand-openmoji.json" not in before
    assert main(command) == 0
    after = {path.name: path.stat().st_mtime_ns for path in folder_.glob("*.json")}
    assert {name: after[name] for name in before} == before, "what was finished is not written again"
    said = capsys.readouterr().out
    assert f"clip-tiny: {len(before)} sets finished before" in said and "[4 of 4] clip-tiny, hand-openmoji" in said
    assert [one["set"] for one in json.loads((folder_.parent / "summary.json").read_text())["results"]] == [
        one["name"] for one in sets
    ]
    assert not os.path.exists(folder_ / ".others.json")
