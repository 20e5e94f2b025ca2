"""What every objective declares."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from adapt import plug


@pytest.mark.parametrize("name", plug.names("distill"))
def test_an_objective_says_its_version_and_what_its_labels_depend_on(name):
    target = plug.load("distill", name)
    assert target.VERSION >= 1
    assert set(target.LABELLED_BY) <= set(target.Config.model_fields)
    assert bool(target.LABELLED_BY) == hasattr(target, "label")


@pytest.mark.parametrize("name", plug.names("distill"))
def test_a_budget_may_be_a_share_of_the_teacher(name):
    schema = plug.schema("distill", name)
    assert schema(name=name).keep is None
    assert schema(name=name, keep=0.9).keep == 0.9
    for wrong in (0, 1.01):
        with pytest.raises(ValidationError, match="keep"):
            schema(name=name, keep=wrong)
