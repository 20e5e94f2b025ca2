"""Folders that `save_to_disk` has written: read where they lie, known by their files, and wrong in one line."""

from __future__ import annotations

import json
import os
import struct

import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value, load_from_disk

from adapt.data import auto
from adapt.data.auto.layouts import recognise
from adapt.data.hub import Config, load
from adapt.plug import UserError


@pytest.fixture
def rows(make):
    """Class cat or dog by turns, twelve rows."""
    images = [{"bytes": make.encode(make.picture(i), "PNG"), "path": None} for i in range(12)]
    features = Features(image=Image(), label=ClassLabel(names=["cat", "dog"]), more=Value("int64"))
    return Dataset.from_dict({"image": images, "label": [0, 1] * 6, "more": range(12)}, features)


@pytest.fixture
def one(tmp_path, rows):
    rows.save_to_disk(tmp_path / "one", num_shards=2)
    return tmp_path / "one"


@pytest.fixture
def several(tmp_path, rows):
    DatasetDict(train=rows.select(range(8)), test=rows.select(range(8, 12))).save_to_disk(tmp_path / "several")
    return tmp_path / "several"


def test_a_saved_data_set_is_train_and_is_memory_mapped_where_it_lies(one, rows):
    splits = load(Config(path=str(one), validation=0, test=0))
    assert list(splits) == ["train"] and splits["train"]["label"][:] == rows["label"][:]
    assert {os.path.dirname(each["filename"]) for each in splits["train"].cache_files} == {str(one)}
    assert splits["train"][3]["image"].tobytes() == rows[3]["image"].tobytes()
    assert "the column more: 12 times" in {each.detail for each in splits.report.problems}


def test_saved_splits_are_read_as_they_are(several):
    splits = load(Config(path=str(several), validation=0))
    assert {name: len(part) for name, part in splits.items()} == {"train": 8, "test": 4}
    assert splits.origin == {"train": "their 'train'", "test": "their 'test'"}


@pytest.mark.parametrize("options", [{}, {"on_error": "skip", "label": "kind"}])
def test_nothing_is_written_into_a_saved_folder(tmp_path, rows, options):
    rows = rows.remove_columns("label").add_column("kind", ["a", "b"] * 6)
    pictures = rows.cast_column("image", Image(decode=False))["image"][:]
    pictures[3]["bytes"] = pictures[3]["bytes"][:100]
    rows = rows.remove_columns("image").add_column("image", pictures, feature=Image())
    rows.save_to_disk(tmp_path / "set")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "set").iterdir()}
    config = Config(path=str(tmp_path / "set"), **options)
    if options:
        assert sum(map(len, load(config).values())) == 11
    else:
        with pytest.raises(UserError, match=r"'train/3': truncated"):
            load(config)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "set").iterdir()} == before


def test_a_saved_folder_is_known_by_its_files(one, several, capsys):
    for path, name in ((one, "state.json"), (several, "dataset_dict.json")):
        guess = recognise(str(path))
        assert guess.source == "hub" and guess.why.startswith(f"{name} is of a folder that")
        assert len(auto.load(auto.Config(path=str(path), validation=0, limit=3))["train"]) == 3
        assert f"data: {str(path)!r} is taken for source=hub" in capsys.readouterr().out


def test_a_saved_folder_whose_columns_are_cocos_is_no_coco(tmp_path, rows):
    objects = [{"bbox": [], "category_id": []}] * 12
    feature = {"bbox": List(List(Value("float32"))), "category_id": List(Value("int64"))}
    rows = rows.rename_columns({"more": "annotations"}).add_column("images", objects, feature=feature)
    rows.save_to_disk(tmp_path / "set")
    assert recognise(str(tmp_path / "set")).source == "hub"


def test_a_fingerprint_that_the_folder_says_is_not_believed(one, tmp_path, rows, make):
    """Two folders say the same fingerprint: what was seen of one says nothing of the other."""
    load(Config(path=str(one)))
    other = rows.cast_column("image", Image(decode=False))
    pictures = other["image"][:]
    pictures[0]["bytes"] = b"broken"
    other.remove_columns("image").add_column("image", pictures, feature=Image()).save_to_disk(tmp_path / "two")
    state = json.loads((tmp_path / "two" / "state.json").read_text())
    state["_fingerprint"] = load_from_disk(str(one))._fingerprint
    (tmp_path / "two" / "state.json").write_text(json.dumps(state))
    with pytest.raises(UserError, match=r"'train/0': unreadable"):
        load(Config(path=str(tmp_path / "two")))


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


def linked(path, target):
    path.rename(target)
    path.symlink_to(target)


def shifted(folder):
    """A column of texts alone, the last of which ends far behind the end of the file."""
    table, path, offsets = pa.table({"text": ["a" * 333, "b" * 444]}), folder / FIRST, struct.pack("<iii", 0, 333, 777)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    assert path.read_bytes().count(offsets) == 1
    path.write_bytes(path.read_bytes().replace(offsets, struct.pack("<iii", 0, 333, 1 << 20)))
    (folder / "dataset_info.json").write_text('{"features": {"text": {"dtype": "string", "_type": "Value"}}}')
    named(folder, FIRST)


def named(folder, name):
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = [{"filename": name}]
    (folder / "state.json").write_text(json.dumps(state))


FIRST = "data-00000-of-00002.arrow"
WRONG = {
    "no file of rows": (lambda one: (one / FIRST).unlink(), rf"there is no file 'one/{FIRST}'\. Copy the folder again"),
    "cut short": (lambda one: cut(one / FIRST, -100), rf"'one/{FIRST}' is cut short, or no Arrow file"),
    "cut after its head": (lambda one: cut(one / FIRST, 8), rf"'one/{FIRST}' is cut short"),
    "empty": (lambda one: cut(one / FIRST, 0), rf"'one/{FIRST}' is cut short"),
    "other bytes": (
        lambda one: (one / FIRST).write_bytes(b"no Arrow" * 9 + b"\xff\xff\xff\xff\0\0\0\0"),
        r"'one' cannot be read \(\w+: ",
    ),
    "state.json cut": (lambda one: cut(one / "state.json", 20), r"'one/state\.json': line \d+: it is not JSON"),
    "state.json is a list": (lambda one: (one / "state.json").write_text("[]"), r"'one/state\.json' holds no JSON object"),
    "state.json of nothing": (lambda one: (one / "state.json").write_text("{}"), r"'one/state\.json' names no data files"),
    "no info": (lambda one: (one / "dataset_info.json").unlink(), r"there is no file 'one/dataset_info\.json'"),
    "info is no JSON": (
        lambda one: (one / "dataset_info.json").write_text("{'a': 1}"),
        r"'one/dataset_info\.json': line 1: it is not JSON",
    ),
    "info of unknown columns": (
        lambda one: (one / "dataset_info.json").write_text('{"features": {"image": {"_type": "Nothing"}}}'),
        r"'one' cannot be read \(ValueError: ",
    ),
    "names of classes that are none": (
        lambda one: (one / "dataset_info.json").write_text('{"features": {"label": {"_type": "ClassLabel", "names": [{}]}}}'),
        r"'one/dataset_info\.json' has classes whose names are no texts",
    ),
    "offsets that lead out of the file": (lambda one: shifted(one), r"'one' cannot be read \(ArrowInvalid: "),
    "a path upwards": (lambda one: named(one, "../secret.arrow"), r"names '\.\./secret\.arrow', which leads outside"),
    "an absolute path": (lambda one: named(one, "/etc/passwd"), r"names '/etc/passwd', which leads outside"),
    "a number for a name": (lambda one: named(one, 3), r"'one/state\.json' names no data files"),
    "rows elsewhere": (
        lambda one: linked(one / FIRST, one.parent / "rows.arrow"),
        rf"'one/{FIRST}' is a link that leads outside, to .*rows\.arrow",
    ),
    "a state elsewhere": (
        lambda one: linked(one / "state.json", one.parent / "state.json"),
        r"'one/state\.json' is a link that leads outside",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_saved_data_set_is_one_line(one, name):
    spoil, message = WRONG[name]
    spoil(one)
    with pytest.raises(UserError, match=rf"^data\.path: .*{message}") as error:
        load(Config(path=str(one)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"'several/dataset_dict\.json': line 1: it is not JSON"),
        ('{"splits": []}', r"dataset_dict\.json of .* has no list of splits"),
        ('{"splits": {"train": 1}}', r"dataset_dict\.json of .* has no list of splits"),
        ('{"splits": ["../one"]}', r"dataset_dict\.json of .* names '\.\./one', which is no folder in it"),
        ('{"splits": ["train", "gone"]}', r"dataset_dict\.json of .* names 'gone', which is no folder in it"),
        ('{"splits": ["test"]}', r"data\.splits: which is train\? .* Have: test \(4 rows\)"),
    ],
)
def test_what_is_wrong_with_saved_splits_is_one_line(several, one, text, message):
    (several / "dataset_dict.json").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        load(Config(path=str(several)))
    assert "\n" not in str(error.value)


def test_a_split_folder_elsewhere_is_not_read(several, tmp_path):
    linked(several / "test", tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"'several/test/state\.json' is a link that leads outside"):
        load(Config(path=str(several)))
