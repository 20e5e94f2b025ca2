"""Between start and end: WiSE-FT's formula on states, exact at both ends, and refused where there is no straight way back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from adapt.verbs.interpolation import _same, interpolate


def network(seed: int) -> nn.Module:
    """Weights, BatchNorm's buffers, a counter and a half-precision weight."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5).half())
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    net[1].num_batches_tracked += 10 * seed + 7
    return net


@pytest.fixture
def pair():
    return network(0).state_dict(), network(1).state_dict()


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_every_weight_goes_part_of_the_way(pair, alpha):
    start, learned = pair
    mixed = interpolate(start, learned, alpha)
    for name, value in mixed.items():
        a, b = start[name], learned[name]
        assert value.dtype == a.dtype and value.shape == a.shape
        if a.is_floating_point():  # WiSE-FT eq. (1): θ₀ + α (θ − θ₀)
            expected = a.double() + alpha * (b.double() - a.double())
            torch.testing.assert_close(value.double(), expected, atol=1e-3 if a.dtype == torch.half else 1e-6, rtol=0)


def test_both_ends_are_exact_and_what_counts_has_no_middle(pair):
    start, learned = pair
    assert all(torch.equal(value, start[name]) for name, value in interpolate(start, learned, 0).items())
    assert all(torch.equal(value, learned[name]) for name, value in interpolate(start, learned, 1).items())
    assert interpolate(start, learned, 0.1)["1.num_batches_tracked"] == 17
    assert interpolate(start, learned, 0)["1.num_batches_tracked"] == 7


def test_what_is_mixed_is_a_copy(pair):
    start, learned = pair
    before = learned["0.weight"].clone()
    interpolate(start, learned, 1.0)["0.weight"].zero_()
    assert torch.equal(learned["0.weight"], before)


def test_one_linear_layer_mixed_is_the_ensemble_of_both_classifiers_logits():
    """WiSE-FT §3: of a linear classifier the weight space is the output space."""
    torch.manual_seed(0)
    zero, tuned, features = nn.Linear(8, 5), nn.Linear(8, 5), torch.randn(16, 8)
    mixed = nn.Linear(8, 5)
    mixed.load_state_dict(interpolate(zero.state_dict(), tuned.state_dict(), 0.3))
    torch.testing.assert_close(mixed(features), 0.7 * zero(features) + 0.3 * tuned(features))


def test_states_of_other_names_are_refused(pair):
    start, learned = pair
    with pytest.raises(KeyError, match="differ in"):
        interpolate(start, {name: value for name, value in learned.items() if "0." not in name}, 0.5)


def test_a_bias_for_all_classes_changes_no_answer_and_a_bias_for_one_does():
    """SigLIP adds `logit_bias` to every logit; a linear head leaves it out."""
    logits = torch.randn(6, 4).numpy()
    assert _same({"values": logits}, {"values": logits - 12})
    logits[:, 0] += 1
    assert not _same({"values": logits}, {"values": logits - [1, 0, 0, 0]})
    assert not _same({"values": logits}, {"values": logits[:, :3]})
