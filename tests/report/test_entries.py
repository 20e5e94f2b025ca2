"""`metrics.json`: what older runs lack has a default; what is malformed is one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adapt.plug import UserError
from adapt.report.entries import parse, read

ENTRY = {"name": "zero-shot", "title": "zero-shot CLIP", "main": "top1", "metrics": {"top1": 0.5}}
GUARD = {"name": "no worse", "state": "kept", "message": ""}


def test_an_older_run_lacks_what_newer_ones_have():
    (entry,) = parse({"entries": [ENTRY], "guards": []}, Path("m")).entries
    assert (entry.latency, entry.latency_torch, entry.change, entry.notes, entry.left_out) == (None, None, None, [], 0)
    assert entry.split == "test"


def test_what_a_newer_version_adds_is_left_alone():
    numbers = parse({"entries": [ENTRY | {"made_of": {"a": 1}}], "guards": [GUARD], "splits": [], "more": 1}, Path("m"))
    assert numbers.entries[0].title == "zero-shot CLIP"


@pytest.mark.parametrize("text", ["[]", "{}", '{"entries": [], "guards": []}', '{"entries": ['])
def test_numbers_that_are_none_are_one_line(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=r"metrics\.json: (no entries|cannot be read)"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"entries": [{"title": "x"}]}, "entries.0.name: field required (and 2 more)"),
        ({"entries": "many"}, "entries: input should be a valid array"),
        ({"entries": [ENTRY | {"metrics": {"top1": "high"}}]}, "entries.0.metrics.top1: input should be a valid number"),
        ({"entries": [ENTRY | {"metrics": {"top5": 0.5}}]}, "entries.0: main: 'top1' is not one of its metrics"),
        ({"entries": [ENTRY | {"intervals": {"top1": [0.1]}}]}, "entries.0.intervals.top1.1: field required"),
        ({"entries": [ENTRY | {"latency": {"p50_ms": 1}}]}, "entries.0.latency.p99_ms: field required"),
        ({"entries": [ENTRY | {"notes": "one"}]}, "entries.0.notes: input should be a valid array"),
        ({"guards": [{"name": "no worse", "ok": True, "message": ""}]}, "guards.0.state: field required"),
        ({"guards": [GUARD | {"state": "lost"}]}, "guards.0.state: input should be 'kept', 'not shown' or 'broken'"),
        ({"splits": [{"split": "train", "pictures": "many"}]}, "splits.0.pictures: input should be a valid integer"),
    ],
)
def test_a_malformed_part_is_named_in_one_line(tmp_path, change, words):
    (tmp_path / "metrics.json").write_text(json.dumps({"entries": [ENTRY], "guards": [GUARD]} | change))
    with pytest.raises(UserError) as error:
        read(tmp_path)
    assert f"metrics.json: {words}" in str(error.value)
    assert "delete the file, and run adapt evaluate" in str(error.value)
    assert "\n" not in str(error.value)


def test_half_a_surrogate_is_a_character_like_any_other(tmp_path):
    text = json.dumps({"entries": [ENTRY | {"title": "caf\ud800"}], "guards": []})
    (tmp_path / "metrics.json").write_text(text)
    assert read(tmp_path).entries[0].title == "caf?"
