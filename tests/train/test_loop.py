"""The loop: resume after SIGKILL bit for bit, processes and accumulation that change nothing, memory that runs out."""

from __future__ import annotations

import gc
import itertools
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import nn

from adapt.contracts import Augment, Train
from adapt.plug import UserError
from adapt.run import HOST
from adapt.train import checkpoint, loop
from adapt.train.learner import Learner
from adapt.train.loop import _optimizer, fit
from adapt.train.views import Views, order
from adapt.vision.augment import augment
from adapt.vision.images import collate

QUICK = [
    "data.shots=4",
    "data.unlabelled=[]",
    "model.train_templates=1",
    "train.epochs=2",
    "train.batch=32",
    "train.checkpoint_every=2",
    "tracker=none",
    "evals=[]",
    "distill=null",
    "export=[]",
]


class Toy(Learner):
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


def test_a_batch_of_all_is_each_row_once(tmp_path):
    toy = Toy()
    toy.layers[1].p = 0.0
    images = torch.stack([toy.preprocess(row, True)["image"] for row in ROWS]).float()
    expected = toy({"image": images, "label": torch.tensor(ROWS["label"][:])})[0].item()
    _, losses = run(tmp_path, toy, batch="all", epochs=1, augment=Augment(crop=1, flip=0, colour=0))
    assert losses == [pytest.approx(expected, rel=1e-5)]


def test_the_learning_rate_warms_up_and_falls_as_a_cosine(tmp_path):
    toy = Toy()
    train = Train(epochs=2, batch=16, lr=0.1, warmup=0.2, augment=Augment(crop=1, flip=0))
    history = fit(toy, Views(ROWS, toy.preprocess, 0), train, 0, tmp_path, Accelerator(cpu=True))
    expected = [0.05, 0.1] + [0.05 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    assert [row["lr"] for row in history] == pytest.approx(expected)


def test_a_warm_up_may_have_its_own_rate_and_the_cosine_an_end_above_nothing(tmp_path):
    train = Train(epochs=2, batch=16, lr=0.1, warmup=0.2, warmup_lr=1e-5, min_lr=0.02, augment=Augment(crop=1, flip=0))
    toy = Toy()
    history = fit(toy, Views(ROWS, toy.preprocess, 0), train, 0, tmp_path, Accelerator(cpu=True))
    expected = [1e-5, 1e-5] + [0.02 + 0.04 * (1 + math.cos(math.pi * i / 8)) for i in range(8)]
    assert [row["lr"] for row in history] == pytest.approx(expected)


@pytest.mark.parametrize("steps", [3, 5, 7])
def test_steps_are_counted_in_the_place_of_epochs(tmp_path, steps):
    _, losses = run(tmp_path / "few", epochs=1, steps=steps, schedule="constant")
    _, whole = run(tmp_path / "whole", epochs=2, warmup=0.05 * steps / 10, schedule="constant")
    assert len(losses) == steps and losses == whole[:steps]


def test_gradients_are_clipped_by_their_norm(tmp_path):
    toy = Toy()
    before = [p.detach().clone() for p in toy.parameters()]
    run(tmp_path, toy, epochs=1, batch=80, lr=1.0, warmup=0, weight_decay=0, optimizer="sgd", clip=1e-3)
    moved = torch.cat([(a - b).flatten() for a, b in zip(toy.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_every_epoch_has_its_own_views_unless_they_are_few():
    views = Views(ROWS, Toy().preprocess, 0)

    def seen(epoch: int) -> int:
        views.epoch = epoch
        return views.items([3])[0]["seed"]

    assert len({seen(epoch) for epoch in range(5)}) == 5
    views.views = 2
    assert seen(0) == seen(2) != seen(1) == seen(3)


def test_a_stopped_training_goes_on_where_it_was(tmp_path, monkeypatch, capsys):
    """With early stopping and a best state, both of which a resumed run must remember."""
    scores = [0.5, 0.9, 0.3, 0.2, 0.1]

    def train(folder: Path):
        toy, options = Toy(), Train(epochs=5, batch=16, lr=1e-2, patience=2, checkpoint_every=2)
        lines = folder / "history.jsonl"

        def validate(_) -> float:
            return scores[max(json.loads(line)["epoch"] for line in lines.read_text().splitlines())]

        return toy, fit(toy, Views(ROWS, toy.preprocess, 0), options, 0, folder, Accelerator(cpu=True), validate)

    whole, expected = train(tmp_path / "whole")
    step, count = loop._step, itertools.count(1)

    def dies(*given):
        if next(count) in (8, 14):
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(loop, "_step", dies)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "cut")
    cut, history = train(tmp_path / "cut")
    said = capsys.readouterr().out
    assert "resumed at step 6 of 25" in said
    assert "resumed at step 10 of 25" in said
    assert history == expected
    assert next(count) == 25, "20 steps until patience ends, of which four are done twice"
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), cut.state_dict().values(), strict=True))


def test_a_killed_save_leaves_nothing_behind(tmp_path):
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    (tmp_path / f".last.pt.{HOST}.{child.stdout.strip()}").write_bytes(b"half of it")
    checkpoint.save(tmp_path / "last.pt", {"step": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert checkpoint.load(tmp_path / "last.pt") == {"step": 3}


def test_a_state_with_code_in_it_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/run",)

    torch.save({"x": Evil()}, tmp_path / "last.pt")
    with pytest.raises(Exception, match=r"[Ww]eights"):
        checkpoint.load(tmp_path / "last.pt")
    assert not (tmp_path / "run").exists()


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


def test_memory_that_is_too_small_for_one_picture_is_said(tmp_path):
    with pytest.raises(UserError, match=r"out of memory with a micro-batch of one picture.*method\.checkpointing=true"):
        run(tmp_path, Toy(memory=0))


def test_other_errors_are_no_lack_of_memory(tmp_path):
    class Broken(Toy):
        def forward(self, batch):
            raise RuntimeError("sizes do not match")

    with pytest.raises(RuntimeError, match="sizes do not match"):
        run(tmp_path, Broken())


def test_micro_batches_of_unequal_weight_count_by_it(tmp_path):
    """A loss that is a mean over some of the rows: those with an even label."""

    class Some(Toy):
        def forward(self, batch):
            logits = self.layers(batch["image"].mean((2, 3)) / 255)
            each = nn.functional.cross_entropy(logits, batch["label"], reduction="none")
            return (each * (batch["label"] % 2 == 0)).sum() / self.weight(batch).clamp(min=1), {}

        def weight(self, batch):
            return (batch["label"] % 2 == 0).sum()

    plain, split = Some(), Some()
    plain.layers[1].p = split.layers[1].p = 0
    _, a = run(tmp_path / "a", plain)
    _, b = run(tmp_path / "b", split, accumulate=8)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_bounds_are_kept_after_each_step(tmp_path):
    class Bounded(Toy):
        @torch.no_grad()
        def stepped(self):
            self.layers[3].bias.clamp_(-1e-3, 1e-3)

    toy, _ = run(tmp_path, Bounded(), lr=1.0)
    assert toy.layers[3].bias.abs().max() <= 1e-3


def test_best_weights_are_not_compared_with_those_of_another_selection(tmp_path):
    """Stopped with one eval, started again with another, or with none."""

    def train(selection: str, epochs: int = 2):
        toy = Toy()
        train = Train(epochs=epochs, batch=16, lr=1e-2)
        views = Views(ROWS, toy.preprocess, 0)
        return fit(toy, views, train, 0, tmp_path, Accelerator(cpu=True), lambda _: 0.5, selection=selection)

    done = train("top1, validation 3f")
    assert train("top1, validation 3f") == done
    for other, words in (("recall@1, validation 3f", "'recall@1, validation 3f'"), ("", "no eval")):
        with pytest.raises(UserError) as error:
            train(other)
        assert len(str(error.value).splitlines()) == 1
        assert "'top1, validation 3f'" in str(error.value)
        assert words in str(error.value)
        assert "the same evals" in str(error.value)
        assert "name=" in str(error.value)


def test_a_state_that_names_no_selection_had_none(tmp_path):
    run(tmp_path)
    state = checkpoint.load(tmp_path / "checkpoints" / "last.pt")
    del state["selection"]
    checkpoint.save(tmp_path / "checkpoints" / "last.pt", state)
    run(tmp_path)


def test_memory_that_runs_out_in_a_later_micro_batch_leaves_nothing_of_the_first(tmp_path):
    class Late(Toy):
        calls = 0

        def forward(self, batch):
            self.calls += 1
            if self.calls == 2:
                raise RuntimeError("CUDA out of memory (pretended, of the second micro-batch)")
            return super().forward(batch)

    late, plain = Late(), Toy()
    late.layers[1].p = plain.layers[1].p = 0
    _, a = run(tmp_path / "a", late, accumulate=2)
    _, b = run(tmp_path / "b", plain)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lr", [1e-2, 1e30], ids=["done", "failed"])
def test_after_a_training_nothing_keeps_its_optimiser_and_weights(tmp_path, lr):
    """Of a session that trains again and again; the accelerator is used again, too."""
    accelerator, toy = Accelerator(cpu=True), Toy()
    begun = accelerator.prepare(torch.optim.SGD(toy.parameters()))
    toy = Toy()
    kept = weakref.ref(toy.layers[0].weight)
    train = Train(epochs=1, batch=16, lr=lr, clip=0)
    try:
        fit(toy, Views(ROWS, toy.preprocess, 0), train, 0, tmp_path, accelerator)
    except UserError:
        assert lr > 1
    assert accelerator._optimizers == [begun], "the caller's own"
    del toy
    gc.collect()
    assert kept() is None
    again = Toy()
    assert fit(again, Views(ROWS, again.preprocess, 0), Train(epochs=1, batch=16), 0, tmp_path / "again", accelerator)


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


def test_muon_takes_matrices_and_convolutions_that_mix_channels():
    """The first convolution and depthwise ones, embeddings and vectors go to AdamW, and both kinds learn."""
    module = torch.nn.ModuleDict(
        {
            "first": torch.nn.Conv2d(3, 32, 3),
            "mixes": torch.nn.Conv2d(32, 32, 3),
            "depthwise": torch.nn.Conv2d(32, 32, 3, groups=32),
            "linear": torch.nn.Linear(32, 32),
            "embedding": torch.nn.Embedding(8, 32),
        }
    )
    optimizer = _optimizer(module, Train(optimizer="muon", lr=1e-2))
    muons = {id(p) for group in optimizer.param_groups if not group.get("use_fallback") for p in group["params"]}
    assert {name for name, p in module.named_parameters() if id(p) in muons} == {"mixes.weight", "linear.weight"}
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    features = module["depthwise"](module["mixes"](module["first"](torch.randn(2, 3, 9, 9)))).mean((2, 3))
    (module["linear"](features) + module["embedding"](torch.tensor([1, 2]))).square().sum().backward()
    optimizer.step()
    assert not [name for name, p in module.named_parameters() if torch.equal(before[name], p)]


def test_a_batch_that_the_processes_cannot_share_is_refused(tmp_path):
    with pytest.raises(UserError, match="16 is not divisible"):
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
    said = tmp_path / "said.txt"
    while True:
        with open(said, "a") as file:
            child = subprocess.Popen(finetune(), cwd=broken, env=environment(), stdout=file, stderr=subprocess.STDOUT)
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
    assert "finetune: resumed at step" in said.read_text()
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
