"""The SAM family against segment-anything on the same weights, and its training."""

from __future__ import annotations

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.mask import encode
from safetensors.torch import load_file
from segment_anything import SamPredictor
from torchvision.ops import masks_to_boxes
from transformers import Sam2Config, Sam2VideoConfig, SamConfig, SamHQConfig, SamImageProcessor, SamModel

from adapt.contracts import Augment
from adapt.methods import adapter, decoder, full, lora
from adapt.models.sam import Config, load
from adapt.models.sam.checkpoints import family as around
from adapt.models.sam.checkpoints import fresh
from adapt.models.sam.prompts import click, first, noisy, on_grid, pick, pixels
from adapt.models.sam.segment_anything import configuration
from adapt.plug import UserError
from adapt.vision.augment import augment_map
from adapt.vision.masks import rle, unrle

SIDE, GRID = 128, 8
PICTURES = [(97, 61), (40, 130), (128, 128)]
"""Width and height."""
POINTS = (np.array([[20.0, 13.0], [31.5, 40.0]]), np.array([1, 0]))
BOX = np.array([5.0, 7.0, 33.0, 39.5])


def picture(size: tuple[int, int], seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)


def family(**options):
    """A tiny SAM with random weights, 64 pixels, patches of 8."""
    torch.manual_seed(0)
    config = configuration(32, 2, 2, [1], window=4, patch=8, grid=8)
    for part in (config.prompt_encoder_config, config.mask_decoder_config):
        part.hidden_size = 32
    config.vision_config.output_channels, config.vision_config.num_pos_feats = 32, 16
    config.mask_decoder_config.mlp_dim = config.mask_decoder_config.iou_head_hidden_dim = 48
    return around(fresh(config), Config(name="sam", **options), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def disc(size: tuple[int, int], x: float, y: float, r: float) -> np.ndarray:
    rows, columns = np.mgrid[: size[1], : size[0]]
    return (columns - x) ** 2 + (rows - y) ** 2 < r**2


def sample(size=(64, 48), discs=((20, 20, 9), (45, 30, 12)), **changes) -> dict:
    """A row: bright discs on dark ground."""
    pixel = np.random.default_rng(0).integers(0, 60, (size[1], size[0], 3), np.uint8)
    objects = {"bbox": [], "category": [], "mask": []}
    for x, y, r in discs:
        mask = disc(size, x, y, r)
        pixel[mask] = 220
        code = encode(np.asfortranarray(mask, np.uint8))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        objects["bbox"].append([float(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)])
        objects["category"].append(0)
        objects["mask"].append({"size": list(code["size"]), "counts": code["counts"].decode()})
    return {"id": "train/0", "image": Image.fromarray(pixel), "objects": objects} | changes


def batch(sam, samples) -> dict:
    rows = [sam.preprocess(row, True) | {"seed": 1000 + i} for i, row in enumerate(samples)]
    return sam.collate(rows)


# ------------------------------------------------------------------------------------------------- against the original


@pytest.mark.parametrize("size", PICTURES, ids=str)
@pytest.mark.parametrize("given", ["points", "one point", "box", "points and box"])
@pytest.mark.parametrize("multimask", [True, False])
def test_masks_scores_and_logits_equal_segment_anything(both_sams, size, given, multimask):
    from adapt.prompting.prompted import prompt, unpad

    theirs, ours = both_sams
    row = {"image": picture(size)}
    coordinates, labels = (part[:1] if given == "one point" else part for part in POINTS)
    predictor = SamPredictor(theirs)
    predictor.set_image(np.asarray(row["image"]))
    arguments = {"point_coords": coordinates, "point_labels": labels} if "point" in given else {}
    arguments |= {"box": BOX} if "box" in given else {}
    expected, scores, low = predictor.predict(**arguments, multimask_output=multimask, return_logits=True)
    assert low.std((1, 2)).min() > 0.5, "the comparison says something"

    item = ours.preprocess(row, False)
    points = (coordinates[None], labels[None]) if "point" in given else None
    boxes = BOX[None] if "box" in given else None
    xy, kinds = prompt(row, item["size"], boxes, points)
    with torch.no_grad():
        features = ours.predictors()["image_features"](item["image"][None])
        got_low, got_scores = ours.decode(features, xy, kinds, multimask=multimask)
        got = unpad(got_low, SIDE, item["size"].tolist(), size[::-1])
    torch.testing.assert_close(features, predictor.get_image_embedding(), atol=1e-4, rtol=0)
    torch.testing.assert_close(got_low[0], torch.from_numpy(low), atol=1e-4, rtol=0)
    torch.testing.assert_close(got_scores[0], torch.from_numpy(scores), atol=1e-4, rtol=0)
    torch.testing.assert_close(got[0], torch.from_numpy(expected), atol=1e-4, rtol=0)

    points, boxes = (None if part is None else [part] for part in (points, boxes))
    answer = ours.predictors()["masks"]([row], boxes=boxes, points=points, multimask=multimask)[0]
    best = scores.argmax()
    assert answer["masks"].shape == (1, size[1], size[0])
    assert (answer["masks"][0] == (expected[best] > 0)).mean() > 0.999, "a logit within 1e-4 of zero may fall either way"
    np.testing.assert_allclose(answer["scores"], scores[best], atol=1e-4)


@pytest.mark.parametrize("wrap", [dict, lambda state: {"model": state, "epoch": 3}])
def test_an_original_file_loads(both_sams, tmp_path, monkeypatch, wrap):
    from adapt.models.sam import segment_anything

    theirs, ours = both_sams
    torch.save(wrap(theirs.state_dict()), tmp_path / "x.pth")
    monkeypatch.setitem(segment_anything.ARCHITECTURES, "vit_b", (32, 3, 2))
    loaded = load(Config(name="sam", checkpoint=f"segment_anything:vit_b/{tmp_path}/x.pth"))
    a, b = (model.predictors()["masks"]([sample()])[0] for model in (ours, loaded))
    np.testing.assert_array_equal(a["masks"], b["masks"])
    assert loaded.input["mean"] == pytest.approx([0.485, 0.456, 0.406])


def test_a_mask_as_prompt_equals_segment_anything(both_sams):
    theirs, ours = both_sams
    row, (coordinates, labels) = {"image": picture((97, 61))}, POINTS
    predictor = SamPredictor(theirs)
    predictor.set_image(np.asarray(row["image"]))
    _, _, low = predictor.predict(coordinates, labels, multimask_output=True)
    _, _, expected = predictor.predict(coordinates, labels, mask_input=low[:1], multimask_output=False)
    from adapt.prompting.prompted import prompt

    item = ours.preprocess(row, False)
    xy, kinds = prompt(row, item["size"], None, (coordinates[None], labels[None]))
    with torch.no_grad():
        features = ours.image_features(item["image"][None])
        got, _ = ours.decode(features, xy, kinds, torch.from_numpy(low[:1])[None], multimask=False)
    torch.testing.assert_close(got[0], torch.from_numpy(expected), atol=1e-4, rtol=0)


def test_masks_are_decoded_in_float32_whatever_the_autocast(both_sams):
    """Predicted IoUs choose among three masks: in bfloat16 those near 1 come in steps of 0.004."""
    _, ours = both_sams
    pixels = ours.preprocess({"image": picture(PICTURES[0])}, False)["image"][None]
    prompt = torch.tensor(POINTS[0], dtype=torch.float32)[None], torch.tensor(POINTS[1])[None]
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            features = ours.predictors()["image_features"](pixels)
            got = ours.decode(features, *prompt)
        expected = ours.decode(features, *prompt)
    assert features.dtype == torch.float32
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_padding_normalises_to_nothing(both_sams):
    _, ours = both_sams
    values = ours.normalise(ours.preprocess({"image": picture((97, 61))}, False)["image"])
    assert values[:, 80:].abs().max() < 1e-6
    assert values[:, :80].abs().max() > 1


def test_the_same_weights_as_a_transformers_folder_answer_alike(both_sams, tmp_path):
    _, ours = both_sams
    ours.net.save_pretrained(tmp_path)
    SamImageProcessor(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE}).save_pretrained(tmp_path)
    loaded = load(Config(name="sam", checkpoint=str(tmp_path)))
    row = sample()
    a, b = (model.predictors()["masks"]([row])[0] for model in (ours, loaded))
    np.testing.assert_array_equal(a["masks"], b["masks"])
    np.testing.assert_allclose(a["scores"], b["scores"], atol=1e-6)
    plain = SamModel.from_pretrained(tmp_path).eval()
    item = loaded.preprocess(row, False)
    with torch.no_grad():
        pixel_values = loaded.normalise(item["image"])[None]
        expected = plain(pixel_values, input_boxes=torch.tensor([row["objects"]["bbox"]]) * 2)
        assert item["size"].tolist() == [96, 128]
    answer = loaded.predictors()["masks"]([row], multimask=True)[0]
    np.testing.assert_allclose(answer["scores"], expected.iou_scores[0].max(-1).values, atol=1e-4)


# ------------------------------------------------------------------------------------------------------------- prompts


def test_a_point_is_drawn_uniformly_from_the_mask():
    mask = torch.from_numpy(disc((16, 12), 5, 6, 3.2))[None]
    u = torch.arange(4000) / 4000
    at = pixels(mask.expand(4000, -1, -1), u)
    counts = torch.zeros(12, 16).index_put_((at[:, 1], at[:, 0]), torch.ones(4000), accumulate=True)
    assert not counts[~mask[0]].any()
    assert counts[mask[0]].min() > 0.8 * counts.max()


def test_boxes_are_noisy_as_the_paper_says():
    torch.manual_seed(0)
    boxes = torch.tensor([[100.0, 200, 150, 500]]).expand(20000, 4)
    moved = noisy(boxes, torch.rand(20000, 8), 0.1, 20, torch.tensor([[1000, 1000]]))
    error = moved - boxes
    assert error[:, 0].std() == pytest.approx(5, rel=0.05), "a tenth of the width"
    assert error[:, 1].abs().max() == pytest.approx(20), "but no more than 20 pixels"
    assert (moved[:, :2] < moved[:, 2:]).all()
    assert noisy(boxes, torch.rand(20000, 8), 0.5, 99, torch.tensor([[400, 120]]))[:, 2:].amax(0).tolist() == [120, 400]


def test_corrective_clicks_fall_into_the_error():
    truth = torch.from_numpy(np.stack([disc((32, 32), 10, 10, 6)] * 3))
    found = torch.from_numpy(np.stack([disc((32, 32), 10, 10, 3), disc((32, 32), 10, 10, 9), disc((32, 32), 10, 10, 6)]))
    for u in (0.0, 0.3, 0.999):
        points, labels = click(truth, found, torch.full((3,), u), scale=4)
        x, y = ((points[:, 0] + 0.5) / 4 - 0.5).unbind(1)
        assert labels[:, 0].tolist() == [1, 0, 1], "inside where it misses, outside where it spills, inside when all is right"
        assert [bool((truth ^ found)[i, int(y[i]), int(x[i])]) for i in range(3)] == [True, True, False]
        assert truth[2, int(y[2]), int(x[2])]


def test_the_first_prompt_is_a_point_or_a_box_and_a_function_of_the_seed():
    masks = torch.from_numpy(np.stack([disc((32, 32), 10, 10, 6)] * 200))
    boxes = torch.tensor([[4.0, 4, 17, 17]]).expand(200, 4) * 2
    u, size = torch.rand(200, 10), torch.tensor([[64, 64]]).expand(200, 2)
    coordinates, labels = first(masks, boxes, size, u, 2, 0.1, 20)
    again, _ = first(masks, boxes, size, u, 2, 0.1, 20)
    assert torch.equal(coordinates, again)
    boxed = labels[:, 0] == 2
    assert 70 < boxed.sum() < 130
    assert labels[boxed].unique(dim=0).tolist() == [[2, 3]]
    assert labels[~boxed].unique(dim=0).tolist() == [[1, -1]]
    seeds = torch.tensor([5, 6, 5])
    chosen = pick(seeds, [9, 9, 9], 3)
    assert chosen[0] == chosen[2] != chosen[1]
    assert len(set(chosen[0])) == 3
    assert pick(seeds, [2, 0, 1], 3) == [[0, 1], [], [0]]


def test_no_object_vanishes_on_the_grid():
    mask = torch.zeros(500, 300, dtype=torch.bool)
    mask[77, 201] = True
    assert on_grid(mask, (64, 38), 64, 16).sum() >= 1
    whole = on_grid(torch.ones(500, 300, dtype=torch.bool), (64, 32), 64, 16)
    assert whole.sum() == 16 * 8, "and the padding stays empty"
    assert whole[:, :8].all()


# ------------------------------------------------------------------------------------------------------------- training


def test_the_loss_is_20_focal_1_dice_1_iou_of_the_best_answer():
    from torchvision.ops import sigmoid_focal_loss

    from adapt.models.sam.loss import mask_loss

    torch.manual_seed(0)
    logits, scores, truth = torch.randn(4, 3, 8, 8), torch.rand(4, 3), torch.rand(4, 1, 8, 8) > 0.5
    loss, _, best = mask_loss(logits, scores, truth, torch.ones_like(truth))
    for i in range(4):
        t, answers, squared = truth[i, 0].float(), [], []
        for m in range(3):
            p, hard = logits[i, m].sigmoid(), logits[i, m] > 0
            focal = sigmoid_focal_loss(logits[i, m], t, alpha=0.25, gamma=2, reduction="mean")
            answers.append(20 * focal + 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
            squared.append((scores[i, m] - (hard & truth[i, 0]).sum() / (hard | truth[i, 0]).sum()) ** 2)
        assert best[i] == int(torch.stack(answers).argmin())
        torch.testing.assert_close(loss[i], torch.stack(answers).min() + torch.stack(squared).mean())
    inside = torch.ones_like(truth)
    inside[..., 4:] = False
    changed = logits.clone()
    changed[..., 4:] = 9
    torch.testing.assert_close(*(mask_loss(x, scores, truth & inside, inside)[0] for x in (logits, changed)))


def steps(sam, samples, count: int, lr: float = 2e-3) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in sam.parameters() if p.requires_grad], lr=lr)
    losses = []
    sam.train()
    for _ in range(count):
        loss, logs = sam(batch(sam, samples))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        assert set(logs) == {"iou", "iou_clicked"}
    return losses


@pytest.mark.parametrize("method", ["full", "lora", "decoder"])
def test_every_method_lowers_the_loss_and_comes_back_from_disk(method, tmp_path):
    samples = [sample(), sample((48, 64), ((20, 40, 11),))]

    def applied():
        sam = family(clicks=1)
        if method == "lora":
            lora.apply(sam, lora.Config(name="lora", rank=8, alpha=8, dropout=0, targets=["q", "k", "v", "o", "mlp"]))
        else:
            module = {"full": full, "decoder": decoder}[method]
            module.apply(sam, module.Config(name=method))
        return sam

    sam = applied()
    losses = steps(sam, samples, 12, 1e-2 if method == "lora" else 2e-3)
    assert losses[-1] < (0.9 if method == "lora" else 0.8) * losses[0]
    names = {name for name, p in sam.named_parameters() if p.requires_grad}
    assert not any("positional_embedding" in name for name in names), "random frequencies stay as they are"
    if method == "decoder":
        assert all("mask_decoder" in name for name in names)
    adapter.save(sam, tmp_path / "adapter")
    other = applied()
    adapter.load(other, tmp_path / "adapter")
    a, b = (model.predictors()["masks"](samples) for model in (sam, other))
    for one, two in zip(a, b, strict=True):
        np.testing.assert_allclose(one["scores"], two["scores"], atol=1e-6)


def test_what_was_trained_from_the_start_becomes_a_public_checkpoint(tmp_path):
    one, two = family(), family()
    full.apply(one, full.Config(name="full"))
    torch.nn.init.normal_(one.net.shared_image_embedding.positional_embedding)
    adapter.save(one, tmp_path)
    state = load_file(tmp_path / "weights.safetensors")
    two.to(torch.float64).to(torch.float32)  # moved: what is tied must not part
    two.backbone.load_state_dict({name.removeprefix("backbone."): value for name, value in state.items()})
    two.backbone.half().save_pretrained(tmp_path / "public")
    plain = SamModel.from_pretrained(tmp_path / "public", dtype=torch.float32)
    expected = one.net.shared_image_embedding.positional_embedding
    for module in (plain.shared_image_embedding, plain.prompt_encoder.shared_embedding):
        torch.testing.assert_close(module.positional_embedding.detach(), expected, atol=1e-3, rtol=1e-3)


def test_lora_gradients_reach_the_encoders_fused_matrix():
    sam = family(clicks=0)
    lora.apply(sam, lora.Config(name="lora", dropout=0))
    sam(batch(sam, [sample()]))[0].backward()
    learning = {name: p.grad for name, p in sam.named_parameters() if p.requires_grad}
    encoder = [grad for name, grad in learning.items() if "vision_encoder" in name and "qkv.lora_B" in name]
    assert len(encoder) == 2
    assert all(grad.abs().max() > 0 for grad in encoder)
    assert any("mask_decoder" in name for name in learning)


def test_cached_features_give_the_same_loss_and_gradients():
    sam, samples = family(), [sample(), sample((48, 64))]
    assert sam.frozen_features() is None
    decoder.apply(sam, decoder.Config(name="decoder"))
    function = sam.frozen_features()
    live = batch(sam, samples)
    cached = {name: value for name, value in live.items() if name != "image"} | {"features": function(live["image"].float())}
    losses, grads = [], []
    for given in (live, cached):
        sam.zero_grad()
        loss, _ = sam(given)
        loss.backward()
        losses.append(loss.detach())
        grads.append(sam.net.mask_decoder.mask_tokens.weight.grad.clone())
    torch.testing.assert_close(losses[0], losses[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(grads[0], grads[1], atol=1e-5, rtol=1e-4)


def test_evals_encode_each_picture_once_for_all_its_prompts(monkeypatch):
    sam, rows = family(), [sample(), sample((48, 64))]
    masks, encoded = sam.predictors()["masks"], []
    real = sam.image_features
    monkeypatch.setattr(sam, "image_features", lambda images: encoded.append(len(images)) or real(images))
    boxes, points = [row["objects"]["bbox"] for row in rows], [([[[9.0, 7.0]]], [[1]]), ([[[30.0, 20.0]]], [[1]])]
    first = masks(rows, boxes=boxes, features=[None, None])
    second = masks(rows, points=points, features=[answer["features"] for answer in first])
    assert encoded == [2]
    for got, expected in zip(first + second, masks(rows, boxes=boxes) + masks(rows, points=points), strict=True):
        np.testing.assert_array_equal(got["masks"], expected["masks"])
        np.testing.assert_array_equal(got["scores"], expected["scores"])


def test_the_loss_is_a_function_of_the_seeds_and_each_image_of_its_own():
    sam, samples = family().eval(), [sample(), sample((48, 64))]
    given = batch(sam, samples)
    with torch.no_grad():
        one, two = sam(given)[0], sam(given)[0]
        other = sam(given | {"seed": given["seed"] + 1})[0]
        swapped = sam({name: value.flip(0) if torch.is_tensor(value) else value[::-1] for name, value in given.items()})[0]
    assert one == two
    assert one != other
    torch.testing.assert_close(one, swapped)


def test_views_of_colour_move_nothing_and_leave_the_padding():
    sam = family()
    given = batch(sam, [sample(), sample((48, 64))])
    seen = sam.augment(given, Augment(crop=1, flip=0, colour=0.5, drawing={"invert": 1}))
    assert seen["objects"] is given["objects"]
    expected = 255 - given["image"][0, :, :48]
    assert (seen["image"][0, :, :48].mean() - expected.mean()).abs() < 80
    assert sam.normalise(seen["image"])[0, :, 48:].abs().max() < 1e-6
    assert sam.normalise(seen["image"])[1, :, :, 48:].abs().max() < 1e-6


@pytest.mark.parametrize("shape", [(64, 64), (64, 48), (60, 96)])
def test_masks_and_boxes_move_with_their_pictures(shape):
    sam, code = family(), sample(shape)["objects"]["mask"][0]
    mask = unrle(code)
    picture = Image.fromarray(np.where(mask[..., None], np.uint8([255, 255, 255]), np.uint8([0, 0, 0])))
    rows = batch(sam, [sample(shape) | {"image": picture}] * 8)
    rows["seed"] = torch.arange(8)
    rows["image"] = torch.where(rows["image"] > 127, 255.0, 0.0)  # black padding too
    seen = sam.augment(rows, Augment(crop=0.5, rotate=20, flip=0.5, colour=0))
    assert seen["size"].tolist() == [[sam.side, sam.side]] * 8
    moved = 0
    for image, objects, before in zip(seen["image"], seen["objects"], rows["objects"], strict=True):
        if objects["mask"]:
            found = unrle(objects["mask"][0])
            white = image[0].numpy() > 127
            assert (found & white).sum() / (found | white).sum() > 0.9
            y, x = np.nonzero(found)
            assert objects["bbox"][0] == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            moved += objects["bbox"][0] != before["bbox"][0]
    assert moved >= 4
    loss, _ = sam(seen)
    assert loss.isfinite()


def test_an_object_that_a_view_cuts_away_is_none():
    sam = family()
    rows = batch(sam, [sample()] * 32)
    rows["seed"] = torch.arange(32)
    seen = sam.augment(rows, Augment(crop=0.05, rotate=0, flip=0, colour=0))
    counts = {len(row["mask"]) for row in seen["objects"]}
    assert min(counts) < len(sample()["objects"]["mask"])
    assert all(unrle(code).sum() >= 16 for row in seen["objects"] for code in row["mask"])
    assert sam(seen)[0].isfinite()


def every_object_moved(sam, rows: dict, config: Augment) -> dict:
    """The views with all objects drawn and warped in whole, as they were once."""
    moved = []
    for row, size, seed in zip(rows["objects"], rows["size"].tolist(), rows["seed"], strict=True):
        whole = [on_grid(torch.from_numpy(unrle(code)), size, sam.side, sam.side) for code in row["mask"]]
        seen = augment_map(torch.stack(whole).long(), seed.expand(len(whole)), config).bool()
        seen = seen[seen.flatten(1).sum(1) >= 16]
        boxes = masks_to_boxes(seen) + torch.tensor([0, 0, 1, 1])
        moved.append({"bbox": boxes.tolist(), "mask": [rle(mask.numpy()) for mask in seen]})
    return sam.augment(rows, config) | {"objects": moved}


@pytest.mark.parametrize("size", [(64, 64), (64, 48), (50, 130)], ids=str)
@pytest.mark.parametrize("config", [Augment(crop=0.3), Augment(crop=0.6, rotate=90, flip=0)], ids=["crop", "turn"])
def test_warping_only_what_is_prompted_changes_no_bit_of_the_loss(size, config):
    sam, random = family(objects=3, clicks=1).eval(), np.random.default_rng(0)
    discs = [(*(random.uniform(0, 1, 2) * size), r) for r in (3, 3, 4, 5, 6, 8, 10, 14)]
    rows = batch(sam, [sample(size, discs), sample(size, discs[:2]), sample(size, discs[3:])])
    for start in range(5):
        rows["seed"] = torch.arange(3) + 7 * start
        seen, old = sam.augment(rows, config), every_object_moved(sam, rows, config)
        picked = pick(rows["seed"], [len(row["mask"]) for row in old["objects"]], 3)
        for have, all_of_them, numbers in zip(seen["objects"], old["objects"], picked, strict=True):
            assert have == {name: [values[n] for n in numbers] for name, values in all_of_them.items()}
        with torch.no_grad():
            assert sam(seen)[0] == sam(old)[0] and sam.weight(seen) == sam.weight(old)


def test_no_crowd_is_learnt():
    row, alone = sample(), sample(discs=((20, 20, 9),))
    row["objects"]["iscrowd"] = [0, 1]
    assert family().preprocess(row, True)["objects"] == family().preprocess(alone, True)["objects"]


def test_images_without_objects_count_for_nothing():
    sam = family()
    full.apply(sam, full.Config(name="full"))
    empty = sample(objects={"bbox": [], "category": [], "mask": []})
    with torch.no_grad():
        torch.testing.assert_close(sam(batch(sam, [sample()]))[0], sam(batch(sam, [sample(), empty]))[0])
    loss, _ = sam(batch(sam, [empty]))
    loss.backward()
    assert loss == 0
    assert sam.predictors()["masks"]([empty])[0]["masks"].shape == (0, 48, 64)


def test_the_road_from_scenes_to_a_merged_checkpoint(tmp_path, monkeypatch):
    from adapt.pipeline import finetune
    from adapt.recipe import validate
    from adapt.verbs.merge import joined
    from adapt.verbs.session import Session

    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    family().net.save_pretrained(tmp_path / "base")
    SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}).save_pretrained(tmp_path / "base")
    recipe = validate(
        {
            "name": "road",
            "model": {"name": "sam", "checkpoint": str(tmp_path / "base"), "clicks": 1},
            "data": {"source": "emoji_scenes", "size": 64, "train": 4, "validation": 2, "test": 2},
            "method": {"name": "qlora"},
            "train": {"epochs": 1, "batch": 2},
            "evals": [{"name": "segmentation", "clicks": [1]}],
            "tracker": "none",
        }
    )
    outcome = finetune(recipe)
    assert [entry["name"] for entry in outcome.entries] == ["zero-shot", "adapted"]
    assert {"miou", "iou_1", "mask_ap"} <= set(outcome.entries[0]["metrics"])
    merged = load(Config(name="sam", checkpoint=str(joined(Session(recipe))[0])))
    assert merged.predictors()["masks"]([sample()])[0]["masks"].shape == (2, 48, 64)


# ------------------------------------------------------------------------------------------------------------ bad input


NONE = {"size": [48, 64], "counts": encode(np.zeros((48, 64), np.uint8, order="F"))["counts"].decode()}


def broken(**changes) -> dict:
    row = sample()
    return row | {"objects": row["objects"] | changes}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (broken(mask=[NONE] * 2), ["mask 0", "empty", "train/0"]),
        (broken(mask=sample((48, 64))["objects"]["mask"]), ["mask 0", "48 × 64", "64 × 48"]),
        (broken(mask=sample()["objects"]["mask"][:1]), ["2 boxes", "1 masks"]),
        (broken(bbox=[[10, 10, 30, 30], [30, 10, 10, 30]]), ["box 1", "reversed"]),
        (broken(bbox=[[10, 10, 30, 30], [30, 10, 90, 30]]), ["box 1", "leaves", "64 × 48"]),
        (broken(bbox=[[float("nan"), 10, 30, 30], [30, 10, 50, 30]]), ["box 0", "reversed"]),
        (sample(image=Image.new("RGB", (5000, 1))), ["5000 × 1", "too thin"]),
    ],
)
def test_a_bad_sample_is_one_clear_line(row, words):
    with pytest.raises(UserError) as error:
        family().preprocess(row, True)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"boxes": [[[30, 10, 10, 30]]]}, ["box 0", "reversed"]),
        ({"boxes": [[[-5, 10, 10, 30]]]}, ["box 0", "leaves"]),
        ({"boxes": [[[1, 2, 3]]]}, ["four numbers"]),
        ({"points": [([[[99, 1]]], [[1]])]}, ["leaves", "64 × 48"]),
        ({"points": [([[[9, 1]]], [[2]])]}, ["1 (inside) or 0 (outside)", "2"]),
        ({"points": [[[9, 1]]]}, ["float[N, K, 2]"]),
        ({"points": [([[[9, 1]]], [[1]])], "boxes": [[[1, 2, 3, 4]] * 2]}, ["1 groups of points and 2 boxes"]),
    ],
)
def test_a_bad_prompt_is_one_clear_line(options, words):
    with pytest.raises(UserError) as error:
        family().predictors()["masks"]([sample()], **options)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_data_without_objects_are_refused():
    with pytest.raises(UserError, match="no column objects"):
        family().bind(["image", "label"])
    row = sample()
    del row["objects"]
    with pytest.raises(UserError, match="no prompt"):
        family().predictors()["masks"]([row])


def test_a_file_of_another_architecture_is_one_clear_line(both_sams, tmp_path):
    file = tmp_path / "x.pth"

    def problem(checkpoint: str) -> str:
        with pytest.raises(UserError) as error:
            load(Config(name="sam", checkpoint=checkpoint))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "Did you mean 'vit_b'" in problem(f"segment_anything:vit_bb/{file}")
    assert "no file" in problem(f"segment_anything:vit_b/{file}")
    torch.save(both_sams[0].state_dict(), file)
    assert "3 layers of width 32" in problem(f"segment_anything:vit_b/{file}")
    torch.save({"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(3)}, file)
    assert "of another architecture" in problem(f"segment_anything:vit_t/{file}".replace("vit_t", "vit_h"))
    torch.save([1, 2], file)
    assert "of another architecture" in problem(f"segment_anything:vit_b/{file}")
    for content in (b"<html>not found</html>", b"e" * 999, b"", pickle.dumps(partial(print, "evil"))):
        file.write_bytes(content)
        assert "holds more than tensors, or is no torch file" in problem(f"segment_anything:vit_b/{file}")
    torch.save({"x": partial(print, "evil")}, file)
    assert "holds more than tensors" in problem(f"segment_anything:vit_b/{file}")
    file.write_bytes(file.read_bytes()[:-100])
    assert "cut short or damaged. Download it again" in problem(f"segment_anything:vit_b/{file}")
    assert problem("clip-tiny").endswith("this family takes sam.")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Sam2Config, "two finer scales"),
        (Sam2VideoConfig, "two finer scales"),
        (SamHQConfig, "before its decoder's transformer"),
        (SamConfig, "cannot be loaded"),
    ],
)
def test_relatives_and_empty_folders_are_one_clear_line(config, words, tmp_path):
    config().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=words) as error:
        load(Config(name="sam", checkpoint=str(tmp_path)))
    assert "\n" not in str(error.value)


def test_original_files_of_each_architecture_fit():
    from segment_anything import build_sam_vit_b

    with torch.device("meta"):
        theirs = build_sam_vit_b().state_dict()
        ours = SamModel(configuration(768, 12, 12, [2, 5, 8, 11]))
    from adapt.models.sam.segment_anything import renamed

    names = {name: value.shape for name, value in ours.state_dict().items() if "prompt_encoder.shared" not in name}
    assert {name: value.shape for name, value in renamed(theirs).items()} == names


def test_the_embedded_layout_is_what_its_script_writes():
    from adapt.assets.build_sam_tiny import configuration as tiny
    from adapt.models.checkpoint import EMBEDDED

    stored = SamConfig.from_pretrained(EMBEDDED / "sam-tiny")
    for part in ("vision_config", "prompt_encoder_config", "mask_decoder_config"):
        assert getattr(stored, part).to_diff_dict() == getattr(tiny(), part).to_diff_dict()
    sam = load(Config(name="sam", weights="random"))
    assert sum(parameter.numel() for parameter in sam.parameters()) < 4e6
    assert sam.input["size"] == (128, 128)
    assert 0.5 < sam.net.shared_image_embedding.positional_embedding.std() < 2, "not hidden_size / 2, as transformers draws"
    assert sam.net.vision_encoder.layers[0].attn.qkv.weight.std() > 0.01, "not 1e-10"
