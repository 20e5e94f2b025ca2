"""Class folders, with or without split folders."""

from __future__ import annotations

import os
import shutil
import tracemalloc

import pytest
from datasets import Image

from adapt.data import auto
from adapt.data.folder import Config, load
from adapt.plug import UserError
from adapt.recipe import load_recipe


def ids(splits):
    return {name: list(rows["id"]) for name, rows in splits.items()}


@pytest.fixture
def ready(photos):
    """The same pictures in folders train (7 a class) and test (3 a class)."""
    for name in ("cat", "dog"):
        for i in range(10):
            target = photos / ("test" if i > 6 else "train") / name
            target.mkdir(parents=True, exist_ok=True)
            (photos / name / f"{i}.jpg").rename(target / f"{i}.jpg")
        (photos / name).rmdir()
    return photos


def test_class_folders_become_a_seeded_stratified_split(photos):
    splits = load(Config(path=str(photos), validation=0.2, test=0.3))
    assert {name: sorted(rows["label"]) for name, rows in splits.items()} == {
        "train": [0] * 5 + [1] * 5,
        "validation": [0, 0, 1, 1],
        "test": [0, 0, 0, 1, 1, 1],
    }
    row = splits["train"][0]
    assert row["id"].split("/")[0] == splits["train"].features["label"].names[row["label"]]
    assert row["image"].mode == "RGB"
    assert splits.report.problems == []


def test_the_split_is_the_same_wherever_the_folder_lies(photos, tmp_path):
    before = ids(load(Config(path=str(photos))))
    shutil.copytree(photos, tmp_path / "elsewhere" / "copy")
    assert ids(load(Config(path=str(tmp_path / "elsewhere" / "copy")))) == before
    assert ids(load(Config(path=str(photos), seed=1))) != before


def test_rows_hold_paths_and_no_pictures(photos):
    rows = load(Config(path=str(photos)))["train"].cast_column("image", Image(decode=False))
    assert rows[0]["image"] == {"bytes": None, "path": str(photos / rows[0]["id"])}


def test_a_picture_takes_a_kilobyte_while_the_folder_is_read(tmp_path, make):
    for number in range(2000):
        place = tmp_path / "many" / f"class {number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(make.encode(make.picture(number, (8, 8))))
    config = Config(path=str(tmp_path / "many"))
    load(config)  # it looks at the pictures, and remembers that
    tracemalloc.start()
    try:
        splits = load(config)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(map(len, splits.values())) == 2000
    assert peak / 2000 < 1150


def test_split_folders_are_kept_and_validation_taken_from_train(ready):
    splits = load(Config(path=str(ready), validation=0.3))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 10, "validation": 4, "test": 6}
    assert all(name.startswith("test/") for name in splits["test"]["id"])
    assert all(name.startswith("train/") for name in splits["validation"]["id"])


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_a_validation_folder_has_many_names(ready, name):
    shutil.copytree(ready / "test", ready / name)
    splits = load(Config(path=str(ready)))
    assert len(splits["train"]) == 14
    assert len(splits["validation"]) == 6
    assert splits.report.counts() == {"leak": 6}


def test_pictures_with_the_same_bytes_are_never_on_both_sides(photos):
    for i in range(10):
        shutil.copy(photos / "cat" / f"{i}.jpg", photos / "cat" / f"copy of {i}.jpg")
    splits = load(Config(path=str(photos), validation=0.3, test=0.3))
    sides = {
        name: {item.split("/")[1].removeprefix("copy of ") for item in rows["id"] if "cat" in item}
        for name, rows in splits.items()
    }
    assert not sides["train"] & sides["test"]
    assert not sides["train"] & sides["validation"]
    assert splits.report.counts() == {"duplicate": 10}


def test_unlabelled_pictures_are_a_split_without_labels(photos, tmp_path, make):
    more = tmp_path / "more" / "deep"
    more.mkdir(parents=True)
    (more / "a.png").write_bytes(make.encode(make.picture(99), "PNG"))
    test = load(Config(path=str(photos)))["test"]["id"][0]
    shutil.copy(photos / test, more / "b.jpg")
    splits = load(Config(path=str(photos), unlabelled_path=str(tmp_path / "more")))
    assert splits["unlabelled"].column_names == ["id", "image"]
    assert splits["unlabelled"]["id"][:] == ["deep/a.png", "deep/b.jpg"]
    assert [(problem.id, problem.problem) for problem in splits.report.problems] == [("deep/b.jpg", "leak")]


def spoil(photos):
    (photos / "cat" / "0.jpg").write_bytes(b"")
    (photos / "dog" / "1.jpg").write_bytes((photos / "dog" / "1.jpg").read_bytes()[:-300])
    (photos / "bird").mkdir()


def test_bad_pictures_and_classes_stop_with_a_line_each(photos):
    spoil(photos)
    with pytest.raises(UserError) as error:
        load(Config(path=str(photos)))
    lines = str(error.value).splitlines()
    assert len(lines) == 4
    assert "'cat/0.jpg': zero-size" in lines[0]
    assert "'dog/1.jpg': truncated" in lines[1]
    assert "'bird': empty class" in lines[2]
    assert "data.on_error=skip" in lines[3]


def test_bad_pictures_and_classes_are_left_out_and_listed(photos):
    spoil(photos)
    splits = load(Config(path=str(photos), on_error="skip"))
    assert sum(map(len, splits.values())) == 18
    assert splits["train"].features["label"].names == ["cat", "dog"]
    assert {problem.id for problem in splits.report.severe} == {"cat/0.jpg", "dog/1.jpg", "bird"}


def test_a_class_that_training_never_saw_stops(ready, make):
    (ready / "test" / "bird").mkdir()
    (ready / "test" / "bird" / "0.png").write_bytes(make.encode(make.picture(80), "PNG"))
    with pytest.raises(UserError, match="test: 'bird': unseen class"):
        load(Config(path=str(ready)))
    assert len(load(Config(path=str(ready), on_error="skip"))["test"]) == 6


def test_one_class_only_is_a_user_error(photos):
    shutil.rmtree(photos / "dog")
    with pytest.raises(UserError, match=r"data\.path: only one class, 'cat'"):
        load(Config(path=str(photos)))


def test_pictures_without_class_folders_are_a_user_error(photos):
    with pytest.raises(UserError, match="folder named after its class"):
        load(Config(path=str(photos / "cat")))


def test_a_folder_of_broken_pictures_is_a_user_error(photos):
    for path in photos.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="no class with a picture that can be read"):
        load(Config(path=str(photos), on_error="skip"))


def test_nothing_outside_the_folder_is_read(photos, tmp_path, make):
    (tmp_path / "secret.jpg").write_bytes(make.encode(make.picture(70)))
    (photos / "cat" / "link.jpg").symlink_to("../../secret.jpg")
    (photos / "cat" / "folder").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(UserError, match=r"'cat/link\.jpg': leads outside"):
        load(Config(path=str(photos)))
    splits = load(Config(path=str(photos), on_error="skip"))
    assert not any("link" in name or "folder" in name for names in ids(splits).values() for name in names)


@pytest.fixture
def linked(ready, tmp_path):
    """A folder whose train and test are links to folders elsewhere."""
    (tmp_path / "linked").mkdir()
    for name in ("train", "test"):
        (tmp_path / "linked" / name).symlink_to(ready / name, target_is_directory=True)
    return tmp_path / "linked"


def test_splits_that_are_links_are_the_reason_and_not_pictures_that_cannot_be_read(linked, ready):
    with pytest.raises(UserError) as error:
        load(Config(path=str(linked)))
    lines = str(error.value).splitlines()
    assert lines[0] == f"data.path: 'test': linked class or split (to {ready / 'test'}); " + (
        "set data.follow_links=true, or copy the folder to this place."
    )
    with pytest.raises(UserError, match=r"no class with a picture.*The first problem: 'test': linked class or split \(to /"):
        load(Config(path=str(linked), on_error="skip"))


def test_a_class_that_is_a_link_stops_and_is_not_left_out_in_silence(photos, tmp_path):
    (photos / "dog").rename(tmp_path / "dog")
    shutil.copytree(photos / "cat", photos / "owl")
    (photos / "dog").symlink_to(tmp_path / "dog", target_is_directory=True)
    with pytest.raises(UserError, match=r"'dog': linked class or split"):
        load(Config(path=str(photos)))
    assert load(Config(path=str(photos), on_error="skip"))["train"].features["label"].names == ["cat", "owl"]


def test_links_are_followed_when_asked_for(linked, ready, tmp_path):
    before = ids(load(Config(path=str(ready))))
    splits = load(Config(path=str(linked), follow_links=True))
    assert ids(splits) == before
    assert splits["train"][0]["image"].size == (24, 16)
    assert splits.report.problems == []
    (ready / "train" / "cat" / "far.jpg").symlink_to(ready / "test" / "cat" / "7.jpg")
    assert load(Config(path=str(linked), follow_links=True)).report.counts() == {"leak": 1}


def test_links_in_a_circle_end(linked, ready):
    (ready / "train" / "cat" / "again").symlink_to(linked, target_is_directory=True)
    (ready / "train" / "cat" / "self").symlink_to(".", target_is_directory=True)
    splits = load(Config(path=str(linked), follow_links=True))
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 12, "validation": 2, "test": 6}
    assert [(problem.id, problem.problem) for problem in splits.report.problems] == [
        ("train/cat/again", "link in a circle"),
        ("train/cat/self", "link in a circle"),
    ]


def test_what_is_no_regular_file_is_not_opened(linked, ready):
    os.mkfifo(ready / "train" / "cat" / "pipe.jpg")
    (ready / "train" / "cat" / "device.jpg").symlink_to("/dev/zero")
    with pytest.raises(UserError) as error:
        load(Config(path=str(linked), follow_links=True))
    lines = str(error.value).splitlines()
    assert "'train/cat/device.jpg': unreadable (a link to nothing, or no regular file)" in lines[0]
    assert "'train/cat/pipe.jpg': unreadable" in lines[1]


def test_a_recipe_for_the_embedded_world_takes_a_folder_by_its_path_alone(photos):
    recipe = load_recipe("clip_lora", [f"data.path={photos}"])
    assert (recipe.data.source, recipe.data.path) == ("auto", str(photos))
    config, line = auto.chosen(recipe.data)
    assert config == Config(path=str(photos)) and "source=folder" in line
