"""Run folders are listed, compared and removed; nothing outside runs/ is touched."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
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
    assert found.differences["adapted"][0].value == pytest.approx(0.1)
    assert main(["runs", "compare", one, other]) == 0
    text = capsys.readouterr().out
    assert "train.lr" in text
    assert "top-1 70.0 %" in text
    assert "+10.0" in text
    assert main(["runs", one, other]) == 0
    assert capsys.readouterr().out == text, "the names alone mean the same"
    assert all(len(line) <= 80 for line in text.splitlines())


def test_of_another_plug_in_only_its_name_is_compared():
    one, other = made("distill=null", "method.name=full"), made("train.lr=1e-5")
    assert runs.compare([one, other]).options == {
        "method.name": ["full", "lora"],
        "train.lr": [2e-3, 1e-5],
        "distill.name": ["not set", "logits"],
    }


def protocols(*changes: dict) -> list[str]:
    """Runs whose numbers were measured under protocols with these changes; their names."""
    names = [made(f"seed={i}", value=0.5 + i / 10) for i in range(len(changes))]
    for name, change in zip(names, changes, strict=True):
        path = Path("runs", name, "metrics.json")
        numbers = json.loads(path.read_text())
        for entry in numbers["entries"]:
            entry["protocol"] |= {"classes": ["a", "b", "c"], "templates": ["{}"], "input": {"size": [32, 32]}} | change
        path.write_text(json.dumps(numbers))
    return names


def test_numbers_that_were_not_measured_alike_have_no_difference(capsys):
    bicubic, bilinear = ({"input": {"size": [32, 32], "interpolation": kind}} for kind in ("bicubic", "bilinear"))
    names = protocols(bicubic, bilinear, bicubic | {"classes": ["a", "x", "y"], "templates": ["{}", "a {}"]})
    found = runs.compare(names)
    assert [one.value for one in found.differences["adapted"]] == [None, None]
    assert found.notes == [
        f"Not compared: zero-shot, adapted of {names[0]} and of {names[1]}: interpolation: bicubic against bilinear.",
        f"Not compared: zero-shot, adapted of {names[0]} and of {names[2]}: other class names: 2 of 3; other templates: 1 against 2.",
    ]
    assert main(["runs", *names]) == 0
    text = capsys.readouterr().out
    assert text.count("not comparable") == 4 and "+10.0" not in text
    assert main(["runs", "--json", *names]) == 0
    assert (
        json.loads(capsys.readouterr().out)["differences"]["adapted"][0]["refused"] == "interpolation: bicubic against bilinear"
    )


def test_what_a_model_brings_with_it_is_said_beside_a_difference():
    one, other = protocols({"precision": "fp32"}, {"precision": "bf16", "input": {"size": [64, 64]}})
    found = runs.compare([one, other])
    assert found.differences["adapted"][0].value == pytest.approx(0.1)
    assert found.notes == [
        f"Compared, but not measured alike: zero-shot, adapted of {one} and of {other}: "
        "size of the input: 32 × 32 against 64 × 64; precision: fp32 against bf16."
    ]


def test_other_metrics_and_splits_are_not_compared():
    one, other = protocols({}, {})
    path = Path("runs", other, "metrics.json")
    numbers = json.loads(path.read_text())
    numbers["entries"][0] |= {"split": "validation"}
    numbers["entries"][1] |= {"main": "ece", "metrics": {"ece": 0.1}, "intervals": {}}
    path.write_text(json.dumps(numbers))
    found = runs.compare([one, other]).differences
    assert [row[0].refused for row in found.values()] == [
        "other split: test against validation",
        "other metric: top1 against ece",
    ]


def test_answers_for_the_same_pictures_are_paired():
    one, other = protocols({}, {})
    for name, right in ((one, [True, False, False, False]), (other, [True, True, True, False])):
        Path("runs", name, "predictions").mkdir()
        table = pa.table({"id": list("abcd"), "correct": right})
        pq.write_table(table, Path("runs", name, "predictions", "adapted.parquet"))
    found = runs.compare([one, other]).differences
    assert found["adapted"][0].value == pytest.approx(0.5), "of the answers themselves"
    low, high = found["adapted"][0].interval
    assert 0 <= low < 0.5 < high <= 1
    assert found["zero-shot"][0].interval is None, "nothing was left of it"


def test_numbers_of_a_suite_are_compared_too_and_paired_where_answers_tell_of_them():
    names = protocols({}, {})
    for name, right in zip(names, ([True, False], [True, True]), strict=True):
        measured = {"set": "a/b", "model": "zero-shot", "intervals": {}, "notes": [], "protocol": {"eval": "zeroshot"}}
        value = {"top1": sum(right) / 2, "mean_per_class": 0.25}
        results = [measured | {"metric": metric, "metrics": value} for metric in value]
        results[1] = results[1] | {"set": "c"}
        Run(Path("runs", name)).write_json("suites/mine/summary.json", {"suite": "mine", "results": results})
        Path("runs", name, "suites", "mine", "zero-shot").mkdir()
        for place in ("a--b", "c"):
            table = pa.table({"id": ["x", "y"], "correct": right})
            pq.write_table(table, Path("runs", name, "suites", "mine", "zero-shot", f"{place}.parquet"))
    found = runs.compare(names).differences
    assert (found["mine/a/b zero-shot"][0].value, found["mine/a/b zero-shot"][0].interval) == (0.5, (0.0, 1.0))
    assert (found["mine/c zero-shot"][0].value, found["mine/c zero-shot"][0].interval) == (0.0, None), "top-1 is not its metric"
    assert "evaluate" in runs.Kept.of(Path("runs", names[0])).verbs


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
