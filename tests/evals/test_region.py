"""Which thing is in a box: each step's score written out, and the embedded CLIP on real scenes."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Picture
from pydantic import ValidationError

from adapt.evals import region
from adapt.plug import UserError
from adapt.prompting.visual import Visual
from adapt.vision.pictures import BOXES

NAMES = ["cat", "dog", "bus"]


def data(*categories: list[int], crowds: list[list[int]] | None = None) -> Dataset:
    """A row for each list of categories, with as many boxes."""
    objects = [
        {"bbox": [[4 * k, 0, 4 * k + 4, 8] for k in range(len(row))], "category": row, "iscrowd": crowd}
        for row, crowd in zip(categories, crowds or [[0] * len(row) for row in categories], strict=True)
    ]
    rows = {
        "id": [f"r{i}" for i in range(len(objects))],
        "image": [Picture.new("RGB", (32, 8), (i, 0, 0)) for i in range(len(objects))],
        "objects": objects,
    }
    kinds = {"bbox": BOXES, "category": List(ClassLabel(names=NAMES)), "iscrowd": List(Value("int8"))}
    return Dataset.from_dict(rows, Features(id=Value("string"), image=Image(), objects=kinds))


def answers(drawings=("blur", "crop"), summed=1):
    """A model whose scores are noise, by a row's first colour, and what it was asked."""
    asked = []

    def predict(rows, name, texts, visual, plain):
        asked.append({"rows": rows["id"][:], "name": name, "texts": texts, "visual": visual, "plain": plain})
        out = []
        for row in rows:
            random = np.random.default_rng([row["image"].getpixel((0, 0))[0], len(rows)])
            shape = (len([c for c in row["objects"]["iscrowd"] if not c]), len(drawings), 3)
            out.append({"drawings": list(drawings), "summed": summed})
            out[-1] |= {"classes": random.normal(size=shape), "texts": random.normal(size=shape)}
        return out

    return predict, asked


def test_each_step_is_its_own_score():
    rows, bank = data([0, 1], [2], [1, 1, 0]), data([0, 0], [1, 2])
    predict, asked = answers()
    result = region.evaluate(region.Config(name="region"), predict, rows, {"data": "x"}, bank)
    assert asked[0]["texts"] == ["a photo of a cat.", "a photo of a dog.", "a photo of a bus."]
    assert [call["rows"] for call in asked] == [["r0", "r1", "r2"], ["r0", "r1"]], "each picture is asked about once"
    assert asked[0]["plain"] == [True] * 3 and asked[0]["visual"] == [Visual()] * 3
    found = predict(rows, "", [], None, None)
    classes, texts = (np.concatenate([row[name] for row in found]) for name in ("classes", "texts"))
    less = np.concatenate([row["classes"] for row in predict(bank, "", [], None, None)])[:, 0].mean(0)
    labels = np.array([0, 1, 2, 1, 1, 0])
    expected = {
        "region_plain": texts[:, 1],
        "region_templates": classes[:, 1],
        "region_drawings": classes[:, 0],
        "region": classes[:, 0] - 0.5 * less,
    }
    for step, scores in expected.items():
        assert result.metrics[step] == pytest.approx((scores.argmax(1) == labels).mean())
    assert result.metrics["region_gain"] == pytest.approx(result.metrics["region"] - result.metrics["region_plain"])
    assert result.table["id"] == ["r0#0", "r0#1", "r1#0", "r2#0", "r2#1", "r2#2"]
    assert result.table["picture"] == ["r0", "r0", "r1", "r2", "r2", "r2"]
    assert result.table["prediction"] == [NAMES[i] for i in expected["region"].argmax(1)]
    assert result.floor == 0.5
    low, high = result.intervals["region_gain"]
    assert low <= result.metrics["region_gain"] <= high


def test_the_drawings_that_were_wished_for_are_averaged():
    predict, _ = answers(drawings=("crop", "blur", "grey"), summed=3)
    rows = data([0, 1], [2], [1, 1, 0], [2, 2, 2, 0])
    config = region.Config(name="region", subtract=0)
    assert config.bank is None, "nothing is subtracted, and no bank is asked for"
    result = region.evaluate(config, predict, rows, {})
    classes = np.concatenate([row["classes"] for row in predict(rows, "", [], None, None)])
    labels = np.concatenate(rows["objects"][:] and [row["category"] for row in rows["objects"]])
    assert result.metrics["region"] == pytest.approx((classes.sum(1).argmax(1) == labels).mean())
    assert result.metrics["region"] == result.metrics["region_drawings"]
    assert result.protocol["visual"]["drawings"] == ["crop", "blur", "grey"] and result.protocol["negatives"] == "none"


def test_crowds_and_pictures_without_boxes_are_not_asked_about():
    rows = data([0, 1], [], [1, 1], crowds=[[0, 1], [], [1, 0]])
    predict, asked = answers()
    result = region.evaluate(region.Config(name="region", subtract=0), predict, rows, {})
    assert asked[0]["rows"] == ["r0", "r2"]
    assert result.table["label"] == ["cat", "dog"] and result.table["id"] == ["r0#0", "r2#0"]


def test_a_model_that_says_the_same_of_all_classes_knows_none():
    def predict(rows, **_):
        shape = (len(rows[0]["objects"]["bbox"]), 1, 3)
        return [{"drawings": ["crop"], "summed": 1, "classes": np.ones(shape), "texts": np.ones(shape)}]

    result = region.evaluate(region.Config(name="region", subtract=0), predict, data([0, 1]), {})
    assert result.metrics["region"] == result.metrics["region_plain"] == 0


def test_negatives_are_as_many_boxes_as_are_wished_for():
    bank = data(*([[0, 1, 2]] * 20))
    predict, asked = answers()
    region.evaluate(region.Config(name="region", negatives=10), predict, data([0, 1]), {}, bank)
    assert len(asked[1]["rows"]) == 4, "the first rows by chance with ten boxes or more"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (data([0]).remove_columns("objects"), "region needs a column 'objects'"),
        (data([], []), "no row of the split 'test' has a box"),
    ],
)
def test_data_without_boxes_are_refused(rows, said):
    with pytest.raises(UserError, match=said):
        region.evaluate(region.Config(name="region"), None, rows, {"classes": NAMES})


def test_a_plain_template_has_one_place_for_the_class():
    with pytest.raises(ValidationError, match=r"write one \{\}"):
        region.Config(name="region", template="a photo")


def test_the_embedded_clip_sees_things_best_alone_on_white(monkeypatch, tmp_path):
    """On scenes by a hand it has not seen: 34 % against 17 % of the plain crop with the same words, when written."""
    from adapt.data.emoji_scenes import Config as Scenes
    from adapt.data.emoji_scenes import compose
    from adapt.models.clip import Config, load
    from adapt.prompting.templates import words
    from adapt.recipe import Prompts
    from adapt.vision.classes import category_names

    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path))
    rows = compose.rows(Scenes(hands=["openmoji"]), "validation", 50)
    clip = load(Config(name="clip")).eval()
    clip.set_classes(*words(Prompts(templates=["{}"], classes="emoji"), category_names(rows.features)))

    def predict(rows, name, texts, **options):
        return clip.predictors(texts)[name](list(rows), **options)

    config = region.Config(name="region", subtract=0, visual=Visual(drawings=["crop+white"], fit="pad"))
    result = region.evaluate(config, predict, rows, {"classes": list(clip.classes)})
    assert result.metrics["region"] > 1.4 * result.metrics["region_templates"] > 1.4 * result.metrics["region_plain"]
    assert result.intervals["region_gain"][0] > 0.1
    assert len(result.table["id"]) == sum(rows["count"])
