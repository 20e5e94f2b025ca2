"""A picture's file is read once: the look at it leaves the digest that fingerprints are made of."""

from __future__ import annotations

import hashlib
import threading
import time

import numpy as np
import pytest
from datasets import Dataset, Features
from PIL import Image

from adapt import ahead, provenance
from adapt.data import folder
from adapt.data import scan as scanning
from adapt.data.check import check
from adapt.data.scan import Guest, also, scan
from adapt.vision.fingerprint import fingerprint
from adapt.vision.pictures import RGB


@pytest.fixture
def photos(tmp_path):
    draw = np.random.default_rng(0)
    for number in range(12):
        place = tmp_path / "photos" / ("ant" if number % 2 else "bee")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (20, 30, 3), np.uint8)).save(place / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def old(photos, monkeypatch):
    """As if the files had lain there for long."""
    later = time.time() + 10
    monkeypatch.setattr(provenance.time, "time", lambda: later)
    return photos


def test_fingerprints_read_no_file_that_has_been_looked_at(old, monkeypatch):
    rows = folder.load(folder.Config(path=str(old)))["train"]
    monkeypatch.setattr(provenance, "_sha256", lambda path: pytest.fail(f"{path} is read again"))
    found = fingerprint(rows)
    monkeypatch.undo()
    assert found == fingerprint(rows)


def test_the_digests_that_are_left_are_those_of_the_files(old):
    names = sorted(path.relative_to(old).as_posix() for path in old.rglob("*.png"))
    scan(old, names)
    wanted = [hashlib.sha256((old / name).read_bytes()).digest() for name in names]
    assert list(provenance.digests(old / name for name in names)) == wanted


def test_a_file_that_has_just_changed_is_read_again(photos):
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    scan(photos, names)
    target = photos / names[0]
    target.write_bytes(target.read_bytes()[:-1] + b"x")
    assert next(provenance.digests([target])) == hashlib.sha256(target.read_bytes()).digest()


def test_digests_of_many_files_come_in_their_order(tmp_path):
    paths = []
    for number in range(provenance.BLOCK + 7):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(str(number).encode())
    wanted = [hashlib.sha256(str(number).encode()).digest() for number in range(len(paths))]
    assert list(provenance.digests(paths)) == wanted == list(provenance.digests(iter(paths)))


def test_rows_are_looked_at_by_threads_with_the_result_of_one_by_one_and_their_files_are_not_read_again(old, monkeypatch):
    for name in ("cut", "cut too"):
        (old / "ant" / f"{name}.png").write_bytes(b"no picture")
    rows = Dataset.from_dict({"image": [str(path) for path in sorted(old.rglob("*.png"))]}, Features(image=RGB()))
    with monkeypatch.context() as alone:
        alone.setattr(scanning, "ahead", lambda jobs, most: (job() for job in jobs))
        wanted = check(rows)
    inspect, another, shown = scanning.inspect, threading.Barrier(2), []

    def beside_another(value, *guest):
        another.wait(10)
        return inspect(value, *guest)

    monkeypatch.setattr(ahead, "threads", lambda: 2)
    monkeypatch.setattr(scanning, "inspect", beside_another)
    with also(Guest(lambda mark, *_: shown.append(mark), 64)):
        found = check(rows)
    assert found == wanted and len(found.severe) == 2 and len(shown) == 12
    monkeypatch.setattr(provenance, "_sha256", lambda path: pytest.fail(f"{path} is read again"))
    fingerprint(rows)
