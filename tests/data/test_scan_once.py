"""A picture's file is read once: the look at it leaves the digest that fingerprints are made of."""

from __future__ import annotations

import hashlib
import time

import numpy as np
import pytest
from PIL import Image

from adapt import provenance
from adapt.data import folder
from adapt.data.scan import scan
from adapt.vision.fingerprint import fingerprint


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
