"""Pictures that are bytes in a memory-mapped file are hashed once, and again when anything that says so has changed."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter
from PIL import Image

from adapt import provenance
from adapt.vision import fingerprint as module
from adapt.vision.fingerprint import fingerprint
from adapt.vision.pictures import BOXES, RGB, cached

FEATURES = Features(id=Value("string"), image=RGB(), label=ClassLabel(names=["ant", "bee"]))


def picture(seed: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)).save(out, "PNG")
    return out.getvalue()


def stored(path: Path, images: list[dict]) -> Dataset:
    """Rows of pictures {bytes, path} in an Arrow file, memory-mapped."""

    def build(temporary: Path) -> None:
        with ArrowWriter(path=str(temporary), features=FEATURES) as writer:
            for number, image in enumerate(images):
                writer.write({"id": str(number), "image": image, "label": number % 2})
            writer.finalize()

    return cached(path, build)


@pytest.fixture
def hashed(tmp_path, monkeypatch) -> list[int]:
    """How many pictures were hashed at each time, in an empty cache, of files that have lain there for long."""
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    later = time.time() + 10
    monkeypatch.setattr(provenance.time, "time", lambda: later)
    found, pictures = [], module._pictures
    monkeypatch.setattr(module, "_pictures", lambda column: found.append(len(column)) or pictures(column))
    return found


@pytest.fixture
def images() -> list[dict]:
    return [{"bytes": picture(seed), "path": None} for seed in range(6)]


def test_pictures_in_a_file_that_has_not_changed_are_hashed_once(tmp_path, images, hashed):
    first = fingerprint(stored(tmp_path / "rows.arrow", images))
    assert fingerprint(stored(tmp_path / "rows.arrow", images)) == first and hashed == [6]
    assert first == fingerprint(Dataset.from_dict(stored(tmp_path / "rows.arrow", images).to_dict(), FEATURES)), "as in memory"


def test_a_file_that_was_touched_or_changed_is_hashed_again(tmp_path, images, hashed):
    path = tmp_path / "rows.arrow"
    first = fingerprint(stored(path, images))
    os.utime(path, ns=(0, 0))
    assert fingerprint(stored(path, images)) == first and hashed == [6, 6]
    path.write_bytes(path.read_bytes().replace(images[0]["bytes"][-40:], images[1]["bytes"][-40:]))
    assert fingerprint(stored(path, images)) != first and hashed == [6, 6, 6]


def test_other_rows_and_other_names_of_classes_have_fingerprints_of_their_own(tmp_path, images, hashed):
    rows = stored(tmp_path / "rows.arrow", images)
    renamed = rows.cast_column("label", ClassLabel(names=["ant", "wasp"]))
    every = [rows, rows.select([0, 1]), rows.select([0, 2]), renamed, rows.remove_columns("label")]
    first = [fingerprint(each) for each in every]
    assert len(set(first)) == len(every) and [fingerprint(each) for each in every] == first
    assert hashed == [6, 2, 2, 6, 6]


def test_pictures_that_are_files_are_looked_at_each_time(tmp_path, images, hashed):
    (tmp_path / "one.png").write_bytes(picture(7))
    rows = stored(tmp_path / "rows.arrow", [*images, {"bytes": None, "path": str(tmp_path / "one.png")}])
    first = fingerprint(rows)
    (tmp_path / "one.png").write_bytes(picture(8))
    assert fingerprint(rows) != first and hashed == [7, 7]


def test_sentences_what_they_mean_and_proposals_are_data_too(images):
    boxes = [[0.0, 0, 4, 4], [4, 4, 8, 8]]
    features = Features(id=Value("string"), image=RGB(), proposals=BOXES)
    features |= {"referring": List({"sentence": Value("string"), "object": Value("int32")})}

    def told(sentence: str = "the grey one", meant: int = 0, proposals=boxes) -> str:
        said = [{"sentence": sentence, "object": meant}]
        columns = {"id": ["a"], "image": images[:1], "proposals": [proposals], "referring": [said]}
        return fingerprint(Dataset.from_dict(columns, features))

    every = [told(), told("the black one"), told(meant=1), told(proposals=boxes[:1])]
    assert len(set(every)) == 4 and told() == every[0]
