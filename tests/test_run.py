"""The run folder: whole files or none, stages, lineage."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from adapt.data.emoji import Config, load
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.run import Run, atomic, fingerprint, hash_path


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyError), atomic(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_is_replaced_whole(tmp_path):
    for content in ("one", "two"):
        with atomic(tmp_path / "f") as folder:
            folder.mkdir()
            (folder / content).write_text(content)
    assert [path.name for path in (tmp_path / "f").iterdir()] == ["two"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match="No space left"), atomic(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_stages_are_done_for_one_key_only():
    recipe = load_recipe("clip_lora")
    run = Run.open(recipe)
    assert not run.done("finetune", "k")
    run.record("finetune", "k", data={"train": "x"})
    assert run.done("finetune", "k")
    assert not run.done("finetune", "other")
    stage = json.loads((run.path / "manifest.json").read_text())["stages"]["finetune"]
    assert stage["data"] == {"train": "x"}
    assert stage["packages"]["torch"] != "missing"


def test_distill_and_export_share_the_folder_and_training_does_not():
    base, student, rank = (load_recipe("clip_lora", o) for o in ([], ["distill.train.epochs=2"], ["method.rank=3"]))
    assert Run.open(base).path == Run.open(student).path != Run.open(rank).path


def test_the_recipe_in_the_folder_is_the_recipe():
    recipe = load_recipe("clip_lora", ["train.epochs=3"])
    run = Run.open(recipe)
    assert load_recipe(run.path / "recipe.yaml") == recipe


def test_a_folder_of_another_recipe_is_refused():
    path = Run.open(load_recipe("clip_lora")).path
    Run.from_folder(path, load_recipe("clip_lora"))
    with pytest.raises(UserError, match="method differ"):
        Run.from_folder(path, load_recipe("clip_lora", ["method.rank=3"]))
    with pytest.raises(UserError, match=r"no recipe\.yaml"):
        Run.from_folder(Path("nowhere"))


def test_processes_that_do_not_write_write_nothing():
    run = Run.open(load_recipe("clip_lora"), writes=False)
    run.record("finetune", "k")
    assert not run.path.exists()


def test_hashes_follow_content(tmp_path):
    (tmp_path / "a").write_text("1")
    before = hash_path(tmp_path)
    (tmp_path / "a").write_text("2")
    assert hash_path(tmp_path) != before


def test_fingerprints_follow_the_data_and_its_order():
    test = load(Config())["test"]
    assert fingerprint(test) == fingerprint(load(Config())["test"])
    assert fingerprint(test.select(range(10))) != fingerprint(test.select(range(9, -1, -1)))
    assert fingerprint(load(Config(hand="noto"))["test"]) != fingerprint(test)
