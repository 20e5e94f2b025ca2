"""What finetune refuses, and when."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
import torch

from adapt import pipeline
from adapt.plug import UserError
from adapt.provenance import hash_path
from adapt.recipe import load_recipe
from adapt.run import Run
from adapt.train import loop
from adapt.verbs import features, measuring
from adapt.verbs import finetune as verb
from adapt.verbs.finetune import try_method
from adapt.verbs.session import Session

pytestmark = pytest.mark.usefixtures("fewer")

FEW = ["data.path=photos", "train.epochs=1", "train.batch=16", "distill=null", "export=[]", "tracker=none"]


def killed(*_, **__) -> None:
    raise KeyboardInterrupt


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


@pytest.mark.parametrize("changed", [False, True])
def test_an_adapter_that_was_deleted_is_made_again_as_the_refusal_says(changed, photos, monkeypatch):
    recipe = load_recipe("clip_lora", FEW)
    folder = pipeline.finetune(recipe).path
    adapter, state = folder / "adapter", folder / "checkpoints" / "last.pt"
    before, first = (adapter / "adapter_model.safetensors").read_bytes(), state.stat().st_mtime_ns
    if changed:
        for i in range(8):
            shutil.copy(f"photos/lime/{i}.png", f"photos/snow/lime {i}.png")
        with pytest.raises(UserError, match=f"or delete {adapter} to make it again"):
            pipeline.finetune(recipe)
    shutil.rmtree(adapter)
    with pytest.raises(UserError, match="no adapter yet"):
        pipeline.merge(recipe)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(verb, "_save", killed)
        pipeline.finetune(recipe)
    second = state.stat().st_mtime_ns
    assert second > first, "it is trained anew"
    assert pipeline.finetune(recipe).path == folder
    assert state.stat().st_mtime_ns == second, "a kill of the second training loses nothing"
    same = (adapter / "adapter_model.safetensors").read_bytes() == before
    assert same != changed, "of the same data, to the same bits"


def test_an_extension_that_was_killed_before_it_was_noted_is_noted_and_not_trained_again(photos, monkeypatch):
    recipe, better = load_recipe("clip_lora", FEW), itertools.count()
    folder = pipeline.finetune(recipe).path
    before = Run(folder).facts("finetune")
    monkeypatch.setattr(measuring, "validate", lambda session, module: next(better) / 100)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Session, "record", killed)
        pipeline.finetune(recipe, extend=1)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "fit", lambda *_, **__: pytest.fail("it has been trained"))
        pipeline.finetune(recipe, extend=1)
    facts = Run(folder).facts("finetune")
    (step,) = facts["extended"]
    assert (step["epochs"], step["from"], step["before"]) == (1, before["adapter"], 0)
    assert step["after"] > step["before"]
    assert facts["adapter"] == hash_path(folder / "adapter", without=".md") != before["adapter"]
    pipeline.finetune(recipe, extend=1)
    assert len(Run(folder).facts("finetune")["extended"]) == 2, "the next one is trained"


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
