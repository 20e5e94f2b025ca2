"""`benchmarks.speed`: its parts are there, its table is well formed, and at tiny sizes all of it runs."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.speed import __main__ as speed
from benchmarks.speed import clock, made, table


@pytest.mark.parametrize("part", speed.PARTS)
def test_each_part_is_a_function(part):
    module, _, function = speed.PARTS[part].partition(".")
    assert callable(vars(importlib.import_module(f"benchmarks.speed.{module}"))[function])


def test_the_functions_that_are_watched_are_there():
    from benchmarks.speed import distilling, zeroshot

    for name in (zeroshot.PREDICT, distilling.BUILD):
        with clock.watched(name) as times:
            assert times == []


def test_a_table_tells_the_median_and_ratios_of_the_same_turns():
    rows = table.interleaved("work", [lambda turn: {"bare": 1.0 + turn}, lambda turn: {"ours": 2.0 + 2 * turn}], turns=3)
    head, rule, bare, ours = table.markdown([rows]).splitlines()
    assert len({line.count("|") for line in (head, rule, bare, ours)}) == 1
    assert bare == "| work | bare | 2 s (1–3) |  | 3 |"
    assert ours == "|  | ours | 4 s (2–6) | 2.00 × (2.00–2.00) | 3 |"


def test_turns_are_interleaved():
    said = []
    works = [lambda turn: said.append(("a", turn)) or {"a": 1.0}, lambda turn: said.append(("b", turn)) or {"b": 1.0}]
    table.interleaved("work", works, turns=2)
    assert said == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]


def test_epochs_are_timed_by_the_steps_of_any_optimiser():
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    with clock.steps(epoch=2) as ends:
        for pause in (0.05, 0.05, 0.01, 0.01, 0.01, 0.01):
            time.sleep(pause)
            weight.grad = torch.ones(1)
            optimizer.step()
    optimizer.step()
    assert len(ends) == 3
    assert 0.02 <= clock.later(ends) < 0.1, "the first epoch is not counted"


def test_pictures_are_all_unlike(tmp_path):
    folder = made.pictures(tmp_path / "photos", {"train": 6, "test": 4}, classes=2, side=32)
    files = sorted(folder.rglob("*.jpg"))
    assert [len(list((folder / split).rglob("*.jpg"))) for split in ("train", "test")] == [6, 4]
    assert len({file.read_bytes() for file in files}) == 10


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("zeroshoot", "'zeroshoot' is unknown. Have: zeroshot, vit,"),
        ("size=tiny", "'size' is unknown. Have: sizes,"),
        ("sizes=huge", "'huge' is unknown. Have: full, tiny."),
        ("device=tpu", "'tpu' is unknown. Have: cpu, cuda."),
        ("turns=0", "turns=0 is no count."),
        ("lightly=/no/python", "lightly=/no/python is no program."),
    ],
)
def test_what_there_is_not_is_refused(word, said):
    with pytest.raises(SystemExit, match="^" + said.replace(".", r"\.")):
        speed.parsed([word])


@pytest.mark.outside
@pytest.mark.parametrize("part", speed.PARTS)
def test_each_part_runs_at_tiny_sizes(part, tmp_path):
    root = Path(speed.__file__).parents[2]
    asked = [part, "sizes=tiny", "turns=2", "device=cpu", f"out={tmp_path / 'table.md'}", f"plot={tmp_path / 'growth.png'}"]
    subprocess.run([sys.executable, "-m", "benchmarks.speed", *asked], cwd=root, check=True)
    device, _, head, _, *lines = (tmp_path / "table.md").read_text().splitlines()
    assert "torch" in device and head.startswith("| what | who |")
    assert [line for line in lines if line] and all(line.endswith("| 2 |") for line in lines if line)
    assert (tmp_path / "growth.png").exists() == (part == "growth")
