"""The teacher's cache: what it holds, who makes it, and what becomes of it on a bad day."""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset, Features, Image
from PIL import Image as Picture

from adapt.contracts import Augment
from adapt.distill import cache as cache_module
from adapt.distill.cache import build
from adapt.plug import UserError
from adapt.train.views import Views
from adapt.vision.augment import augment, view_seed
from adapt.vision.images import view

AUGMENT = Augment(crop=0.6, flip=0.5, colour=0.2)
INPUT = {"size": (8, 8), "resize": None, "crop": None}
ROWS = 42
"""Of which five blocks of eight rows are whole."""


@pytest.fixture(scope="module")
def rows() -> Dataset:
    noise = np.random.default_rng(0).integers(0, 256, (ROWS, 8, 8, 3), np.uint8)
    return Dataset.from_dict({"image": [Picture.fromarray(one) for one in noise]}, Features(image=Image()))


@pytest.fixture
def small(monkeypatch):
    """Shards of one block."""
    monkeypatch.setattr(cache_module, "SHARD", 1)


def preprocess(sample, train):
    return {"image": view(sample["image"], INPUT)}


def means(images):
    """A teacher: float[B, 3, 8, 8] → float[B, 3]."""
    return images.mean((2, 3))


def made(folder, rows, teacher=means, views=2, batch=8, augmentation=AUGMENT, **options):
    return build(folder, teacher, Views(rows, preprocess, 0, views), augmentation, batch, Accelerator(cpu=True), **options)


def items(cache, views=2) -> torch.Tensor:
    return torch.stack([cache(view, row)["teacher"] for view in range(views) for row in range(ROWS)])


def test_an_item_is_what_the_teacher_says_of_just_that_view(rows, tmp_path, small):
    cache = made(tmp_path, rows)
    for number in (0, 1):
        for row in (0, 7, 8, 41):
            image, seed = preprocess(rows[row], True)["image"][None], torch.tensor([view_seed(0, number, row)])
            torch.testing.assert_close(cache(number, row)["teacher"][None], means(augment(image, seed, AUGMENT)))
    assert cache(0, 0)["teacher"].dtype == torch.float32


def test_each_picture_is_decoded_once_for_all_its_views(rows, tmp_path):
    seen = Counter()

    def counting(sample, train):
        seen[sample["image"].tobytes()] += 1
        return preprocess(sample, train)

    build(tmp_path, means, Views(rows, counting, 0, 5), AUGMENT, 8, Accelerator(cpu=True))
    assert len(seen) == ROWS and set(seen.values()) == {1}


def test_processes_share_the_cache_whoever_begins_first(rows, tmp_path, small):
    def part(rank: int):
        accelerator = SimpleNamespace(is_main_process=rank == 0, device="cpu", wait_for_everyone=lambda: None)
        return build(tmp_path / "cache", means, Views(rows, preprocess, 0, 2), AUGMENT, 8, accelerator, place=(rank, 2))

    part(0)  # has finished all of its own before the other looks
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 3
    cache = part(1)
    assert cache.layout.shards == 6
    assert torch.equal(items(cache), items(made(tmp_path / "alone", rows)))


def test_few_shards_are_open_at_once_and_none_travels_to_a_worker(rows, tmp_path, small, monkeypatch):
    monkeypatch.setattr(cache_module, "OPEN", 2)
    cache = made(tmp_path, rows)
    first = items(cache)
    assert opened(tmp_path) == 2
    assert torch.equal(items(cache), first)
    other = pickle.loads(pickle.dumps(cache))
    assert opened(tmp_path) == 2 and torch.equal(items(other), first)


def opened(folder) -> int:
    """Files of a folder that this process has open."""
    return len({file.path for file in psutil.Process().open_files() if file.path.startswith(str(folder))})


def test_threads_share_the_open_shards(rows, tmp_path, small, monkeypatch):
    monkeypatch.setattr(cache_module, "OPEN", 4)
    cache = made(tmp_path, rows, batch=1)
    assert cache.layout.shards == ROWS
    places = [(view, row) for view in (0, 1) for row in range(ROWS)]

    def read(seed: int) -> list[int]:
        """How many are open after each item."""
        count = []
        for number in np.random.default_rng(seed).permutation(len(places)):
            view, row = places[number]
            assert torch.equal(cache(view, row)["teacher"], expected[number])
            count.append(opened(tmp_path))
        return count

    expected = items(cache)
    with ThreadPoolExecutor(4) as pool:
        counts = [count for thread in pool.map(read, range(4)) for count in thread]
    assert max(counts) <= 4 + 4, "those that are kept, and one more in the hands of each thread"
    assert opened(tmp_path) <= 4


@pytest.mark.parametrize("size", [1, 64_000_000])
def test_it_resumes_at_the_last_whole_block(rows, tmp_path, monkeypatch, size):
    monkeypatch.setattr(cache_module, "SHARD", size)
    calls = []

    def stopping(images):
        calls.append(len(images))
        if len(calls) == 6:
            raise KeyboardInterrupt
        return means(images)

    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "broken", rows, stopping)
    assert calls == [2, 8, 8, 8, 8, 8], "an item to learn its size, two whole blocks, and half of the third"
    with open(next((tmp_path / "broken").glob("*.part")), "ab") as part:
        part.write(b"half a block")
    cache = made(tmp_path / "broken", rows, lambda images: calls.append(len(images)) or means(images))
    assert sum(calls[6:]) == 2 + 2 * (ROWS - 16)
    assert torch.equal(items(cache), items(made(tmp_path / "whole", rows)))
    for file in (tmp_path / "whole").iterdir():
        assert file.read_bytes() == (tmp_path / "broken" / file.name).read_bytes()


@pytest.mark.parametrize(("harm", "word"), [(lambda path: path.unlink(), "missing"), (lambda path: cut(path, 9), "cut short")])
def test_a_shard_that_is_missing_or_cut_short_is_made_again_and_a_line_says_so(rows, tmp_path, small, capsys, harm, word):
    before = items(made(tmp_path, rows))
    assert json.loads((tmp_path / "manifest.json").read_text())["whole"] is True
    asked = []
    harm(tmp_path / "000002.npy")
    capsys.readouterr()
    cache = made(tmp_path, rows, lambda images: asked.append(len(images)) or means(images))
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"teacher: {tmp_path / '000002.npy'} is {word}; it is made again"
    assert torch.equal(items(cache), before) and sum(asked) == 2 + 16, "one item to learn its size, and the shard"
    made(tmp_path, rows)
    assert not capsys.readouterr().out, "whole, so nothing is said and nothing asked"


def cut(path, count: int) -> None:
    path.write_bytes(path.read_bytes()[:-count])


@pytest.mark.parametrize("text", ["{broken", "[]", '{"rows": 42, "views": 2, "block": 0, "shard": 1}', '{"rows": 9}'])
def test_without_a_manifest_that_can_be_read_nothing_is_believed(rows, tmp_path, text):
    before = items(made(tmp_path, rows))
    np.save(tmp_path / "000000.npy", np.zeros((2 * ROWS, 3), np.float32))
    (tmp_path / "manifest.json").write_text(text)
    assert torch.equal(items(made(tmp_path, rows)), before)


def test_the_space_is_said_before_it_begins_and_a_small_disk_is_refused(rows, tmp_path, capsys, monkeypatch):
    made(tmp_path / "enough", rows, lambda images: images)
    assert capsys.readouterr().out == "teacher: the outputs for 2 views of 42 pictures take 0.1 MB on disk\n"
    need = 2 * ROWS * 3 * 8 * 8 * 4
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=need - 1))
    asked = []
    with pytest.raises(UserError, match=r"2 views of 42 pictures need 0\.0 GB more in .*/full, whose disk .*\. Buy a disk\."):
        made(tmp_path / "full", rows, lambda images: asked.append(len(images)) or images, instead="Buy a disk.")
    assert sum(asked) == 2 and not list((tmp_path / "full").iterdir()), "nothing has begun"
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=need))
    made(tmp_path / "full", rows, lambda images: images)


def test_a_second_command_in_the_same_folder_is_one_line(rows, tmp_path):
    def again(images):
        if len(images) > 2:
            made(tmp_path, rows)
        return means(images)

    with pytest.raises(UserError, match=r"000000\.npy\.part: another command is filling it\. Wait"):
        made(tmp_path, rows, again)


def test_what_another_command_makes_meanwhile_is_kept(rows, tmp_path):
    asked = []

    def slow(images):
        made(tmp_path, rows)
        return asked.append(len(images)) or means(images)

    cache = made(tmp_path, rows, slow)
    assert asked == [2], "an item to learn its size"
    assert torch.equal(items(cache), items(made(tmp_path / "alone", rows)))


def test_a_shard_is_locked_until_it_has_its_name(rows, tmp_path, monkeypatch):
    replace, named = os.replace, []

    def replacing(part, path):
        if path.suffix == ".npy":
            with pytest.raises(UserError, match="another command"), cache_module.alone(part):
                pass
            named.append(path)
        replace(part, path)

    monkeypatch.setattr(cache_module.os, "replace", replacing)
    made(tmp_path, rows)
    assert named == [tmp_path / "000000.npy"]


def test_where_memory_runs_out_the_teacher_gets_fewer_pictures_at_once(rows, tmp_path):
    asked = []

    def teacher(images):
        asked.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError
        return means(images)

    cache = made(tmp_path / "narrow", rows, teacher, batch=16)
    assert asked[1] == 16 and asked.count(16) == 1 and max(asked[4:]) == 2, "halved for good"
    torch.testing.assert_close(items(cache), items(made(tmp_path / "wide", rows, batch=16)))


def test_mixed_precision_is_for_accelerators_alone(rows, tmp_path):
    def teacher(images):
        assert not torch.is_autocast_enabled("cpu")
        return means(images)

    accelerator = SimpleNamespace(is_main_process=True, device="cpu", wait_for_everyone=lambda: None, autocast=None)
    build(tmp_path, teacher, Views(rows, preprocess, 0, 1), None, 8, accelerator)


class Many:
    def __init__(self, rows: int, views: int):
        self.rows, self.views = rows, views

    def __len__(self) -> int:
        return self.rows


def test_shards_have_64_mb_or_more_and_each_process_has_one():
    layout = cache_module._layout(Many(1_000_000, 4), 256, 3072, 1)  # features of 768 numbers
    assert 64e6 <= layout.items(0) * 3072 < 70e6 and layout.shards < 200
    assert sum(map(layout.items, range(layout.shards))) == 4_000_000
    assert cache_module._layout(Many(1000, 1), 100, 4, 1).shards == 1
    assert cache_module._layout(Many(1000, 1), 100, 4, 4).shards == 4


def test_a_teacher_that_answers_nan_is_one_line(rows, tmp_path):
    def broken(images):
        return torch.full((len(images), 4), float("nan"))

    with pytest.raises(UserError, match=r"teacher.*rows 0 to 0 .*NaN.*lower train\.lr"):
        made(tmp_path, rows, broken, views=1)
    assert not list(tmp_path.glob("*.npy")), "nothing of it is kept"


def test_half_precision_halves_the_disk_and_what_does_not_fit_is_one_line(rows, tmp_path):
    cache = made(tmp_path / "half", rows, packing=cache_module.HALF)
    whole = items(made(tmp_path / "whole", rows))
    assert items(cache).dtype == torch.float32
    torch.testing.assert_close(items(cache), whole, rtol=2**-11, atol=0)
    assert np.load(tmp_path / "half" / "000000.npy").dtype == np.float16
    with pytest.raises(UserError, match=r"too large for fp16\. Set train\.precision=fp32"), np.errstate(over="ignore"):
        made(tmp_path / "large", rows, lambda images: 1e6 + means(images), packing=cache_module.HALF)
