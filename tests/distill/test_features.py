"""Feature distillation: the losses written out, the cache, and a student that learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

from adapt import pipeline
from adapt.contracts import Augment, Train
from adapt.distill import features
from adapt.distill.cache import HALF, build
from adapt.evals import knn
from adapt.models.dinov2 import Config, load
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.students import open_student
from adapt.train.loop import fit
from adapt.train.predict import predict
from adapt.train.views import Views
from adapt.verbs import measuring

AUGMENT = Augment(crop=0.6, flip=0.5, colour=0.2)
TRAIN = Train(epochs=6, batch=20, lr=3e-3, augment=AUGMENT)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    place = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    Dinov2Model(Dinov2Config(**sizes, image_size=32, patch_size=8, initializer_range=0.3)).save_pretrained(place)
    BitImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, resample=3).save_pretrained(place)
    family = load(Config(name="dinov2", checkpoint=str(place), local=3))
    family.bind(["image"])
    return family.eval()


@pytest.fixture(scope="module")
def rows(emoji):
    return emoji["train"].select(range(40)).select_columns(["id", "image", "label"])


def config(**options) -> features.Config:
    return features.Config(
        name="features", **{"student": "test_resnet", "pretrained": False, "views": 2, "train": TRAIN} | options
    )


def learner_of(teacher, live=None, **options):
    torch.manual_seed(0)
    return features.learner(config(**options), teacher, live)


def student_of(teacher, **options):
    return learner_of(teacher, **options).student


def batch(teacher, count: int = 4) -> dict:
    images = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 255
    with torch.no_grad():
        return {"image": images, "teacher": teacher.distill_features(images)}


def test_loss_is_one_minus_cosine_of_the_global_and_the_local_features(teacher):
    learner, items = learner_of(teacher, local=0.5).eval(), batch(teacher)
    student = learner.student
    with torch.no_grad():
        loss, logs = learner(items)
        cls, patches = teacher.tokens(items["image"])
        near = (student.image_embedding(items["image"]) * cls).sum(1)
        near = near / (student.image_embedding(items["image"]).norm(dim=1) * cls.norm(dim=1))
        grid = F.interpolate(student.patch_features(items["image"]), size=(3, 3), mode="bilinear")
        pooled = F.adaptive_avg_pool2d(patches, 3)
        local = (F.normalize(grid, dim=1) * F.normalize(pooled, dim=1)).sum(1)
        torch.testing.assert_close(loss, (1 - near).mean() + 0.5 * (1 - local).mean())
        assert set(logs) == {"global", "local"}


def test_relation_is_the_kl_of_softened_similarities_and_the_queue_turns(teacher):
    learner, items = learner_of(teacher, relation=2.0, local=0, queue=6, mixup=0), batch(teacher)
    theirs = F.normalize(items["teacher"][:, 0], dim=1)
    for turn, others in enumerate(
        (theirs, torch.cat([theirs, theirs]), torch.cat([theirs, theirs[2:], theirs[2:], theirs[:2]]))
    ):
        with torch.no_grad():
            learner.eval()
            loss, logs = learner(items)
            ours = F.normalize(learner.student.image_embedding(items["image"]), dim=1)
            p, q = ((x @ others.T / 0.07).softmax(1) for x in (theirs, ours))
            torch.testing.assert_close(logs["relation"], (p * (p / q).log()).sum(1).mean(), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(loss, logs["global"] + 2 * logs["relation"])
            assert learner.filled == 4 * turn, "measuring fills nothing"
            learner.train()
            learner(items)
    assert torch.allclose(learner.queue.norm(dim=1), torch.ones(6))


def test_mixup_mixes_images_and_targets_alike(teacher):
    learner, items = learner_of(teacher, mixup=1.0, local=0), batch(teacher)
    for module in learner.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    learner.training = True
    torch.manual_seed(5)
    with torch.no_grad():
        loss, _ = learner(items)
        torch.manual_seed(5)
        share = torch.distributions.Beta(1.0, 1.0).sample()
        mixed = {name: share * x + (1 - share) * x.roll(1, 0) for name, x in items.items()}
        learner.training = False
        torch.testing.assert_close(loss, learner(mixed)[0])


def test_cached_and_live_teachers_give_the_same_losses(teacher, rows, tmp_path):
    accelerator = Accelerator(cpu=True)
    function = teacher.predictors()[features.PREDICTOR]
    views = Views(rows, teacher.preprocess, 0, 2)
    cache = build(tmp_path / "cache", function, views, AUGMENT, 8, accelerator)
    assert cache(1, 3)["teacher"].shape == (10, 24)
    losses = []
    for name, live, extra in (("cached", None, cache), ("live", function, None)):
        learner = learner_of(teacher, live, relation=0.1)
        views = Views(rows, learner.preprocess, 0, 2, extra)
        losses.append([row["loss"] for row in fit(learner, views, TRAIN, 0, tmp_path / name, accelerator)])
    torch.testing.assert_close(losses[0][:2], losses[1][:2], atol=1e-5, rtol=1e-5)
    assert np.mean(losses[0][-3:]) < 0.8 * np.mean(losses[0][:3]), losses[0]


def test_on_disk_in_half_precision_the_loss_is_the_same_where_bf16_has_computed_it(teacher, rows, tmp_path):
    """fp16 changes the loss by less than a tenth of what computing in bf16 had changed: a fortieth when written."""
    assert features.lesson(config(), teacher, None).half
    function, learner = teacher.predictors()[features.PREDICTOR], learner_of(teacher, mixup=0, relation=0.5).eval()

    def rounded(images):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return function(images).float()

    losses = {}
    for name, teach, packing in (("fp32", function, None), ("bf16", rounded, None), ("half", rounded, HALF)):
        cache = build(
            tmp_path / name, teach, Views(rows, teacher.preprocess, 0, 1), None, 8, Accelerator(cpu=True), packing=packing
        )
        views = Views(rows, learner.preprocess, 0, 1, cache)
        with torch.no_grad():
            losses[name] = learner(learner.collate([views[row] for row in range(len(rows))]))[0].item()
    assert abs(losses["half"] - losses["bf16"]) < 0.1 * abs(losses["bf16"] - losses["fp32"]), losses


def test_the_students_embeddings_are_measured_like_the_teachers(teacher, rows):
    student, accelerator = student_of(teacher), Accelerator(cpu=True)

    def ask(module):
        return lambda part, name: predict(module.predictors()[name], module, part, 16, accelerator)

    part, bank = rows.select(range(20)), rows.select(range(20, 40))
    for module in (teacher, student):
        result = knn.evaluate(knn.Config(name="knn", k=3, pictures=2), ask(module), part, {"input": module.input}, bank)
        assert 0 <= result.metrics["knn"] <= 1
        assert len(result.pictures) == 2


@pytest.mark.parametrize("arch", ["resnet10t", "mobilenetv4_conv_small", "efficientnet_lite0"])
def test_what_is_deployed_is_the_student_and_it_comes_back_from_disk(teacher, tmp_path, arch):
    for embedding in ("projected", "pooled"):
        student = student_of(teacher, student=arch, embedding=embedding).eval()
        module, images = student.deployed().module.eval(), torch.rand(2, 3, 32, 32) * 255
        by_file = student.file_predictors(lambda x, module=module: module(torch.from_numpy(x)).detach().numpy())
        with torch.no_grad():
            torch.testing.assert_close(by_file["image_embedding"](images), student.image_embedding(images))
    student.save(tmp_path / "student")
    other = open_student(tmp_path / "student")
    with torch.no_grad():
        torch.testing.assert_close(other.image_embedding(images), student.image_embedding(images))
        assert student.block_features(images).shape == (2, 2, 24)


def test_teacher_is_no_part_of_the_student(teacher):
    learner = learner_of(teacher, live=teacher)
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in learner.parameters()}


def test_who_cannot_teach_or_learn_is_told(teacher, clip_tiny):
    clip_tiny.set_classes(["cat", "car"], ["{}"])
    with pytest.raises(UserError, match="needs a model with distill_features"):
        features.lesson(config(), clip_tiny, None)
    with pytest.raises(UserError, match="gives no feature map"):
        learner_of(teacher, student="vit_tiny_patch16_224")


@pytest.mark.parametrize("teacher_is", ["zero-shot", "adapted"])
def test_a_model_that_cannot_teach_is_told_before_any_training_and_measuring(teacher_is, tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(measuring, "measure", lambda *_, **__: measured.append(1))
    options = ["data.shots=1", "data.unlabelled=[]", "tracker=none", "export=[]", "train.steps=1"]
    options.append(f"distill={{name: features, teacher: {teacher_is}, student: test_resnet, pretrained: false}}")
    with pytest.raises(UserError, match="'features' needs a model with distill_features, such as dinov2"):
        pipeline.road(load_recipe("clip_lora", options))
    assert not measured and not list(tmp_path.glob("runs/*/adapter"))


def test_cosines_and_similarities_are_in_single_precision_under_autocast(teacher):
    learner, items = learner_of(teacher, relation=1.0, queue=6, mixup=0).eval(), batch(teacher)
    student = learner.student
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        loss, logs = learner(items)
        pooled, maps = student.net(student.normalise(items["image"]))
        ours, local = student.net.to_global(pooled), student.net.local(maps)
    assert ours.dtype == local.dtype == torch.bfloat16, "the network itself may round"
    ours, theirs = ours.float(), items["teacher"]
    near = F.cosine_similarity(ours, theirs[:, 0], dim=1)
    torch.testing.assert_close(logs["global"], (1 - near).mean(), rtol=1e-6, atol=1e-7)
    side = round((theirs.shape[1] - 1) ** 0.5)
    grid = F.interpolate(local.float(), size=(side, side), mode="bilinear").flatten(2)
    near = F.cosine_similarity(grid, theirs[:, 1:].transpose(1, 2), dim=1)
    torch.testing.assert_close(logs["local"], (1 - near).mean(), rtol=1e-6, atol=1e-7)
    others = F.normalize(theirs[:, 0], dim=1)
    p, q = ((F.normalize(x, dim=1) @ others.T / 0.07).log_softmax(1) for x in (theirs[:, 0], ours))
    torch.testing.assert_close(logs["relation"], (p.exp() * (p - q)).sum(1).mean(), rtol=1e-5, atol=1e-6)
    assert loss.dtype == torch.float32


def test_a_student_is_measured_in_single_precision_as_its_file_computes(teacher):
    student, images = student_of(teacher).eval(), batch(teacher)["image"]
    for function in student.predictors().values():
        with torch.no_grad():
            expected = function(images)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert torch.equal(function(images), expected)
