"""Splits."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt import plug
from adapt.data import emoji, emoji_scenes, folder
from adapt.data.split import described, drawn, stratified
from adapt.plug import UserError

KEYS = st.lists(st.text(max_size=5), unique=True, max_size=60)


@settings(deadline=None)
@given(KEYS, st.integers(1, 5), st.floats(0, 0.9), st.floats(0, 0.9), st.integers(0, 99))
def test_every_class_trains_and_every_class_of_two_is_tested(keys, classes, validation, test, seed):
    labels = [i % classes for i in range(len(keys))]
    split = stratified(keys, labels, validation, test, seed)
    for label in set(labels):
        own = [place for place, other in zip(split, labels, strict=True) if other == label]
        assert "train" in own
        assert ("test" in own) == (test > 0 and len(own) > 1)


@settings(deadline=None)
@given(KEYS, st.randoms())
def test_a_split_depends_on_the_keys_and_not_on_their_order(keys, random):
    labels = dict.fromkeys(keys, "a")
    split = dict(zip(keys, stratified(keys, list(labels.values()), 0.2, 0.2, 1), strict=True))
    random.shuffle(keys)
    assert split == dict(zip(keys, stratified(keys, ["a"] * len(keys), 0.2, 0.2, 1), strict=True))


def test_shares_are_kept_and_seeds_differ():
    keys, labels = [str(i) for i in range(1000)], [i % 2 for i in range(1000)]
    split = stratified(keys, labels, 0.15, 0.25, 0)
    assert [split.count(name) for name in ("train", "validation", "test")] == [600, 150, 250]
    assert split != stratified(keys, labels, 0.15, 0.25, 1)


def origins(splits) -> dict[str, str]:
    return {row["split"]: row["origin"] for row in described(splits)}


def into(photos, split: str, numbers) -> None:
    """Move the pictures of these numbers into a split's folder."""
    for name in ("cat", "dog"):
        (photos / split / name).mkdir(parents=True)
        for i in numbers:
            (photos / name / f"{i}.jpg").rename(photos / split / name / f"{i}.jpg")


def test_each_split_says_how_many_pictures_it_has_and_where_they_came_from(photos):
    rows = described(folder.load(folder.Config(path=str(photos), validation=0.2, test=0.3)))
    assert [(row["split"], row["pictures"], row["left_out"]) for row in rows] == [
        ("train", 10, 0),
        ("validation", 4, 0),
        ("test", 6, 0),
    ]
    assert rows[0]["origin"] == f"what is left of {str(photos)!r}"
    assert rows[2]["origin"] == f"30 % drawn from {str(photos)!r}, which has no test folder"


def test_what_is_left_out_is_counted_in_its_split(photos):
    (photos / "cat" / "0.jpg").write_bytes(b"")
    rows = described(folder.load(folder.Config(path=str(photos), on_error="skip")))
    assert [row["left_out"] for row in rows] == [1, 0, 0]


def test_a_folder_for_validation_alone_could_be_the_test_and_the_origin_says_so(photos):
    into(photos, "train", range(7))
    into(photos, "val", range(7, 10))
    shutil.rmtree(photos / "cat")
    shutil.rmtree(photos / "dog")
    assert origins(folder.load(folder.Config(path=str(photos)))) == {
        "train": "what is left of train/",
        "validation": "val/",
        "test": "15 % drawn from train/, no test folder; val/ could be the test: data.test_from=val",
    }


def test_the_validation_folder_becomes_the_test_when_asked_for(photos):
    into(photos, "train", range(7))
    into(photos, "val", range(7, 10))
    splits = folder.load(folder.Config(path=str(photos), test_from="val", validation=0.3))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 10, "validation": 4, "test": 6}
    assert all(name.startswith("val/") for name in splits["test"]["id"])
    assert origins(splits)["validation"] == "30 % drawn from train/, since val/ is the test"
    assert origins(splits)["test"] == "val/"


def test_the_test_comes_from_a_validation_folder_only_where_there_is_one_and_no_test(photos):
    with pytest.raises(UserError, match=r"data\.test_from: 'val', but .* has no val folder"):
        folder.load(folder.Config(path=str(photos), test_from="val"))
    into(photos, "train", range(6))
    into(photos, "val", (6, 7))
    into(photos, "test", (8, 9))
    with pytest.raises(UserError, match=r"data\.test_from: 'val', but .* has the folder test/ already"):
        folder.load(folder.Config(path=str(photos), test_from="val"))


def test_the_embedded_sources_say_where_their_splits_come_from():
    given = origins(emoji.load(emoji.Config(shots=2, also=["noto"], unlabelled=["twemoji"])))
    assert given["train"] == "60 % of the things, drawn by openmoji, 2 a class at most; and all things by noto"
    assert given["test"] == "25 % of the things, drawn by openmoji"
    assert given["unlabelled"] == "all things by twemoji, without labels"
    scenes = emoji_scenes.load(emoji_scenes.Config(size=64, train=2, validation=1, test=1))
    assert origins(scenes)["test"] == "scenes of the test split's things by openmoji, seed 0"


@pytest.mark.parametrize("name", plug.names("data"))
def test_every_source_says_which_version_of_its_rows_it_makes(name):
    assert plug.schema("data", name).version >= 1


SOURCES = ("folder", "masks", "jsonl", "table", "coco", "yolo", "voc", "labelme", "labelstudio", "webdataset")


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_of_files_takes_groups_and_a_limit(name):
    options = plug.schema("data", name).options()
    assert {"group", "limit", "seed", "validation", "test", "on_error"} <= set(options)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20)), min_size=1, max_size=40), st.integers(0, 9))
def test_rows_of_a_group_and_rows_of_the_same_bytes_are_drawn_together(rows, seed):
    names = [f"{i}.jpg" for i in range(len(rows))]
    groups, digests = [f"g{group}" for group, _ in rows], [f"d{digest}" for _, digest in rows]
    config = folder.Config(path=".", seed=seed, validation=0.3, test=0.3)
    split = drawn(config, names, [""] * len(rows), digests, groups=groups)
    for column in (groups, digests):
        for value in set(column):
            assert len({place for place, own in zip(split, column, strict=True) if own == value}) == 1
    order = list(range(len(rows)))[::-1]
    turned = drawn(
        config,
        *([column[i] for i in order] for column in (names, [""] * len(rows), digests)),
        groups=[groups[i] for i in order],
    )
    assert [turned[order.index(i)] for i in range(len(rows))] == split, "the order of the rows changes nothing"


def test_a_folder_s_classes_are_renamed_joined_and_left_out_by_name_and_counted(photos):
    whole = folder.load(folder.Config(path=str(photos), validation=0, test=0))["train"]
    (photos / "cat").rename(photos / "tabby")
    splits = folder.load(folder.Config(path=str(photos), validation=0, test=0, classes={"tabby": "cat"}))
    assert splits["train"].features["label"].names == whole.features["label"].names == ["cat", "dog"]
    with pytest.raises(UserError, match=r"data.path: only one class, 'pet'"):
        folder.load(folder.Config(path=str(photos), classes={"tabby": "pet", "dog": "pet"}))
    with pytest.raises(UserError, match=r"data.classes: the data have no class 'bird'"):
        folder.load(folder.Config(path=str(photos), classes={"bird": None}))


def test_a_limit_takes_the_same_rows_of_each_split_by_its_seed(photos):
    parts = [folder.load(folder.Config(path=str(photos), limit=3, seed=seed)) for seed in (0, 0, 1)]
    ids = [{split: rows["id"][:] for split, rows in part.items()} for part in parts]
    assert all(len(rows) <= 3 for rows in ids[0].values()) and ids[0] == ids[1] != ids[2]
