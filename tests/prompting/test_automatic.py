"""Automatic masks against segment-anything's generator, on the same random weights."""

from __future__ import annotations

import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.utils import amg

from adapt.prompting import automatic, candidates, portions
from adapt.prompting.automatic import Automatic, generate
from adapt.vision.masks import rle, unrle_many


class Drawn(Sam):
    """Random weights see noise everywhere: a hill under each point makes masks of several sizes of it."""

    hills = 12

    def postprocess_masks(self, masks, input_size, original_size):
        y, x = torch.meshgrid(*[torch.arange(32) * 4 + 2.0] * 2, indexing="ij")
        far = (torch.stack([x, y]) - self.points[:, 0, :, None, None].float()).norm(dim=1)
        hills = self.hills * (1 - far[:, None] / torch.tensor([10.0, 16.0, 26.0])[:, None, None])
        return super().postprocess_masks(masks + hills, input_size, original_size)


@pytest.fixture(scope="module")
def sam():
    """A SAM of two blocks."""
    torch.manual_seed(0)
    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    vision = ImageEncoderViT(
        img_size=128, patch_size=16, embed_dim=32, depth=2, num_heads=2, out_chans=32, norm_layer=norm,
        use_rel_pos=True, window_size=4, global_attn_indexes=(1,),
    )  # fmt: skip
    prompts = PromptEncoder(embed_dim=32, image_embedding_size=(8, 8), input_image_size=(128, 128), mask_in_chans=16)
    transformer = TwoWayTransformer(depth=2, embedding_dim=32, num_heads=8, mlp_dim=64)
    decoder = MaskDecoder(transformer_dim=32, transformer=transformer, iou_head_hidden_dim=32)
    model = Drawn(vision, prompts, decoder).eval()
    prompts.register_forward_pre_hook(lambda _, args, values: setattr(model, "points", values["points"][0]), with_kwargs=True)
    with torch.no_grad():
        for head in decoder.output_hypernetworks_mlps:
            head.layers[-1].weight *= 100
        decoder.iou_prediction_head.layers[-1].weight *= 5
        decoder.iou_prediction_head.layers[-1].bias += 1
    return model


def functions(sam):
    """The two functions, by the original's predictor."""
    predictor = SamPredictor(sam)

    def embed(image):
        predictor.set_image(image)
        return predictor.features, predictor.input_size, predictor.original_size

    def decode(embedding, points):
        predictor.features, predictor.input_size, predictor.original_size = embedding
        placed = torch.as_tensor(predictor.transform.apply_coords(points, predictor.original_size))
        ones = torch.ones(len(placed), 1, dtype=torch.int)
        return predictor.predict_torch(placed[:, None], ones, multimask_output=True, return_logits=True)[:2]

    return embed, decode


def picture(size=(96, 128)) -> np.ndarray:
    """Discs of several sizes on noise."""
    random = np.random.default_rng(0)
    image = random.integers(0, 60, (*size, 3)).astype(np.uint8)
    y, x = np.mgrid[: size[0], : size[1]]
    for _ in range(8):
        centre, radius = random.uniform(0, 1, 2) * size, random.uniform(6, 20)
        image[np.hypot(y - centre[0], x - centre[1]) < radius] = random.integers(0, 256, 3)
    return image


def compare(sam, image, options) -> int:
    """Ours and theirs are the same masks, in the same order; how many there are."""
    theirs = SamAutomaticMaskGenerator(sam, **options).generate(image)
    ours = generate(Automatic(**options), image, *functions(sam))
    assert len(ours["mask"]) == len(theirs) == len(ours["score"])
    masks = unrle_many(ours["mask"])
    for i, record in enumerate(theirs):
        assert (masks[i] == record["segmentation"]).all()
        left, top, wide, high = record["bbox"]  # with inclusive edges
        assert ours["bbox"][i].tolist() == [left, top, left + wide + 1, top + high + 1]
        assert ours["score"][i] == pytest.approx(record["predicted_iou"])
        assert ours["stability"][i] == pytest.approx(record["stability_score"])
        assert ours["point"][i].tolist() == record["point_coords"][0]
        x, y, wide, high = record["crop_box"]
        assert ours["crop"][i].tolist() == [x, y, x + wide, y + high]
    return len(theirs)


def setting(sam, image) -> dict:
    """Options of which each drops a part of the masks."""
    embed, decode = functions(sam)
    logits, scores = (part.flatten(0, 1) for part in decode(embed(image), candidates.grid(6) * image.shape[1::-1]))
    return {
        "points_per_side": 6,
        "points_per_batch": 20,
        "pred_iou_thresh": scores.quantile(0.2).clamp(0.01, 1).item(),
        "stability_score_thresh": candidates.stability(logits, 0, 1).nanquantile(0.2).item(),
    }


@pytest.mark.parametrize(("size", "layers"), [((96, 128), 1), ((130, 75), 0)])
def test_masks_boxes_scores_and_order_are_segment_anythings(sam, size, layers):
    image = picture(size)
    options = setting(sam, image) | {"crop_n_layers": layers, "crop_n_points_downscale_factor": 1 + layers}
    assert compare(sam, image, options) > 20


def test_small_regions_are_removed_as_segment_anything_does(sam, monkeypatch):
    """Their OpenCV, which is not installed, is replaced by the one function of it that they call."""

    def components(mask, connectivity):
        regions, count = label(mask, np.ones((3, 3)))
        sizes = np.bincount(regions.ravel(), minlength=count + 1)
        return count + 1, regions, np.stack([sizes] * 5, 1), None

    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(connectedComponentsWithStats=components))
    image = picture()
    options = setting(sam, image) | {"points_per_side": 4, "box_nms_thresh": 0.9}
    plain = generate(Automatic(**options), image, *functions(sam))["mask"]
    assert compare(sam, image, options | {"min_mask_region_area": 60}) > 5
    tidied = generate(Automatic(**options, min_mask_region_area=60), image, *functions(sam))["mask"]
    assert {code["counts"] for code in plain} - {code["counts"] for code in tidied}, "something was removed"


def test_holes_are_filled_and_islands_dropped():
    mask = np.zeros((20, 20), bool)
    mask[2:14, 2:14] = True
    mask[5:7, 5:7] = False  # 4 pixels
    mask[9:12, 9:12] = False  # 9
    mask[17:19, 17:19] = True
    filled = candidates.without_holes(mask, 5)
    assert filled[5, 5] and not filled[10, 10]
    assert not candidates.without_islands(mask, 5)[17:].any()
    assert candidates.without_islands(mask, 1000).sum() == 12 * 12 - 13, "the largest part stays"
    assert not candidates.without_islands(np.zeros((4, 4), bool), 3).any()


@pytest.mark.parametrize("size", [(128, 128), (97, 211), (480, 333)])
def test_crops_and_grids_are_segment_anythings(size):
    boxes, layers = amg.generate_crop_boxes(size, 2, 512 / 1500)
    assert candidates.crops(size, 2, 512 / 1500) == list(zip(boxes, layers, strict=True))
    assert np.array_equal(candidates.grid(5), amg.build_point_grid(5))


def test_boxes_enclose_their_masks():
    masks = torch.zeros(3, 9, 7, dtype=torch.bool)
    masks[0, 2:5, 1:7] = True
    masks[1, 8, 0] = True
    assert torch.equal(candidates.boxes(masks), amg.batched_mask_to_box(masks))


def test_two_functions_of_any_model_are_enough():
    """A model without a network: the region of the point's own colour."""
    image = np.zeros((32, 32, 3), np.uint8)
    image[4:12, 6:20], image[20:30, 3:9] = (200, 0, 0), (0, 200, 0)

    def decode(pixels, points):
        x, y = points.astype(int).T
        same = (pixels == pixels[y, x][:, None, None]).all(-1)
        return torch.from_numpy(np.where(same, 9.0, -9.0))[:, None], torch.full((len(points), 1), 0.99)

    found = generate(Automatic(points_per_side=8), image, lambda pixels: pixels, decode)
    assert sorted(found["bbox"].tolist()) == [[0, 0, 32, 32], [3, 20, 9, 30], [6, 4, 20, 12]]
    nothing = generate(Automatic(points_per_side=2, pred_iou_thresh=1), image, lambda pixels: pixels, decode)
    assert nothing["mask"] == [] and nothing["bbox"].shape == (0, 4)


def ours(sam):
    """Our family with the original's weights."""
    from adapt.models.sam import Config
    from adapt.models.sam.checkpoints import family
    from adapt.models.sam.segment_anything import MEAN, STD, convert

    return family(convert(sam.state_dict(), "x"), Config(name="sam"), [v / 255 for v in MEAN], [v / 255 for v in STD])


@pytest.mark.parametrize("short", [False, True], ids=["enough memory", "little memory"])
@pytest.mark.parametrize("layers", [0, 1])
def test_batches_find_what_single_points_find(sam, layers, short, monkeypatch):
    embed, decode, grow = automatic.functions(ours(sam))
    image, grown = picture(), []
    with torch.no_grad():
        _, scores = decode(embed(image), candidates.grid(6) * image.shape[1::-1])
    options = {
        "points_per_side": 6,
        "pred_iou_thresh": scores.median().item(),
        "stability_score_thresh": 0,
        "crop_n_layers": layers,
        "box_nms_thresh": 1,  # the noise that random weights see fills the picture
        "crop_nms_thresh": 1,
    }
    single = generate(Automatic(**options, points_per_batch=1), image, embed, decode, grow)

    def asked(embedding, points):
        if short and len(points) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(embedding, points)

    def counted(embedding, logits):
        grown.append(len(logits))
        return grow(embedding, logits)

    if short:
        monkeypatch.setattr(portions, "CPU", 5 * automatic.BYTES * 128 * 128)
    found = generate(Automatic(**options), image, embed, asked, counted)
    assert found["mask"] == single["mask"] and len(found["mask"]) > 5
    for name in ("bbox", "point", "crop"):
        assert (found[name] == single[name]).all()
    np.testing.assert_allclose(found["score"], single["score"], atol=1e-5)
    assert layers or sum(grown) == (scores > options["pred_iou_thresh"]).sum(), "what the score drops is not grown"
    assert max(grown) <= 5 if short else len(grown) == len(candidates.crops(image.shape[:2], layers, 0))


def test_changes_down_the_columns_are_run_lengths():
    random = np.random.default_rng(0)
    for shares in [(0, 1, 0.5), (0.02, 0.98, 0.5)]:
        masks = np.stack([random.random((13, 9)) < share for share in shares])
        for crop in ([0, 0, 9, 13], [4, 2, 13, 15], [0, 5, 9, 18]):
            whole = np.zeros((3, 18, 17), bool)
            whole[:, crop[1] : crop[3], crop[0] : crop[2]] = masks
            found = candidates.runs(torch.from_numpy(masks), crop, (18, 17))
            assert candidates.written(found, (18, 17)) == [rle(mask) for mask in whole]
        assert candidates.written(candidates.runs(torch.from_numpy(masks), [0, 0, 9, 13], (13, 9)), (13, 9)) == list(
            map(rle, masks)
        )
    assert candidates.written(candidates.runs(torch.zeros(0, 4, 4, dtype=torch.bool), [0, 0, 4, 4], (4, 4)), (4, 4)) == []


@pytest.mark.parametrize("size", [(96, 128), (130, 75)])
def test_the_functions_of_our_family_answer_as_the_original(sam, size):
    image, points = picture(size), candidates.grid(3) * size[::-1]
    embed, decode, grow = automatic.functions(ours(sam))
    with torch.no_grad():
        seen = embed(image)
        logits, scores = decode(seen, points)
        logits = torch.stack([grow(seen, three) for three in logits])
        their_embed, their_decode = functions(sam)
        embedding = their_embed(image)
        sam.hills = 0
        expected, expected_scores = their_decode(embedding, points)
        sam.hills = 12
    assert expected.std() > 1
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(scores, expected_scores, atol=1e-4, rtol=0)
