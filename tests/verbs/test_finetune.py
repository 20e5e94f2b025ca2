"""What finetune refuses, and when."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapt import pipeline
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.verbs import features, measuring
from adapt.verbs.finetune import try_method
from adapt.verbs.session import Session


@pytest.mark.parametrize(
    ("recipe", "method", "said"),
    [
        ("dinov2_lora", "prolip", "method.name: 'prolip' starts from the classes' words, and this family has no text tower"),
        ("clip_lora", "{name: lora, targets: [qq]}", "method.targets: .*'qq'.* match no module of this checkpoint"),
    ],
)
def test_a_method_that_does_not_fit_is_refused_before_anything_is_measured(recipe, method, said, monkeypatch):
    measured = []
    monkeypatch.setattr(measuring, "measure", lambda *_, **__: measured.append(1))
    method = method if method.startswith("{") else f"{{name: {method}}}"
    with pytest.raises(UserError, match=said):
        pipeline.finetune(load_recipe(recipe, [f"method={method}", "tracker=none", "data.shots=2", "data.unlabelled=[]"]))
    assert not measured
    assert not list(Path().glob("runs/*/metrics.json"))


FROZEN = "{name: lora, targets: [q, k, v]}"


@pytest.mark.parametrize(
    ("recipe", "options"),
    [
        ("sam_decoder", []),
        ("dinov2_segment", ["method={name: head}", "train.cache=true"]),
        ("paligemma_lora", [f"method={FROZEN}", "train.cache=true"]),
    ],
)
def test_features_of_moved_views_are_refused_where_the_truth_has_places(recipe, options, monkeypatch):
    """Boxes, masks and <loc> words would stay where they are in the picture, and teach the features of another place."""
    monkeypatch.setattr(measuring, "measure", lambda *_, **__: pytest.fail("nothing is measured before"))
    small = ["data.train=4", "data.validation=2", "data.test=2", "tracker=none", "train.steps=1"]
    with pytest.raises(UserError, match=r"train.cache_views: 2, but what '\w+' learns here has places in the picture"):
        pipeline.finetune(load_recipe(recipe, [*options, *small, "train.cache_views=2"]))


def test_a_family_whose_truth_has_no_places_trains_on_features_of_random_views():
    """Classes are those of the picture, whatever a view shows of it."""
    for recipe in ("clip_lora", "dinov2_linear"):
        session = Session(load_recipe(recipe, ["method={name: head}", "train.cache_views=2", "tracker=none", "data.shots=1"]))
        assert not session.family.located
        features.need_still(session, 2)


@pytest.mark.parametrize(
    "recipe", ["clip_lora", "clip_qlora", "clip_few_labels", "sam_decoder", "dinov2_linear", "paligemma_lora"]
)
def test_a_method_on_trial_leaves_the_family_as_it_comes(recipe):
    session = Session(load_recipe(recipe, ["tracker=none"]))
    before = {name: value.clone() for name, value in session.family.state_dict().items() if isinstance(value, torch.Tensor)}
    learns = {name: parameter.requires_grad for name, parameter in session.family.named_parameters()}
    try_method(session)
    after = session.family.state_dict()
    assert [name for name in after if isinstance(after[name], torch.Tensor)] == list(before)
    assert all(torch.equal(after[name], value) and after[name].dtype == value.dtype for name, value in before.items())
    assert {name: parameter.requires_grad for name, parameter in session.family.named_parameters()} == learns
    session.apply_method()
    assert any(parameter.requires_grad for parameter in session.family.parameters()) or not session.recipe.method.trains
