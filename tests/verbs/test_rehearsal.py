"""How long a road will take is reckoned from real steps, which leave nothing behind."""

from __future__ import annotations

import pytest
import torch

from adapt import pipeline
from adapt.recipe import load_recipe
from adapt.train import loop
from adapt.verbs import rehearsal
from adapt.verbs.session import Session

SMALL = ["tracker=none", "data.shots=2", "data.unlabelled=[noto]", "evals.0.bootstrap=100", "distill.train.batch=32"]


def session(*overrides: str, recipe: str = "clip_lora") -> Session:
    return Session(load_recipe(recipe, [*SMALL, *overrides] if recipe == "clip_lora" else ["tracker=none", *overrides]))


def test_a_rehearsal_leaves_the_model_and_what_is_random_as_they_were():
    here = session()
    before, state = {name: value.clone() for name, value in here.family.state_dict().items()}, torch.get_rng_state()
    found = rehearsal.seconds(here)
    assert list(found) == ["teacher", "distill"] and min(found.values()) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in here.family.state_dict().items())
    assert not [value for value in here.family.parameters() if value.grad is not None]


@pytest.mark.parametrize(
    ("overrides", "teacher", "trainings"),
    [
        ([], 2 / 32 * 945 * 4, 29 * 12),
        (["distill.views=2"], 2 / 32 * 945 * 2, 29 * 12),
        (["distill.baseline=true"], None, 2 * 29 * 12),
    ],
)
def test_views_epochs_and_a_baseline_are_counted(overrides, teacher, trainings, monkeypatch):
    """2 s for a batch of the teacher's answers, 5 s for a step with them in it; 945 pictures, 29 steps an epoch."""
    monkeypatch.setattr(rehearsal, "_batch", lambda prepared, batch: {"answer": 2.0, "step": 5.0}[prepared.__name__])
    found = rehearsal.seconds(session(*overrides))
    assert found["distill"] == 3.0 * trainings
    assert teacher is None or found["teacher"] == teacher


def test_a_teacher_in_the_loop_is_a_part_of_each_step(monkeypatch):
    monkeypatch.setattr(rehearsal, "_batch", lambda prepared, batch: {"answer": 2.0, "step": 5.0}[prepared.__name__])
    assert rehearsal.seconds(session("distill.cache=false", "distill.train.steps=200")) == {"distill": 1000.0}


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [("clip_lora", ["distill.train.steps=99"]), ("clip_lora", ["distill=null", "export=[]"]), ("sam_distill", [])],
)
def test_what_is_short_or_cannot_be_known_is_not_foretold(recipe, overrides, monkeypatch):
    monkeypatch.setattr(rehearsal, "_tried", lambda *_: pytest.fail("tried"))
    assert rehearsal.seconds(session(*overrides, recipe=recipe)) == {}


def test_a_few_pictures_stand_for_a_batch_only_where_that_takes_long(monkeypatch):
    def prepared(count: int):
        return lambda: asked.append(count)

    for each, expected in ((0.01, [8, 8, 64]), (1.0, [8, 8])):
        asked: list[int] = []
        monkeypatch.setattr(rehearsal, "_clocked", lambda work, each=each: work() or 8 * each)
        rehearsal._batch(prepared, 64)
        assert asked == expected


class Stopped(Exception):
    """The training would begin."""


def test_a_road_hands_what_it_knows_to_the_training(monkeypatch):
    def fit(*_, later, **__):
        raise Stopped(later)

    monkeypatch.setattr(loop, "fit", fit)
    monkeypatch.setattr(rehearsal, "seconds", lambda session: {"distill": 60.0})
    with pytest.raises(Stopped, match=r"\{'distill': 60.0\}"):
        pipeline.road(load_recipe("clip_lora", [*SMALL, "data.shots=1"]))
    with pytest.raises(Stopped, match=r"\{\}"):
        pipeline.finetune(load_recipe("clip_lora", [*SMALL, "data.shots=1"]))
