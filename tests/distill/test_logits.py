"""Distillation: the loss, the cache, the student."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from adapt.contracts import Augment, Train
from adapt.distill import logits
from adapt.distill.cache import build
from adapt.plug import UserError
from adapt.students.cnn import EMBEDDED, create
from adapt.students.pyramid import feature_maps
from adapt.train.loop import fit
from adapt.train.views import Views

AUGMENT = Augment(crop=0.6, flip=0.5, colour=0.2)
CONFIG = logits.Config(
    name="logits", student="test_resnet", pretrained=False, views=2, train=Train(epochs=3, batch=16, augment=AUGMENT)
)


@pytest.fixture(scope="module")
def teacher(clip_tiny):
    clip_tiny.set_classes(["cat", "car", "apple", "house"], ["{}"])
    return clip_tiny.eval()


@pytest.fixture(scope="module")
def rows(emoji):
    return emoji["train"].select(range(40)).select_columns(["image", "label"])


def test_loss_is_hintons():
    """T² KL(teacher ‖ student) of softened probabilities, and cross-entropy on labelled rows only."""
    config = logits.Config(name="logits", temperature=3.0, hard=0.25)
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    loss, _ = logits.loss(config, student, teacher, {"label": torch.tensor([1, -1, 2, -1])})
    p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
    soft = 9 * (p * (p / q).log()).sum(1).mean()
    hard = -(student.log_softmax(1)[0, 1] + student.log_softmax(1)[2, 2]) / 2
    torch.testing.assert_close(loss, 0.75 * soft + 0.25 * hard)


def learner_of(teacher, live=None, **options):
    torch.manual_seed(0)
    return logits.learner(CONFIG.model_copy(update=options), teacher, live)


def student_of(teacher):
    return learner_of(teacher).student


def test_cached_and_live_teachers_give_the_same_losses(teacher, rows, tmp_path):
    function = teacher.predictors()["class_logits"]
    accelerator = Accelerator(cpu=True)
    views = Views(rows, teacher.preprocess, 0, CONFIG.views)
    rows = rows.map(lambda row: {"label": row["label"] % 4})
    cache = build(tmp_path / "cache", function, views, AUGMENT, 8, accelerator)
    losses = []
    for name, live, extra in (("cached", None, cache), ("live", function, None)):
        learner = learner_of(teacher, live)
        views = Views(rows, learner.preprocess, 0, CONFIG.views, extra)
        losses.append([row["loss"] for row in fit(learner, views, CONFIG.train, 0, tmp_path / name, accelerator)])
    assert len(losses[0]) == 6
    # the same views, so the same targets; in-loop batches of another size round differently
    torch.testing.assert_close(losses[0][:2], losses[1][:2], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(losses[0], losses[1], atol=1e-3, rtol=1e-3)


def test_deployed_module_is_the_student(teacher):
    student = student_of(teacher).eval()
    images = torch.rand(2, 3, 48, 48) * 255
    with torch.no_grad():
        torch.testing.assert_close(student.deployed().module(images), student(images))


def test_teacher_is_no_part_of_the_student(teacher):
    learner = learner_of(teacher, live=teacher)
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in learner.parameters()}


def test_students_preprocessing_is_the_teachers(teacher, rows):
    learner = learner_of(teacher)
    for row in rows.select(range(5)):
        assert torch.equal(learner.preprocess(row, True)["image"], teacher.preprocess(row, False)["image"])


def test_an_unknown_architecture_is_one_line(teacher):
    with pytest.raises(UserError, match=r"'resnet81' is not a model of timm. Did you mean"):
        learner_of(teacher, student="resnet81")


@pytest.mark.parametrize("prefix", ["", "cnn."])
def test_a_students_weights_are_where_another_starts(tmp_path, prefix):
    learnt = create("resnet10t", 7, False)
    state = {prefix + name: value for name, value in learnt.state_dict().items()} | {"to_global.weight": torch.ones(3, 3)}
    save_file(state, tmp_path / "model.safetensors")
    same, other = (
        create("resnet10t", 7, str(tmp_path / "model.safetensors")),
        create("resnet10t", 5, str(tmp_path / "model.safetensors")),
    )
    for name, value in learnt.state_dict().items():
        assert torch.equal(same.state_dict()[name], value)
        assert name.startswith("fc.") or torch.equal(other.state_dict()[name], value)
    assert other.fc.out_features == 5
    with pytest.raises(UserError, match=r"another network than resnet18: \d+ of its weights.*distill\.student"):
        create("resnet18", 7, str(tmp_path / "model.safetensors"))
    assert torch.equal(create("resnet10t", 7, str(tmp_path)).fc.weight, same.fc.weight)
    (tmp_path / "text.safetensors").write_text("no tensors")
    with pytest.raises(UserError, match=r"text\.safetensors.*cannot be read"):
        create("resnet10t", 7, str(tmp_path / "text.safetensors"))


def test_the_embedded_student_is_timms_and_starts_every_kind_of_student():
    folder = EMBEDDED / "cnn-tiny"
    plain = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    arch = plain.pretrained_cfg["architecture"]
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        expected = plain.eval().forward_features(images)
        torch.testing.assert_close(create(arch, 49, "cnn-tiny").eval().forward_features(images), expected)
        torch.testing.assert_close(feature_maps(arch, "cnn-tiny").eval()(images)[-1], expected)
    assert all(
        value.dtype == torch.float16 for name, value in load_file(folder / "model.safetensors").items() if "num_" not in name
    )
    with pytest.raises(UserError, match=r"'cnn-tny'.*cannot be read.*embedded student: cnn-tiny"):
        create(arch, 49, "cnn-tny")


def test_unlabelled_rows_have_the_label_minus_one(teacher, rows):
    item = learner_of(teacher).preprocess({"image": rows[0]["image"], "label": None}, True)
    assert item["label"] == -1
    assert np.isscalar(item["label"])


def test_the_loss_is_in_single_precision_whatever_the_autocast():
    """At 20 bf16 has steps of 0.125: neither does the teacher's best class become two, nor is the divergence of rounded numbers."""
    teacher = 20 + 0.05 * torch.randn(32, 5)
    logits = (teacher + 0.3 * torch.randn(32, 5)).bfloat16()
    batch = {"teacher": teacher, "label": torch.randint(0, 5, (32,))}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss, logs = logits_loss(logits, batch)
    expected, expected_logs = logits_loss(logits.float(), batch)
    assert loss.dtype == torch.float32
    torch.testing.assert_close((loss, logs), (expected, expected_logs), rtol=1e-6, atol=0)
    assert logs["agreement"] == (logits.float().argmax(1) == teacher.argmax(1)).float().mean()


def logits_loss(student, batch):
    return logits.loss(CONFIG, student, batch["teacher"], batch)


def test_a_student_is_measured_in_single_precision_as_its_file_computes(teacher):
    student, images = student_of(teacher).eval(), torch.rand(4, 3, 48, 48) * 255
    predict = student.predictors()["class_logits"]
    with torch.no_grad():
        expected = predict(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(predict(images), expected)
            assert student(images).dtype == torch.bfloat16, "training may be faster"


def test_of_thousands_of_classes_the_best_keep_their_logits_and_all_others_their_share_of_the_probability():
    """TinyViT eq. 3 at the temperature of the loss: the softmax of what comes back, against the formula written out."""
    assert logits.packing(CONFIG, 2048) is None and logits.packing(CONFIG.model_copy(update={"top": 9}), 9) is None
    given = (3 * torch.randn(6, 2049, generator=torch.Generator().manual_seed(0))).numpy()
    packing = logits.packing(CONFIG.model_copy(update={"temperature": 3.0}), 2049)
    packed = packing.pack(given)
    assert packed.shape == (6,) and packed.nbytes < given.nbytes / 7
    assert packing.made_of == {"top": 128, "temperature": 3.0}
    for before, item in zip(given, packed, strict=True):
        p, q = (torch.from_numpy(logit).double().div(3).softmax(0) for logit in (before, packing.unpack(item)))
        best = p.argsort(descending=True)[:128]
        expected = torch.full_like(p, (1 - p[best].sum()) / (2049 - 128))
        expected[best] = p[best]
        torch.testing.assert_close(q, expected, atol=1e-9, rtol=1e-6)


def test_packed_logits_teach_through_the_cache_as_dense_ones_that_have_been_smoothed(teacher, rows, tmp_path):
    config, accelerator = CONFIG.model_copy(update={"top": 2}), Accelerator(cpu=True)
    packing = logits.lesson(config, teacher, None).packing
    views = Views(rows, teacher.preprocess, 0, 1)
    function = teacher.predictors()["class_logits"]
    dense = build(tmp_path / "dense", function, views, AUGMENT, 8, accelerator)
    packed = build(tmp_path / "packed", function, views, AUGMENT, 8, accelerator, packing=packing)
    for row in range(len(rows)):
        theirs, ours = (torch.sort(cache(0, row)["teacher"], descending=True) for cache in (dense, packed))
        assert torch.equal(ours.values[:2], theirs.values[:2]) and torch.equal(ours.indices[:2], theirs.indices[:2])
        t = config.temperature
        torch.testing.assert_close((ours.values / t).logsumexp(0), (theirs.values / t).logsumexp(0))
