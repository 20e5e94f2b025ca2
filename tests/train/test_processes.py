"""Two processes do as one: the same gradients, one decision when memory runs out, and one disk, the main process's.

The second half of this file is what each process runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import nn

from adapt.contracts import Augment, Train
from adapt.models import clip
from adapt.train import checkpoint, loop, processes
from adapt.train.gradient import gradient
from adapt.train.learner import Learner
from adapt.train.views import Views
from adapt.vision.images import collate

pytestmark = pytest.mark.slow
STILL = Augment(crop=1, flip=0, colour=0)
ROWS = Dataset.from_dict({"value": [i * 3 % 251 for i in range(80)], "label": [i % 4 for i in range(80)]})
STATE = {
    "model": {"a": torch.arange(6.0).view(2, 3), "n": torch.tensor(7)},
    "best": 0.5,
    "why": "top1",
    "groups": [{"lr": 1e-3}],
}


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    """What two processes left: node0 and node1 are their disks."""
    folder = tmp_path_factory.mktemp("two")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    here = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, *launch, __file__, str(folder)], env=here, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (folder / "said.txt").write_text(done.stdout)
    return folder


def left(two: Path, node: int, name: str):
    return torch.load(two / f"node{node}" / name, weights_only=True)


@pytest.mark.parametrize("name", ["tokens", "captions", "classes"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_gradient_is_that_of_one_process_with_all_rows(two, name, accumulate):
    learner, batch = LEARNERS[name]()
    logs = gradient(learner.train(), batch, 1, STILL, 0, Accelerator(cpu=True))
    expected = {key: p.grad for key, p in learner.named_parameters() if p.grad is not None}
    largest = max(value.abs().max() for value in expected.values())
    for node in (0, 1):
        got = left(two, node, f"{name}{accumulate}.pt")
        assert got["logs"] == pytest.approx(logs, rel=1e-5)
        assert got["grad"].keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(got["grad"][key], value, atol=2e-5 * largest, rtol=1e-4)


def test_memory_that_runs_out_on_one_runs_out_on_both(two, tmp_path):
    _, whole = trained(Toy(), tmp_path, Accelerator(cpu=True))
    one, other = (left(two, node, "memory.pt") for node in (0, 1))
    assert one == other
    assert one == pytest.approx(losses(whole), abs=1e-5)
    assert (two / "said.txt").read_text().count("micro-batch halved to 4") == 1, "from 8 a process, told once"


def test_only_the_main_process_reads_the_disk(two, tmp_path):
    """Both were stopped at step 8; the other's folder was empty, then held a stranger's state."""
    toy, whole = trained(Toy(), tmp_path, Accelerator(cpu=True), validate=lambda _: 0.0)
    for node in (0, 1):
        assert left(two, node, "resumed.pt") == pytest.approx(losses(whole), abs=1e-5)
    assert "resumed at step 6 of 15" in (two / "said.txt").read_text()
    assert left(two, 0, "begun.pt") == left(two, 1, "begun.pt") == toy.begun[6:], "a seed of the step, whoever asks"
    assert len(set(toy.begun)) == 15
    first, second = (left(two, node, "weights.pt") for node in (0, 1))
    for name, value in toy.state_dict().items():
        assert torch.equal(first[name], second[name]), "the best weights are the main process's"
        torch.testing.assert_close(first[name], value, atol=1e-5, rtol=0)
    assert not (two / "node1" / "run" / "history.jsonl").exists()
    assert {path.name for path in (two / "node1" / "run" / "checkpoints").iterdir()} == {"last.pt"}


def test_a_state_comes_whole_from_the_main_process(two):
    for node in (0, 1):
        got = left(two, node, "shared.pt")
        assert got == {"best": 0.5, "why": "top1", "groups": [{"lr": 1e-3}], "model": got["model"]}
        assert torch.equal(got["model"]["a"], STATE["model"]["a"])
        assert got["model"]["n"] == 7


# ------------------------------------------------------------------------------------------------- what each process runs


class Tokens(Learner):
    """A classifier of tokens, of which rows have more or fewer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 4)

    def forward(self, batch):
        loss = nn.functional.cross_entropy(self.layer(batch["x"]).flatten(0, 1), batch["y"].flatten(), reduction="sum")
        return loss / self.weight(batch).clamp(min=1), {}

    def weight(self, batch):
        return (batch["y"] != -100).sum()

    def augment(self, batch, config):
        return batch


class Toy(Learner):
    """A classifier of grey values."""

    def __init__(self, memory: int = 1000):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 4))
        self.memory, self.begun = memory, []

    def begin(self, seed):
        self.begun.append(seed)

    def forward(self, batch):
        if len(batch["image"]) > self.memory:
            raise RuntimeError("CUDA out of memory (pretended)")
        return nn.functional.cross_entropy(self.layers(batch["image"].float().mean((2, 3)) / 255), batch["label"]), {}

    def preprocess(self, sample, train):
        return {"image": torch.full((3, 8, 8), sample["value"], dtype=torch.uint8), "label": sample["label"]}

    def collate(self, items):
        return collate(items)

    def augment(self, batch, config):
        return batch


def of_tokens():
    torch.manual_seed(1)
    answers = torch.full((8, 9), -100)
    for row, length in enumerate([9, 1, 4, 0, 2, 7, 0, 0]):
        answers[row, :length] = torch.randint(4, (length,))
    return Tokens(), {"x": torch.randn(8, 9, 3), "y": answers, "seed": torch.arange(8)}


def of_captions():
    family = clip.load(clip.Config(name="clip", loss="contrastive")).requires_grad_(True)
    torch.manual_seed(1)
    words = ["a cat", "a dog", "a cat", "an apple", "a fire engine", "a house", "a dog", "a tree"]
    return family, {"image": torch.rand(8, 3, 48, 48) * 255, "caption": words, "seed": torch.arange(8)}


def of_classes():
    """Templates and classes are drawn for the whole step."""
    words = [f"thing {i}" for i in range(50)]
    family = clip.load(clip.Config(name="clip", loss="classification", train_tokens=100)).requires_grad_(True)
    family.set_classes(words, ["a {}", "{}", "an icon of a {}"])
    family.begin(3)
    torch.manual_seed(1)
    labels = torch.randint(50, (8,))
    return family, {"image": torch.rand(8, 3, 48, 48) * 255, "label": labels, "seed": torch.arange(8)}


LEARNERS = {"tokens": of_tokens, "captions": of_captions, "classes": of_classes}


def trained(toy: Toy, folder: Path, accelerator: Accelerator, **options):
    train = Train(epochs=3, batch=16, lr=1e-2, checkpoint_every=2, augment=STILL)
    return toy, loop.fit(toy, Views(ROWS, toy.preprocess, 0), train, 0, folder, accelerator, **options)


def losses(history: list[dict]) -> list[float]:
    return [row["loss"] for row in history if "loss" in row]


def main(folder: Path) -> None:
    accelerator = Accelerator(cpu=True)
    rank = accelerator.process_index
    own = folder / f"node{rank}"
    own.mkdir()
    for name, build in LEARNERS.items():
        for accumulate in (1, 2):
            learner, batch = build()
            mine = {key: value[rank::2] for key, value in batch.items()}
            logs = gradient(learner.train(), mine, accumulate, STILL, 0, accelerator)
            grad = {key: p.grad for key, p in learner.named_parameters() if p.grad is not None}
            torch.save({"logs": logs, "grad": grad}, own / f"{name}{accumulate}.pt")

    _, history = trained(Toy(memory=4 if rank else 1000), own / "memory", accelerator)
    torch.save(losses(history), own / "memory.pt")

    def validate(_) -> float:
        return float(rank)  # as if the nodes did not agree

    step, count = loop._step, iter(range(100))

    def dies(*given):
        if next(count) == 7:
            raise KeyboardInterrupt
        return step(*given)

    loop._step = dies
    try:
        trained(Toy(), own / "run", accelerator, validate=validate)
    except KeyboardInterrupt:
        loop._step = step
    if rank:
        checkpoint.save(own / "run" / "checkpoints" / "last.pt", {"step": 999, "selection": "another"})
    toy, history = trained(Toy(), own / "run", accelerator, validate=validate)
    torch.save(losses(history), own / "resumed.pt")
    torch.save(toy.state_dict(), own / "weights.pt")
    torch.save(toy.begun, own / "begun.pt")

    if not rank:
        checkpoint.save(own / "state.pt", STATE)
    torch.save(checkpoint.shared_load(own / "state.pt", accelerator), own / "shared.pt")
    assert processes.shared(rank, accelerator) == 0
    assert processes.once(lambda: {"rank": rank}) == {"rank": 0}
    try:
        processes.once(lambda: 1 // rank)  # division by zero on the main process alone
    except (ZeroDivisionError, RuntimeError) as error:
        assert isinstance(error, RuntimeError if rank else ZeroDivisionError)
    else:
        raise AssertionError("the main process's failure is everyone's")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
