"""Templates one by one: of known answers, and of a network against zero-shot with each."""

from __future__ import annotations

import numpy as np
import pytest
from accelerate import Accelerator
from datasets import ClassLabel, Dataset

from adapt.evals import templates, zeroshot
from adapt.plug import UserError
from adapt.train.predict import predict

NAMES = ["cat", "dog", "bird"]
TEMPLATES = ["a {}", "the {}", "{}"]


def rows(count: int) -> Dataset:
    columns = {"id": [f"r{i}" for i in range(count)], "label": [i % 3 for i in range(count)]}
    return Dataset.from_dict(columns).cast_column("label", ClassLabel(names=NAMES))


def measure(count: int = 12, told: list[str] = TEMPLATES, **options):
    """A model that is right with `the` always, with `a` of every other picture, and with no word never."""
    calls = []

    def predict(part, texts):
        calls.append((len(part), len(texts)))
        known = {"the": lambda n: True, "a": lambda n: n % 2 == 0}
        scores = np.zeros((len(part), len(texts)))
        for row, name in enumerate(part["id"]):
            number = int(name[1:])
            for column, text in enumerate(texts):
                word, _, thing = text.rpartition(" ")
                right = known.get(word, lambda n: False)(number)
                scores[row, column] = (thing == NAMES[number % 3]) == right
        return scores

    config = templates.Config(name="templates", **options)
    return templates.evaluate(config, predict, rows(count), {"classes": NAMES, "templates": told}), calls


def test_the_spread_over_templates_by_hand():
    result, calls = measure()
    assert calls == [(12, 9)], "one pass over the pictures"
    assert result.metrics == pytest.approx(
        {"template_mean": 0.5, "template_sd": np.std([0.5, 1, 0]), "template_min": 0, "template_max": 1}
    )
    assert result.table["hits"][:2] == [[1, 1, 0], [0, 1, 0]]
    assert result.remark == "of 3 templates alone, 'the {}' is right most often (100.0 %), '{}' least often (0.0 %)."
    assert result.intervals["template_min"] == (0, 0) and result.intervals["template_max"] == (1, 1)
    low, high = result.intervals["template_mean"]
    assert low < 0.5 < high


def test_one_template_has_no_spread():
    result, _ = measure(told=["a {}", "a {}"])
    assert result.metrics == {"template_mean": 0.5, "template_sd": 0, "template_min": 0.5, "template_max": 0.5}


def test_of_many_pictures_some_are_drawn():
    result, calls = measure(60, limit=20)
    assert calls == [(20, 9)] and result.protocol["measured"] == 20
    assert measure(60, limit=20, seed=1)[0].table["id"] != result.table["id"] == measure(60, limit=20)[0].table["id"]


def test_words_that_are_no_names_in_templates_are_a_user_error():
    config = templates.Config(name="templates")
    with pytest.raises(UserError, match="asks about class names in templates, and there are none here"):
        templates.evaluate(config, None, rows(3), {"classes": NAMES, "templates": []})
    with pytest.raises(UserError, match="these words have several, or descriptions"):
        templates.evaluate(config, None, rows(3), {"classes": NAMES, "templates": ["{}"], "texts": "ab12"})


def test_each_template_alone_is_zero_shot_with_this_template(clip_tiny, emoji, monkeypatch):
    """Also when the similarities of all templates are more than memory is meant to hold."""
    data, accelerator = emoji["test"].select(range(0, 160, 5)), Accelerator(cpu=True)
    classes = [name.replace("_", " ") for name in data.features["label"].names]

    def asked(part, name="class_logits", texts=None):
        return predict(clip_tiny.predictors(texts)[name], clip_tiny, part, 16, accelerator, name=name)

    alone = []
    for template in TEMPLATES:
        clip_tiny.set_classes(classes, [template])
        alone.append(zeroshot.evaluate(zeroshot.Config(name="zeroshot"), asked, data, {}).metrics["top1"])
    clip_tiny.set_classes([], ["{}"])
    protocol = {"classes": classes, "templates": TEMPLATES}
    whole = templates.evaluate(templates.Config(name="templates"), asked, data, protocol)
    values = {"mean": np.mean(alone), "sd": np.std(alone), "min": min(alone), "max": max(alone)}
    assert whole.metrics == pytest.approx({f"template_{name}": value for name, value in values.items()})
    assert whole.metrics["template_sd"] > 0
    monkeypatch.setattr(templates, "BLOCK", 1)
    assert templates.evaluate(templates.Config(name="templates"), asked, data, protocol) == whole
