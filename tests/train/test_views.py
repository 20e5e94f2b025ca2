"""Rows on their way to the network: the same bits whoever decodes them, never far ahead, and in bounded memory."""

from __future__ import annotations

import os
import sys
import threading
import time
from functools import partial

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset, Features, Value
from PIL import Image
from torch import nn

from adapt.contracts import Augment, Predictor, Train
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.train.learner import Learner
from adapt.train.loop import fit
from adapt.train.predict import predict
from adapt.train.views import KEPT, Views, batches, decoders, order, streamed
from adapt.vision.augment import augment
from adapt.vision.images import collate
from adapt.vision.pictures import RGB, encoded

PICTURES = 24


@pytest.fixture(scope="module")
def rows() -> Dataset:
    draw = np.random.default_rng(0)
    images = [encoded(Image.fromarray(draw.integers(0, 256, (30 + n, 40, 3), np.uint8))) for n in range(PICTURES)]
    features = Features(id=Value("string"), image=RGB(), label=Value("int64"))
    return Dataset.from_dict(
        {"id": list(map(str, range(PICTURES))), "image": images, "label": [n % 3 for n in range(PICTURES)]}, features
    )


def prepared(sample: dict, train: bool) -> dict:
    pixels = torch.from_numpy(np.array(sample["image"].resize((16, 16)))).permute(2, 0, 1).contiguous()
    return {"image": pixels} | ({"label": sample["label"]} if train else {})


@pytest.mark.parametrize("workers", [1, 4, "auto"])
def test_batches_are_the_same_whoever_decodes(rows, workers):
    def all_of(workers) -> list[dict]:
        views = Views(rows, prepared, 0)
        found = []
        for views.epoch in range(3):
            found += batches(views, order(0, views.epoch, len(rows), 8), collate, workers)
        return found

    for one, two in zip(all_of(0), all_of(workers), strict=True):
        assert one.keys() == two.keys() == {"image", "label", "seed"}
        assert all(torch.equal(one[name], two[name]) for name in one)


class Head(Learner):
    """Classes from the pixels, of random views."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.Dropout(0.2), nn.Linear(8, 3))

    def forward(self, batch):
        return nn.functional.cross_entropy(self.layers(batch["image"] / 255), batch["label"]), {}

    def preprocess(self, sample, train):
        return prepared(sample, train)

    def collate(self, items):
        return collate(items)

    def augment(self, batch, config):
        return batch | {"image": augment(batch["image"], batch["seed"], config)}


def test_a_training_ends_in_the_same_bits_with_0_1_and_4_workers(rows, tmp_path):
    def trained(workers: int) -> torch.Tensor:
        head = Head()
        train = Train(epochs=3, batch=8, lr=1e-2, workers=workers, augment=Augment())
        fit(head, Views(rows, head.preprocess, 0), train, 0, tmp_path / str(workers), Accelerator(cpu=True))
        return head.layers[1].weight.detach().clone()

    first = trained(0)
    assert torch.equal(first, trained(1)) and torch.equal(first, trained(4))
    assert not torch.equal(first, Head().layers[1].weight)


def test_later_epochs_decode_nothing_while_the_memory_holds(rows):
    opened: list[str] = []

    def counting(sample: dict, train: bool) -> dict:
        opened.append("x")
        return prepared(sample, train)

    def epochs(keep: int) -> int:
        opened.clear()
        views = Views(rows, counting, 0, keep=keep)
        for views.epoch in range(3):
            list(batches(views, order(0, views.epoch, PICTURES, 8), collate, 2))
        return len(opened)

    each = 500 + 3 * 16 * 16 + 100  # bytes of an item, about
    assert epochs(keep=PICTURES * each) == PICTURES
    assert epochs(keep=0) == 3 * PICTURES
    assert epochs(keep=10 * each) == 10 + 3 * (PICTURES - 10)


def test_what_is_kept_is_not_changed_by_what_a_batch_gets(rows):
    views = Views(rows, prepared, 0, extra=lambda view, row: {"features": torch.full((2,), view)})
    first = views.items([3])[0]
    views.epoch = 1
    second = views.items([3])[0]
    assert first["seed"] != second["seed"] and first["features"].tolist() == [0, 0] and second["features"].tolist() == [1, 1]


def test_jobs_begin_before_their_turn_but_not_far_before():
    begun, lock = [], threading.Lock()

    def job(number: int) -> int:
        with lock:
            begun.append(number)
        return number

    results = streamed((partial(job, number) for number in range(100)), workers=2)
    assert next(results) == 0
    time.sleep(0.1)
    assert 1 < len(begun) <= 6  # two for each thread before their turn, and the one that was asked for
    assert list(results) == list(range(1, 100))
    begun.clear()
    alone = streamed((partial(job, number) for number in range(10)), workers=0)
    assert next(alone) == 0 and begun == [0]


@pytest.mark.parametrize("batch", [1, 5, 24])
def test_rows_begin_before_their_turn_but_two_batches_at_most(batch):
    begun: list[int] = []

    class Rows:
        def __getitem__(self, numbers: list[int]) -> dict[str, list]:
            begun.extend(numbers)
            return {"value": numbers}

    steps = [range(start, start + batch) for start in range(0, 20 * batch, batch)]
    found = batches(Views(Rows(), lambda sample, train: sample, None, keep=0), steps, collate, workers=3)
    for turn, step in enumerate(steps, 1):
        assert next(found)["value"].tolist() == list(step)
        if turn < 4:
            time.sleep(0.1)
            assert min(turn + 1, 20) * batch <= len(begun) <= turn * batch + batch + max(batch, 2 * 3), "two for each thread"
    assert next(found, None) is None and begun.sort() is None and begun == list(range(20 * batch))


def test_a_single_batch_is_decoded_by_all_threads(rows):
    together = threading.Barrier(4, timeout=10)

    def waiting(sample: dict, train: bool) -> dict:
        together.wait()  # for three others
        return prepared(sample, train)

    (one,) = batches(Views(rows, waiting, 0), [range(PICTURES)], collate, workers=4)
    (other,) = batches(Views(rows, prepared, 0), [range(PICTURES)], collate, workers=0)
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_threads_that_keep_rows_at_once_do_not_keep_more_than_allowed(rows):
    together = threading.Barrier(2)

    class Slow(np.ndarray):
        @property
        def nbytes(self) -> int:  # both threads are asked before either has an answer
            together.wait(10)
            return 300

    views = Views(rows, lambda sample, train: {"image": np.zeros(3).view(Slow)}, None, keep=1000)
    both = [threading.Thread(target=views.items, args=([number],)) for number in (0, 1)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(views._kept) == 1 and views.keep == 200


def test_cores_and_memory_are_shared_by_the_processes_of_this_machine(rows, monkeypatch):
    cores = 48
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(cores), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 96)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert decoders("auto") == 8 and decoders(3) == 3 and decoders(0) == 0
    assert Views(rows, prepared, 0).keep == KEPT
    monkeypatch.setenv("WORLD_SIZE", "32")  # of four machines
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert decoders("auto") == 6
    assert Views(rows, prepared, 0).keep == KEPT // 8
    cores = 2
    assert decoders("auto") == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert decoders("auto") == 2, "those that it may use, not those of the machine"
    cores = 64
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert decoders("auto") == 16, "a GPU waits for more"


def test_an_error_of_a_thread_is_the_loops_own_and_stops_the_others():
    def job(number: int) -> int:
        if number == 3:
            raise ValueError("number 3")
        return number

    found = []
    with pytest.raises(ValueError, match="number 3"):
        for number in streamed((partial(job, number) for number in range(1000)), workers=4):
            found.append(number)
    assert found == [0, 1, 2]


@pytest.mark.parametrize("batch", [1, 5, PICTURES, 100])
def test_predictions_are_in_the_order_of_the_rows(rows, batch):
    class Family(nn.Module):
        def preprocess(self, sample, train):
            return prepared(sample, train)

        def collate(self, items):
            return collate(items)

    mean = Predictor(lambda images: images.mean((1, 2, 3))[:, None], "images")
    found = predict(mean, Family(), rows, batch, Accelerator(cpu=True))
    wanted = [prepared(row, False)["image"].float().mean().item() for row in rows]
    assert np.allclose(found[:, 0], wanted, rtol=1e-6)


@pytest.mark.parametrize("wrong", [-1, 257, 2.5, True, None, "many"])
def test_a_wrong_number_of_workers_is_one_line(wrong):
    with pytest.raises(UserError) as caught:
        load_recipe("clip_lora", [f"train.workers={'null' if wrong is None else wrong}"])
    (line,) = str(caught.value).splitlines()
    assert line.startswith("train.workers: got ") and "it can be auto, or a number of threads from 0 to 256" in line
