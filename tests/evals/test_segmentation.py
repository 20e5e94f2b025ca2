"""Masks against the formulas written out, and against pycocotools."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Picture
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.ndimage import distance_transform_edt

from adapt.evals import mask_metrics, segmentation
from adapt.evals.bootstrap import interval, mean
from adapt.plug import UserError
from adapt.vision import draw
from adapt.vision.masks import box, rle, unrle, unrle_many
from adapt.vision.pictures import BOXES, MASKS

SIZE = (40, 48)


def disc(x: float, y: float, radius: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    down, along = np.mgrid[: size[0], : size[1]]
    return (along - x) ** 2 + (down - y) ** 2 <= radius**2


def scenes(n: int = 20) -> Dataset:
    """One to three discs of two classes on each of n images; the last has none."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(n):
        masks = [disc(*random.uniform(8, 32, 2), random.uniform(3, 9)) for _ in range(0 if i == n - 1 else 1 + i % 3)]
        objects = {
            "bbox": [box(mask) for mask in masks],
            "category": [k % 2 for k in range(len(masks))],
            "mask": [rle(mask) for mask in masks],
        }
        rows.append({"id": str(i), "image": Picture.new("RGB", SIZE[::-1], "white"), "objects": objects})
    objects = {"bbox": BOXES, "category": List(ClassLabel(names=["sun", "moon"])), "mask": MASKS}
    return Dataset.from_list(rows, Features(id=Value("string"), image=Image(), objects=objects))


def truths(rows: Dataset) -> list[np.ndarray]:
    return [unrle_many(row["mask"]) if row["mask"] else np.zeros((0, *SIZE), bool) for row in rows["objects"]]


def of_boxes(rows, name, boxes=None, points=None, features=None):
    """Fills the box; on points, gives discs of five pixels around the first click, and wants the features of its first answers."""
    assert features == ([None] * len(rows) if points is None else rows["id"][:])
    answers = []
    for i in range(len(rows)):
        masks = []
        for k in range(len(boxes[i] if boxes is not None else points[i][0])):
            if boxes is not None:
                left, top, right, bottom = boxes[i][k].astype(int)
                masks.append(np.zeros(SIZE, bool))
                masks[-1][top:bottom, left:right] = True
            else:
                masks.append(disc(*points[i][0][k, 0], 5))
        answers.append({"masks": np.array(masks), "scores": np.linspace(0.9, 0.5, len(masks)), "features": rows["id"][i]})
    return answers


def test_iou_is_intersection_over_union():
    a, b = np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4), bool)
    a[0, :2], b[0, 1:3] = True, True  # 8 and 8 pixels, 4 shared
    assert mask_metrics.iou(a, b).tolist() == [4 / 12, 1.0]


def test_iou_is_pycocotools():
    masks = np.array([disc(15, 15, 9), disc(20, 18, 8), disc(30, 30, 4)])
    ours = [[mask_metrics.iou(a, b) for b in masks] for a in masks]
    codes = mask_metrics.encode(masks)
    assert np.allclose(ours, run_lengths.iou(codes, codes, [0] * 3))
    assert (unrle_many([rle(mask) for mask in masks]) == masks).all()


def davis_f(truth, mask, bound):
    """The measure's definition, pixel by pixel (the boundary map of `seg2bmap`, the disc of `skimage.morphology.disk`)."""

    def edge(seg):
        out = np.zeros_like(seg)
        height, width = seg.shape
        for y in range(height):
            for x in range(width):
                right, down = min(x + 1, width - 1), min(y + 1, height - 1)
                out[y, x] = len({bool(seg[y, x]), bool(seg[y, right]), bool(seg[down, x]), bool(seg[down, right])}) > 1
        return list(zip(*np.nonzero(out), strict=True))

    def share(these, those):
        return np.mean([any((a - c) ** 2 + (b - d) ** 2 <= bound**2 for c, d in those) for a, b in these])

    precision, recall = share(edge(mask), edge(truth)), share(edge(truth), edge(mask))
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize("tolerance", [0.008, 0.03])
def test_boundary_f_is_davis_definition(tolerance):
    truth, mask = disc(20, 20, 12), disc(22, 20, 11)
    bound = np.ceil(tolerance * np.hypot(*SIZE))
    assert mask_metrics.boundary_f(truth, mask, tolerance) == pytest.approx(davis_f(truth, mask, bound))
    assert mask_metrics.boundary_f(truth, truth) == 1
    assert mask_metrics.boundary_f(truth, np.zeros_like(truth)) == 0
    assert mask_metrics.boundary_f(np.zeros_like(truth), np.zeros_like(truth)) == 1


def test_the_first_click_is_the_centre_and_the_next_the_middle_of_the_greatest_error():
    truth = disc(20, 18, 10)
    assert mask_metrics.click(truth, np.zeros_like(truth)) == (20, 18, 1)
    wrong = truth | disc(40, 8, 4)
    assert mask_metrics.click(truth, wrong) == (40, 8, 0), "a superfluous part is clicked away"
    half = truth.copy()
    half[:, 21:] = False
    x, y, label = mask_metrics.click(truth, half)
    assert label == 1 and x > 21 and 16 <= y <= 20
    assert mask_metrics.click(truth, truth) == (20, 18, 1), "without an error, the centre again"


def test_a_click_lies_inside_an_object_that_the_image_cuts():
    truth = np.zeros(SIZE, bool)
    truth[:, :11] = True
    x, y, _ = mask_metrics.click(truth, np.zeros_like(truth))
    assert x == 5 and 5 <= y <= 34, "the image's edge bounds the object too"


def whole_click(truth, mask):
    """The click by distances over the whole picture."""
    if (truth == mask).all():
        mask = np.zeros_like(mask)
    missing, wrong = (distance_transform_edt(np.pad(part, 1))[1:-1, 1:-1] for part in (truth & ~mask, mask & ~truth))
    label = int(missing.max() >= wrong.max())
    y, x = np.unravel_index((missing if label else wrong).argmax(), truth.shape)
    return int(x), int(y), label


def whole_f(truth, mask, tolerance):
    """The boundary F by distances over the whole picture."""
    ours, theirs = mask_metrics.boundary(mask), mask_metrics.boundary(truth)
    if not ours.any() or not theirs.any():
        return float(ours.any() == theirs.any())
    reach = np.ceil(tolerance * np.hypot(*mask.shape))
    precision = (distance_transform_edt(~theirs)[ours] <= reach).mean()
    recall = (distance_transform_edt(~ours)[theirs] <= reach).mean()
    return float(2 * precision * recall / max(precision + recall, 1e-12))


def test_looking_only_where_the_masks_are_changes_no_bit():
    random = np.random.default_rng(0)
    for _ in range(300):
        size = tuple(random.integers(1, 40, 2))
        truth, mask = (disc(*random.uniform(-5, 45, 2), random.uniform(1, 12), size) for _ in range(2))
        mask = random.choice([mask, truth, truth | mask, truth & mask, mask & (random.random(size) < 0.9), ~truth])
        assert mask_metrics.click(truth, mask) == whole_click(truth, mask)
        assert mask_metrics.boundary_f(truth, mask, 0.05) == whole_f(truth, mask, 0.05)


def test_masks_of_few_pictures_are_in_memory_at_once_where_there_are_many_or_large_ones(monkeypatch):
    rows, asked = scenes(), []

    def counted(part, *given, **options):
        asked.append(sum(len(row["mask"]) for row in part["objects"]))
        return of_boxes(part, *given, **options)

    config = segmentation.Config(name="segmentation", clicks=[])
    before = segmentation.evaluate(config, counted, rows, {})
    assert asked == [sum(map(len, truths(rows)))]
    asked.clear()
    monkeypatch.setattr("adapt.evals.objects.PIXELS", 5 * SIZE[0] * SIZE[1])
    after = segmentation.evaluate(config, counted, rows, {})
    assert sum(asked) == sum(map(len, truths(rows))) and max(asked) == 5
    assert (after.metrics, after.table) == (before.metrics, before.table)
    asked.clear()
    monkeypatch.setattr("adapt.evals.objects.PIXELS", 1)
    segmentation.evaluate(config, counted, rows, {})
    assert len(asked) == len(rows) - 1, "a picture at least"


def test_the_eval_equals_its_formulas():
    rows = scenes()
    result = segmentation.evaluate(segmentation.Config(name="segmentation"), of_boxes, rows, {"data": "x"})
    truth = truths(rows)
    boxes = [np.array(row["bbox"], np.float32).reshape(-1, 4) for row in rows["objects"]]
    masks = [answer["masks"] for answer in of_boxes(rows, "masks", boxes=boxes, features=[None] * len(rows))]
    ious = [[(a & b).sum() / (a | b).sum() for a, b in zip(*pair, strict=True)] for pair in zip(truth, masks, strict=True)]
    flat = np.concatenate(ious)
    assert result.metrics["miou"] == pytest.approx(flat.mean())
    centres = [[(a & disc(*_centre(a), 5)).sum() / (a | disc(*_centre(a), 5)).sum() for a in part] for part in truth]
    for k in (1, 3, 5):  # this predictor heeds the first click alone
        assert result.metrics[f"iou_{k}"] == pytest.approx(np.concatenate(centres).mean())
    low, high = result.intervals["miou"]
    assert low < result.metrics["miou"] < high
    assert result.metrics["box_ap"] == pytest.approx(1), "the box around a filled box is the box"
    assert result.table["score"] == pytest.approx(flat.tolist()), "an object a row"
    assert result.table["id"][:4] == ["0#0", "1#0", "1#1", "2#0"] and result.table["label"][:4] == ["sun", "sun", "moon", "sun"]
    assert result.protocol["objects"] == len(flat)


def _centre(mask):
    return mask_metrics.click(mask, np.zeros_like(mask))[:2]


def test_mask_precision_is_coco_s():
    """One class, one threshold: the masks above IoU t, by their scores, as precision at 101 recalls."""
    rows = scenes(9)
    result = segmentation.evaluate(segmentation.Config(name="segmentation", clicks=[]), of_boxes, rows, {})
    truth = [part for part in truths(rows) if len(part)]
    filled = [np.array([_filled(mask) for mask in part]) for part in truth]
    table = [
        (score, k % 2, mask_metrics.iou(a, b))
        for t, f in zip(truth, filled, strict=True)
        for k, (a, b, score) in enumerate(zip(t, f, np.linspace(0.9, 0.5, len(t)), strict=True))
    ]
    aps = [_ap([row for row in table if row[1] == c], t) for c in (0, 1) for t in np.linspace(0.5, 0.95, 10)]
    assert result.metrics["mask_ap"] == pytest.approx(np.mean(aps), abs=1e-6)
    assert not [name for name in result.metrics if name.startswith("iou_")]


def _filled(mask):
    out = np.zeros_like(mask)
    left, top, right, bottom = (int(side) for side in box(mask))
    out[top:bottom, left:right] = True
    return out


def _ap(rows, threshold):
    hit = np.array([iou >= threshold - 1e-9 for _, _, iou in sorted(rows, key=lambda row: -row[0])])
    recall, precision = hit.cumsum() / len(hit), hit.cumsum() / np.arange(1, len(hit) + 1)
    return np.mean([max(precision[recall >= r - 1e-9], default=0) for r in np.linspace(0, 1, 101)])


def test_no_detection_at_all_is_no_precision():
    truth = [{"size": SIZE, "category": [0], "codes": mask_metrics.encode(disc(9, 9, 4)[None]), "boxes": [[5, 5, 14, 14]]}]
    nothing = [{"size": SIZE, "category": [], "codes": [], "boxes": [], "score": []}]
    assert mask_metrics.average_precision(truth, nothing, "segm", 1) == {"ap": 0, "ap50": 0}


def test_the_worst_objects_are_drawn_first():
    rows = scenes(6)
    result = segmentation.evaluate(segmentation.Config(name="segmentation", clicks=[], pictures=3), of_boxes, rows, {})
    values = [float(caption.split("IoU ")[1].split()[0]) for caption, _ in result.pictures]
    assert len(values) == 3 and values == sorted(values)
    assert result.pictures[0][1].size == SIZE[::-1]


def test_masks_lie_where_they_are_drawn():
    mask = disc(20, 20, 6)
    picture = np.asarray(draw.overlay(Picture.new("RGB", SIZE[::-1], "white"), mask[None], [(255, 0, 0)], alpha=1))
    assert ((picture == (255, 0, 0)).all(-1) == mask).all()
    assert not (draw.rim(mask) & ~mask).any() and draw.rim(mask).sum() < mask.sum()


def test_rows_without_masks_are_a_user_error():
    with pytest.raises(UserError, match="no row of the split 'test' has masks"):
        segmentation.evaluate(segmentation.Config(name="segmentation"), of_boxes, scenes(1), {})


def test_a_sam_is_measured_through_the_same_door_as_any_model():
    """Random weights: only the shapes, the pixels and the numbers' ranges are at stake."""
    from functools import partial

    from accelerate import Accelerator

    from adapt.models.sam import Config
    from adapt.models.sam.checkpoints import family, fresh
    from adapt.models.sam.segment_anything import configuration
    from adapt.train.predict import predict

    sizes = configuration(32, 2, 2, [1], window=4, patch=8, grid=8)
    for part in (sizes.prompt_encoder_config, sizes.mask_decoder_config):
        part.hidden_size = 32
    sizes.vision_config.output_channels, sizes.vision_config.num_pos_feats = 32, 16
    sam = family(fresh(sizes), Config(name="sam"), [0.5] * 3, [0.25] * 3)
    ask = partial(predict, sam.predictors()["masks"], sam)
    rows = scenes(4)
    config = segmentation.Config(name="segmentation", clicks=[1, 2], pictures=2)
    result = segmentation.evaluate(
        config, lambda part, name, **options: ask(part, 256, Accelerator(cpu=True), **options), rows, {}
    )
    assert all(0 <= value <= 1 for value in result.metrics.values())
    assert len(result.table["id"]) == 6 and len(result.pictures) == 2


def test_each_click_is_added_to_those_before():
    rows, seen = scenes(6), []
    truth = truths(rows)

    def learns(part, name, boxes=None, points=None, features=None):
        answers = of_boxes(part, name, boxes=boxes, points=points, features=features)
        if points is not None:
            seen.append({xy.shape[1] for xy, _ in points})
            for answer, i, (xy, _) in zip(answers, part["id"], points, strict=True):
                if xy.shape[1] >= 3:
                    answer["masks"] = truth[int(i)]
        return answers

    metrics = segmentation.evaluate(segmentation.Config(name="segmentation"), learns, rows, {}).metrics
    assert seen == [{1}, {2}, {3}, {4}, {5}]
    assert metrics["iou_1"] < 1 == metrics["iou_3"] == metrics["iou_5"]


def test_with_crowds_the_precision_is_pycocotools_and_no_crowd_is_prompted():
    rows = scenes(9)
    plain = segmentation.evaluate(segmentation.Config(name="segmentation"), of_boxes, rows, {})
    crowd = np.zeros(SIZE, bool)
    crowd[20:] = True

    def more(row):
        objects = row["objects"]
        return {
            "bbox": [*objects["bbox"], box(crowd)],
            "category": [*objects["category"], 0],
            "mask": [*objects["mask"], rle(crowd)],
            "iscrowd": [0] * len(objects["bbox"]) + [1],
        }

    columns = {"id": rows["id"][:], "image": rows["image"][:], "objects": [more(row) for row in rows]}
    objects = dict(rows.features["objects"]) | {"iscrowd": List(Value("int8"))}
    features = Features(rows.features | {"objects": objects})
    crowded = Dataset.from_dict(columns, features)
    result = segmentation.evaluate(segmentation.Config(name="segmentation"), of_boxes, crowded, {})
    assert {name: result.metrics[name] for name in ("miou", "iou_1", "boundary_f")} == {
        name: plain.metrics[name] for name in ("miou", "iou_1", "boundary_f")
    }
    assert result.table == plain.table and result.protocol == plain.protocol
    answers = of_boxes(
        rows, "masks", [np.array(row["bbox"], np.float32).reshape(-1, 4) for row in rows["objects"]], features=[None] * 9
    )
    gold, found = COCO(), []
    gold.dataset = {"images": [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(9)], "annotations": []}
    gold.dataset["categories"] = [{"id": 0}, {"id": 1}]
    for i, (row, answer) in enumerate(zip(crowded["objects"], answers, strict=True)):
        if len(row["mask"]) > 1:
            for code, category, one in zip(row["mask"], row["category"], row["iscrowd"], strict=True):
                entry = {"image_id": i, "category_id": category, "segmentation": code, "iscrowd": one}
                area = {"area": int(unrle(code).sum()), "bbox": [0, 0, 1, 1]}
                gold.dataset["annotations"].append(entry | area | {"id": len(gold.dataset["annotations"]) + 1})
        for mask, category, score in zip(answer["masks"], row["category"], answer["scores"], strict=False):
            found.append(
                {
                    "image_id": i,
                    "category_id": category,
                    "segmentation": mask_metrics.encode(mask[None])[0],
                    "score": float(score),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        gold.createIndex()
        judge = COCOeval(gold, gold.loadRes(found), "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert result.metrics["mask_ap"] == pytest.approx(judge.stats[0], abs=1e-9)


def test_the_interval_is_of_pictures_and_not_of_objects():
    result = segmentation.evaluate(segmentation.Config(name="segmentation", clicks=[]), of_boxes, scenes(), {})
    assert result.table["picture"][:4] == ["0", "1", "1", "2"]
    assert result.intervals["miou"] == interval(mean(result.table["score"], result.table["picture"]), 1000)
