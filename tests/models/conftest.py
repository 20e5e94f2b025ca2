"""What tests of several families share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def batch():
    """(family, samples, their seeds) → a training batch as the loop collates it, its images float."""

    def collated(family, samples, seeds=None):
        items = [family.preprocess(sample, True) for sample in samples]
        numbered = [item | {"seed": seed} for item, seed in zip(items, seeds or range(len(items)), strict=True)]
        batch = family.collate(numbered)
        return batch | {"image": batch["image"].float()}

    return collated
