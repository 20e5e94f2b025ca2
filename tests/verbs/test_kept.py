"""What is kept of a teacher's outputs, and in which form."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from adapt.contracts import Packing
from adapt.distill import cache
from adapt.verbs import kept

OWN = Packing(lambda outputs: outputs, lambda item: item, {"top": 3})


@pytest.mark.parametrize(
    ("device", "precision", "packing", "half", "batch", "expected"),
    [
        ("cpu", "fp32", None, True, 256, None),
        ("cpu", "bf16", None, True, 256, None),
        ("cuda", "fp32", None, True, 4096, None),
        ("cuda", "bf16", None, True, 4096, cache.HALF),
        ("cuda", "bf16", None, False, 4096, None),
        ("cuda", "bf16", OWN, True, 4096, OWN),
    ],
)
def test_on_disk_outputs_are_exact_but_for_large_ones_that_a_gpu_has_computed_in_bf16(
    monkeypatch, tmp_path, device, precision, packing, half, batch, expected
):
    told = {}
    monkeypatch.setattr(kept, "place", lambda session, name, made: told.update(made=made) or tmp_path)
    monkeypatch.setattr(cache, "build", lambda *given: told.update(given=given))
    session = SimpleNamespace(
        recipe=SimpleNamespace(seed=0),
        accelerator=SimpleNamespace(device=torch.device(device)),
        precision=precision,
        processes=SimpleNamespace(place=(0, 1)),
    )
    module = SimpleNamespace(eval=lambda: None, input={"size": (64, 64)})
    kept.outputs(session, "teacher", {"data": "x"}, None, module, [], packing=packing, half=half)
    _, _, _, _, pictures, *_, packed, instead = told["given"]
    assert (pictures, packed) == (batch, expected)
    assert "distill.cache=false" in instead
    assert told["made"] == {"data": "x", "layout": cache.VERSION} | ({"packing": expected.made_of} if expected else {})
