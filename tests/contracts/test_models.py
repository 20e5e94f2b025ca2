"""What every family promises, and that the contract says what the base has."""

from __future__ import annotations

import inspect

import pytest

from adapt import contracts, plug
from adapt.models import base


def members(kind: type) -> dict[str, object]:
    """Methods and properties that a class itself declares."""
    return {name: value for name, value in vars(kind).items() if inspect.isfunction(value) or isinstance(value, property)}


def public(names):
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize("name", sorted(public(members(contracts.Family))))
def test_the_base_of_families_has_the_contracts_signatures(name):
    ours, theirs = vars(contracts.Family)[name], getattr(base.Family, name)
    if isinstance(ours, property):
        assert isinstance(theirs, property)
        ours, theirs = ours.fget, theirs.fget
    assert inspect.signature(ours) == inspect.signature(theirs)


def test_the_contract_names_the_bases_attributes():
    assert public(contracts.Family.__annotations__) == public(base.Family.__annotations__)


@pytest.mark.parametrize("name", plug.names("models"))
def test_a_family_says_what_the_contract_asks(name):
    config = plug.schema("models", name)
    assert issubclass(config, contracts.FamilyConfig) and config.title
    assert list(inspect.signature(plug.load("models", name).load).parameters) == ["config"]


@pytest.mark.parametrize("name", [name for name in plug.names("models") if name != "florence2"])  # of which none is embedded
def test_an_embedded_family_offers_predictors_and_its_input(name):
    family = plug.load("models", name).load(plug.schema("models", name)(name=name)).eval()
    assert isinstance(family, base.Family)
    offered = family.predictors()
    assert offered and all(isinstance(one, contracts.Predictor) for one in offered.values())
    assert all(one.takes in ("images", "rows") for one in offered.values())
    assert {"size", "resize", "interpolation", "crop", "mean", "std"} <= set(family.input)
    assert family.slots.text is None or family.knows_texts
    assert family.adapter_targets
