"""What finetune refuses, and when."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adapt import pipeline
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.verbs import measuring
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
