"""Run folders are listed, compared and removed; nothing outside runs/ is touched."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from adapt.cli import main
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.run import Run
from adapt.verbs import runs


def made(*overrides: str, value: float = 0.5, data: str = "a", verbs: tuple[str, ...] = ("finetune",), hours: float = 0) -> str:
    """A run folder with numbers; its name."""
    recipe = load_recipe("clip_lora", overrides)
    run = Run.open(recipe).begin(recipe)
    for verb in verbs:
        run.record(verb)
    entries = [
        {
            "name": name,
            "title": name,
            "main": "top1",
            "metrics": {"top1": value + more},
            "intervals": {"top1": [value - 0.1, value + 0.1]},
            "protocol": {"eval": "zeroshot", "data": data, "classes": ["a"]},
        }
        for name, more in (("zero-shot", 0.0), ("adapted", 0.2))
    ]
    run.write_json("metrics.json", {"entries": entries, "guards": [], "splits": []})
    for file in run.path.iterdir():
        os.utime(file, (time.time() - 3600 * hours,) * 2)
    return run.path.name


def test_runs_are_listed_the_latest_first(capsys):
    old, young = made("seed=1", hours=50), made("seed=2", verbs=("finetune", "distill logits-resnet10t"), hours=3)
    assert main(["runs"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "model", "done", "last", "number", "size", "age"]
    assert all(len(line) <= 80 for line in lines)
    rows = runs.table(runs.found())[1]
    assert [row[0] for row in rows] == [young, old]
    assert rows[0][1:4] == ["clip-tiny + lora", "evaluate, finetune, distill", "top-1 70.0 % (adapted)"]
    assert [row[-1] for row in rows] == ["3 h", "2 d"]


def test_no_runs_is_no_mistake(capsys):
    assert main(["runs"]) == 0
    assert "There are no runs" in capsys.readouterr().out


def test_a_run_of_another_version_is_listed_too(capsys):
    name = made()
    Path("runs", name, "recipe.yaml").write_text(
        "{name: old, model: {name: gone, checkpoint: x}, method: {name: lora, old: 1}}"
    )
    Path("runs", name, "metrics.json").write_text("{")
    assert main(["runs", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert (found["model"], found["checkpoint"], found["last"]) == ("gone", "x", None)
    assert "cannot be read" in found["problem"]


def test_two_runs_are_compared_by_options_and_numbers(capsys):
    one, other = made("train.lr=1e-3"), made("train.lr=1e-4", "evals.0.top=3", value=0.6)
    found = runs.compare([one, f"runs/{other}"])
    assert found.options == {"train.lr": [1e-3, 1e-4], "evals.0.top": [5, 3]}
    assert [entry.metrics["top1"] for entry in found.numbers["adapted"]] == pytest.approx([0.7, 0.8])
    assert found.notes == []
    assert main(["runs", "compare", one, other]) == 0
    text = capsys.readouterr().out
    assert "train.lr" in text
    assert "top-1 70.0 %" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_of_another_plug_in_only_its_name_is_compared():
    one, other = made("distill=null", "method.name=full"), made("train.lr=1e-5")
    assert runs.compare([one, other]).options == {
        "method.name": ["full", "lora"],
        "train.lr": [2e-3, 1e-5],
        "distill.name": ["not set", "logits"],
    }


def test_numbers_that_were_not_measured_alike_are_said_to_be_so():
    one, other = made("seed=1"), made("seed=2", data="b")
    first, second = runs.compare([one, other]).notes
    assert first == f"Not measured alike: zero-shot of {one} and of {other}. They differ in the data."
    assert second.startswith("Not measured alike: adapted")


def test_runs_are_removed_when_the_user_agrees(capsys):
    one, other, third = made("seed=1"), made("seed=2"), made("seed=3")
    assert runs.remove([one], agreed=False, ask=lambda question: "n") == 0
    assert Path("runs", one).is_dir()
    size = sum(file.stat().st_size for file in Path("runs", one).iterdir())
    assert runs.remove([one], agreed=False, ask=lambda question: "y") == size
    assert main(["runs", "remove", other, "yes=true"]) == 0
    assert "are free again" in capsys.readouterr().out
    assert [path.name for path in Path("runs").iterdir()] == [third]


def test_nothing_is_removed_without_a_word_when_nobody_can_be_asked(monkeypatch, capsys):
    name = made()
    assert main(["runs", "remove", name]) == 2
    assert "Write yes=true" in capsys.readouterr().err
    assert Path("runs", name).is_dir()


@pytest.mark.parametrize("name", ["../precious", "runs/../precious", "/tmp", ".", "..", "runs", "", "elsewhere"])
def test_nothing_outside_runs_is_removed(name, tmp_path):
    kept = made()
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "recipe.yaml").write_text("name: precious")
    (tmp_path / "runs" / "elsewhere").symlink_to(precious)
    with pytest.raises(UserError):
        runs.remove([kept, name], agreed=True)
    assert (precious / "recipe.yaml").is_file()
    assert Path("runs", kept).is_dir(), "one wrong name, and none is removed"


@pytest.mark.parametrize("verb", ["compare", "remove"])
def test_unknown_names_are_answered_with_the_nearest(verb, capsys):
    name = made()
    assert main(["runs", verb, name[:-1], name, *(["yes=true"] if verb == "remove" else [])]) == 2
    assert f"Did you mean {name!r}?" in capsys.readouterr().err
    assert main(["runs", verb, *(["yes=true"] if verb == "remove" else [])]) == 2
    assert "adapt runs lists them" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "0 s"), (59, "59 s"), (61, "1 min"), (7300, "2 h"), (200000, "2 d")])
def test_ages_are_said_by_their_largest_unit(seconds, words):
    assert runs.age(seconds) == words
