"""Which of the boxes do these words mean? RefCOCO's protocol: of the boxes on a picture one is chosen for each sentence, and it is right when its
intersection over union with the box that is meant is 0.5 or more.

Sentences are those of the column `referring`; where the data have none, they are made of the categories' names (`prompting/referring.py`).
Candidates are the annotated boxes, or the column `proposals`. Pictures with one annotated box are left out: there is nothing to choose. A tie
with a box that is wrong is wrong, and so is a picture without proposals. What brought how much is reported apart, each step on top of those before it:

    referring_plain       the plain crop of each box, with the sentence in one plain template
    referring_templates   the crop, with the mean of `templates`
    referring_drawings    the drawings of `visual`, with these
    referring             the same, less the mean over negative sentences (`visual.subtract`)

    >>> evaluate(Config(name="referring"), predict, dataset, {}).metrics
    {'referring': 0.71, 'referring_plain': 0.58, 'referring_templates': 0.60, 'referring_drawings': 0.66, 'referring_gain': 0.13}

Sources: Yu et al. 2016, arXiv:1608.00272; Shtedritski et al. 2023, arXiv:2304.06712; Yang et al. 2023, arXiv:2306.04356.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from adapt.plug import UserError
from adapt.prompting.visual import PLAIN, VisualEvalConfig, combine, told
from adapt.vision.masks import singles

if TYPE_CHECKING:
    import numpy as np

    from adapt.evals.result import Result

ENOUGH = 0.5
"""Intersection over union from which on a box is right."""


class Config(VisualEvalConfig):
    """Accuracy over sentences; the same for the plain crop, with templates, and with drawings; what all of it gained."""

    main = "referring"
    predictor = "region_scores"
    quick = {"pictures": 0}

    template: str = "{}"
    """The plain template that others are compared with; `{}` is the sentence, such as `the left cat`."""
    templates: list[str] = Field(["{}", "a photo of {}."], min_length=1)
    """Templates of the sentences; embeddings of several are averaged."""
    negatives: int = Field(50, ge=0)
    """Sentences about other pictures of the split, drawn by chance, whose mean score is subtracted, box by box; 0: nothing is."""
    candidates: Literal["objects", "proposals"] = "objects"
    """Which boxes are chosen from: the annotated ones, or a column of boxes, float[N, 4] XYXY in pixels."""
    pictures: int = Field(12, ge=0, le=24)
    """Pictures for the report: mistakes."""

    @field_validator("template", "templates")
    @classmethod
    def _placed(cls, templates: str | list[str]) -> str | list[str]:
        for template in [templates] if isinstance(templates, str) else templates:
            if template.count("{}") != 1:
                raise ValueError(f"{template!r} needs one {{}}, where the sentence goes, such as 'a photo of {{}}.'")
        return templates


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set, name="region_scores", texts=…, visual=…, boxes=…, plain=…, columns=…) → for each row `texts` float[B, D, T], of
            its B candidates, D drawings, the plain crop among them, and those T texts whose numbers are its `columns`.
        dataset: rows with `id`, `image`, `objects`, and perhaps `referring` and `proposals`.
        protocol: what the caller knows; `classes`: the categories' words.

    Raises:
        UserError: a column is missing, a sentence cannot be used, or nowhere there is anything to choose.
    """
    import numpy as np

    from adapt.evals.bootstrap import gain, interval, mean, pictures
    from adapt.evals.metrics import floor
    from adapt.evals.result import Result

    rows, questions, candidates = asked(config, dataset, protocol)
    found = _scores(config, predict, rows, questions, candidates)
    judged = [
        _judged(config, row, *parts) for row, *parts in zip(found, questions, candidates, rows["objects"][:], strict=True)
    ]
    steps = {step: np.concatenate([row[step] for row in judged]) for step in judged[0] if step not in ("choice", "good")}
    owner = np.repeat(np.arange(len(rows)), [len(row) for row in questions])
    shown, ids = np.array(pictures(rows))[owner].tolist(), rows["id"][:]
    means = {step: mean(values, shown) for step, values in steps.items()}
    difference, *ends = gain(means["referring_plain"], means["referring"], config.bootstrap)
    metrics = {step: float(values.mean()) for step, values in steps.items()}
    table = {
        "id": [f"{name}#{number}" for name, row in zip(ids, questions, strict=True) for number in range(len(row))],
        "row": [ids[row] for row in owner],
        "picture": shown,
        "sentence": [sentence for row in questions for sentence, _ in row],
        "label": [str(place) for row in questions for _, place in row],
        "prediction": [str(choice) for row in judged for choice in row["choice"]],
        "correct": steps["referring"].tolist(),
        "correct_plain": steps["referring_plain"].tolist(),
    }
    return Result(
        metrics=metrics | {"referring_gain": difference},
        remark=told(metrics, "referring", "which box is meant", bool(config.negatives and config.visual.subtract)),
        protocol=protocol | _rules(config, rows, found[0]),
        intervals={step: interval(each, config.bootstrap) for step, each in means.items()} | {"referring_gain": tuple(ends)},
        table=table,
        floor=floor({int(box): 1.0 for box in good} for row in judged for good in row["good"]),
        pictures=_mistakes(config, rows, table, owner, candidates),
    )


def statistic(table: dict[str, list]):
    """The accuracy of a table, as a function of how often each picture was drawn."""
    from adapt.evals.bootstrap import mean

    return mean(table["correct"], table["picture"])


def asked(config: Config, dataset, protocol: dict[str, Any]) -> tuple[Any, list[list[tuple[str, int]]], list[list]]:
    """The rows where there is something to choose; of each its sentences, with the object that each means, and its candidates, boxes XYXY.

    Raises:
        UserError: as `evaluate`.
    """
    from adapt.prompting.referring import COLUMN, sentences
    from adapt.vision.classes import category_names

    for column in ("objects", *(["proposals"] if config.candidates == "proposals" else [])):
        if column not in dataset.column_names:
            raise UserError(f"evals: referring needs a column {column!r}. Have: {', '.join(dataset.column_names)}.")
    names, told = category_names(dataset.features), list(protocol.get("classes") or [])
    names = told if len(told) == len(names) else names
    if COLUMN not in dataset.column_names and not names:
        raise UserError(f"evals: referring needs a column {COLUMN!r}, or categories with names to make sentences of.")
    chosen, questions, candidates = [], [], []
    kept = [name for name in ("id", "objects", COLUMN, "proposals") if name in dataset.column_names]
    for number, row in enumerate(dataset.select_columns(kept)):
        if not row["objects"] or not row["objects"]["bbox"]:
            continue
        boxes = singles(row["objects"])["bbox"] if config.candidates == "objects" else row["proposals"]
        said = sentences(row, names)
        if said and (len(boxes) > 1 or config.candidates == "proposals"):
            chosen, questions, candidates = [*chosen, number], [*questions, said], [*candidates, boxes]
    if not chosen:
        raise UserError(
            f"evals: no picture of the split {config.split!r} has a sentence and two boxes to choose from. Name another split with evals.0.split."
        )
    return dataset.select(chosen), questions, candidates


def _scores(config: Config, predict: Callable, rows, questions: list, candidates: list[list]) -> list[dict[str, Any]]:
    """What the model says of each row's candidates: see `evaluate`. Columns: its sentences in templates, the same plain, negative ones."""
    import numpy as np

    every = list(dict.fromkeys(sentence for row in questions for sentence, _ in row))
    place = {sentence: number for number, sentence in enumerate(every)}
    order = np.random.default_rng(0).permutation(len(every)).tolist() if config.negatives and config.visual.subtract else []
    columns = []
    for row in questions:
        own = [place[sentence] for sentence, _ in row]
        others = itertools.islice((number for number in order if number not in own), config.negatives)
        columns.append([*own, *(len(every) + number for number in own), *others])
    texts = [[template.replace("{}", sentence) for template in config.templates] for sentence in every]
    texts += [config.template.replace("{}", sentence) for sentence in every]
    options: dict[str, Any] = {"visual": [config.visual] * len(rows), "plain": [True] * len(rows), "columns": columns}
    if config.candidates == "proposals":
        options["boxes"] = candidates
    return predict(rows, name=config.predictor, texts=texts, **options)


def _judged(
    config: Config, row: dict[str, Any], said: list[tuple[str, int]], boxes: list, objects: dict[str, list]
) -> dict[str, Any]:
    """Metric → is each sentence's answer right, bool[S]; `choice`, the candidate that is taken, and `good`, those that are right."""
    import numpy as np

    from adapt.prompting.tokens import overlap

    meant = np.array(singles(objects)["bbox"], float)[[place for _, place in said]]
    good = overlap(np.array(boxes, float).reshape(-1, 4), meant) >= ENOUGH  # bool[B, S]
    count, summed, plain = len(said), slice(0, row["summed"]), row["drawings"].index(PLAIN)
    texts = np.asarray(row["texts"])
    own, bare, others = texts[..., :count], texts[..., count : 2 * count], texts[..., 2 * count :]
    steps = {
        "referring_plain": bare[:, plain],
        "referring_templates": own[:, plain],
        "referring_drawings": combine(own[:, summed]),
        "referring": combine(own[:, summed], texts=others[:, summed], subtract=config.visual.subtract),
    }
    if not len(boxes):
        nothing = dict.fromkeys(steps, np.zeros(count, bool))
        return nothing | {"choice": [-1] * count, "good": [np.zeros(0, int)] * count}
    # a wrong box that scores as high as the best takes the place of a right one
    right = {step: ~((values >= values.max(0)) & ~good).any(0) for step, values in steps.items()}
    final = steps["referring"]
    choice = np.where(final >= final.max(0), 2.0 - good, 0.0).argmax(0)
    return right | {"choice": choice.tolist(), "good": [np.flatnonzero(column) for column in good.T]}


def _rules(config: Config, rows, row: dict[str, Any]) -> dict[str, Any]:
    """What two numbers must share to be compared."""
    from adapt.prompting.referring import COLUMN

    shown = config.visual.values() | {"drawings": row["drawings"][: row["summed"]], "colour": list(config.visual.colour)}
    words = {"template": config.template, "templates": config.templates, "negatives": config.negatives}
    made = "the data's" if COLUMN in rows.column_names else "made of categories"
    rules = {"eval": "referring", "split": config.split, "candidates": config.candidates, "sentences": made, "visual": shown}
    return rules | words


def _mistakes(config: Config, rows, table: dict[str, list], owner: np.ndarray, candidates: list[list]) -> list[tuple[str, Any]]:
    """Pictures with what is meant in green, and what was chosen in red."""
    from adapt.vision.draw import boxed

    wrong = [i for i, right in enumerate(table["correct"]) if not right][: config.pictures]
    pictures = []
    for i in wrong:
        row = rows[int(owner[i])]
        meant = singles(row["objects"])["bbox"][int(table["label"][i])]
        choice = int(table["prediction"][i])
        picture = boxed(row["image"], meant, candidates[owner[i]][choice] if choice >= 0 else None)
        pictures.append((f"{table['sentence'][i]} ({table['id'][i]})", picture))
    return pictures
