"""What every eval promises; its statistic is tested in tests/evals/test_bootstrap.py, for each by its name."""

from __future__ import annotations

import inspect

import pytest

from adapt import plug
from adapt.contracts import EvalConfig


@pytest.mark.parametrize("name", plug.names("evals"))
def test_an_eval_says_what_the_contract_asks(name):
    schema, module = plug.schema("evals", name), plug.load("evals", name)
    assert issubclass(schema, EvalConfig)
    assert schema.version >= 1 and schema.main and schema.predictor
    config = schema(name=name)
    assert config.model_copy(update=schema.quick) and set(schema.quick) <= set(schema.model_fields)
    assert config.bank is None or config.bank == config.bank_split
    assert list(inspect.signature(module.evaluate).parameters)[-1] == "bank"
    assert list(inspect.signature(module.evaluate).parameters)[:2] == ["config", "predict"]
    assert list(inspect.signature(module.statistic).parameters) == ["table"]


@pytest.mark.parametrize("name", plug.names("evals"))
def test_a_bank_is_asked_for_where_one_is_used(name):
    schema = plug.schema("evals", name)
    config = schema(name=name, **({"fitted_on": "validation"} if "fitted_on" in schema.model_fields else {}))
    used = "bank" in inspect.getsource(plug.load("evals", name).evaluate).partition(":\n")[2].replace("feature_bank", "")
    assert used == (config.bank is not None)
