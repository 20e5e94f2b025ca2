"""What finetune refuses, and when."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapt import pipeline
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.verbs import measuring


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
