"""Interactive segmentation: how many clicks an annotator needs until a mask is right.

The first click lies in the middle of the object, each next one in the middle of the largest error: the point farthest from the error's
border; missing pixels get a click inside, superfluous ones a click outside. Each answer sees all clicks so far and the mask logits of the
answer before. An object that 20 clicks do not bring to 90 % IoU counts as 20. A picture is encoded once.

    clicks_90, clicks_85    clicks to an IoU of 0.90 and 0.85, the mean over objects (NoC@90, NoC@85): lower is better
    miou_1, miou_3, miou_5  mean IoU after so many clicks; unlike `iou_3` of `segmentation`, with the logits before as a prompt

    >>> evaluate(Config(name="clicks"), predict, dataset, {}).metrics
    {'miou_1': 0.62, 'miou_3': 0.77, 'miou_5': 0.83, 'clicks_90': 8.4, 'clicks_85': 5.9}

Sources: Kirillov et al. 2023 (SAM), arXiv:2304.02643, §A and D.1; Sofiiuk et al. 2021 (RITM), arXiv:2102.06583; Xu et al. 2016 (number of
clicks, 20 at most), arXiv:1603.04042.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adapt.contracts import EvalConfig
from adapt.evals.objects import chunks, columns, masked
from adapt.vision.classes import category_names
from adapt.vision.masks import unrle_many

if TYPE_CHECKING:
    import numpy as np

    from adapt.evals.result import Result

ENOUGH = {"clicks_90": 0.90, "clicks_85": 0.85}
"""Metric → the IoU that is enough."""
NOTED = {"miou_1": 1, "miou_3": 3, "miou_5": 5}
"""Metric → after how many clicks the IoU is noted."""


class Config(EvalConfig):
    """Clicks until 90 % and 85 % IoU, mIoU after 1, 3 and 5 clicks."""

    main = "miou_5"
    predictor = "masks"
    quick = {"pictures": 0, "max_clicks": 5}

    max_clicks: int = Field(20, ge=5, le=100)
    """Clicks on an object at most; what is never right counts as so many."""
    pictures: int = Field(12, ge=0, le=24)
    """Objects that are drawn: those that took most clicks, the worst first."""


@dataclass
class Clicked:
    """The N objects of one picture after their last clicks."""

    ious: np.ndarray
    """float64[N, K] after 1 to K clicks; of an object that needs no more, its last one."""
    codes: list[dict]
    """The last mask of each, COCO run lengths."""
    points: list[list[tuple[float, float, int]]]
    """The clicks on each: X, Y in pixels, and 1 inside or 0 outside."""


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set, "masks", points=…, features=…, logits=…) → a dict a row: masks bool[N, H, W], features, logits. points:
            (float[N, K, 2] XY pixels of `image`, int[N, K], 1 inside, 0 outside) for each row; features, logits: what the answer before
            for the row held under these names, of the same N objects; or none.
        dataset: rows with `id`, `image` and `objects` (bbox, category, mask, perhaps iscrowd). Regions of crowds are not clicked.
        protocol: what the caller knows.

    Raises:
        UserError: no row has a mask.
    """
    import numpy as np

    from adapt.evals.bootstrap import interval, mean
    from adapt.evals.by_set import clicks_until
    from adapt.evals.result import Result

    objects, chosen = masked(dataset["objects"][:], config.split)
    found: list[Clicked] = []
    for part in chunks(chosen, objects):
        found += _clicked(config, predict, dataset.select(part), [unrle_many(objects[i]["mask"]) for i in part])
    ious = np.concatenate([each.ious for each in found])
    values = {name: ious[:, count - 1] for name, count in NOTED.items()}
    values |= {name: clicks_until(ious, enough).astype(float) for name, enough in ENOUGH.items()}
    names = category_names(dataset.features)
    table = columns(dataset["id"][:], chosen, [objects[i]["category"] for i in chosen], names)
    table |= {name: each.tolist() for name, each in values.items()} | {"iou": ious[:, -1].tolist()}
    never = int((ious.max(1) < ENOUGH["clicks_90"]).sum())  # a click may spoil what was right
    rules = {"prompt": "clicks", "clicks": config.max_clicks, "feedback": "the logits before"}
    return Result(
        metrics={name: float(each.mean()) for name, each in values.items()},
        protocol=protocol | {"eval": "clicks", "split": config.split, "objects": len(ious)} | rules,
        intervals={name: interval(mean(each, table["picture"]), config.bootstrap) for name, each in values.items()},
        table=table,
        remark=f"{config.max_clicks} clicks do not bring {never:,} of {len(ious):,} objects to 90 % IoU." if never else "",
        pictures=_slowest(config, dataset, chosen, objects, found, table),
    )


def statistic(table: dict[str, list]):
    """The mean IoU after five clicks of a table, as a function of how often each picture was drawn."""
    from adapt.evals.bootstrap import mean

    return mean(table[Config.main], table["picture"])


def _clicked(config: Config, predict: Callable, rows, truth: list[np.ndarray]) -> list[Clicked]:
    """Click on a chunk's objects, masks bool[N, H, W] of each row, until all are right or have had all clicks."""
    import numpy as np

    from adapt.evals.mask_metrics import Clicks, encode, iou

    clicks = [Clicks(part) for part in truth]
    found = [Clicked(np.zeros((len(part), config.max_clicks)), [{}] * len(part), [[] for _ in part]) for part in truth]
    known: list[dict[str, Any]] = [{} for _ in truth]
    going = [np.arange(len(part)) for part in truth]  # the numbers of each row's objects that are still clicked
    for k in range(config.max_clicks):
        left = [i for i, numbers in enumerate(going) if len(numbers)]
        if not left:
            break
        before = {name: [known[i].get(name) for i in left] for name in ("features", "logits")}
        answers = predict(rows.select(left), config.predictor, points=[clicks[i].prompt() for i in left], **before)
        for i, answer in zip(left, answers, strict=True):
            masks, own = np.asarray(answer["masks"], bool), clicks[i]
            value = iou(own.truth, masks)
            found[i].ious[going[i], k:] = value[:, None]
            for number, code, xy, label in zip(going[i], encode(masks), own.points[:, -1], own.labels[:, -1], strict=True):
                found[i].codes[number] = code
                found[i].points[number].append((float(xy[0]), float(xy[1]), int(label)))
            more = (value < max(ENOUGH.values())) | (k + 1 < max(NOTED.values()))
            own.add(masks)
            own.only(more)
            going[i] = going[i][more]
            logits = answer.get("logits")
            known[i] = {"features": answer.get("features"), "logits": None if logits is None else logits[np.flatnonzero(more)]}
    return found


def _slowest(config: Config, dataset, chosen, objects, found: list[Clicked], table: dict[str, list]) -> list[tuple[str, Any]]:
    """The objects that took most clicks: what is there outlined green, what was found under red, clicks inside green, outside blue."""
    from adapt.evals.mask_metrics import run_lengths
    from adapt.vision.draw import clicked, comparison

    places = [(row, n) for row in range(len(chosen)) for n in range(len(found[row].codes))]
    pictures = []
    for place in sorted(range(len(places)), key=lambda i: (-table["clicks_90"][i], table["iou"][i]))[: config.pictures]:
        row, n = places[place]
        truth = unrle_many(objects[chosen[row]]["mask"][n : n + 1])[0]
        mask = run_lengths.decode(found[row].codes[n]).astype(bool)
        count = len(found[row].points[n])
        picture = clicked(comparison(dataset[chosen[row]]["image"], truth, mask), found[row].points[n])
        caption = f"{table['label'][place]}: IoU {table['iou'][place]:.2f} after {count} clicks ({table['id'][place]})"
        pictures.append((caption, picture))
    return pictures
