"""The detection student: learns from a teacher's boxes alone, and its file gives the same boxes."""

from __future__ import annotations

import contextlib
import copy
import io
import shutil
import tempfile
from pathlib import Path
from threading import current_thread, main_thread

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from onnx import load as load_model
from onnx import numpy_helper
from onnx import save as save_model
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from adapt.contracts import Augment, Predictor, Train
from adapt.data.emoji_scenes import Config as Scenes
from adapt.data.emoji_scenes import load
from adapt.distill import boxes
from adapt.distill import labels as labels_module
from adapt.distill.boxes.training import follow
from adapt.distill.labels import build
from adapt.export import gate, onnx
from adapt.export.onnx import nms
from adapt.export.onnx.graphs import operators, write
from adapt.plug import UserError
from adapt.students.detector import by_row, select
from adapt.train.loop import fit
from adapt.train.views import Views
from adapt.vision.augment import augment, uniforms
from adapt.vision.pictures import RGB

TRAIN = Train(epochs=12, batch=12, lr=4e-3, weight_decay=0.02, augment=Augment(crop=0.8))
CONFIG = boxes.Config(name="boxes", student="test_resnet", pretrained=False, width=24, convs=1, train=TRAIN)
INPUT = {"size": (64, 64), "resize": (64, 64), "interpolation": "bilinear", "crop": None, "mean": [0.5] * 3, "std": [0.5] * 3}


class Teacher(torch.nn.Module):
    """Knows where things are, by the pictures' names; it also stammers, doubts and points outside, as real teachers do."""

    input, classes = INPUT, ["thing"]

    def __init__(self, rows):
        super().__init__()
        self.truth = dict(zip(rows["id"], rows["objects"], strict=True))
        self.asked: list[set] = []
        self.told: list[set] = []

    def predictors(self, texts=None):
        def detections(samples):
            self.asked += [set(sample) for sample in samples]
            self.told += [set(sample["objects"]) for sample in samples if "objects" in sample]
            return [self.answer(sample) for sample in samples]

        return {"detections": Predictor(detections, "rows")}

    def answer(self, sample):
        bbox = self.truth[sample["id"]]["bbox"]
        if sample["id"] == "train/3":
            return {"bbox": np.zeros((0, 4)), "category": [], "score": []}
        stammer = [[x + 1, y, right, bottom] for x, y, right, bottom in bbox]
        doubt = [[0.0, 0.0, 9.0, 9.0]]
        outside = [[-50.0, -50.0, -5.0, -5.0], [float("nan"), 0, 9, 9]]
        scores = [0.9] * len(bbox) + [0.8] * len(bbox) + [0.1] + [0.9, 0.9]
        return {"bbox": bbox + stammer + doubt + outside, "category": [0] * len(scores), "score": scores}


def labels(config, teacher, rows):
    lesson = boxes.lesson(config, teacher, None)
    with tempfile.TemporaryDirectory() as folder:
        made = build(Path(folder), lesson.label, rows, Accelerator(cpu=True), lesson.labels_batch)
        return lesson.choose(made)[0]  # mapped files outlive their names


def learner_of(rows):
    return boxes.learner(CONFIG, Teacher(rows))


@pytest.fixture(scope="module")
def scenes():
    return load(Scenes(hands=["noto"], size=64, train=96, validation=24, test=1))


@pytest.fixture(scope="module")
def labelled(scenes):
    return labels(CONFIG, Teacher(scenes["train"]), scenes["train"])


@pytest.fixture(scope="module")
def trained(scenes, labelled, tmp_path_factory):
    """The student before and after training, and the losses."""
    torch.manual_seed(0)
    learner = learner_of(scenes["validation"])
    student = learner.student
    before = ap50(student, scenes["validation"])
    views = Views(labelled, learner.preprocess, 0)
    rows = fit(learner, views, CONFIG.train, 0, tmp_path_factory.mktemp("student"), Accelerator(cpu=True))
    return student.eval(), before, [row["loss"] for row in rows]


def ap50(student, rows) -> float:
    """AP at IoU 0.5 of things, whatever they are, by pycocotools."""
    found = student.predictors()["detections"](list(rows))
    return coco(found, rows)


def coco(found, rows) -> float:
    truth = COCO()
    annotations, detections = [], []
    for i, row in enumerate(rows):
        for x, y, right, bottom in row["objects"]["bbox"]:
            box = [x, y, right - x, bottom - y]
            common = {"image_id": i, "category_id": 1, "bbox": box, "area": box[2] * box[3]}
            annotations.append(common | {"id": len(annotations) + 1, "iscrowd": 0})
        for (x, y, right, bottom), score in zip(found[i]["bbox"].tolist(), found[i]["score"].tolist(), strict=True):
            detections.append({"image_id": i, "category_id": 1, "bbox": [x, y, right - x, bottom - y], "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth.dataset = {"images": [{"id": i} for i in range(len(rows))], "annotations": annotations, "categories": [{"id": 1}]}
        truth.createIndex()
        result = COCOeval(truth, truth.loadRes(detections) if detections else COCO(), "bbox")
        result.evaluate()
        result.accumulate()
        result.summarize()
    return float(result.stats[1])


def test_labels_are_the_teachers_without_duplicates_doubts_and_nonsense(scenes, labelled):
    train = scenes["train"]
    assert len(labelled) == len(train) - 1, "the picture in which nothing was found is left out"
    assert "train/3" not in labelled["id"]
    truth = dict(zip(train["id"], train["objects"], strict=True))
    for row in labelled:
        assert sorted(row["objects"]["bbox"]) == sorted(truth[row["id"]]["bbox"])
        assert row["score"] == pytest.approx([0.9] * len(row["score"]))
    assert labelled.features["objects"]["category"].feature.names == train.features["objects"]["category"].feature.names


def test_no_human_label_reaches_the_teacher(scenes):
    rows = scenes["train"].select(range(4))
    teacher = Teacher(rows)
    kept = labels(CONFIG.model_copy(update={"empty": True}), teacher, rows)
    assert teacher.asked == [{"id", "image", "prefix"}] * 4
    assert kept[3]["objects"] == {"bbox": [], "category": []}
    labels(CONFIG.model_copy(update={"ask": "present"}), teacher, rows)
    assert teacher.asked[4:] == [{"id", "image", "prefix", "objects"}] * 4
    assert teacher.told == [{"category"}] * 4


@pytest.mark.parametrize("ask", ["all", "present"])
def test_each_picture_is_decoded_once_and_beside_the_teacher(scenes, monkeypatch, ask):
    rows, config, decoded = scenes["train"].select(range(40)), CONFIG.model_copy(update={"ask": ask}), []
    decode = RGB.decode_example

    def noting(*given, **options):
        decoded.append(current_thread())
        return decode(*given, **options)

    monkeypatch.setattr(RGB, "decode_example", noting)
    teacher = Teacher(rows)
    found = labels(config, teacher, rows)
    assert len(decoded) == 40 and main_thread() not in decoded
    monkeypatch.setattr(labels_module, "samples", lambda rows: (row for row in rows))
    other = Teacher(rows)
    assert labels(config, other, rows).remove_columns("image").to_list() == found.remove_columns("image").to_list()
    assert teacher.asked == other.asked and teacher.told == other.told


def test_a_teacher_without_boxes_is_one_line(scenes, clip_tiny):
    rows = scenes["train"].select(range(4))
    clip_tiny.set_classes(["thing"], ["{}"])
    with pytest.raises(UserError, match=r"needs a teacher that finds detections\. This one has: .*image_embedding"):
        boxes.lesson(CONFIG, clip_tiny, None)
    with pytest.raises(UserError, match=r"finds nothing above distill\.score=0\.95 in 4 pictures"):
        labels(CONFIG.model_copy(update={"score": 0.95}), Teacher(rows), rows)


def test_boxes_follow_the_pixels():
    """A white rectangle on black: after crop and flip, the box is where the white is."""
    config = Augment(crop=0.4, flip=0.5, colour=0)
    seeds = torch.arange(64)
    picture = torch.zeros(1, 3, 96, 96)
    picture[:, :, 24:60, 18:66] = 255
    views = augment(picture.expand(64, -1, -1, -1), seeds, config)
    seen = 0
    for image, seed in zip(views, seeds, strict=True):
        box, label = follow(torch.tensor([[18.0, 24, 66, 60]]), torch.tensor([5]), uniforms(seed[None], 6)[0], 96, config)
        white = image[0] > 127
        if len(box):
            rows, columns = white.any(1).nonzero(), white.any(0).nonzero()
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            torch.testing.assert_close(box[0], torch.stack(expected).float(), atol=1.5, rtol=0)
            assert label.tolist() == [5]
            seen += 1
    assert seen > 32


def test_duplicates_are_removed_class_by_class():
    box = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]])
    scores = torch.tensor([[0.8, 0.9, 0.0], [0.3, 0.0, 0.2]])
    found = select(box, scores, 0.1, 0.5)
    assert found["category"].tolist() == [0, 1, 1]
    assert found["score"].tolist() == pytest.approx([0.9, 0.3, 0.2])
    assert found["bbox"].tolist() == [[0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60]]
    assert select(box, scores, 0.95, 0.5)["bbox"].shape == (0, 4)


def test_a_picture_without_things_is_background(scenes):
    learner = learner_of(scenes["train"])
    row = scenes["train"][0] | {"objects": {"bbox": [], "category": []}}
    batch = learner.collate([learner.preprocess(row, True) | {"seed": 0}])
    batch = learner.augment(batch, Augment(crop=0.5))
    loss, logs = learner(batch)
    loss.backward()
    assert loss.isfinite()
    assert logs["regression"] == 0


def test_the_student_learns_from_the_teachers_boxes(scenes, trained):
    student, before, losses = trained
    assert np.mean(losses[-8:]) < 0.75 * np.mean(losses[:8])
    after = ap50(student, scenes["validation"])
    assert after > before + 0.2


def test_boxes_are_in_pixels_of_the_samples_own_picture(scenes, trained):
    student, _, _ = trained
    row = scenes["validation"][0]
    wide = row | {"image": row["image"].resize((192, 128))}
    one, other = student.predictors()["detections"]([row, wide])
    best = one["bbox"][0] * [3, 2, 3, 2]
    assert np.abs(other["bbox"] - best).max(1).min() < 8


@pytest.fixture(scope="module")
def exported(trained, scenes, tmp_path_factory):
    student, _, _ = trained
    folder = tmp_path_factory.mktemp("export")
    deployable = student.deployed()
    samples = np.stack([student.preprocess(row, False)["image"].numpy() for row in scenes["train"]]).astype(np.float32)
    found = gate.export(onnx, onnx.Config(name="onnx"), deployable, samples, folder, {"classes": ["thing"]})
    assert {path.name for path in folder.iterdir()} == set(onnx.FILES.values()), "nothing that only the gate needs is left"
    return deployable, samples, {artifact.precision: artifact.path for artifact in found}


def test_the_file_gives_the_same_boxes_scores_and_classes(exported):
    deployable, samples, files = exported
    with torch.inference_mode():
        dense = [output.numpy() for output in deployable.module.eval()(torch.from_numpy(samples))]
    result = gate.check_detections(dense, onnx.Runner(files["fp32"])(samples), deployable.nms, 64)
    assert result["detections"] > 100
    assert result["agreement"] > 0.99
    assert result["max_abs_error"] < 1e-4
    runner = onnx.Runner(files["fp32"])
    assert [output.name for output in runner.session.get_outputs()] == list(nms.OUTPUTS)
    whole = by_row(runner(samples[:8]), 8)
    for batch in (1, 5):
        for one, other in zip(by_row(runner(samples[:batch]), batch), whole, strict=False):
            np.testing.assert_allclose(one["bbox"], other["bbox"], atol=1e-3)
            assert (np.diff(one["score"]) <= 0).all()


@pytest.fixture(scope="module")
def dense(exported, tmp_path_factory):
    """The file before its duplicates are removed in it; do not change it."""
    deployable, samples, _ = exported
    return write(deployable, (samples[:2],), tmp_path_factory.mktemp("dense") / "dense.onnx", {})


def test_a_swapped_layer_is_refused_and_named(exported, dense, tmp_path):
    deployable, samples, _ = exported
    path = shutil.copy(dense, tmp_path / "dense.onnx")
    assert gate.gate_outputs(deployable, onnx.Runner(path), [(samples[:4],)], 1e-4)["max_abs_error"] < 1e-4
    model = load_model(path)
    swapped = next(weight for weight in model.graph.initializer if weight.name.endswith("layer2.0.conv2.weight"))
    swapped.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(swapped)[::-1].copy(), swapped.name))
    save_model(model, path)
    with pytest.raises(UserError, match=r"refused: boxes differs.*First layer that differs: \S*layer2\.0\.(conv2|bn2)\."):
        gate.gate_outputs(deployable, onnx.Runner(path), [(samples[:4],)], 1e-4)


def test_scores_next_to_nothing_are_the_same_in_the_file(exported, dense, tmp_path):
    deployable, samples, _ = exported
    unlikely, model = copy.deepcopy(deployable), load_model(dense)
    with torch.no_grad():
        bias = unlikely.module.net.head.classification_head.cls_logits.bias.fill_(-20)  # of which a runtime's sigmoid makes 0
    own = next(weight for weight in model.graph.initializer if weight.name.endswith("cls_logits.bias"))
    own.CopyFrom(numpy_helper.from_array(bias.detach().numpy(), own.name))
    save_model(model, tmp_path / "dense.onnx")
    runner = onnx.Runner(tmp_path / "dense.onnx")
    assert 0 < runner(samples[:4])[1].max() < 1e-3
    worst = gate.check_outputs(unlikely, runner, [(samples[:4],)])
    assert worst["scores"] < 1e-7


def test_a_blank_picture_is_no_error(exported):
    _, _, files = exported
    runner = onnx.Runner(files["fp32"])
    (one,) = by_row(runner(np.zeros((1, 3, 64, 64), np.float32)), 1)
    assert one["bbox"].shape == (len(one["score"]), 4)
    assert np.isfinite(one["bbox"]).all()


def test_int8_finds_nearly_as_much(exported, scenes, trained):
    student, _, _ = trained
    _, _, files = exported
    rows = scenes["validation"]
    predictors = {name: student.file_predictors(onnx.Runner(path))["detections"] for name, path in files.items()}
    scores = {name: coco(found(list(rows)), rows) for name, found in predictors.items()}
    assert scores["int8"] > scores["fp32"] - 0.05
    assert scores["fp32"] == pytest.approx(ap50(student, rows), abs=0.01)
    assert operators(files["int8"])["QLinearConv"] > 10
    assert files["int8"].stat().st_size < 0.4 * files["fp32"].stat().st_size


def test_an_untrained_student_passes_and_another_threshold_is_refused(scenes, tmp_path):
    """All cells of an untrained student score alike, so that rounding decides which of them is the duplicate."""
    student = learner_of(scenes["train"]).student.eval()
    samples = np.stack([student.preprocess(row, False)["image"].numpy() for row in scenes["validation"]]).astype(np.float32)
    deployable, runners = student.deployed(), {}
    path = write(deployable, (samples[:2],), tmp_path / "dense.onnx", {})
    dense = onnx.Runner(path)(samples)
    for name, options in (("same", deployable.nms), ("other", {"score": 0.05, "nms": 0.2})):
        nms.append(path, tmp_path / f"{name}.onnx", **options)
        runners[name] = onnx.Runner(tmp_path / f"{name}.onnx")
    assert gate.gate_detections(dense, runners["same"], samples, deployable.nms, 1e-4, None)["detections"] > 100
    with pytest.raises(UserError, match="refused"):
        gate.gate_detections(dense, runners["other"], samples, deployable.nms, 1e-4, None)


class Asked:
    """A configuration that notes which of its options are looked at."""

    def __init__(self, config):
        self.config, self.names = config, set()

    def __getattr__(self, name):
        self.names.add(name)
        return getattr(self.config, name)


def test_the_labels_depend_on_the_options_that_are_named_and_on_no_others(scenes):
    rows, config = scenes["train"].select(range(4)), Asked(CONFIG)
    labels(config, Teacher(rows), rows)
    assert config.names - {"batch", "from_labels"} == set(boxes.Config.labelled_by), (
        "but for how many pictures are looked at together"
    )


def test_no_crowd_is_learnt(scenes):
    learner = learner_of(scenes["train"])
    objects = {"bbox": [[0, 0, 64, 64], [4, 4, 20, 20]], "category": [0, 0], "iscrowd": [1, 0]}
    item = learner.preprocess(scenes["train"][0] | {"objects": objects}, True)
    assert item["boxes"].tolist() == [[4, 4, 20, 20]] and item["labels"].tolist() == [0]


def test_losses_and_boxes_are_in_single_precision_under_autocast(scenes):
    learner = learner_of(scenes["train"]).eval()
    row = scenes["train"][0] | {"objects": {"bbox": [[4, 4, 20, 20]], "category": [0]}}
    predict = learner.predictors()["detections"]
    (expected,) = predict([row])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = predict([row])
        loss, logs = learner(learner.collate([learner.preprocess(row, True) | {"seed": 0}]))
    assert all((found[name] == expected[name]).all() for name in expected)
    assert {value.dtype for value in (loss, *logs.values())} == {torch.float32}
