"""The embedded checkpoints: stored in half precision, trained and run in full."""

from __future__ import annotations

import json
import shutil

import httpx
import pytest
import torch
from huggingface_hub.errors import GatedRepoError

from adapt import plug
from adapt.models.checkpoint import EMBEDDED, embedded, read_config
from adapt.plug import UserError

FAMILIES = ("clip", "sam", "dinov2", "paligemma")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("weights", ["pretrained", "random"])
def test_weights_are_in_full_precision_however_they_are_stored(name, weights):
    family = plug.load("models", name).load(plug.schema("models", name)(name=name, weights=weights))
    assert {p.dtype for p in family.parameters() if p.is_floating_point()} == {torch.float32}
    assert all(p.isfinite().all() for p in family.parameters())
    assert sum(p.numel() for p in family.parameters()) <= 8e6


@pytest.mark.parametrize("checkpoint", embedded())
def test_weights_that_are_cut_short_are_one_line_with_the_file(checkpoint, tmp_path):
    name, copy = checkpoint.removesuffix("-tiny"), tmp_path / "copy"
    shutil.copytree(EMBEDDED / checkpoint, copy)
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:100_000])
    with pytest.raises(UserError) as error:
        plug.load("models", name).load(plug.schema("models", name)(name=name, checkpoint=str(copy)))
    assert len(str(error.value).splitlines()) == 1
    assert f"{copy / 'model.safetensors'} is cut short or damaged. Download it again." in str(error.value)


@pytest.mark.parametrize("checkpoint", embedded())
def test_weights_of_other_sizes_than_the_configuration_are_one_line(checkpoint, tmp_path):
    name, copy = checkpoint.removesuffix("-tiny"), tmp_path / "copy"
    shutil.copytree(EMBEDDED / checkpoint, copy)
    values = json.loads((copy / "config.json").read_text())
    part = values.get("vision_config", values)
    part["mlp_ratio" if name == "dinov2" else "mlp_dim" if name == "sam" else "intermediate_size"] = 7
    (copy / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"other sizes than its config.json says") as error:
        plug.load("models", name).load(plug.schema("models", name)(name=name, checkpoint=str(copy)))
    assert len(str(error.value).splitlines()) == 1


def test_a_checkpoint_behind_a_page_of_consent_says_how_to_get_it(monkeypatch):
    def asks(*_, **__):
        raise GatedRepoError("401", response=httpx.Response(401, request=httpx.Request("GET", "https://hub")))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", asks)
    with pytest.raises(UserError, match=r"'google/paligemma2-3b-pt-224': the hub asks for consent first: .* hf auth login"):
        read_config("google/paligemma2-3b-pt-224", ("paligemma",))
