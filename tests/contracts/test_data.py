"""What every source of data promises."""

from __future__ import annotations

import inspect

import pytest
from datasets import ClassLabel, Dataset, Image, Value

from adapt import plug
from adapt.contracts import SourceConfig
from adapt.data.problems import Report

SMALL = {"emoji": {"unlabelled": []}, "emoji_scenes": {"train": 3, "validation": 2, "test": 2}}
"""Sources that are embedded, with few pictures; the others' tests make their files."""


@pytest.mark.parametrize("name", plug.names("data"))
def test_a_source_says_what_the_contract_asks(name):
    config = plug.schema("data", name)
    assert issubclass(config, SourceConfig) and config.version >= 1
    assert list(inspect.signature(plug.load("data", name).load).parameters) == ["config"]
    assert config.model_fields["source"].default == name


@pytest.mark.parametrize("name", SMALL)
def test_splits_say_where_they_come_from_and_their_columns_are_the_standard_ones(name, tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path))
    splits = plug.load("data", name).load(plug.schema("data", name)(**SMALL[name]))
    assert {"train", "test"} <= set(splits)
    assert set(splits.origin) == set(splits) and all(splits.origin.values())
    assert isinstance(splits.report, Report)
    for rows in splits.values():
        assert isinstance(rows, Dataset) and len(rows)
        assert rows.features["id"] == Value("string") and len(set(rows["id"])) == len(rows)
        assert isinstance(rows.features["image"], Image)
        assert isinstance(rows.features.get("label", ClassLabel(names=["a"])), ClassLabel)
