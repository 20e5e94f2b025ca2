"""The loop: resume after SIGKILL bit for bit, processes and accumulation that change nothing, memory that runs out."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import nn

from adapt.plug import UserError
from adapt.recipe import Augment, Train
from adapt.train.augment import augment
from adapt.train.images import collate
from adapt.train.loop import _optimizer, fit
from adapt.train.views import Views, order

QUICK = [
    "train.epochs=2",
    "train.batch=64",
    "train.checkpoint_every=2",
    "tracker=none",
    "evals=[]",
    "distill=null",
    "export=[]",
]


class Toy(nn.Module):
    """A classifier of mean colours."""

    def __init__(self, memory: int = 1000):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.2), nn.ReLU(), nn.Linear(16, 4))
        self.memory = memory

    def forward(self, batch):
        if len(batch["image"]) > self.memory:
            raise RuntimeError("CUDA out of memory (pretended)")
        logits = self.layers(batch["image"].mean((2, 3)) / 255)
        return nn.functional.cross_entropy(logits, batch["label"]), {
            "accuracy": (logits.argmax(1) == batch["label"]).float().mean()
        }

    def preprocess(self, sample, train):
        return {"image": torch.full((3, 8, 8), sample["value"], dtype=torch.uint8), "label": sample["label"]}

    def collate(self, items):
        return collate(items)

    def augment(self, batch, config):
        return batch | {"image": augment(batch["image"], batch["seed"], config)}


ROWS = Dataset.from_dict({"value": [i * 3 % 251 for i in range(80)], "label": [i % 4 for i in range(80)]})


def run(folder: Path, toy: Toy | None = None, **options):
    toy = toy or Toy()
    train = Train(**{"epochs": 3, "batch": 16, "lr": 1e-2, "augment": Augment(crop=1, flip=0)} | options)
    history = fit(toy, Views(ROWS, toy.preprocess, 0), train, 0, folder, Accelerator(cpu=True))
    return toy, [row["loss"] for row in history if "loss" in row]


def test_every_row_is_seen_once_an_epoch_in_a_new_order():
    first, second = order(0, 0, 80, 16), order(0, 1, 80, 16)
    assert sorted(first.ravel()) == list(range(80))
    assert (first != second).any()
    assert order(0, 0, 5, 16).shape == (1, 16)


def test_accumulation_changes_nothing(tmp_path):
    """Without dropout, whose draws are one a micro-batch."""
    plain, split = Toy(), Toy()
    plain.layers[1].p = split.layers[1].p = 0
    _, a = run(tmp_path / "a", plain)
    _, b = run(tmp_path / "b", split, accumulate=4)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_out_of_memory_halves_the_micro_batch_and_is_told(tmp_path, capsys):
    small, large = Toy(memory=4), Toy()
    small.layers[1].p = large.layers[1].p = 0
    _, a = run(tmp_path / "a", small)
    assert "micro-batch halved to 4" in capsys.readouterr().out
    _, b = run(tmp_path / "b", large)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_loss_that_is_no_number_stops_with_advice(tmp_path):
    with pytest.raises(UserError, match="Lower"):
        run(tmp_path, lr=1e30, clip=0)


def test_patience_stops_early_and_the_best_weights_are_kept(tmp_path):
    toy, scores = Toy(), iter([0.5, 0.9, 0.3, 0.2, 0.1])
    kept = []

    def validate(model):
        score = next(scores)
        if score == 0.9:
            kept.extend(p.clone() for p in model.parameters())
        return score

    train = Train(epochs=5, batch=16, lr=1e-2, patience=2)
    history = fit(toy, Views(ROWS, toy.preprocess, 0), train, 0, tmp_path, Accelerator(cpu=True), validate)
    assert [row["validation"] for row in history if "validation" in row] == [0.5, 0.9, 0.3, 0.2]
    assert all(torch.equal(a, b) for a, b in zip(toy.parameters(), kept, strict=True))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "muon"])
def test_vectors_and_scalars_do_not_decay(optimizer):
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4), torch.nn.Conv2d(4, 4, 1))
    groups = _optimizer(module, Train(optimizer=optimizer, weight_decay=0.1)).param_groups
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    assert {name: decay[id(p)] for name, p in module.named_parameters()} == {
        name: 0.1 if p.ndim > 1 else 0.0 for name, p in module.named_parameters()
    }


def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path):
    with pytest.raises(UserError, match="16 does not divide"):
        run(tmp_path, accumulate=3)


# ------------------------------------------------------------------------------------------- the real thing, in processes


def finetune(*overrides: str, processes: int = 1) -> list[str]:
    script = Path(__file__).parents[2] / "adapt" / "finetune.py"
    launch = ["-m", "accelerate.commands.launch", "--num_processes", str(processes)] if processes > 1 else []
    return [sys.executable, *launch, str(script), "recipe=clip_lora", *QUICK, *overrides]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}


def losses(folder: Path) -> list[float]:
    path = next((folder / "runs").glob("*/history.jsonl"))
    return [row["loss"] for row in map(json.loads, path.read_text().splitlines()) if "loss" in row]


def adapter(folder: Path) -> bytes:
    return next((folder / "runs").glob("*/adapter/adapter_model.safetensors")).read_bytes()


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_in_the_same_bits(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    subprocess.run(finetune(), cwd=whole, env=environment(), check=True, capture_output=True)
    moments = random.Random(0)
    kills = 0
    while True:
        child = subprocess.Popen(
            finetune(), cwd=broken, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            if kills < 3:  # the clock starts with the first step, not with the imports
                history = broken / "runs"
                began = time.monotonic()
                before = sum(len(p.read_text().splitlines()) for p in history.glob("*/history.jsonl"))
                wait = before + moments.randint(1, 4)
                while child.poll() is None and time.monotonic() - began < 120:
                    if sum(len(p.read_text().splitlines()) for p in history.glob("*/history.jsonl")) >= wait:
                        break
                    time.sleep(0.005)
                if child.poll() is None:
                    child.send_signal(signal.SIGKILL)
                    kills += 1
            child.wait(300)
        finally:
            child.kill()
        if child.returncode == 0:
            break
    assert kills == 3
    assert losses(broken) == losses(whole)
    assert adapter(broken) == adapter(whole)


@pytest.mark.slow
def test_two_processes_give_the_losses_of_one(tmp_path):
    """Same effective batch; float32 sums in another order: 1e-4."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, processes in ((one, 1), (two, 2)):
        folder.mkdir()
        command = finetune("method.dropout=0", processes=processes)
        done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        manifest = json.loads(next(folder.glob("runs/*/manifest.json")).read_text())
        assert manifest["stages"]["finetune"]["processes"] == processes
    torch.testing.assert_close(losses(two), losses(one), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_mistake_is_told_once_and_not_by_each_process(tmp_path):
    done = subprocess.run(
        finetune("train.batch=none", processes=2), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stderr.count("train.batch: got 'none'") == 1, done.stderr
    assert not list(tmp_path.iterdir())
