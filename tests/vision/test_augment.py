"""Random views are functions of image and seed alone."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.ndimage import grey_dilation, grey_erosion

from adapt.contracts import Augment
from adapt.vision.augment import augment, uniforms, view_seed

STRONG = Augment(crop=0.5, rotate=20, flip=0.5, colour=0.4, hue=0.3, drawing={"background": 0.3, "invert": 0.3, "line": 0.3})


def images(n: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, 24, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_a_view_does_not_depend_on_its_batch():
    seeds = torch.tensor([view_seed(0, 1, i) for i in range(16)])
    together = augment(images(), seeds, STRONG)
    alone = torch.cat([augment(images()[i : i + 1], seeds[i : i + 1], STRONG) for i in range(16)])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=0)


def test_other_seeds_give_other_views_in_range():
    a = augment(images(), torch.arange(16), STRONG)
    b = augment(images(), torch.arange(16) + 100, STRONG)
    assert ((a - b).abs().mean((1, 2, 3)) > 1).all()
    assert a.min() >= 0
    assert a.max() <= 255


def test_nothing_asked_changes_nothing():
    off = Augment(crop=1, rotate=0, flip=0, colour=0)
    torch.testing.assert_close(augment(images(), torch.arange(16), off), images().float())


def test_flip_alone_is_a_mirror():
    always = augment(images(), torch.arange(16), Augment(crop=1, flip=1, colour=0))
    torch.testing.assert_close(always, images().float().flip(3), atol=1e-2, rtol=0)


def test_uniforms_are_uniform_and_uncorrelated():
    u = uniforms(torch.tensor([view_seed(0, 0, i) for i in range(4000)]), 8)
    assert (u.mean(0) - 0.5).abs().max() < 0.02
    assert (u.var(0) - 1 / 12).abs().max() < 0.01
    assert (torch.corrcoef(u.T) - torch.eye(8)).abs().max() < 0.06


def test_view_seeds_do_not_collide():
    seeds = {view_seed(s, e, i) for s in range(3) for e in range(10) for i in range(200)}
    assert len(seeds) == 6000
    assert all(0 <= seed < 2**63 for seed in seeds)


STILL = {"crop": 1, "rotate": 0, "flip": 0, "colour": 0}


def seen(**options):
    """Sixty pictures, and their views."""
    return images(60).float(), augment(images(60), torch.arange(60), Augment(**STILL | options))


def test_lines_grow_by_a_pixel_dark_or_light():
    before, views = seen(drawing={"line": 0.5})
    found = []
    for image, view in zip(before.numpy(), views.numpy(), strict=True):
        kinds = [image, *(np.stack([grow(part, size=3) for part in image]) for grow in (grey_erosion, grey_dilation))]
        found.append([np.array_equal(view, kind) for kind in kinds].index(True))
    assert np.bincount(found).tolist() == pytest.approx([30, 15, 15], abs=9)


def test_hues_are_the_same_channels_in_another_order_or_grey():
    before, views = seen(hue=0.5)
    grey = 0
    for image, view in zip(before.numpy(), views.numpy(), strict=True):
        if np.ptp(view, axis=0).max() < 1e-3:
            grey += 1
        else:
            assert any(np.array_equal(view, image[list(order)]) for order in permutations(range(3)))
    assert grey == pytest.approx(30, abs=10)
    assert 0 < sum(torch.equal(*pair) for pair in zip(before, views, strict=True)) < 30


def test_some_are_inverted_and_some_get_a_tint_that_keeps_black_black():
    before, views = seen(drawing={"invert": 0.5})
    inverted = [torch.equal(view, 255 - image) for image, view in zip(before, views, strict=True)]
    assert all(torch.equal(view, image) for image, view, turned in zip(before, views, inverted, strict=True) if not turned)
    assert sum(inverted) == pytest.approx(30, abs=10)
    before, views = seen(drawing={"background": 1})
    tint = (views.sum((2, 3)) / before.sum((2, 3)))[:, :, None, None]
    torch.testing.assert_close(views, before * tint)
    assert 0.35 <= tint.min() < 0.5
    assert 0.9 < tint.max() <= 1


def test_a_view_seed_is_splitmix_of_seed_epoch_and_row():
    """As it is written out with numpy's uint64."""
    from adapt.vision.augment import _mix

    draw = np.random.default_rng(0)
    for parts in draw.integers(0, 2**40, (200, 3)).tolist():
        x = np.zeros(1, np.uint64)
        with np.errstate(over="ignore"):
            for part in parts:
                x = _mix(x + np.uint64(part) + np.uint64(0x9E3779B97F4A7C15))
        assert view_seed(*parts) == int(x[0] >> np.uint64(1))
