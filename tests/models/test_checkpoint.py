"""The embedded checkpoints: stored in half precision, trained and run in full."""

from __future__ import annotations

import pytest
import torch

from adapt import plug

FAMILIES = ("clip", "sam", "dinov2", "paligemma")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_weights_are_in_full_precision_however_they_are_stored(name, weights):
    family = plug.load("models", name).load(plug.schema("models", name)(name=name, weights=weights))
    assert {p.dtype for p in family.parameters() if p.is_floating_point()} == {torch.float32}
    assert all(p.isfinite().all() for p in family.parameters())
    assert sum(p.numel() for p in family.parameters()) <= 8e6
