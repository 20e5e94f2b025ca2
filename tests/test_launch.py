"""Processes that a launcher starts: they share the cores of their machine, and the work of every verb."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from adapt import hardware, launch, pipeline
from adapt.recipe import load_recipe

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
NOTED = """
'''Logits, and how many pictures of each step this process has seen.'''
import os

from adapt.distill import logits
from adapt.distill.logits import lesson

class Config(logits.Config):
    '''As it is.'''

def learner(config, teacher, live=None):
    taught = logits.learner(config, teacher, live)
    loss = taught.loss

    def noting(ours, theirs, batch):
        with open(f"seen{os.environ.get('RANK', 0)}.txt", "a") as file:
            file.write(f"{len(ours)}\\n")
        return loss(ours, theirs, batch)

    taught.loss = noting
    return taught
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


def test_the_first_process_of_a_container_has_no_parent_and_works(monkeypatch):
    """`docker run IMAGE python -m adapt …`: its parent has the number 0, and is not to be seen."""
    monkeypatch.setattr(os, "getppid", lambda: 0)
    for name in ("RANK", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(hardware, "device", lambda: "cpu")
    for name in ("OTHER", "MASTER_ADDR"):
        monkeypatch.setenv(name, "127.0.0.1")
        assert launch.lacking_processes() == 0
        launch.share_threads(1)
        assert os.environ["OMP_NUM_THREADS"] == "1", "nothing is known of a launcher"


@pytest.mark.slow
def test_two_processes_on_one_cpu_share_its_threads(tmp_path):
    assert threads(tmp_path, *ACCELERATE, "--num_processes", "2") == [3, 3]
    assert threads(tmp_path, *TORCHRUN, "--nproc-per-node", "2") == [3, 3]
    assert threads(tmp_path, *ACCELERATE, "--num_processes", "1") == [6], "not the one thread that accelerate gives"


@pytest.mark.slow
def test_what_the_user_has_set_stays(tmp_path):
    assert threads(tmp_path, *ACCELERATE, "--num_processes", "2", "--num_cpu_threads_per_process", "2") == [2, 2]
    assert threads(tmp_path, *TORCHRUN, "--nproc-per-node", "2", OMP_NUM_THREADS="2") == [2, 2]


@pytest.mark.slow
def test_two_processes_teach_a_student_as_one_does(photos, tmp_path, monkeypatch):
    """Each sees half of every batch; the student has no BatchNorm, whose means would be those of the halves."""
    (tmp_path / "plugins" / "distill").mkdir(parents=True)
    (tmp_path / "plugins" / "distill" / "noted.py").write_text(NOTED)
    monkeypatch.setenv("ADAPT_PLUGINS", str(tmp_path / "plugins"))
    small = [f"data={{source: folder, path: {tmp_path / 'photos'}}}", "tracker=none", "evals.0.bootstrap=100", "export=[]"]
    small += ["distill={name: noted, student: test_convnext, pretrained: false, teacher: zero-shot, views: 1}"]
    small += ["distill.train={epochs: 1, batch: 16, lr: 1e-3}"]
    recipe = load_recipe("clip_lora", small)
    pipeline.evaluate(recipe)
    shutil.copytree("runs", "two/runs")
    pipeline.distill(recipe)
    launch = [sys.executable, *ACCELERATE, "--num_processes", "2", "-m", "adapt", "distill", "recipe=clip_lora", *small]
    here = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(launch, cwd="two", env=here, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]

    def left(folder: Path, name: str) -> Path:
        (path,) = folder.glob(f"runs/*/{name}")
        return path

    def losses(folder: Path) -> list[float]:
        rows = map(json.loads, left(folder, "distill/*/history.jsonl").read_text().splitlines())
        return [row["loss"] for row in rows if "loss" in row]

    alone, two = tmp_path, tmp_path / "two"
    assert left(alone, "cache/teacher-*/000000.npy").read_bytes() == left(two, "cache/teacher-*/000000.npy").read_bytes()
    steps = len(losses(alone))
    assert steps > 1 and losses(two) == pytest.approx(losses(alone), rel=1e-4)
    assert Path("seen0.txt").read_text() == "16\n" * steps
    assert [(two / f"seen{rank}.txt").read_text() for rank in (0, 1)] == ["8\n" * steps] * 2, "both took part"


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
