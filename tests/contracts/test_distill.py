"""What every objective promises."""

from __future__ import annotations

import inspect

import pytest
from pydantic import ValidationError

from adapt import plug
from adapt.contracts import ObjectiveConfig


@pytest.mark.parametrize("name", plug.names("distill"))
def test_an_objective_says_its_version_and_what_its_labels_depend_on(name):
    schema = plug.schema("distill", name)
    assert issubclass(schema, ObjectiveConfig)
    assert schema.version >= 1
    assert set(schema.labelled_by) <= set(schema.model_fields)
    module = plug.load("distill", name)
    assert list(inspect.signature(module.lesson).parameters) == ["config", "teacher", "load"]
    assert list(inspect.signature(module.learner).parameters) == ["config", "teacher", "live"]


@pytest.mark.parametrize("name", plug.names("distill"))
def test_a_budget_may_be_a_share_of_the_teacher(name):
    schema = plug.schema("distill", name)
    assert schema(name=name).keep is None
    assert schema(name=name, keep=0.9).keep == 0.9
    for wrong in (0, 1.01):
        with pytest.raises(ValidationError, match="keep"):
            schema(name=name, keep=wrong)


@pytest.mark.parametrize("name", plug.names("distill"))
def test_a_student_has_a_name_that_is_a_folder(name):
    schema = plug.schema("distill", name)
    assert schema(name=name, student="resnet10t").called == f"{name}-resnet10t"
    config = schema.model_validate({"name": name, "as": "small.1"})
    assert config.called == "small.1"
    assert config.model_dump()["as"] == "small.1", "as it is written into the run folder"
    for wrong in ("../other", "", ".hidden"):
        with pytest.raises(ValidationError, match="as"):
            schema.model_validate({"name": name, "as": wrong})
