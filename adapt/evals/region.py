"""Which thing is in this box? The classes of annotated boxes, by a model that is shown each thing and asked for words.

What brought how much is reported apart, each step on top of those before it:

    region_plain       the plain crop of the box, with one plain template
    region_templates   the crop, with the recipe's words: its templates, or what a method has learned
    region_drawings    the drawings of `visual`, with these words
    region              the same, less a share of the mean over negative boxes (`subtract`)

Boxes of crowds are not asked about. Where the label's score ties with another's, the answer is wrong.

    >>> evaluate(Config(name="region"), predict, dataset, {"classes": names}, bank).metrics
    {'region': 0.46, 'region_plain': 0.31, 'region_templates': 0.35, 'region_drawings': 0.44, 'region_gain': 0.15, 'region_per_class': 0.41}

Sources: Shtedritski et al. 2023, arXiv:2304.06712; Yang et al. 2023, arXiv:2306.04356; the mean over unlabelled pictures that is subtracted:
Zhou et al. 2023, Test-Time Distribution Normalization, arXiv:2302.11084.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from adapt.plug import UserError
from adapt.prompting.visual import PLAIN, VisualEvalConfig, combine, told
from adapt.vision.masks import singles

if TYPE_CHECKING:
    import numpy as np

    from adapt.evals.result import Result


class Config(VisualEvalConfig):
    """Top-1 over boxes; the same for the plain crop, with templates, and with drawings; what all of it gained."""

    main = "region"
    predictor = "region_scores"
    quick = {"pictures": 0}

    template: str = "a photo of a {}."
    """The plain template that others are compared with; `{}` is the class's name."""
    subtract: float = Field(0.5, ge=0, le=2)
    """How much of the mean score over negative boxes is subtracted, class by class: 0.5 is the half of Distribution Normalization; 0: nothing,
    best where a model favours no class. `visual.subtract`, of negative texts, would change no order of classes, and is not used."""
    negatives: int = Field(256, ge=1)
    """How many boxes of another split are the negatives; their labels are not looked at."""
    bank_split: str = "train"
    """The split that they are of."""
    pictures: int = Field(12, ge=0, le=24)
    """Pictures for the report: mistakes, those first of which the model is surest."""

    @property
    def bank(self) -> str | None:
        return self.bank_split if self.subtract else None

    @field_validator("template")
    @classmethod
    def _placed(cls, template: str) -> str:
        if template.count("{}") != 1:
            raise ValueError("write one {}, where the class's name goes, such as 'a photo of a {}.'")
        return template


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set, name="region_scores", texts=…, visual=…, plain=…) → for each row `classes` and `texts` float[B, D, C], of its
            B boxes and D drawings, the plain crop among them.
        dataset: rows with `id`, `image` and `objects`.
        protocol: what the caller knows; `classes`: the categories' words.
        bank: rows of another split, whose boxes are the negatives.

    Raises:
        UserError: there are no objects, no box, or no class names.
    """
    import numpy as np

    from adapt.evals.bootstrap import gain, interval, mean, pictures
    from adapt.evals.metrics import answers, confusion, rank, softmax
    from adapt.evals.result import Result

    names = _names(dataset, protocol)
    rows, labels, owner, numbers = asked(dataset, config.split)
    scores = _scores(config, predict, rows, names)
    negatives = _scores(config, predict, sampled(bank, config), names) if config.bank else None
    steps = _steps(config, scores, negatives)
    right = {step: rank(values, labels) < 1 for step, values in steps.items()}
    answered, shown = answers(steps["region"], labels), np.array(pictures(rows))[owner].tolist()
    table = _table(rows["id"][:], owner, numbers) | {
        "picture": shown,
        "label": [names[i] for i in labels],
        "prediction": [names[i] for i in answered],
        "confidence": softmax(steps["region"]).max(1).tolist(),
        "correct": right["region"].tolist(),
        "correct_plain": right["region_plain"].tolist(),
    }
    means = {step: mean(values, shown) for step, values in right.items()}
    difference, *ends = gain(means["region_plain"], means["region"], config.bootstrap)
    recall = float(np.mean([right["region"][labels == label].mean() for label in np.unique(labels)]))
    metrics = {step: float(values.mean()) for step, values in right.items()}
    more = {"region_gain": difference, "region_per_class": recall}
    return Result(
        metrics=metrics | more,
        remark=told(metrics, "region", "which thing is in a box", config.bank is not None),
        protocol=protocol | _rules(config, scores),
        intervals={step: interval(each, config.bootstrap) for step, each in means.items()} | {"region_gain": tuple(ends)},
        table=table,
        floor=float(np.bincount(labels).max() / len(labels)),
        figures={"classes": names, "confusion": confusion(labels, answered, len(names))},
        pictures=_mistakes(config, rows, table, owner, numbers),
    )


def statistic(table: dict[str, list]):
    """Top-1 of a table, as a function of how often each picture was drawn."""
    from adapt.evals.bootstrap import mean

    return mean(table["correct"], table["picture"])


def asked(dataset, split: str) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """The rows with boxes; of each box its category, its row among these, and its number on the picture from 0: int64[N] each.

    Raises:
        UserError: there are no objects, or no box.
    """
    import numpy as np

    if "objects" not in dataset.column_names:
        raise UserError(
            f"evals: region needs a column 'objects', boxes with categories. Have: {', '.join(dataset.column_names)}. "
            "Take data with boxes, such as COCO's, or evals=[{name: zeroshot}] for whole pictures."
        )
    objects = [singles(row) if row else {"bbox": [], "category": []} for row in dataset["objects"][:]]
    chosen = [i for i, row in enumerate(objects) if row["bbox"]]
    if not chosen:
        raise UserError(f"evals: no row of the split {split!r} has a box. Name another split with evals.0.split.")
    labels = np.array([category for i in chosen for category in objects[i]["category"]])
    counts = [len(objects[i]["bbox"]) for i in chosen]
    owner = np.repeat(np.arange(len(chosen)), counts)
    numbers = np.concatenate([np.arange(count) for count in counts])
    return dataset if len(chosen) == len(dataset) else dataset.select(chosen), labels, owner, numbers


def _names(dataset, protocol: dict[str, Any]) -> list[str]:
    """The categories' words: those that the model is told, else the data's own."""
    from adapt.vision.classes import category_names

    names, own = list(protocol.get("classes") or []), category_names(dataset.features)
    if names and own and len(names) != len(own):
        raise UserError(
            f"evals: region asks about the {len(own)} categories of the objects, and the model is told {len(names)} classes, those of the "
            "pictures' labels. Take data without labels of whole pictures."
        )
    if len(names or own) < 2:
        raise UserError(f"evals: region asks which class is in a box, and the data name {len(names or own)}. Name two or more.")
    return names or own


def _scores(config: Config, predict: Callable, rows, names: list[str]) -> dict[str, Any]:
    """What the model says of all boxes: `classes` with the recipe's words, `texts` with the plain template, float[N, D, C] each; `drawings`,
    the names of the D, of which the first `summed` are those of `visual`."""
    import numpy as np

    texts = [config.template.replace("{}", name) for name in names]
    options = {"visual": [config.visual] * len(rows), "plain": [True] * len(rows)}
    found = predict(rows, name=config.predictor, texts=texts, **options)
    return {name: found[0][name] for name in ("drawings", "summed")} | {
        name: np.concatenate([np.asarray(row[name]) for row in found]) for name in ("classes", "texts")
    }


def sampled(bank, config: Config):
    """Rows of the bank, by chance, until they have as many boxes as there shall be negatives."""
    import numpy as np

    rows, _, owner, _ = asked(bank, config.bank_split)
    counts, order = np.bincount(owner), np.random.default_rng(0).permutation(len(rows))
    enough = int(np.searchsorted(np.cumsum(counts[order]), config.negatives)) + 1
    return rows.select(sorted(order[:enough].tolist()))


def _steps(config: Config, scores: dict[str, Any], negatives: dict[str, Any] | None) -> dict[str, np.ndarray]:
    """Metric → the scores float[N, C] that it is of; see the top of this file."""
    plain, summed = scores["drawings"].index(PLAIN), slice(0, scores["summed"])
    steps = {"region_plain": scores["texts"][:, plain], "region_templates": scores["classes"][:, plain]}
    steps["region_drawings"] = combine(scores["classes"][:, summed])
    less = None if negatives is None else negatives["classes"][:, summed]
    return steps | {"region": combine(scores["classes"][:, summed], boxes=less, subtract=config.subtract)}


def _table(ids: list[str], owner: np.ndarray, numbers: np.ndarray) -> dict[str, list]:
    """The columns that name each box."""
    return {
        "id": [f"{ids[row]}#{number}" for row, number in zip(owner, numbers, strict=True)],
        "row": [ids[row] for row in owner],
    }


def _rules(config: Config, scores: dict[str, Any]) -> dict[str, Any]:
    """What two numbers must share to be compared."""
    shown = config.visual.values() | {"drawings": scores["drawings"][: scores["summed"]], "colour": list(config.visual.colour)}
    negatives = f"{config.subtract:g} of the mean of {config.negatives} boxes of {config.bank_split}" if config.bank else "none"
    return {"eval": "region", "split": config.split, "template": config.template, "visual": shown, "negatives": negatives}


def _mistakes(config: Config, rows, table: dict[str, list], owner: np.ndarray, numbers: np.ndarray) -> list[tuple[str, Any]]:
    """The mistakes of which the model is surest, each with its box."""
    from adapt.vision.draw import boxed

    wrong = [i for i, right in enumerate(table["correct"]) if not right]
    pictures = []
    for i in sorted(wrong, key=lambda i: -table["confidence"][i])[: config.pictures]:
        row = rows[int(owner[i])]
        box = singles(row["objects"])["bbox"][int(numbers[i])]
        caption = f"{table['prediction'][i]} — {table['label'][i]} ({table['id'][i]})"
        pictures.append((caption, boxed(row["image"], box)))
    return pictures
