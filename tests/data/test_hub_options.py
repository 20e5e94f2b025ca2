"""`group`, `limit` and `classes` of hub data sets: the draw and the words of the other sources."""

from __future__ import annotations

import json

import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from adapt.data import table
from adapt.data.hub import Config, load
from adapt.data.split import stratified
from adapt.plug import UserError

PATIENTS = [f"p{i // 4}" for i in range(40)]


@pytest.fixture
def parquet(tmp_path, make):
    """Forty pictures of ten patients, in three classes."""

    def write(name="data.parquet", take=range(40), **columns):
        features = Features(image=Image(), kind=Value("string"), patient=Value("string"), number=Value("int64"))
        rows = {
            "image": [{"bytes": make.encode(make.picture(i), "PNG"), "path": f"{PATIENTS[i]}_{i}.png"} for i in take],
            "kind": [("cat", "dog", "emu")[i % 3] for i in take],
            "patient": [PATIENTS[i] for i in take],
            "number": list(take),
        }
        for key, (feature, values) in columns.items():
            features[key], rows[key] = feature, values
        Dataset.from_dict(rows, features).to_parquet(tmp_path / name)
        return str(tmp_path / name)

    return write


def patients(splits) -> dict[str, set[str]]:
    return {name: {PATIENTS[int(row.split("/")[1])] for row in rows["id"]} for name, rows in splits.items()}


@pytest.mark.parametrize("group", ["patient", "^(p\\d+)_"])
def test_the_pictures_of_a_group_are_drawn_into_one_split(parquet, group):
    splits = load(Config(path=parquet(), label="kind", group=group, validation=0.2, test=0.2))
    found = patients(splits)
    assert set(found) == {"train", "validation", "test"} and sum(map(len, found.values())) == 10
    assert "group" not in splits["train"].column_names
    assert splits.origin == {
        "train": "what is left of their 'train'",
        "validation": "20 % of the groups drawn from their 'train', since there is no validation split",
        "test": "20 % of the groups drawn from their 'train', since there is no test split",
    }


def test_groups_are_drawn_as_by_the_source_table(tmp_path, make):
    """The same pictures by the same names: the same splits, equal pictures of two groups together."""
    lines = []
    for i in range(24):
        (tmp_path / f"{i:02}.png").write_bytes(make.encode(make.picture(i % 20), "PNG"))
        lines.append({"file_name": f"{i:02}.png", "id": f"{i:02}.png", "patient": f"p{i // 4}", "kind": "ab"[i % 2]})
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = [",".join(("path", "label", "group"))] + [f"{one['id']},{one['kind']},{one['patient']}" for one in lines]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    shares = {"validation": 0.2, "test": 0.2, "seed": 3}
    theirs = table.load(table.Config(path=str(tmp_path / "list.csv"), **shares))
    own = load(Config(path=str(tmp_path), label="kind", group="patient", **shares))
    assert {name: sorted(part["id"]) for name, part in own.items()} == {
        name: sorted(part["id"]) for name, part in theirs.items()
    }


def test_without_a_group_the_draw_is_that_of_the_ids_and_their_classes(parquet):
    ids, labels = [f"train/{i}" for i in range(40)], [i % 3 for i in range(40)]
    places = dict(zip(ids, stratified(ids, labels, 0.15, 0.15, 0), strict=True))
    splits = load(Config(path=parquet(), label="kind"))
    assert {row: name for name, part in splits.items() for row in part["id"]} == places


def test_groups_in_two_of_their_splits_are_told_and_equal_names_alone_are_not(parquet, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for split, take in (("train", range(30)), ("test", range(30, 40))):
        parquet(f"set/{split}.parquet", take)
    splits = load(Config(path=str(folder), label="kind", group="patient", validation=0))
    torn = [(one.id, one.detail) for one in splits.report.problems if one.problem == "group in two splits"]
    assert torn == [("p7", "test and train")]
    alone = load(Config(path=str(folder), label="kind", group="(p7)", validation=0))
    assert [one.id for one in alone.report.problems if one.problem == "group in two splits"] == ["p7"]


@pytest.mark.parametrize("name", ["id", "__key__"])
def test_an_id_means_one_picture_where_each_of_their_splits_counts_from_0(parquet, tmp_path, name):
    (tmp_path / "set").mkdir()
    for split, take in (("train", range(24)), ("test", range(24, 40))):
        parquet(f"set/{split}.parquet", take, **{name: (Value("string"), [str(i) for i in range(len(take))])})
    config = Config(path=str(tmp_path / "set"), label="kind", group="^(p\\d+)_", validation=0.25)
    splits = load(config)
    ids = [one for rows in splits.values() for one in rows["id"]]
    assert len(set(ids)) == len(ids) == 40
    assert set(splits["test"]["id"]) == {f"test/{i}" for i in range(16)}
    assert set(splits["train"]["id"]) | set(splits["validation"]["id"]) == {f"train/{i}" for i in range(24)}


def test_ids_that_are_those_of_one_split_alone_stay_as_they_are(parquet, tmp_path):
    (tmp_path / "set").mkdir()
    for split, take in (("train", range(24)), ("test", range(24, 40))):
        parquet(f"set/{split}.parquet", take, id=(Value("int64"), list(take)))
    splits = load(Config(path=str(tmp_path / "set"), label="kind", validation=0))
    assert splits["test"]["id"][:] == [str(i) for i in range(24, 40)]
    both = {"train": "train", "test": "test", "unlabelled": "train"}
    again = load(Config(path=str(tmp_path / "set"), label="kind", validation=0, splits=both))
    assert again["unlabelled"]["id"][:] == again["train"]["id"][:] == [str(i) for i in range(24)]


def test_limit_takes_as_many_of_each_split_by_the_seed(parquet):
    path = parquet()
    whole = load(Config(path=path, label="kind", seed=1))
    few = load(Config(path=path, label="kind", limit=4, seed=1))
    assert all(set(few[name]["id"]) < set(whole[name]["id"]) for name in whole)
    assert {name: len(part) for name, part in few.items()} == {"train": 4, "validation": 4, "test": 4}
    again = load(Config(path=path, label="kind", limit=4, seed=1))
    assert few["train"]["id"][:] == again["train"]["id"][:]


def test_classes_of_pictures_are_renamed_joined_and_left_out(parquet):
    splits = load(Config(path=parquet(), label="kind", classes={"cat": "pet", "dog": "pet"}, validation=0, test=0))
    assert splits["train"].features["label"].names == ["pet", "emu"]
    assert splits["train"]["label"][:6] == [0, 0, 1, 0, 0, 1]
    left = load(Config(path=parquet(), label="kind", classes={"emu": None, "cat": "Cat"}, validation=0, test=0))
    assert left["train"].features["label"].names == ["Cat", "dog"] and len(left["train"]) == 27
    assert ("emu", "class left out", "13 pictures") in {(one.id, one.problem, one.detail) for one in left.report.problems}


def test_class_labels_keep_their_order_and_class_numbers_are_names(parquet):
    coded = ClassLabel(names=["zebra", "ant", "none"]), [i % 2 for i in range(40)]
    path = parquet(coded=coded)
    rows = load(Config(path=path, label="coded", classes={"ant": "Ant"}, validation=0, test=0))["train"]
    assert rows.features["label"].names == ["zebra", "Ant", "none"]
    assert rows["label"][:4] == [0, 1, 0, 1]
    few = parquet("few.parquet", number=(Value("int64"), [i % 3 for i in range(40)]))
    rows = load(Config(path=few, label="number", classes={"2": None}, validation=0, test=0))["train"]
    assert rows.features["label"].names == ["0", "1"]


def test_classes_of_objects_are_renamed_joined_and_left_out(parquet):
    names = List(ClassLabel(names=["car", "bus", "sky"]))
    feature = {"bbox": List(List(Value("float32"))), "category": names, "iscrowd": List(Value("int8"))}
    box = [[20.0, 9, 4, 6], [0, 0, 3, 16], [1, 1, 22, 2]]
    objects = [{"bbox": box, "category": [1, 2, 0], "iscrowd": [0, 0, 1]}, None, {"bbox": [], "category": [], "iscrowd": []}]
    path = parquet(take=range(3), objects=(feature, objects))
    splits = load(Config(path=path, classes={"car": "vehicle", "bus": "vehicle", "sky": None}))
    rows = splits["train"]
    assert rows.features["objects"]["category"].feature.names == ["vehicle"]
    assert rows[0]["objects"] == {
        "bbox": [[20, 9, 24, 15], [1, 1, 23, 3]],
        "category": [0, 0],
        "iscrowd": [0, 1],
    }
    assert ("sky", "1 object") in {(one.id, one.detail) for one in splits.report.problems if one.problem == "class left out"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"group": "patien"},
            r"data\.group: no column 'patien' in train\. Did you mean 'patient'\? .* needs a group in parenth",
        ),
        ({"group": "image"}, r"data\.group: 'image' holds Image.*Name a column of texts or numbers"),
        ({"group": "(x\\d)"}, r"data\.group: .* is found in no path, such as 'p0_0\.png'"),
        ({"classes": {"cow": "calf"}}, r"data\.classes: the data have no class 'cow'\. Have: cat, dog, emu\."),
        ({"classes": {"cat": None, "dog": None, "emu": None}}, r"data\.classes leaves out all classes"),
        ({"classes": {"cat": "a", "dog": "a", "emu": "a"}}, r"data\.label: train has only one class, 'a'"),
        ({"classes": {"cat": None, "dog": None}}, r"data\.label: train has only one class, 'emu'"),
    ],
)
def test_options_that_do_not_fit_are_one_line(parquet, options, message):
    with pytest.raises(UserError, match=message) as error:
        load(Config(path=parquet(), label="kind", **options))
    assert "\n" not in str(error.value)


def test_an_expression_that_is_none_is_refused_before_anything_is_read():
    with pytest.raises(ValueError, match="no regular expression"):
        Config(path="a/b", group="(p")


def test_columns_that_are_not_read_are_counted(parquet):
    path = parquet(note=(Value("string"), ["x"] * 10 + [None] * 30))
    splits = load(Config(path=path, label="kind", group="patient"))
    over = [(one.id, one.detail) for one in splits.report.problems if one.problem == "passed over"]
    assert over == [("train", "the column number: 40 times"), ("train", "the column note: 10 times")]
