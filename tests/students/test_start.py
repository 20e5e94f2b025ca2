"""Where a student's weights come from when nobody says: what fits, and it is said."""

from __future__ import annotations

import pytest
import torch

from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.students import cnn


@pytest.fixture
def hub(monkeypatch):
    """Architectures whose weights timm can fetch."""
    have: list[str] = []
    whole = cnn.timm_model

    def fetched(architecture: str, fetch: bool, **options):
        if fetch and architecture not in have:
            raise OSError("no network")
        return whole(architecture, False, **options | {"pretrained": False})

    monkeypatch.setattr(cnn, "timm_model", fetched)
    return have


def test_a_start_is_chosen_by_what_fits(hub):
    assert cnn.chosen("resnet18", "auto") == (
        False,
        "student: timm's weights of resnet18 cannot be fetched; it starts from random ones.",
    )
    start, said = cnn.chosen("resnet10t", "auto")
    assert start == "cnn-tiny" and "the embedded cnn-tiny" in said
    hub.append("resnet10t")
    assert cnn.chosen("resnet10t", "auto") == (True, "student: resnet10t starts from timm's weights.")


def test_what_a_user_chose_is_not_chosen_again(hub):
    for given in (True, False, "cnn-tiny", "other.safetensors"):
        assert cnn.chosen("resnet10t", given) == (given, "")
    with pytest.raises(UserError, match=r"cannot be fetched .*distill\.pretrained=auto or false"):
        cnn.create("resnet18", 0, True)


def test_an_embedded_start_is_taken_by_auto(hub):
    torch.manual_seed(0)
    net, plain = cnn.create("resnet10t", 3, "auto"), cnn.create("resnet10t", 3, "cnn-tiny")
    assert torch.equal(net.conv1[0].weight, plain.conv1[0].weight)


@pytest.mark.parametrize(
    ("given", "start"),
    [
        ([], "cnn-tiny"),
        (["distill.student=resnet10t"], "cnn-tiny"),
        (["distill.student=resnet18"], "auto"),
        (["distill.student=resnet18", "distill.pretrained=true"], True),
    ],
)
def test_the_start_that_a_recipe_chose_is_its_own_students(given, start):
    assert load_recipe("clip_lora", given).distill.pretrained == start
