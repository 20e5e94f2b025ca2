"""Predictions over a data set: the same rows in the same order, whatever the number of processes."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset

from adapt.contracts import Predictor
from adapt.plug import UserError
from adapt.train.predict import predict
from adapt.vision.images import collate

SCRIPT = """
import json, torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import Dataset
from adapt.models.clip.family import gather
from adapt.contracts import Predictor
from adapt.plug import UserError
from adapt.vision.images import collate
from adapt.train.predict import predict

accelerator = Accelerator(cpu=True)

class Family(torch.nn.Module):
    def preprocess(self, sample, train):
        return {"image": torch.full((3, 2, 2), sample["value"], dtype=torch.uint8)}

    def collate(self, items):
        return collate(items)

def rows(samples):
    return [sample["value"] for sample in samples]

rows = Predictor(rows, "rows")
found = {}
for count in (1, 2, 3, 5, 8, 9):
    data = Dataset.from_dict({"value": list(range(count))})
    images = predict(Predictor(lambda x: x.mean((2, 3))[:, :1]), Family(), data, 2, accelerator)
    found[count] = [images.ravel().astype(int).tolist(), predict(rows, Family(), data, 2, accelerator)]

# a row of the second process alone is not finite: both stop, or one would wait for the other
def broken(samples):
    return [{"score": float("nan") if sample["value"] == 6 else 1.0} for sample in samples]

broken = Predictor(broken, "rows")
try:
    predict(broken, Family(), Dataset.from_dict({"value": list(range(8))}), 2, accelerator)
    said = "nothing"
except UserError as error:
    said = str(error)
stopped = gather_object([said])

# a contrastive loss over gathered rows: each process holds half of the batch, and the gradients add up to those of one process
torch.manual_seed(0)
inputs, weight = torch.randn(6, 4), torch.randn(4, 4, requires_grad=True)
def loss(features):
    logits = F.normalize(features) @ F.normalize(features.flip(1)).T
    return F.cross_entropy(logits, torch.arange(6))
expected, = torch.autograd.grad(loss(inputs @ weight), weight)
rank = accelerator.process_index
got, = torch.autograd.grad(loss(gather(inputs[3 * rank : 3 * rank + 3] @ weight)), weight)
torch.distributed.all_reduce(got)
got = got / accelerator.num_processes  # as DDP does
if accelerator.is_main_process:
    print(json.dumps([accelerator.num_processes, found, stopped, torch.allclose(got, expected, atol=1e-6)]))
"""


def test_two_processes_predict_every_row_once_stop_together_and_gather_with_gradients(tmp_path):
    import json

    (tmp_path / "two.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "two.py"]
    done = subprocess.run(launch, cwd=tmp_path, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    processes, found, stopped, equal = json.loads(done.stdout.splitlines()[-1])
    assert processes == 2
    assert {int(count): values for count, values in found.items()} == {n: [list(range(n))] * 2 for n in (1, 2, 3, 5, 8, 9)}
    assert len(stopped) == 2 and all("number 7 of 8, holds NaN" in said for said in stopped)
    assert equal


class Plain(torch.nn.Module):
    def preprocess(self, sample, train):
        return {"image": torch.full((3, 2, 2), sample["value"], dtype=torch.uint8)}

    def collate(self, items):
        return collate(items)


def ask(function, named: bool = True, batch: int = 2, takes: str = "images"):
    columns = {"value": list(range(7))} | ({"id": [f"picture {i}" for i in range(7)]} if named else {})
    return predict(
        Predictor(function, takes), Plain(), Dataset.from_dict(columns), batch, Accelerator(cpu=True), name="class_logits"
    )


@pytest.mark.parametrize("takes", ["images", "rows"])
def test_where_memory_runs_out_the_predictor_gets_fewer_rows_at_once(takes):
    asked = []

    def narrow(given, box=None):
        asked.append(len(given))
        if len(given) > 3:
            raise torch.OutOfMemoryError
        if takes == "images":
            return given.mean((2, 3))
        assert box == [sample["value"] * 10 for sample in given]
        return [sample["value"] for sample in given]

    rows = Dataset.from_dict({"value": list(range(20))})
    options = {"box": list(range(0, 200, 10))} if takes == "rows" else {}
    found = predict(Predictor(narrow, takes), Plain(), rows, 8, Accelerator(cpu=True), **options)
    assert np.array_equal(np.array(found).reshape(20, -1)[:, 0], range(20))
    assert asked == [8, 4] + 10 * [2], "halved for good"


def test_memory_that_does_not_hold_one_row_is_an_error():
    def never(images):
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        ask(never)


def test_outputs_are_held_once():
    given: list[weakref.ref] = []

    def remembered(images):
        output = images.mean((2, 3)).numpy()
        given.append(weakref.ref(output))
        assert sum(one() is not None for one in given) <= 2, "this one, and the one that was just put in its place"
        return torch.from_numpy(output)

    found = ask(remembered)
    assert found.dtype == np.float32 and found.tolist() == [[value] * 3 for value in range(7)]


def test_of_large_pictures_two_batches_wait_at_most():
    begun: list[int] = []

    class Rows(list):
        def __getitem__(self, number: int) -> int:
            begun.append(number)
            return number

    def rows(samples):
        time.sleep(0.1)  # a network at work, while threads look up what comes
        assert len(begun) <= samples[-1] + 1 + 2 * 16
        return samples

    found = predict(Predictor(rows, "rows"), Plain(), Rows(range(96)), 16, Accelerator(cpu=True), workers=4)
    assert found == list(range(96))


def test_threads_are_those_of_the_recipe(monkeypatch):
    from adapt.verbs import measuring

    seen = {}
    monkeypatch.setattr("adapt.train.predict.predict", lambda *given, **options: seen.update(options))
    recipe = SimpleNamespace(train=SimpleNamespace(workers=3))
    session = SimpleNamespace(accelerator=Accelerator(cpu=True), recipe=recipe)
    measuring.predictor(session, SimpleNamespace(predictors=lambda texts: {"class_logits": None}))(None)
    assert seen["workers"] == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_output_that_is_not_finite_stops_and_names_its_first_row(bad):
    def logits(images):
        mean = images.mean((2, 3))
        return torch.where((mean == 4) | (mean == 6), bad, mean)

    with pytest.raises(UserError, match=r"class_logits for row 'picture 4', number 5 of 7,.* lower train\.lr"):
        ask(logits)
    with pytest.raises(UserError, match="class_logits for the row, number 5 of 7"):
        ask(logits, named=False)


@pytest.mark.parametrize(
    "result",
    [
        {"bbox": np.array([[0.0, 1, 2, np.nan]]), "score": [0.5]},
        {"bbox": np.zeros((0, 4)), "score": [0.5, math.nan]},
        {"masks": np.ones((1, 2, 2), bool), "features": torch.tensor([1.0, -math.inf])},
        {"parts": [{"score": np.float32("nan")}]},
        np.array([1.0, math.inf]),
    ],
)
def test_results_of_rows_are_looked_at_wherever_their_numbers_lie(result):
    asked = []

    def rows(samples):
        asked.extend(sample["value"] for sample in samples)
        return [result if sample["value"] >= 3 else {"bbox": np.zeros((1, 4)), "score": [0.5]} for sample in samples]

    with pytest.raises(UserError, match="row 'picture 3', number 4 of 7"):
        ask(rows, takes="rows")
    assert asked == [0, 1, 2, 3], "it stops there"


def test_what_is_no_number_is_no_reason_to_stop():
    def rows(samples):
        answer = {
            "text": "nan",
            "masks": np.zeros((0, 2, 2), bool),
            "none": None,
            "category": np.array([-1]),
            "codes": [{"counts": "inf"}],
        }
        return [answer for _ in samples]

    assert len(ask(rows, takes="rows")) == 7
