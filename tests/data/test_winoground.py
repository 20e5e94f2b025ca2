"""Winoground and WinoGAViL: their columns → pairs and cues, a row a picture."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, List, Value
from datasets import Image as Stored
from PIL import Image

from adapt.data import winogavil, winoground
from adapt.plug import UserError


def grey(level: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8, 3), level, np.uint8))


def pairs() -> Dataset:
    columns = {"id": [7, 9], "image_0": [grey(0), grey(2)], "image_1": [grey(1), grey(3)]}
    columns |= {"caption_0": ["a dog on a cat", "b"], "caption_1": ["a cat on a dog", "c"]}
    kinds = {
        "id": Value("int32"),
        "image_0": Stored(),
        "image_1": Stored(),
        "caption_0": Value("string"),
        "caption_1": Value("string"),
    }
    return Dataset.from_dict(columns, Features(kinds))


def cues(**columns) -> Dataset:
    own = {"cue": ["Owl", "tree"], "candidates": [["a", "b", "c"], ["d", "e"]], "associations": [["b"], ["e", "d"]]}
    own |= {"candidate_images": [[grey(1), grey(2), grey(3)], [grey(4), grey(5)]]}
    names = List(Value("string"))
    kinds = {"cue": Value("string"), "candidates": names, "associations": names, "candidate_images": List(Stored())}
    return Dataset.from_dict(own | columns, Features(kinds))


def test_rows_2i_and_2i_plus_1_are_a_pair(tmp_path):
    DatasetDict(test=pairs()).save_to_disk(tmp_path / "wino")
    splits = winoground.load(winoground.Config(path=str(tmp_path / "wino")))
    rows = splits["test"]
    assert set(splits) == {"test"} and rows["pair"][:] == [0, 0, 1, 1] and len(set(rows["id"])) == 4
    assert rows["caption"][:] == ["a dog on a cat", "a cat on a dog", "b", "c"]
    assert [np.asarray(image)[0, 0, 0] for image in rows["image"]] == [0, 1, 2, 3]


@pytest.mark.parametrize("how", ["parquet", "disk", "chosen rows"])
def test_each_candidate_is_a_row_with_its_cues_text(tmp_path, how):
    table = cues()
    if how == "parquet":
        (tmp_path / "gavil").mkdir()
        table.to_parquet(tmp_path / "gavil" / "test-00000-of-00001.parquet")
    else:
        table = Dataset.from_dict(cues()[::-1], table.features).select([1, 0]) if how == "chosen rows" else table
        DatasetDict(test=table).save_to_disk(tmp_path / "gavil")
    rows = winogavil.load(winogavil.Config(path=str(tmp_path / "gavil")))["test"]
    assert rows["caption"][:] == ["An owl"] * 3 + ["A tree"] * 2 and rows["cue"][:] == [0, 0, 0, 1, 1]
    assert rows["associated"][:] == [False, True, False, True, True] and len(set(rows["id"])) == 5
    assert [np.asarray(image)[0, 0, 0] for image in rows["image"]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("columns", "said"), [
    ({"associations": [["z"], ["d"]]}, r"cue 0 \('Owl'\) has no candidate that goes with it"),
    ({"cue": ["owl", " "]}, r"cue 1 \(' '\) has no word"),
    ({"candidate_images": [[grey(1)], [grey(4), grey(5)]]}, "has 3 pictures for 5 candidates"),
])  # fmt: skip
def test_a_cue_that_cannot_be_asked_is_one_line(tmp_path, columns, said):
    DatasetDict(test=cues(**columns)).save_to_disk(tmp_path / "gavil")
    with pytest.raises(UserError, match=said) as error:
        winogavil.load(winogavil.Config(path=str(tmp_path / "gavil")))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("source", "rows", "said"), [
    (winogavil, pairs(), "has no column 'cue'. Have: id, image_0, image_1"),
    (winoground, cues(), "has no column 'image_0'"),
    (winoground, pairs().remove_columns("image_1").add_column("image_1", ["a.png", "b.png"]), "column 'image_1' holds no pictures"),
    (winoground, pairs().remove_columns("image_1").add_column("image_1", [{"bytes": None, "path": "/etc/passwd"}] * 2, feature=Stored()),
     "2 rows of column 'image_1' hold no picture, or a path"),
])  # fmt: skip
def test_other_columns_are_one_line(monkeypatch, source, rows, said):
    monkeypatch.setattr("adapt.data.hub.measured.read", lambda config: ({"test": rows}, []))
    with pytest.raises(UserError) as error:
        source.load(source.Config())
    assert said in str(error.value) and "\n" not in str(error.value)


def test_of_a_program_on_the_hub_its_parquet_is_read(monkeypatch):
    asked = []

    def load_dataset(path, subset, revision=None):
        asked.append(revision)
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found winogavil.py")
        return DatasetDict(test=cues())

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(winogavil.load(winogavil.Config())["test"]) == 5
    assert asked == [None, "refs/convert/parquet"]

    def gone(path, subset, revision=None):
        raise RuntimeError("Dataset scripts are no longer supported" if revision is None else "no such revision")

    monkeypatch.setattr(datasets, "load_dataset", gone)
    with pytest.raises(UserError, match=r"cannot be read.*scripts are no longer supported.*Give a local path"):
        winogavil.load(winogavil.Config())


@pytest.mark.parametrize("source", [winoground, winogavil])
def test_a_path_that_is_nowhere_is_one_line(source):
    with pytest.raises(UserError, match=r"^data\.path: no file or folder './nowhere'"):
        source.Config(path="./nowhere").check_paths()
