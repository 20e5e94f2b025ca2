"""`adapt doctor suite=…` says which sets of a suite are there, and what each of the others lacks."""

from __future__ import annotations

import json

import pytest

from adapt import hardware
from adapt.cli import main
from adapt.suite import check
from adapt.verbs.doctoring.suite import state
from adapt.verbs.suiting.sets import source
from tests.suite_trees import SETS, write_suite, write_tree


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hardware, "guard", lambda: None)  # it has been called; in an empty cache it would ask again


def test_a_whole_tree_is_there_set_by_set(tmp_path, capsys):
    suite = write_suite(tmp_path / "ten.yaml")
    assert main(["doctor", f"suite={suite}", f"data.path={write_tree(tmp_path / 'tree')}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [one.name for one in SETS]
    assert lines[0].split(maxsplit=2)[1:] == ["there", "12 pictures, 4 classes"]
    assert lines[6].split(maxsplit=2)[1:] == ["there", "10 pictures, 50 captions"]
    assert lines[-1] == "ten: 10 sets; 10 there"


def test_what_is_missing_broken_or_other_is_said_and_the_rest_is_looked_at(tmp_path, capsys):
    suite = write_suite(tmp_path / "ten.yaml")
    tree = write_tree(tmp_path / "tree", without=["petals"], broken=["cups"], other_names=["shapes"])
    (tmp_path / "tree" / "wds_dollar_street_test" / "classnames.txt").write_text("\n".join("abcdefghi"))
    assert main(["doctor", f"suite={suite}", f"data.path={tree}", "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    found = {one["set"]: one for one in document["sets"]}
    assert document["states"] == {"broken": 1, "missing": 1, "there": 6, "counts differ": 1, "other names": 1}
    assert "'test/0.tar': truncated" in found["cups"]["why"] and found["cups"]["expected"] == {"pictures": 12, "classes": 4}
    assert found["petals"]["why"].startswith("data.path: there is no folder ") and "wds_petals" in found["petals"]["why"]
    assert (
        found["dollar_street"]["found"] == {"pictures": 16, "classes": 9} and found["dollar_street"]["state"] == "counts differ"
    )
    assert "prompts.classes: the names do not match the data" in found["shapes"]["why"]
    assert main(["doctor", f"suite={suite}", f"data.path={tree}"]) == 2
    assert "counts differ  16 pictures, 9 classes (the suite: 8)" in capsys.readouterr().out


def test_sets_of_other_sources_are_counted_too_and_nothing_is_fetched(tmp_path):
    emoji, own, wino = check({"name": "mine", "sets": [
        {"name": "openmoji", "data": {"source": "emoji"}, "metric": "top1", "classes": 49, "pictures": 213},
        {"name": "own", "metric": "top1"},
        {"name": "winoground", "data": {"source": "winoground"}, "labels": "pairs", "metric": "group_score", "pictures": 800},
    ]}).sets  # fmt: skip
    assert state(emoji, None).state == "there"
    assert state(emoji.model_copy(update={"pictures": 9}), None).state == "counts differ"
    assert state(own, None).state == "the recipe's"
    assert state(wino, tmp_path).state == state(wino, None).state == "missing"
    assert str(tmp_path / "winoground") in state(wino, tmp_path).why
    assert source(wino, tmp_path).path == "facebook/winoground"  # fetched, as it is not in the tree


def test_the_doctor_and_the_suite_read_a_set_from_the_same_place(tmp_path):
    wino, pairs = check({"name": "mine", "sets": [
        {"name": "winoground", "data": {"source": "winoground"}, "labels": "pairs", "metric": "group_score"},
        {"name": "pairs", "hub": "a/wds_pairs", "labels": "pairs", "metric": "group_score"},
    ]}).sets  # fmt: skip
    (tmp_path / "winoground").mkdir()
    assert source(wino, tmp_path).path == str(tmp_path / "winoground") and state(wino, tmp_path).state == "broken"
    assert "labels: the published layout has no" in state(pairs, tmp_path).why


@pytest.mark.parametrize(("arguments", "said"), [
    (["suite=core"], "data.path: missing. Write data.path=TREE, the folder that has wds_mscoco_captions"),
    (["suite=core", "data.path=nowhere"], "data.path: no folder 'nowhere'"),
    (["suite=cor", "data.path=."], "there is no suite 'cor'"),
    (["suite=core", "data.path=.", "data.pth=x"], "'data.pth=x' is unknown with suite=. Did you mean 'data.path'?"),
    (["siute=core"], "'siute=core' is unknown. Write `adapt doctor`"),
])  # fmt: skip
def test_a_wrong_question_is_one_line(arguments, said, capsys):
    assert main(["doctor", *arguments]) == 2
    assert said in capsys.readouterr().err
