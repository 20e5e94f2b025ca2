"""The promptable student: a CNN in SAM's place, its loss, its two files, and a user without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

import adapt.export.examples.sam_onnx_numpy as example
from adapt.contracts import Augment, Train
from adapt.data.emoji_scenes import Config as Scenes
from adapt.data.emoji_scenes import load
from adapt.distill import masks
from adapt.distill.cache import HALF, build
from adapt.distill.masks.prompts import around, click, mask_loss
from adapt.export import gate, onnx
from adapt.models.sam import Config as SamConfig
from adapt.models.sam.checkpoints import family as family_around
from adapt.models.sam.checkpoints import fresh
from adapt.models.sam.segment_anything import configuration
from adapt.plug import UserError
from adapt.students import open_student
from adapt.train.loop import fit
from adapt.train.views import Views

TRAIN = Train(epochs=12, batch=8, lr=5e-3, weight_decay=0.0, augment=Augment(crop=0.7, colour=0.1))
CONFIG = masks.Config(
    name="masks", student="test_resnet", pretrained=False, width=32, feature_steps=8, points=4, views=2, train=TRAIN
)


def sam():
    """A tiny SAM with random weights, 64 pixels, an embedding of 8 × 8 × 32, whose masks have edges."""
    torch.manual_seed(0)
    config = configuration(32, 2, 2, [1], window=4, patch=8, grid=8)
    for part in (config.prompt_encoder_config, config.mask_decoder_config):
        part.hidden_size = 32
    config.vision_config.output_channels, config.vision_config.num_pos_feats = 32, 16
    config.mask_decoder_config.mlp_dim = config.mask_decoder_config.iou_head_hidden_dim = 48
    net = fresh(config)
    with torch.no_grad():
        for parameter in net.mask_decoder.parameters():
            parameter.mul_(2 if parameter.ndim > 1 else 1)
    return family_around(net, SamConfig(name="sam"), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def teacher():
    return sam().eval()


@pytest.fixture(scope="module")
def rows():
    return load(Scenes(hands=["noto"], size=64, train=24, validation=4, test=1))["train"]


def learner_of(teacher, config=CONFIG, live=None):
    torch.manual_seed(0)
    return masks.learner(config, teacher, live)


def student_of(teacher, config=CONFIG):
    return learner_of(teacher, config).student


@pytest.fixture(scope="module")
def trained(teacher, rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("student")
    learner, accelerator = learner_of(teacher), Accelerator(cpu=True)
    views = Views(rows, teacher.preprocess, 0, CONFIG.views)
    cache = build(folder / "cache", teacher.predictors()["image_features"], views, TRAIN.augment, 8, accelerator)
    views = Views(rows, learner.preprocess, 0, CONFIG.views, cache)
    history = fit(learner, views, TRAIN, 0, folder, accelerator)
    return learner.student.eval(), history


# ------------------------------------------------------------------------------------------------------------------ prompts


@torch.no_grad()
@pytest.mark.parametrize("multimask", [True, False])
def test_answers_equal_transformers(teacher, multimask):
    """The decoder behind segment-anything's inputs against SamModel's own forward, for points and for boxes."""
    net, decoder = teacher.net, student_of(teacher).net["decoder"]
    features, points = torch.randn(1, 32, 8, 8), torch.rand(1, 3, 2, 2) * 64
    labels = torch.tensor([[[1, 0], [1, 1], [0, 1]]])
    boxes = torch.tensor([[[4.0, 5, 30, 40], [10, 10, 50, 20]]])
    theirs = net(image_embeddings=features, input_points=points, input_labels=labels, multimask_output=multimask)
    ended = torch.cat([points[0], torch.zeros(3, 1, 2)], 1), torch.cat([labels[0], -torch.ones(3, 1, dtype=torch.long)], 1)
    ours, scores = decoder.answer(features.expand(3, -1, -1, -1), *ended, multimask)
    torch.testing.assert_close(ours, theirs.pred_masks[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores, theirs.iou_scores[0], atol=1e-4, rtol=1e-4)
    theirs = net(image_embeddings=features, input_boxes=boxes, multimask_output=multimask)
    corners = boxes[0].view(2, 2, 2), torch.tensor([[2, 3]]).expand(2, 2)
    ours, _ = decoder.answer(features.expand(2, -1, -1, -1), *corners, multimask)
    torch.testing.assert_close(ours, theirs.pred_masks[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_an_earlier_mask_is_a_prompt_as_in_transformers(teacher):
    decoder = student_of(teacher).net["decoder"]
    features, points, mask = torch.randn(1, 32, 8, 8), torch.rand(1, 1, 1, 2) * 64, torch.randn(1, 1, 32, 32)
    theirs = teacher.net(image_embeddings=features, input_points=points, input_masks=mask)
    coords, labels = torch.cat([points[0], torch.zeros(1, 1, 2)], 1), torch.tensor([[1.0, -1]])
    ours, _ = decoder(features, coords, labels, mask, torch.ones(1))
    torch.testing.assert_close(ours[:, 1:], theirs.pred_masks[0], atol=1e-4, rtol=1e-4)
    ignored, _ = decoder(features, coords, labels, mask, torch.zeros(1))
    assert not torch.allclose(ignored, ours, atol=1e-2)


def test_clicks_fall_where_masks_differ_and_boxes_surround_them():
    wanted, found = torch.zeros(2, 16, 16, dtype=torch.bool), torch.zeros(2, 16, 16, dtype=torch.bool)
    wanted[0, 3:7, 5:12] = True
    found[:, 10:12, 10:12] = True
    assert around(wanted).tolist() == [[5, 3, 12, 7], [0, 0, 16, 16]]
    for _ in range(20):
        places, labels = click(wanted, found)
        for mask, other, (x, y), label in zip(wanted, found, places.int().tolist(), labels, strict=True):
            assert mask[y, x] != other[y, x]
            assert mask[y, x] == label


def test_the_loss_is_least_where_the_masks_are_the_teachers():
    teacher = torch.randn(3, 2, 8, 8) * 4
    found = (teacher + torch.randn_like(teacher)).requires_grad_()
    assert mask_loss(teacher, teacher) < mask_loss(found, teacher)
    mask_loss(teacher.requires_grad_(), teacher.detach()).backward()
    assert teacher.grad.abs().max() < 1e-6, "at its least, the loss is flat"


# ----------------------------------------------------------------------------------------------------------------- training


def test_the_student_learns_features_then_masks(trained):
    _, history = trained
    features = [row["features"] for row in history]
    assert np.mean(features[-6:]) < 0.7 * features[0]
    assert not any("masks" in row for row in history[:8])
    agreement = [row["agreement"] for row in history[8:]]
    assert np.mean(agreement[-6:]) > np.mean(agreement[:3]) + 0.02
    losses = [row["masks"] for row in history[8:]]
    assert np.mean(losses[-6:]) < np.mean(losses[:3])


def test_cached_and_live_teachers_give_the_same_losses(teacher, rows, trained, tmp_path):
    _, history = trained
    learner = learner_of(teacher, live=teacher.predictors()["image_features"])
    views = Views(rows, learner.preprocess, 0, CONFIG.views)
    config = TRAIN.model_copy(update={"epochs": 1, "warmup": 0.0, "schedule": "constant", "lr": 1e-9})
    live = fit(learner, views, config, 0, tmp_path, Accelerator(cpu=True))
    assert live[0]["loss"] == pytest.approx(history[0]["loss"], rel=1e-3)


def test_on_disk_in_half_precision_the_loss_is_the_same_where_bf16_has_computed_it(teacher, rows, tmp_path):
    assert masks.lesson(CONFIG, teacher, None).half
    function, learner = teacher.predictors()["image_features"], learner_of(teacher).eval()

    def rounded(images):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return function(images).float()

    losses = {}
    for name, teach, packing in (("fp32", function, None), ("bf16", rounded, None), ("half", rounded, HALF)):
        views = Views(rows, teacher.preprocess, 0, 1)
        cache = build(tmp_path / name, teach, views, None, 8, Accelerator(cpu=True), packing=packing)
        views = Views(rows, learner.preprocess, 0, 1, cache)
        with torch.no_grad():
            losses[name] = learner(learner.collate([views[row] for row in range(8)]))[0].item()
    assert abs(losses["half"] - losses["bf16"]) < 0.1 * abs(losses["bf16"] - losses["fp32"]), losses


def test_a_frozen_decoder_stays_and_a_trained_one_learns(teacher, trained, rows):
    before = dict(teacher.net.mask_decoder.named_parameters())
    student, _ = trained
    for name, parameter in student.net["decoder"].mask_decoder.named_parameters():
        assert torch.equal(parameter, before[name])
    learner = learner_of(teacher, CONFIG.model_copy(update={"decoder": "trained", "feature_steps": 0}), teacher.image_features)
    item = learner.preprocess(rows[0], True) | {"seed": 0}
    loss, _ = learner(learner.augment(learner.collate([item]), TRAIN.augment))
    loss.backward()
    learning = {name for name, parameter in learner.named_parameters() if parameter.requires_grad}
    assert any("mask_decoder" in name for name in learning)
    assert not any("prompt_encoder" in name for name in learning)
    assert all(parameter.grad is not None for _, parameter in learner.named_parameters() if parameter.requires_grad)


def test_the_teachers_encoder_is_no_part_of_the_student(teacher):
    learner = learner_of(teacher, live=teacher.image_features)
    theirs = {id(parameter) for parameter in teacher.parameters()}
    assert not theirs & {id(parameter) for parameter in learner.parameters()}
    assert not theirs & {id(parameter) for parameter in learner.reference[0].parameters()}


def test_a_students_folder_alone_brings_it_back(teacher, trained, rows, tmp_path):
    student, _ = trained
    student.save(tmp_path / "student")
    other = open_student(tmp_path / "student")
    samples = [rows[0], rows[1]]
    for one, two in zip(*(s.predictors()["masks"](samples) for s in (student, other)), strict=True):
        assert one["masks"].shape == (len(one["scores"]), 64, 64)
        np.testing.assert_array_equal(one["masks"], two["masks"])


def test_a_teacher_with_adapters_gives_the_same_student(teacher, rows):
    """LoRA in the decoder is merged: names are the plain model's, answers the adapted one's."""
    from peft import LoraConfig, get_peft_model

    adapted = sam().eval()
    lora = LoraConfig(target_modules=["qkv", "q_proj", "v_proj"], init_lora_weights=False)
    adapted.backbone = get_peft_model(adapted.backbone, lora)
    student = student_of(adapted).eval()
    assert student.net.state_dict().keys() == student_of(teacher).net.state_dict().keys()
    features, points, labels = torch.randn(2, 32, 8, 8), torch.rand(2, 2, 2) * 64, torch.tensor([[1, -1]]).expand(2, 2)
    with torch.no_grad():
        ours, _ = student.net["decoder"].answer(features, points, labels, True)
        theirs, _ = adapted.eval().decode(features, points, labels)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_teacher_without_masks_is_one_line(clip_tiny):
    clip_tiny.set_classes(["thing"], ["{}"])
    with pytest.raises(UserError, match="needs a teacher with image_features and masks"):
        masks.lesson(CONFIG, clip_tiny, None)


# ------------------------------------------------------------------------------------------------------------------- export


@pytest.fixture(scope="module")
def files(trained, rows, tmp_path_factory):
    student, _ = trained
    folder = tmp_path_factory.mktemp("export")
    samples = np.stack([student.preprocess(row, False)["image"].numpy() for row in rows]).astype(np.float32)
    gate.export(onnx, onnx.Config(name="onnx"), student.deployed(), samples, folder, student.about())
    return folder, samples


def test_both_files_equal_torch(trained, files):
    student, _ = trained
    folder, samples = files
    encoder, decoder = onnx.Runner(folder / "model.onnx"), onnx.Runner(folder / "decoder.onnx")
    assert gate.check_outputs(student.deployed(), encoder, [(samples[:3],), (samples[:1],)])["image_embeddings"] < 1e-4
    worst = gate.check_outputs(student.net["decoder"].deployed(), decoder, student.net["decoder"].samples())
    assert max(worst.values()) < 1e-4
    assert decoder.inputs == ["image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input"]
    assert decoder.outputs == ["low_res_masks", "iou_predictions"]


def test_another_decoder_is_refused_and_its_layer_named(files, teacher):
    folder, _ = files
    other = student_of(teacher).net["decoder"]
    with torch.no_grad():
        other.mask_decoder.iou_prediction_head.proj_out.bias += 1
    with pytest.raises(UserError, match=r"refused: iou_predictions differs.*: mask_decoder\.iou_prediction_head\.proj_out\."):
        gate.gate_outputs(other.deployed(), onnx.Runner(folder / "decoder.onnx"), other.samples(), 1e-4)


def test_the_files_masks_are_the_students(trained, files, rows):
    student, _ = trained
    folder, _ = files
    samples = [rows[i] for i in range(4)]
    ours = student.predictors()["masks"](samples)
    for name, least in (("model.onnx", 0.999), ("model.int8.onnx", 0.7)):
        theirs = student.file_predictors(onnx.Runner(folder / name))["masks"](samples)
        same = np.concatenate([(one["masks"] == two["masks"]).ravel() for one, two in zip(ours, theirs, strict=True)])
        assert same.mean() > least, name


def test_the_example_runs_without_torch(trained, files, rows, tmp_path):
    """As it lies beside the files, in a process of its own; its mask is the student's, but for pixels at the edge."""
    student, _ = trained
    folder, _ = files
    wide = rows[0]["image"].resize((80, 56))
    np.save(tmp_path / "picture.npy", np.asarray(wide))
    script = (
        f"import sys, runpy; sys.argv = ['x', {str(folder)!r}, 'picture.npy', '--box', '10', '12', '60', '50', '--out', 'mask.npy']\n"
        f"runpy.run_path({str(folder / Path(example.__file__).name)!r}, run_name='__main__')\n"
        "print(sorted({'torch', 'PIL', 'adapt', 'onnx'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1] == "[]"
    mask = np.load(tmp_path / "mask.npy")
    (theirs,) = student.predictors()["masks"]([{"image": wide}], boxes=[[[10, 12, 60, 50]]])
    assert mask.shape == (56, 80)
    assert (mask == theirs["masks"][0]).mean() > 0.98
    segmenter = example.Segmenter(folder)
    segmenter.look(np.asarray(wide))
    (theirs,) = student.predictors()["masks"]([{"image": wide}], points=[([[[30, 20]]], [[1]])])
    assert (segmenter.best([[30, 20]], [1]) == theirs["masks"][0]).mean() > 0.98


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--point", "64"], "--point takes x y, and 0 if it is outside, not 1 numbers"),
        (["--box", "1", "2", "3", "4"], "no file nowhere/model.onnx"),
        ([], "a prompt is needed"),
    ],
)
def test_a_mistake_with_the_example_is_told_as_its_other_ones(arguments, words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sam_onnx_numpy.py", "nowhere", "picture.npy", *arguments])
    with pytest.raises(SystemExit) as stop:
        example.main()
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("size", [(40, 30), (130, 97)])
def test_the_examples_resize_is_pillows(size):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    theirs = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(example.resize(np.asarray(image), size).round() - theirs).max() <= 1


def test_the_decoder_is_computed_once(files):
    """Four answers come from one pass: the exporter has shared what the two calls have in common."""
    import onnx as library

    folder, _ = files
    nodes = [node.op_type for node in library.load(Path(folder) / "decoder.onnx").graph.node]
    assert nodes.count("ConvTranspose") == 2


@torch.no_grad()
def test_masks_and_losses_are_in_single_precision_under_autocast(teacher, rows):
    learner = learner_of(teacher, CONFIG.model_copy(update={"prompts": 0.0})).eval()
    student = learner.student
    decoder, images = student.net["decoder"], torch.rand(2, 3, 64, 64) * 255
    features = 3 * torch.randn(3, 32, 8, 8)
    points, labels = torch.rand(3, 2, 2) * 64, torch.tensor([[1, -1]] * 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, _ = decoder.answer(features, points, labels, True)
        _, logs = learner({"image": images, "teacher": teacher.image_features(images).float()})
        ours = student.net["encoder"](student.normalise(images))
        theirs = teacher.image_features(images).float()
    assert (logits.bfloat16().float() != logits).float().mean() > 0.9, "they are not rounded to bf16"
    error = (ours.float() - theirs).square().mean() / theirs.var()
    torch.testing.assert_close(logs["features"], error, rtol=1e-6, atol=0)


@torch.no_grad()
def test_a_student_is_measured_in_single_precision_as_its_files_compute(teacher, rows):
    student = student_of(teacher).eval()
    predict, sample = student.predictors()["masks"], {"image": rows[0]["image"]}
    assert predict.takes == "rows"
    (expected,) = predict([sample], boxes=[[[10, 12, 60, 50]]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (found,) = predict([sample], boxes=[[[10, 12, 60, 50]]])
    assert (found["masks"] == expected["masks"]).all() and (found["scores"] == expected["scores"]).all()
