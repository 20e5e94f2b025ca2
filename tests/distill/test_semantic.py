"""Maps of classes from a teacher's masks and CLIP's words, and the CNN that learns them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from threading import current_thread, main_thread

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Picture

from adapt.contracts import Augment, Lesson
from adapt.data.emoji_scenes import compose
from adapt.distill import labels as labels_module
from adapt.distill import semantic
from adapt.distill.labels import build
from adapt.distill.semantic import naming
from adapt.evals import semantic as eval_semantic
from adapt.evals.semantic.class_maps import truth
from adapt.export import gate, onnx
from adapt.plug import UserError
from adapt.prompting.automatic import Automatic
from adapt.prompting.text_masks import TextMasks, crop
from adapt.students.pixels import Lraspp
from adapt.vision.masks import rle, unrle_many
from adapt.vision.pictures import BOXES, MASKS, RGB

NAMES = ["red apple", "banana", "guitar", "cat face", "motorcycle"]
WORDS = TextMasks(background="white", templates=["{}"], against=["background"])
SIDE = 96


@pytest.fixture(scope="module")
def scenes() -> Dataset:
    """Scenes of five things by a source hand, with their true masks."""
    things = [thing for thing in compose.cast(["noto"], "train")[0] if thing["name"] in NAMES]
    things = [thing | {"category": NAMES.index(thing["name"])} for thing in things]
    rows = [compose.scene(things, SIDE, 0, "train", i) for i in range(10)]
    rows = [{"image": row["image"], "objects": row["objects"], "id": row["id"]} for row in rows]
    objects = {"bbox": BOXES, "category": [ClassLabel(names=NAMES)], "mask": MASKS}
    return Dataset.from_list(rows, Features(id=Value("string"), image=RGB(), objects=objects))


class Segmenter(torch.nn.Module):
    """A promptable teacher with perfect sight and no word for what it sees."""

    classes = NAMES
    input = {"size": (SIDE, SIDE), "interpolation": "bilinear"}

    def __init__(self, rows):
        super().__init__()
        self.known = {np.asarray(row["image"]).tobytes(): unrle_many(row["objects"]["mask"]) for row in rows}
        self.scale = torch.nn.Parameter(torch.tensor(9.0))

    def see(self, pixels: np.ndarray) -> np.ndarray:
        things = self.known[pixels.tobytes()]
        return np.concatenate([things, ~things.any(0, keepdims=True)])

    def preprocess(self, sample, train):
        pixels = torch.from_numpy(np.array(sample["image"])).permute(2, 0, 1).float()
        return {"image": pixels, "size": torch.tensor(pixels.shape[1:])}

    def image_features(self, images):
        return images

    def decode(self, features, coordinates, labels, multimask):
        masks = self.see(features[0].permute(1, 2, 0).byte().contiguous().numpy())
        x, y = coordinates[:, 0].long().T
        under = masks[:, y, x].argmax(0)
        logits = self.scale * (2 * torch.from_numpy(masks[under]).float() - 1)
        return logits[:, None], torch.full((len(under), 1), 0.99)

    def predictors(self, texts=None):
        return {"masks": self.masks}

    def masks(self, samples, boxes):
        answers = []
        for sample, given in zip(samples, boxes, strict=True):
            assert set(sample) == {"image"}, "nothing that people wrote is shown to the teacher"
            masks = self.see(np.asarray(sample["image"]))[:-1]
            own = np.array([[*np.argwhere(m).min(0)[::-1], *np.argwhere(m).max(0)[::-1] + 1] for m in masks])
            answers.append(
                {"masks": masks[[np.abs(own - box).sum(1).argmin() for box in given]], "scores": np.ones(len(given))}
            )
        return answers


def config(**options) -> semantic.Config:
    return semantic.Config(name="semantic", words=WORDS, pretrained=False, **options)


def clip(name: str, checkpoint: str):
    """The embedded CLIP, as a verb loads it for an objective."""
    from adapt.models.clip import Config, load

    assert (name, checkpoint) == ("clip", "clip-tiny")
    return load(Config(name=name, checkpoint=checkpoint)).eval()


def labels(options, teacher, rows) -> Dataset:
    lesson = semantic.lesson(options, teacher, clip)
    with tempfile.TemporaryDirectory() as folder:
        made = build(Path(folder), lesson.label, rows, Accelerator(cpu=True), lesson.labels_batch)
        return lesson.choose(made)[0]  # mapped files outlive their names


def agreement(made: Dataset, rows: Dataset) -> float:
    """mIoU of the teacher's maps, unjudged pixels left out."""
    maps = np.stack([np.asarray(row["segmentation"]) for row in made]).astype(int)
    known = maps != 255
    right = np.stack([truth(row) for row in rows.remove_columns("image")])
    ious = [((maps == c) & (right == c))[known].sum() / ((maps == c) | (right == c))[known].sum() for c in range(6)]
    return float(np.mean(ious))


@pytest.mark.parametrize("proposals", ["automatic", "boxes"])
def test_the_teacher_and_clip_draw_maps_that_nobody_labelled(scenes, proposals):
    options = {"proposals": proposals, "automatic": Automatic(points_per_side=12)}
    blind = scenes.map(lambda row: {"objects": row["objects"] | {"category": [0] * len(row["objects"]["category"])}})
    made = labels(config(**options), Segmenter(scenes), blind)
    assert made.column_names == ["id", "image", "segmentation"] and len(made) == len(scenes)
    assert np.asarray(made[0]["segmentation"]).shape == (SIDE, SIDE)
    assert agreement(made, scenes) > 0.6, "0.76 when written; by chance about 0.2"


def test_a_picture_whose_boxes_nobody_gave_teaches_nothing_and_one_without_things_is_background(scenes):
    nothing = {name: [] for name in ("bbox", "category", "mask")}
    rows = [row | {"objects": {0: None, 1: nothing}.get(number, row["objects"])} for number, row in enumerate(scenes)]
    some = Dataset.from_list(rows, scenes.features)
    assert some[0]["objects"] is None
    lesson = semantic.lesson(config(proposals="boxes"), Segmenter(scenes), clip)
    made = lesson.label(some)
    drawn = [np.asarray(row["segmentation"]) for row in made]
    assert (drawn[0] == 255).all() and not drawn[1].any()
    assert made["found"][:3] == [None, False, True]
    left, said = lesson.choose(made.add_column("id", some["id"]))
    assert left["id"] == some["id"][1:]
    assert (
        said == "maps of classes for 8 of 9 pictures; 1 of which nothing can be said, such as those without boxes, are left out"
    )
    with pytest.raises(UserError, match=r"nothing can be said of 3 pictures. With distill.proposals=boxes they need a column"):
        labels(config(proposals="boxes"), Segmenter(scenes), scenes.select(range(3)).remove_columns("objects"))


def test_pictures_are_decoded_beside_the_teacher(scenes, monkeypatch):
    decoded, decode = [], RGB.decode_example

    def noting(*given, **options):
        decoded.append(current_thread())
        return decode(*given, **options)

    def made() -> dict[str, list]:
        found = semantic.label(lambda: lambda row: np.asarray(row["image"])[..., 0] % 6, scenes)
        return found.cast_column("segmentation", Image(decode=False))[:]

    monkeypatch.setattr(RGB, "decode_example", noting)
    found = made()
    assert len(decoded) == len(scenes) and main_thread() not in decoded
    monkeypatch.setattr(labels_module, "samples", lambda rows: (row for row in rows))
    assert found == made() and main_thread() in decoded


def test_the_teacher_s_own_maps_are_measured_as_the_student_s(scenes):
    rows = scenes.select(range(4))
    function = semantic.lesson(config(proposals="boxes"), Segmenter(scenes), clip).reference()["semantic_logits"]
    assert function.takes == "rows"
    result = eval_semantic.evaluate(eval_semantic.Config(name="semantic"), lambda part, name: function(list(part)), rows, {})
    assert result.metrics["pixel_accuracy"] > 0.8


def test_the_surest_mask_is_painted_last_and_the_unsure_is_not_judged():
    masks = np.zeros((4, 10, 10), bool)
    masks[0, :4, :4], masks[1, 2:6, 2:6], masks[2, 8:, 8:], masks[3] = True, True, True, True
    canvas = naming.paint(masks, np.array([1, 2, 3, 4]), np.array([0.9, 0.6, 0.2, 0.99]), (10, 10), 0.3, 0.7)
    assert canvas[3, 3] == 1 and canvas[5, 5] == 2
    assert (canvas[8:, 8:] == 255).all()
    assert canvas[0, 9] == 0, "what covers the picture is its background"


def test_the_name_is_the_softmax_over_classes_and_background(clip_tiny, scenes):
    names = ["red apple", "guitar"]
    namer = naming.Namer(WORDS.model_copy(update={"against": ["background", "a texture"]}), clip_tiny, names)
    image = Picture.new("RGB", (40, 40), (90, 160, 220))
    mask = np.zeros((1, 40, 40), bool)
    mask[:, 8:30, 8:30] = True
    classes, probability = namer(image, mask)
    with torch.no_grad():
        view = clip_tiny.preprocess({"image": crop(WORDS, image, mask[0])}, False)["image"][None].float()
        texts = clip_tiny.text_embedding([*names, "background", "a texture"])
        p = (100 * clip_tiny.image_embedding(view) @ texts.T).softmax(1)[0].numpy()
    rest = p[2] + p[3]
    expected = (0, rest) if rest > p[:2].max() else (1 + p[:2].argmax(), p[:2].max())
    assert classes[0] == expected[0] and probability[0] == pytest.approx(expected[1], abs=1e-4)


def test_a_teacher_without_masks_and_data_without_names_are_user_errors(scenes, clip_tiny):
    clip_tiny.set_classes(NAMES, ["{}"])
    with pytest.raises(UserError, match="needs a teacher that offers masks"):
        labels(config(), clip_tiny, scenes)
    nameless = Segmenter(scenes)
    nameless.classes = []
    with pytest.raises(UserError, match="class words"):
        labels(config(), nameless, scenes)


def test_a_teacher_that_finds_nothing_is_a_user_error(scenes):
    strict = config(automatic=Automatic(points_per_side=2, pred_iou_thresh=1))
    with pytest.raises(UserError, match=r"Lower distill\.min_probability, or distill\.automatic\.pred_iou_thresh"):
        labels(strict, Segmenter(scenes), scenes.select(range(2)))


def perfect(scenes) -> Dataset:
    maps = [naming.encoded(truth(row).astype(np.uint8)) for row in scenes.remove_columns("image")]
    rows = [{"image": image, "segmentation": one} for image, one in zip(scenes.data["image"].to_pylist(), maps, strict=True)]
    return Dataset.from_list(rows, Features(image=RGB(), segmentation=Image()))


def learner(scenes, **options):
    torch.manual_seed(0)
    return semantic.learner(config(student="test_resnet", stride=4, width=16, **options), Segmenter(scenes))


def student(scenes, **options):
    return learner(scenes, **options).student


def batch(net, rows, seed: int = 0) -> dict:
    items = [net.preprocess(row, True) | {"seed": seed + i} for i, row in enumerate(rows)]
    return net.collate(items)


def test_the_head_is_lr_aspp():
    torch.manual_seed(0)
    net = Lraspp("test_resnet", 6, 4, 16).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps = net.cnn(images)
        coarse, fine = maps[net.coarse], maps[net.fine]
        gate = torch.sigmoid(net.attention(torch.nn.functional.adaptive_avg_pool2d(coarse, 1)))
        up = torch.nn.functional.interpolate(net.what(net.features(coarse) * gate), fine.shape[2:], mode="bilinear")
        torch.testing.assert_close(net(images), up + net.where(fine))
    assert net(images).shape == (2, 6, 16, 24)


def test_every_weight_learns():
    net = Lraspp("resnet18", 3, 8, 16)
    net(torch.rand(2, 3, 64, 64)).sum().backward()
    assert all(weight.grad is not None for weight in net.parameters()), "two processes wait for the gradients of all"


def test_a_students_weights_start_another(tmp_path):
    from safetensors.torch import save_file

    from adapt.students.cnn import create

    torch.manual_seed(0)
    whole = create("resnet10t", 0, False)
    save_file({f"cnn.{name}": value for name, value in whole.state_dict().items()}, tmp_path / "student.safetensors")
    net = Lraspp("resnet10t", 3, 8, 16, str(tmp_path / "student.safetensors")).cnn
    own = net.state_dict()
    assert own
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in own.items())
    save_file({"other": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(UserError, match="another network than resnet10t"):
        Lraspp("resnet10t", 3, 8, 16, str(tmp_path / "wrong.safetensors"))


def test_the_loss_is_the_mean_over_judged_pixels(scenes):
    net = learner(scenes).eval()
    one = batch(net, perfect(scenes).select(range(3)))
    one["segmentation"][:, :40] = 255
    loss, logs = net(one)
    logits = torch.nn.functional.interpolate(net.student(one["image"]), (SIDE, SIDE), mode="bilinear")
    own = torch.nn.functional.cross_entropy(logits, one["segmentation"].long(), ignore_index=255)
    assert loss.item() == pytest.approx(own.item(), rel=1e-4) and 0 <= logs["pixels"] <= 1
    one["segmentation"][:] = 255
    assert net(one)[0].item() == 0, "nothing judged, nothing learned"


def test_pixels_that_are_not_judged_send_no_gradient(scenes, monkeypatch):
    net = learner(scenes)
    logits = torch.randn(2, 6, SIDE, SIDE, requires_grad=True)
    monkeypatch.setattr(net.student, "forward", lambda images: logits)
    one = batch(net, perfect(scenes).select(range(2)))
    one["segmentation"][:, 10:50, 20:60] = 255
    loss, _ = net(one)
    loss.backward()
    sent = logits.grad.abs().sum(1) > 0
    assert not sent[:, 10:50, 20:60].any() and sent.sum() == 2 * (SIDE**2 - 40 * 40)
    p = logits.detach().log_softmax(1).gather(1, one["segmentation"].long().clamp(max=5)[:, None])[:, 0]
    assert loss.item() == pytest.approx(-p[one["segmentation"] != 255].double().mean().item(), rel=1e-5)


def test_people_s_maps_come_from_the_column_or_from_the_masks_of_objects(scenes):
    net = learner(scenes, teacher="labels", size=32)
    assert semantic.lesson(config(teacher="labels"), Segmenter(scenes), None) == Lesson()
    for row, drawn in zip(scenes, perfect(scenes), strict=True):
        item = net.preprocess(row, True)["segmentation"]
        centres = (np.arange(32) * 3) + 1  # the nearest of 96 pixels
        assert (item.numpy() == truth({name: row[name] for name in ("id", "objects")})[np.ix_(centres, centres)]).all()
        assert torch.equal(net.preprocess(drawn, True)["segmentation"], item)


def test_crowds_and_unjudged_pixels_of_people_teach_nothing(scenes):
    net = learner(scenes, teacher="labels")
    row = scenes[0]
    crowd = np.zeros((SIDE, SIDE), bool)
    crowd[:40] = True
    objects = {"bbox": [[0, 0, SIDE, 40]], "category": [0], "mask": [rle(crowd)], "iscrowd": [1]}
    item = net.preprocess({"id": "a", "image": row["image"], "objects": objects}, True)["segmentation"].numpy()
    assert (item[:40] == 255).all() and (item[40:] == 0).all()
    drawn = Picture.fromarray(np.where(crowd, 255, 2).astype(np.uint8))
    item = net.preprocess({"id": "a", "image": row["image"], "segmentation": drawn}, True)["segmentation"].numpy()
    assert (item[:40] == 255).all() and (item[40:] == 2).all()


def test_a_class_that_the_data_do_not_name_is_one_line(scenes):
    drawn = Picture.new("L", (SIDE, SIDE), 6)
    with pytest.raises(
        UserError, match=r"sample 'a': its segmentation has the class 6, and the data name 5: 0 is the background"
    ):
        learner(scenes).preprocess({"id": "a", "image": scenes[0]["image"], "segmentation": drawn}, True)


def test_maps_follow_the_views_of_their_pictures(scenes):
    """A picture that shows its own map is, after augmentation, still the picture of its map."""
    net = learner(scenes)
    rows = perfect(scenes).select(range(8))
    one = batch(net, rows)
    one["image"] = one["segmentation"][:, None].repeat(1, 3, 1, 1) * 40
    seen = net.augment(one, Augment(crop=0.4, rotate=20, flip=0.5, colour=0))
    same = (seen["image"][:, 0] / 40 - seen["segmentation"]).abs() < 0.3
    assert same.float().mean() > 0.95, "but for edges, which are blurred"
    assert (seen["segmentation"] != one["segmentation"]).float().mean() > 0.05


def test_the_student_learns_the_maps(scenes):
    net = learner(scenes, size=32)
    optimiser = torch.optim.AdamW(net.parameters(), 5e-3)
    one = batch(net, perfect(scenes).select(range(8)))
    losses = []
    for _ in range(20):
        loss, _ = net.train()(one)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_the_eval_and_the_exported_file_take_the_student(scenes, tmp_path):
    net = student(scenes, size=32).eval()

    def predict(rows, name):
        images = torch.stack([net.preprocess(row, False)["image"] for row in rows]).float()
        with torch.no_grad():
            return net.predictors()[name](images).numpy()

    result = eval_semantic.evaluate(eval_semantic.Config(name="semantic"), predict, scenes, {})
    assert 0 <= result.metrics["miou"] < 0.5 and len(result.table["id"]) == 10
    samples = np.stack([net.preprocess(row, False)["image"].numpy() for row in scenes.select(range(4))]).astype(np.float32)
    (artifact,) = gate.export(onnx, onnx.Config(name="onnx", int8=False), net.deployed(), samples, tmp_path, net.about())
    file = net.file_predictors(onnx.Runner(artifact.path))["semantic_logits"]
    with torch.no_grad():
        torch.testing.assert_close(file(torch.from_numpy(samples)), net(torch.from_numpy(samples)), atol=1e-3, rtol=0)


def test_names_are_compared_in_single_precision_under_autocast(clip_tiny):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        namer = naming.Namer(WORDS.model_copy(update={"scale": 20.0}), clip_tiny, NAMES)
        image, mask = Picture.new("RGB", (40, 40), (90, 160, 220)), np.zeros((1, 40, 40), bool)
        mask[:, 8:30, 8:30] = True
        classes, probability = namer(image, mask)
        view = namer.clip.preprocess({"image": crop(WORDS, image, mask[0])}, False)["image"][None].float()
        with torch.no_grad():
            embedding = namer.clip.image_embedding(view).float()
    with torch.no_grad():
        texts = torch.nn.functional.normalize(clip_tiny.text_embedding([*NAMES, "background"]), dim=1)
        p = (20 * embedding @ texts.T).double().softmax(1)[0].numpy()
    best = p[:5].argmax() + 1 if p[:5].max() >= p[5] else 0
    assert classes[0] == best
    assert probability[0] == pytest.approx(p[5] if best == 0 else p[:5].max(), rel=1e-4)


def test_a_student_is_measured_in_single_precision_as_its_file_computes(scenes):
    net, images = student(scenes, size=32).eval(), torch.rand(2, 3, 32, 32) * 255
    predict = net.predictors()["semantic_logits"]
    with torch.no_grad():
        expected = predict(images)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(predict(images), expected)


def test_the_maps_depend_on_the_options_that_are_named_and_on_no_others(scenes):
    rows, asked = scenes.select(range(1)), set()
    for proposals in ("automatic", "boxes"):
        options = Asked(config(proposals=proposals, automatic=Automatic(points_per_side=4)), asked)
        labels(options, Segmenter(rows), rows)
    assert asked - {"from_labels"} == set(semantic.Config.labelled_by)


class Asked:
    """A configuration that notes which of its options are looked at."""

    def __init__(self, config, names: set):
        self.config, self.names = config, names

    def __getattr__(self, name):
        self.names.add(name)
        return getattr(self.config, name)
