"""Masks of words: against the formula of SAM 3's measure written out, and on the embedded world with CLIP beside SAM."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Picture

from adapt.evals import concepts
from adapt.evals.concepts import THRESHOLDS, Config, asked, matches
from adapt.plug import UserError
from adapt.vision.masks import box, rle, unrle, unrle_many
from adapt.vision.pictures import BOXES, MASKS

SIZE = (24, 40)
NAMES = ["sun", "moon", "star", "comet"]


def square(x: int, y: int, side: int = 8) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def rows(n: int = 12, crowd: bool = False) -> Dataset:
    """One to three squares on each; the last picture is empty."""
    random, found = np.random.default_rng(0), []
    for i in range(n):
        masks = [square(12 * k, int(random.integers(0, 16))) for k in range(0 if i == n - 1 else 1 + i % 3)]
        category = [int(random.integers(0, 3)) for _ in masks]
        objects = {"bbox": [box(m) for m in masks], "category": category, "mask": [rle(m) for m in masks]}
        objects["iscrowd"] = [int(crowd and i == 2 and k == 0) for k in range(len(masks))]
        found.append({"id": f"r{i}", "image": Picture.new("RGB", SIZE[::-1]), "objects": objects})
    objects = {"bbox": BOXES, "category": List(ClassLabel(names=NAMES)), "mask": MASKS, "iscrowd": List(Value("int8"))}
    return Dataset.from_list(found, Features(id=Value("string"), image=Image(), objects=objects))


def guess(part, name, words, seed=0):
    """Masks moved by up to three pixels, some left out, some twice, and now and then one of a word that is not there."""
    assert name == "word_masks"
    random, answers = np.random.default_rng(seed), []
    for objects, own in zip(part["objects"], words, strict=True):
        masks, numbers = [], []
        for number, word in enumerate(own):
            things = [code for code, c in zip(objects["mask"], objects["category"], strict=True) if NAMES[c] == word]
            for code in things:
                for _ in range(int(random.integers(0, 3))):
                    masks.append(np.roll(unrle(code), int(random.integers(0, 4)), 1))
                    numbers.append(number)
            if not things and random.random() < 0.3:
                masks.append(square(3, 3))
                numbers.append(number)
        answers.append({"mask": [rle(mask) for mask in masks], "score": [1.0] * len(masks), "word": numbers})
    return answers


def best_sum(ious: np.ndarray) -> list[float]:
    """The IoUs of the matching with the largest sum, by trying all."""
    if ious.shape[0] > ious.shape[1]:
        ious = ious.T
    every = itertools.permutations(range(ious.shape[1]), ious.shape[0])
    return max(([ious[i, j] for i, j in enumerate(one)] for one in every), key=sum, default=[])


def test_cgf1_is_the_formula_of_sam_3():
    data = rows()
    result = concepts.evaluate(Config(name="concepts", negatives=2), guess, data, {"data": "x"})
    questions = asked(Config(name="concepts", negatives=2), data["objects"][:], data["id"][:], NAMES)
    answers = guess(data, "word_masks", [[q.word for q in questions if q.row == i] for i in range(len(data))])
    tp, fp, fn, presence = np.zeros(10), np.zeros(10), np.zeros(10), dict.fromkeys(itertools.product((0, 1), (0, 1)), 0)
    for i, answer in enumerate(answers):
        for number, question in enumerate([q for q in questions if q.row == i]):
            found = [unrle(code) for code, word in zip(answer["mask"], answer["word"], strict=True) if word == number]
            truth = unrle_many(question.truth)
            presence[int(len(truth) > 0), int(len(found) > 0)] += 1
            if len(truth):
                ious = np.array([[(a & b).sum() / (a | b).sum() for b in truth] for a in found]).reshape(len(found), len(truth))
                good = np.array([[iou >= t for t in THRESHOLDS] for iou in best_sum(ious)]).reshape(-1, 10).sum(0)
                tp, fp, fn = tp + good, fp + len(found) - good, fn + len(truth) - good
    f1 = np.mean(2 * tp / (2 * tp + fp + fn))
    (tn, false), (missed, both) = (presence[0, 0], presence[0, 1]), (presence[1, 0], presence[1, 1])
    mcc = (both * tn - false * missed) / np.sqrt((both + false) * (both + missed) * (tn + false) * (tn + missed))
    assert min(tn, false, missed, both) > 0 and 0 < f1 < 1
    assert result.metrics == pytest.approx({"positive_f1": f1, "presence_mcc": mcc, "cgf1": f1 * mcc})
    assert result.protocol["asked"] == len(questions) == sum(presence.values())
    assert (
        f"for {both} of {both + missed} words that are on their picture, and for {false} of {false + tn} that" in result.remark
    )
    assert result.intervals["cgf1"][0] < result.metrics["cgf1"] < result.intervals["cgf1"][1]


def test_matches_are_one_to_one():
    one, two = square(2, 2), square(20, 2)
    codes = [rle(one), rle(one), rle(np.roll(two, 2, 1))]
    assert matches(codes, [rle(one), rle(two)]).tolist() == [2, 2, 2] + [1] * 7, "IoU 0.6 of the moved one"
    assert matches([], [rle(one)]).tolist() == matches([rle(one)], []).tolist() == [0] * 10


def test_words_that_are_not_there_are_drawn_by_the_pictures_own_seed():
    data = rows()
    config = Config(name="concepts", negatives=2)
    questions = asked(config, data["objects"][:], data["id"][:], NAMES)
    for i, row in enumerate(data["objects"]):
        own = [q for q in questions if q.row == i]
        there = {NAMES[c] for c in row["category"]}
        assert {q.word for q in own if q.truth} == there
        assert len([q for q in own if not q.truth]) == min(2, 4 - len(there))
        assert not {q.word for q in own if not q.truth} & there
        assert sum(len(q.truth) for q in own) == len(row["category"])
    later = data.select(range(4, 12))
    assert [(q.word, q.truth) for q in asked(config, later["objects"][:], later["id"][:], NAMES)] == [
        (q.word, q.truth) for q in questions if q.row >= 4
    ], "whatever other pictures there are"
    other = asked(config.model_copy(update={"seed": 1}), data["objects"][:], data["id"][:], NAMES)
    assert [q.word for q in other] != [q.word for q in questions]


def test_what_is_a_crowd_is_not_asked():
    config = Config(name="concepts", negatives=4)
    plain, crowded = (asked(config, data["objects"][:], data["id"][:], NAMES) for data in (rows(), rows(crowd=True)))
    word = NAMES[rows()["objects"][2]["category"][0]]
    assert word in {q.word for q in plain if q.row == 2} and word not in {q.word for q in crowded if q.row == 2}


def test_categories_of_one_name_are_one_word():
    data = rows()
    questions = asked(Config(name="concepts"), data["objects"][:], data["id"][:], ["sun", "sun", "star", "comet"])
    assert {q.word for q in questions} == {"sun", "star", "comet"}
    assert len(questions) == len({(q.row, q.word) for q in questions})


def test_who_always_finds_something_knows_nothing():
    def eager(part, name, words):
        every = [[(square(12 * k, 0), number) for number in range(len(own)) for k in range(2)] for own in words]
        return [{"mask": [rle(m) for m, _ in one], "word": [n for _, n in one], "score": [1.0] * len(one)} for one in every]

    assert concepts.evaluate(Config(name="concepts"), eager, rows(), {}).metrics["cgf1"] == 0


def test_who_finds_nothing_is_told_what_to_lower():
    def shy(part, name, words):
        return [{"mask": [], "word": [], "score": []} for _ in words]

    result = concepts.evaluate(Config(name="concepts"), shy, rows(), {})
    assert result.metrics["cgf1"] == 0 and "Lower evals.0.automatic.pred_iou_thresh" in result.remark


def test_the_worst_answers_are_drawn():
    result = concepts.evaluate(Config(name="concepts", pictures=5), guess, rows(), {})
    counts = [caption.split(": ")[1] for caption, _ in result.pictures]
    assert len(counts) == 5 and counts[0].startswith("0 there, 1 found")
    assert result.pictures[0][1].size == SIZE[::-1]


def test_data_without_words_to_tell_apart_are_a_user_error():
    data = rows()
    with pytest.raises(UserError, match="no row of the split 'test' has masks"):
        concepts.evaluate(Config(name="concepts"), guess, data.select([11]), {})
    with pytest.raises(UserError, match="the split 'test' names 'sun' on its pictures"):
        concepts.evaluate(Config(name="concepts"), guess, data.select(range(11)), {"classes": ["sun"] * 4})
    nameless = data.cast(
        Features(data.features | {"objects": dict(data.features["objects"]) | {"category": List(Value("int64"))}})
    )
    with pytest.raises(UserError, match="categories have names"):
        concepts.evaluate(Config(name="concepts"), guess, nameless, {})


def test_sam_proposes_and_clip_names():
    """The whole road, of few pictures: far better than chance on things that both have seen in other hands."""
    from adapt.recipe import validate
    from adapt.verbs import measuring
    from adapt.verbs.lineage import entry
    from adapt.verbs.session import Session

    automatic = {"points_per_side": 6, "pred_iou_thresh": 0.6, "stability_score_thresh": 0.7}
    words = {"background": "white", "templates": ["{}"], "scale": 20}
    scenes = {"source": "emoji_scenes", "things": "all", "cast": 8, "classes": "thing", "train": 1, "validation": 1, "test": 8}
    recipe = validate(
        {
            "name": "words",
            "model": {"name": "sam"},
            "data": scenes,
            "method": {"name": "decoder"},
            "evals": [{"name": "concepts", "automatic": automatic, "words": words}],
            "tracker": "none",
        }
    )
    session = Session(recipe)
    for clip, message in (
        ("clip-tny", "evals: 'clip-tny' is neither"),
        ("dinov2-tiny", "clip: 'dinov2-tiny' is a 'dinov2' model"),
    ):
        other = Session(recipe.model_copy(update={"evals": [recipe.evals[0].model_copy(update={"clip": clip})]}))
        with pytest.raises(UserError, match=message):
            entry(other, "zero-shot")
            measuring.evaluated(other, other.recipe.evals[0], None, "test", None)
    ask = measuring.predictor(session, session.family)
    result = measuring.evaluated(session, recipe.evals[0], ask, "test", session.family)
    assert result.metrics["cgf1"] > 0.15 and result.metrics["presence_mcc"] > 0.4
    assert list(entry(session, "zero-shot")["beside"]) == ["clip-tiny"], "other weights of CLIP are other numbers"
