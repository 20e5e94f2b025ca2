"""Promptable segmentation: masks from ground-truth boxes and from clicks, against the masks of `objects`.

Sources: Kirillov et al. 2023 (SAM), arXiv:2304.02643, §7.1 and D.1 (mIoU over all masks; the first click farthest from the object's
boundary, each next one farthest from the boundary of the error); Perazzi et al. 2016 (DAVIS: boundary F within .008 of the
diagonal); COCO (average precision, by pycocotools; the class is that of the prompt).

    >>> evaluate(Config(name="segmentation"), predict, dataset, {}).metrics
    {'miou': 0.81, 'boundary_f': 0.77, 'mask_ap': 0.66, 'mask_ap50': 0.97, 'box_ap': 0.71, 'iou_1': 0.62, 'iou_3': 0.74, 'iou_5': 0.78}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adapt.contracts import EvalConfig
from adapt.evals.objects import chunks, columns, masked
from adapt.vision.classes import category_names
from adapt.vision.masks import unrle_many

if TYPE_CHECKING:
    from adapt.evals.result import Result

COLUMNS = {"miou": "score"}
"""Metric → the table's column of what it is the mean of, where it is called otherwise."""


class Config(EvalConfig):
    """mIoU and boundary F of box prompts, IoU after clicks, average precision."""

    version = 2
    main = "miou"
    predictor = "masks"
    quick = {"pictures": 0, "clicks": [], "precision": False}

    clicks: list[int] = Field([1, 3, 5], max_length=20)
    """After how many clicks the IoU is noted; empty: no clicks."""
    precision: bool = True
    """Also COCO's average precision of the masks, and of the boxes around them."""
    tolerance: float = Field(0.008, gt=0, le=0.1)
    """How far boundaries may lie apart, as a share of the image's diagonal."""
    pictures: int = Field(12, ge=0, le=24)
    """The worst objects that are drawn."""


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set, "masks", boxes=… or points=…, features=…) → a dict a row: masks bool[N, H, W] and scores float[N]. boxes:
            float[N, 4] XYXY in pixels of `image` for each row; points: (float[N, K, 2] XY pixels, int[N, K], 1 inside, 0 outside) for
            each row; features: what an earlier answer for the row held under this name, or none.
        dataset: rows with `id`, `image` and `objects` (bbox, category, mask, perhaps iscrowd). Rows without an object count for
            nothing; regions of crowds are no objects, and what is found in them counts neither way, as COCO has it.
        protocol: what the caller knows.

    Raises:
        UserError: no row has a mask.
    """
    import numpy as np

    from adapt.evals import mask_metrics
    from adapt.evals.bootstrap import interval
    from adapt.evals.result import Result

    regions = [row or {} for row in dataset["objects"]]
    objects, chosen = masked(regions, config.split)
    truth, found, records = [], [], {}
    for part in chunks(chosen, objects):
        here = [objects[i] for i in part]
        for i, row, masks, scores, values in zip(part, here, *_measure(config, predict, dataset.select(part), here)):
            records[i] = values
            truth.append(_true(regions[i]))
            found.append(_found(row, masks, scores))
    every = {name: [records[i][name] for i in chosen] for name in records[chosen[0]]}
    metrics = {name: float(np.concatenate(values).mean()) for name, values in every.items()}
    names = category_names(dataset.features)
    if config.precision:
        count = 1 + max(max(row["category"]) for row in truth)
        masks, boxes = (mask_metrics.average_precision(truth, found, kind, count) for kind in ("segm", "bbox"))
        metrics |= {"mask_ap": masks["ap"], "mask_ap50": masks["ap50"], "box_ap": boxes["ap"]}
    table = _table(dataset["id"][:], chosen, found, every, names)
    rules = {"prompt": "box", "clicks": config.clicks, "boundary": f"DAVIS F, {config.tolerance:g} of the diagonal"}
    return Result(
        metrics=metrics,
        protocol=protocol | {"eval": "segmentation", "split": config.split, "objects": sum(map(len, every["miou"]))} | rules,
        intervals={name: interval(_mean(table, name), config.bootstrap) for name in every},
        table=table,
        pictures=_worst(config, dataset, chosen, objects, records, found, names),
    )


def statistic(table: dict[str, list]):
    """The mean IoU of a table, as a function of how often each picture was drawn."""
    return _mean(table, Config.main)


def _mean(table: dict[str, list], name: str):
    """The mean of a metric over objects; objects of one picture are not independent, and are drawn together."""
    from adapt.evals.bootstrap import mean

    return mean(table[COLUMNS.get(name, name)], table["picture"])


def _measure(config: Config, predict: Callable, rows, objects: list[dict]) -> tuple[list, list, list]:
    """A chunk's masks bool[N, H, W] and scores float[N] for its boxes, and each object's numbers by metric."""
    import numpy as np

    from adapt.evals import mask_metrics

    truth = [unrle_many(row["mask"]) for row in objects]
    boxes = [np.asarray(row["bbox"], np.float32).reshape(-1, 4) for row in objects]
    answers = predict(rows, config.predictor, boxes=boxes, features=[None] * len(rows))
    known = [answer.get("features") for answer in answers]  # each picture is encoded once, for all its prompts
    masks = [np.asarray(answer["masks"], bool) for answer in answers]
    values = [
        {
            "miou": mask_metrics.iou(t, m).tolist(),
            "boundary_f": [mask_metrics.boundary_f(a, b, config.tolerance) for a, b in zip(t, m)],
        }
        for t, m in zip(truth, masks, strict=True)
    ]
    clicks = [mask_metrics.Clicks(part) for part in truth] if config.clicks else []
    for k in range(1, max(config.clicks, default=0) + 1):
        again = predict(rows, config.predictor, points=[c.prompt() for c in clicks], features=known)
        seen = [np.asarray(answer["masks"], bool) for answer in again]
        for part, own, mask in zip(clicks, values, seen, strict=True):
            if k in config.clicks:
                own[f"iou_{k}"] = mask_metrics.iou(part.truth, mask).tolist()
            part.add(mask)
    return masks, [np.asarray(answer["scores"], float) for answer in answers], values


def _true(row: dict) -> dict[str, Any]:
    """What is there in one image, regions of crowds too, as `average_precision` takes it."""
    codes = row["mask"]
    facts = {"size": codes[0]["size"], "category": row["category"], "codes": codes, "boxes": row["bbox"]}
    return facts | {"iscrowd": row.get("iscrowd")}


def _found(row: dict, masks, scores) -> dict[str, Any]:
    """What was found in one image, as `average_precision` takes it; boxes are those around the masks."""
    import numpy as np

    from adapt.evals import mask_metrics

    codes = mask_metrics.encode(masks)
    boxes = mask_metrics.run_lengths.toBbox(codes)
    boxes = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    return {"category": row["category"], "codes": codes, "boxes": boxes, "score": scores}


def _table(ids: list[str], chosen: list[int], found: list[dict], every: dict[str, list], names: list[str]) -> dict[str, list]:
    """A row an object: `id#number`, its picture, its class, the model's own score, and the metrics."""
    table = columns(ids, chosen, [row["category"] for row in found], names)
    table |= {"confidence": [float(value) for row in found for value in row["score"]]}
    return table | {COLUMNS.get(name, name): [v for part in values for v in part] for name, values in every.items()}


def _worst(config: Config, dataset, chosen, objects, records, found, names) -> list[tuple[str, Any]]:
    """The objects of the lowest IoU: what is there outlined green, what was found under red, the box blue."""
    from adapt.evals import mask_metrics
    from adapt.vision.draw import comparison

    every = sorted((value, i, n) for i in chosen for n, value in enumerate(records[i]["miou"]))[: config.pictures]
    answers, pictures = dict(zip(chosen, found, strict=True)), []
    for value, i, n in every:
        truth = unrle_many(objects[i]["mask"][n : n + 1])[0]
        mask = mask_metrics.run_lengths.decode(answers[i]["codes"][n]).astype(bool)
        category = objects[i]["category"][n]
        row = dataset[i]
        picture = comparison(row["image"], truth, mask, objects[i]["bbox"][n])
        pictures.append((f"{names[category] if names else category}: IoU {value:.2f} ({row['id']})", picture))
    return pictures
