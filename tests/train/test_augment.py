"""Random views are functions of image and seed alone."""

from __future__ import annotations

import torch

from adapt.recipe import Augment
from adapt.train.augment import augment, uniforms, view_seed

STRONG = Augment(crop=0.5, rotate=20, flip=0.5, colour=0.4, hue=0.3, background=0.3, invert=0.3, line=0.3)


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
