"""A step's gradient does not know how its batch was divided: micro-batches of unequal weight, and losses that compare rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from adapt.contracts import Augment
from adapt.distill import boxes, semantic
from adapt.methods import decoder, full, head, lora
from adapt.models import clip, dinov2, paligemma, sam
from adapt.train.gradient import gradient
from adapt.vision.masks import rle

STILL = Augment(crop=1, flip=0, colour=0)
CAPTIONS = ["a cat", "a dog on a mat", "a cat", "an apple", "two fire engines", "a house", "a dog on a mat", "a tree"]


def picture(seed: int, side: int = 64) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    return Image.fromarray(values).resize((side, side))


def objects(seed: int, count: int, side: int = 64) -> dict[str, list]:
    random, found = np.random.default_rng(seed), {"bbox": [], "category": [], "mask": []}
    for _ in range(count):
        left, top = random.integers(0, side // 2, 2)
        mask = np.zeros((side, side), bool)
        mask[top : top + 20, left : left + 24] = True
        found["bbox"].append([float(left), float(top), float(left + 24), float(top + 20)])
        found["category"].append(int(random.integers(3)))
        found["mask"].append(rle(mask))
    return found


def of_labels():
    family = clip.load(clip.Config(name="clip", loss="classification"))
    family.set_classes(["cat", "dog", "apple"], ["a {}"])
    lora.apply(family, lora.Config(name="lora", dropout=0))
    return family, [{"image": picture(i), "label": i % 3} for i in range(8)], Augment()


def of_pixels():
    """A quarter of the rows have no pixel with a class, the others more or fewer of them."""
    family = dinov2.load(dinov2.Config(name="dinov2", task="segmentation", classes=["road", "sky", "tree"]))
    family.bind(["image", "segmentation"])
    head.apply(family, head.Config(name="head"))
    torch.nn.init.normal_(family.head[1].weight, std=0.1)
    family.head[0].requires_grad_(False)  # a BatchNorm that learns has a micro-batch's own statistics
    rows = []
    for i in range(8):
        classes = np.full((64, 64), 255, np.uint8)
        classes[: [64, 7, 30, 12, 50, 3][i] if i < 6 else 0] = i % 3
        rows.append({"image": picture(i), "segmentation": Image.fromarray(classes)})
    return family, rows, Augment(crop=0.5)


def of_tokens():
    family = paligemma.load(paligemma.Config(name="paligemma"))
    family.bind(["image", "prefix", "suffix"])
    decoder.apply(family, decoder.Config(name="decoder"))
    words = ["cat", "a dog and a cat and an apple and a house", "a tree", "two fire engines before a house", "a"]
    return family, [{"image": picture(i), "prefix": "caption en", "suffix": words[i % 5]} for i in range(8)], STILL


def of_objects():
    family = sam.load(sam.Config(name="sam", clicks=1))
    decoder.apply(family, decoder.Config(name="decoder"))
    side = family.side
    rows = [{"image": picture(i, side), "objects": objects(i, [3, 1, 0, 4, 0, 2, 6, 1][i], side)} for i in range(8)]
    return family, rows, STILL


INPUT = {"size": (64, 64), "resize": (64, 64), "interpolation": "bilinear", "crop": None, "mean": [0.5] * 3, "std": [0.5] * 3}


class Teacher:
    input, classes = INPUT, ["a", "b", "c"]


def still(learner):
    """A BatchNorm that learns has a micro-batch's own statistics."""
    learner.train = lambda mode=True: learner.eval()
    learner.eval = lambda: torch.nn.Module.train(learner, False)
    return learner


def of_boxes():
    config = boxes.Config(name="boxes", student="test_resnet", pretrained=False, width=24, convs=1)
    return (
        still(boxes.learner(config, Teacher())),
        [{"image": picture(i), "objects": objects(i, [3, 0, 1, 5, 0, 0, 2, 1][i])} for i in range(8)],
        Augment(),
    )


def of_maps():
    config = semantic.Config(name="semantic", student="test_resnet", pretrained=False, width=24)
    return still(semantic.learner(config, Teacher())), of_pixels()[1], Augment(crop=0.5)


def collated(family, rows) -> dict:
    return family.collate([family.preprocess(row, True) | {"seed": 77 + i} for i, row in enumerate(rows)])


def gradients(family, batch, accumulate: int, augment: Augment) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    family.train().zero_grad()
    logs = gradient(family, batch, accumulate, augment, 0, Accelerator(cpu=True))
    return {name: p.grad.clone() for name, p in family.named_parameters() if p.grad is not None}, logs


@pytest.mark.parametrize("task", [of_labels, of_pixels, of_tokens, of_objects, of_boxes, of_maps])
def test_unequal_micro_batches_give_the_gradient_of_the_whole(task):
    torch.manual_seed(0)
    family, rows, augment = task()
    batch = collated(family, rows)
    whole, logs = gradients(family, batch, 1, augment)
    largest = max(value.abs().max() for value in whole.values())
    assert largest > 0
    for accumulate in (2, 4, 8):
        parts, those = gradients(family, batch, accumulate, augment)
        assert parts.keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(parts[name], value, atol=2e-5 * largest, rtol=1e-4)
        assert those == pytest.approx(logs, rel=1e-4, abs=1e-5)


def test_one_part_is_the_loss_itself():
    """Not a bit is lost to weights that divide by themselves."""
    family, rows, _ = of_tokens()
    batch = collated(family, rows)
    got, _ = gradients(family, batch, 1, STILL)
    family.zero_grad()
    loss, _ = family(family.augment(batch, STILL))
    loss.backward()
    assert all(torch.equal(p.grad, got[name]) for name, p in family.named_parameters() if p.requires_grad)


def test_a_batch_without_a_judged_pixel_is_a_loss_of_zero():
    family, rows, augment = of_pixels()
    batch = collated(family, rows[6:])
    found, logs = gradients(family, batch, 1, augment)
    assert logs == {"loss": 0, "accuracy": 0}
    assert all((value == 0).all() for value in found.values())


def of_captions():
    family = clip.load(clip.Config(name="clip", loss="contrastive"))
    return family, [{"image": picture(i), "caption": text} for i, text in enumerate(CAPTIONS)]


def test_a_contrastive_loss_sees_all_rows_whatever_the_micro_batches():
    family, rows = of_captions()
    full.apply(family, full.Config(name="full"))
    batch = collated(family, rows)
    family.zero_grad()
    loss, _ = family.train()(family.augment(batch, STILL))
    loss.backward()
    whole = {name: p.grad.clone() for name, p in family.named_parameters() if p.grad is not None}
    largest = max(value.abs().max() for value in whole.values())
    assert whole["backbone.logit_scale"] != 0
    for accumulate in (1, 2, 4):
        parts, logs = gradients(family, batch, accumulate, STILL)
        assert logs["loss"] == pytest.approx(loss.item(), rel=1e-5)
        assert parts.keys() == whole.keys()
        for name, value in whole.items():
            torch.testing.assert_close(parts[name], value, atol=2e-5 * largest, rtol=1e-4)


def test_cached_gradients_repeat_the_dropout():
    family, rows = of_captions()
    lora.apply(family, lora.Config(name="lora", dropout=0.5))
    for name, parameter in family.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    batch = collated(family, rows)
    got, logs = gradients(family, batch, 2, STILL)
    family.zero_grad()
    parts = []
    for i in range(2):
        torch.manual_seed(i)
        half = {name: value[4 * i : 4 * i + 4] for name, value in batch.items()}
        parts.append(family.embed(family.augment(half, STILL)))
    loss, _ = family.compare(tuple(torch.cat(each) for each in zip(*parts, strict=True)), batch)
    loss.backward()
    assert logs["loss"] == pytest.approx(loss.item(), rel=1e-6)
    for name, parameter in family.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(got[name], parameter.grad, atol=1e-6, rtol=1e-4)
