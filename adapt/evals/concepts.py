"""Words to masks: all things that a word names, each with its mask, and nothing for words that are not on the picture.

Each picture is asked for the words of its own objects, and for some that are not on it, drawn by the picture's own seed. A word is asked by
itself. The model's proposals (a grid of points, `prompting/automatic.py`) are shown to CLIP, which says which of them show the word.

    positive_f1   F1 over all masks of words that are there, the mean over IoU thresholds from 0.50 to 0.95; matches are one to one
    presence_mcc  Matthews' correlation of "a mask was found" with "the word is there", over all words
    cgf1          their product (SAM 3 writes it times 100); 0 for a model that always finds something, or never

Objects of crowds cannot be counted: words that they go with are not asked on their picture. Unlike SA-Co, on which SAM 3 reports it, a picture
has one annotation, and negative words are drawn by chance: numbers here and there do not compare.

    >>> evaluate(Config(name="concepts"), predict, dataset, {"classes": ["cat", "dog", "bus"]}).metrics
    {'positive_f1': 0.52, 'presence_mcc': 0.61, 'cgf1': 0.32}

Source: Carion et al. 2025 (SAM 3), arXiv:2511.16719, and its `cgf1_eval.py`: masks from a score of 0.5, matched by the largest sum of IoUs.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adapt.contracts import EvalConfig
from adapt.evals.objects import masked
from adapt.plug import UserError
from adapt.prompting.automatic import Automatic
from adapt.prompting.text_masks import TextMasks
from adapt.vision.classes import category_names

if TYPE_CHECKING:
    import numpy as np

    from adapt.evals.bootstrap import Sums
    from adapt.evals.result import Result

ASKED = "word_masks"
"""What the predictor is asked for: proposals that have been named."""
THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""Of IoU, as COCO has them."""


class Config(EvalConfig):
    """cgF1: masks of the words that are on a picture, and none of others."""

    main = "cgf1"
    predictor = "proposals"
    uses_words = True
    quick = {"pictures": 0}

    clip: str = "clip-tiny"
    """The checkpoint that names the masks; see `model.checkpoint` of `clip`."""
    automatic: Automatic = Automatic()
    """How densely the model is asked for proposals, and what is kept of them."""
    words: TextMasks = TextMasks()
    """How a mask is shown to CLIP, and what speaks against a word."""
    least: float = Field(0.5, gt=0, le=1)
    """The score from which a mask counts as found: a share of `words.against`, or a cosine where that is empty."""
    negatives: int = Field(4, ge=1, le=1000)
    """Words that are not on the picture, for each picture; fewer where there are no more."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Of their choice, together with the picture's id."""
    pictures: int = Field(12, ge=0, le=24)
    """Words that are drawn on their pictures: those with the worst answers."""

    @property
    def others(self) -> tuple[str, ...]:
        return (self.clip,)


@dataclass(frozen=True)
class Asked:
    """One word and one picture."""

    row: int
    """The picture's number in the data set."""
    word: str
    truth: list[dict]
    """The masks of the things that it names, COCO run lengths; empty: it is not there."""


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set, name="word_masks", words=list[list[str]]) → a dict a row: mask (COCO run lengths), score float[M], and word
            int[M], the number of the word that each mask shows.
        dataset: rows with `id`, `image` and `objects` (category, mask, perhaps iscrowd).
        protocol: what the caller knows; `classes`: the categories' words.

    Raises:
        UserError: no row has a mask, the categories have no names, or no word is on some pictures and not on others.
    """
    import numpy as np

    from adapt.evals.bootstrap import interval
    from adapt.evals.by_set import concept_f1
    from adapt.evals.result import Result

    words, ids = _words(dataset, protocol), dataset["id"][:]
    questions = asked(config, dataset["objects"][:], ids, words)
    found = _found(predict, dataset, questions)
    counts = {
        "matched": [matches(masks, each.truth).tolist() for masks, each in zip(found, questions, strict=True)],
        "found": list(map(len, found)),
        "there": [len(each.truth) for each in questions],
    }
    metrics = concept_f1(*(np.array(values) for values in counts.values()))
    table = {
        "picture": [ids[each.row] for each in questions],
        "id": [f"{ids[each.row]}#{each.word}" for each in questions],
        "row": [ids[each.row] for each in questions],
        "word": [each.word for each in questions],
    } | counts
    return Result(
        metrics=metrics,
        protocol=protocol | _rules(config, questions),
        intervals={name: interval(_sums(table, name), config.bootstrap) for name in metrics},
        table=table,
        remark=_told(counts),
        pictures=_worst(config, dataset, questions, found, counts),
    )


def statistic(table: dict[str, list]) -> Sums:
    """cgF1 of a table, as a function of how often each picture was drawn."""
    return _sums(table, Config.main)


def _sums(table: dict[str, list], name: str) -> Sums:
    """A metric as a function of sums over pictures; words of one picture are drawn together."""
    import numpy as np

    from adapt.evals.bootstrap import Sums, numbered
    from adapt.evals.by_set import concept_counts, concept_scores

    each = concept_counts(*(np.array(table[column]) for column in ("matched", "found", "there")))
    places = numbered(table["picture"])
    parts = np.zeros((places.max() + 1, each.shape[1]))
    np.add.at(parts, places, each)
    return Sums(parts, lambda sums: concept_scores(sums)[name])


def asked(config: Config, objects: Sequence[dict | None], ids: Sequence[str], words: Sequence[str]) -> list[Asked]:
    """What is asked of each picture: its own words, in the order of its objects, and words that are not on it, by its own seed.

    Args:
        objects: the data set's column; words: of the categories, of which several may have the same.

    Raises:
        UserError: no row has a mask; no word is on some pictures and not on others.
    """
    import numpy as np

    singles, _ = masked(objects, config.split)
    questions, vocabulary = [], list(dict.fromkeys(words))
    for number, (every, row) in enumerate(zip(objects, singles, strict=True)):
        if row.get("bbox") and not row.get("mask"):
            continue  # whether a mask is right nobody knows
        every = every or {}
        shown = [words[category] for category in every.get("category") or []]
        crowded = {word for word, crowd in zip(shown, every.get("iscrowd") or [], strict=False) if crowd}
        truth: dict[str, list[dict]] = {}
        for category, code in zip(row.get("category") or [], row.get("mask") or [], strict=True):
            truth.setdefault(words[category], []).append(code)
        questions += [Asked(number, word, codes) for word, codes in truth.items() if word not in crowded]
        others = [word for word in vocabulary if word not in shown]
        draw = np.random.default_rng([config.seed, zlib.crc32(ids[number].encode())])
        questions += [Asked(number, others[i], []) for i in draw.permutation(len(others))[: config.negatives]]
    if len({bool(each.truth) for each in questions}) < 2:
        raise UserError(
            f"evals: concepts asks for words that are on a picture and for words that are not; the split {config.split!r} names "
            f"{', '.join(map(repr, vocabulary[:3]))}{'' if len(vocabulary) <= 3 else ', …'} on its pictures. Take data with more classes."
        )
    return questions


def matches(found: Sequence[dict], truth: Sequence[dict]) -> np.ndarray:
    """Masks that match an object, one to one by the largest sum of IoUs, at each of `THRESHOLDS`: int64[T]; run lengths of one picture."""
    import numpy as np
    from pycocotools.mask import iou
    from scipy.optimize import linear_sum_assignment

    if not (len(found) and len(truth)):
        return np.zeros(len(THRESHOLDS), np.int64)
    ious = np.asarray(iou(list(found), list(truth), [0] * len(truth)))
    pairs = linear_sum_assignment(ious, maximize=True)
    return (ious[pairs] >= np.array(THRESHOLDS)[:, None]).sum(1)


def _words(dataset, protocol: dict[str, Any]) -> list[str]:
    """The categories' words: those that the model is told, else the data's own."""
    names, told = category_names(dataset.features), list(protocol.get("classes") or [])
    if not names:
        raise UserError("evals: concepts needs objects whose categories have names, and these data have none.")
    return told if len(told) == len(names) else names


def _found(predict: Callable, dataset, questions: Sequence[Asked]) -> list[list[dict]]:
    """The masks of each question."""
    rows = list(dict.fromkeys(each.row for each in questions))
    places: dict[int, list[int]] = {row: [] for row in rows}
    for place, each in enumerate(questions):
        places[each.row].append(place)
    part = dataset if len(rows) == len(dataset) else dataset.select(rows)
    answers = predict(part, name=ASKED, words=[[questions[place].word for place in places[row]] for row in rows])
    found: list[list[dict]] = [[] for _ in questions]
    for row, answer in zip(rows, answers, strict=True):
        for code, number in zip(answer["mask"], answer["word"], strict=True):
            found[places[row][number]].append(code)
    return found


def _rules(config: Config, questions: Sequence[Asked]) -> dict[str, Any]:
    """What two numbers must share to be compared."""
    numbers = {
        "asked": len(questions),
        "negative_words": f"{config.negatives} a picture, seed {config.seed}",
        "least": config.least,
    }
    named = {"named_by": config.clip, "shown": config.words.values(), "proposals": config.automatic.values()}
    return {"eval": "concepts", "split": config.split} | numbers | named


def _told(counts: dict[str, list]) -> str:
    """In words: how often it is known whether a word is there."""
    pairs = list(zip(counts["there"], counts["found"], strict=True))
    own, others = [found for there, found in pairs if there], [found for there, found in pairs if not there]
    if not any(counts["found"]):
        return (
            "no mask was found for any word. Lower evals.0.automatic.pred_iou_thresh and stability_score_thresh, so that more is "
            "proposed, or evals.0.least, so that more of it is believed."
        )
    return (
        f"something is found for {sum(map(bool, own)):,} of {len(own):,} words that are on their picture, and for "
        f"{sum(map(bool, others)):,} of {len(others):,} that are not."
    )


def _worst(config: Config, dataset, questions, found, counts: dict[str, list]) -> list[tuple[str, Any]]:
    """The worst answers: most masks for a word that is not there, or the lowest F1; what is there green, what was found red."""
    import numpy as np
    from PIL import Image as Picture

    from adapt.vision.draw import comparison
    from adapt.vision.masks import unrle_many

    rows = zip(*counts.values(), strict=True)
    score = [2 * sum(matched) / len(THRESHOLDS) / (many + there) if there else -many for matched, many, there in rows]
    wrong = [i for i in sorted(range(len(score)), key=score.__getitem__) if counts["found"][i] or counts["there"][i]]
    pictures = []
    for i in wrong[: config.pictures]:
        each = questions[i]
        image: Picture.Image = dataset[each.row]["image"]
        union = [unrle_many(codes).any(0) if codes else np.zeros(image.size[::-1], bool) for codes in (each.truth, found[i])]
        caption = f"{each.word}: {len(each.truth)} there, {len(found[i])} found ({dataset['id'][each.row]})"
        pictures.append((caption, comparison(image, *union)))
    return pictures
