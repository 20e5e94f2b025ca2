"""Processes that a launcher starts: they share the cores of their machine, and the work of every verb."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapt import hardware

SCRIPT = """
import os, sys
from adapt import hardware, launch

hardware.cores = lambda: 6
launch.checked = lambda given: 0

def main(given):
    sys.stdout.write(os.environ["OMP_NUM_THREADS"] + "\\n")
    return 0

launch.main = main
raise SystemExit(launch.launched([__file__], ["evaluate"], sys.argv[1:]))
"""
ACCELERATE = ["-m", "accelerate.commands.launch"]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone"]


def threads(folder: Path, *launch: str, **environment: str) -> list[int]:
    """How many each process computes with, on a machine of six cores."""
    (folder / "script.py").write_text(SCRIPT)
    here = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    here |= {"PYTHONPATH": str(Path(__file__).parents[1])} | environment
    command = [sys.executable, *launch, "script.py"]
    done = subprocess.run(command, cwd=folder, env=here, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return list(map(int, done.stdout.split()))


def test_threads_are_cores_by_processes_and_one_at_least(monkeypatch):
    monkeypatch.setattr(hardware, "cores", lambda: 6)
    assert [hardware.threads(count) for count in (1, 2, 4, 7)] == [6, 3, 1, 1]
    monkeypatch.undo()
    assert 1 <= hardware.cores() <= os.cpu_count()


@pytest.mark.slow
def test_two_processes_on_one_cpu_share_its_threads(tmp_path):
    assert threads(tmp_path, *ACCELERATE, "--num_processes", "2") == [3, 3]
    assert threads(tmp_path, *TORCHRUN, "--nproc-per-node", "2") == [3, 3]
    assert threads(tmp_path, *ACCELERATE, "--num_processes", "1") == [6], "not the one thread that accelerate gives"


@pytest.mark.slow
def test_what_the_user_has_set_stays(tmp_path):
    assert threads(tmp_path, *ACCELERATE, "--num_processes", "2", "--num_cpu_threads_per_process", "2") == [2, 2]
    assert threads(tmp_path, *TORCHRUN, "--nproc-per-node", "2", OMP_NUM_THREADS="2") == [2, 2]


@pytest.mark.outside
def test_two_processes_walk_the_road_of_a_student_that_learns_from_labels(tmp_path):
    """Finetune, evaluate, distill and export; a teacher that labels does so in both processes."""
    small = ["tracker=none", "data.train=40", "data.validation=4", "data.test=4", "train.epochs=1", "train.validate_every=1"]
    small += ["distill.student=test_resnet", "distill.train.epochs=1", "distill.automatic.points_per_side=4"]
    small += ["export.0.calibration=4", "evals.0.bootstrap=100", "evals.1.bootstrap=100"]
    here = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    launch = [sys.executable, *ACCELERATE, "--num_processes", "2", "-m", "adapt"]

    def run(verb: str) -> dict:
        command = [*launch, verb, "recipe=sam_semantic_student", *small, "--json"]
        done = subprocess.run(command, cwd=tmp_path, env=here, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout) | {"said": done.stderr}

    road = run("road")
    names = [entry["name"] for entry in road["entries"]]
    called = "semantic-test_resnet"
    assert names == [
        "zero-shot",
        "adapted",
        f"labels {called}",
        f"student {called}",
        f"onnx fp32 {called}",
        f"onnx int8 {called}",
    ]
    assert road["said"].count("teacher: maps of classes for ") == 1
    (labels,) = (tmp_path / road["run"] / "cache").glob("labels-*/manifest.json")
    assert json.loads(labels.read_text()) == {"rows": 40, "batch": 1, "whole": True}
    assert run("distill")["entries"] == road["entries"], "finished before"
