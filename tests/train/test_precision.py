"""Single precision inside any autocast."""

from __future__ import annotations

import torch

from adapt.train.precision import full

A, B = (
    torch.randn(4, 8, generator=torch.Generator().manual_seed(0)),
    torch.randn(8, 4, generator=torch.Generator().manual_seed(1)),
)


@full()
def product():
    """A docstring that stays."""
    return A @ B


def test_products_inside_are_those_without_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full():
            inside = A @ B
        assert (A @ B).dtype == torch.bfloat16, "and only inside"
        assert torch.equal(product(), inside)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, A @ B)


def test_a_decorated_function_keeps_its_marks():
    def rows(samples):
        return samples

    rows.rows = True
    assert full()(rows).rows and product.__doc__ == "A docstring that stays."
