"""YOLO's texts: boxes and polygons as the format's documentation has them; what is wrong is one line with file and number."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as codes

from adapt.data.yolo import Config, load
from adapt.plug import UserError

SIZE = (40, 30)
LINES = ["0 0.5 0.5 0.25 0.2", "1 0.1 0.2 0.1 0.1"]


def lay(root, make, yaml: str, lines: list[str] = LINES, splits=("train", "val")):
    for number, split in enumerate(splits):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for i in range(5):
            make.picture(100 * number + i, SIZE).save(root / "images" / split / f"{i}.jpg")
            (root / "labels" / split / f"{i}.txt").write_text("\n".join(lines) + "\n")
    (root / "data.yaml").write_text(yaml)
    return root


@pytest.fixture
def shelf(tmp_path, make):
    return lay(tmp_path / "shelf", make, "train: images/train\nval: images/val\nnames: [cup, plate]\n")


def rows(splits) -> dict:
    return {row["id"]: row for part in splits.values() for row in part}


# ------------------------------------------------------------------------------------------------------------ what is read


def test_centre_and_size_become_corners_in_pixels(shelf):
    splits = load(Config(path=str(shelf), test=0))
    assert {name: len(part) for name, part in splits.items()} == {"train": 5, "validation": 5}
    assert splits.origin == {"train": "train: images/train", "validation": "val: images/val"}
    row = rows(splits)["images/train/3.jpg"]
    np.testing.assert_allclose(row["objects"]["bbox"], [[15, 12, 25, 18], [2, 4.5, 6, 7.5]], rtol=0, atol=1e-9)
    assert row["objects"]["category"] == [0, 1] and "mask" not in row["objects"]
    assert splits["train"].features["objects"]["category"].feature.names == ["cup", "plate"]
    assert splits.report.problems == []


def test_a_polygon_is_a_mask_and_the_box_around_it(tmp_path, make):
    polygon = "1 0.1 0.1 0.9 0.2 0.5 0.8"
    root = lay(tmp_path / "p", make, "train: images/train\nnames: {0: cup, 1: plate}\n", [polygon], ["train"])
    row = load(Config(path=str(root / "data.yaml")))["train"][0]
    np.testing.assert_allclose(row["objects"]["bbox"], [[4, 3, 36, 24]], rtol=0, atol=1e-9)
    expected = codes.frPyObjects([[0.1 * 40, 0.1 * 30, 0.9 * 40, 0.2 * 30, 0.5 * 40, 0.8 * 30]], 30, 40)[0]
    assert row["objects"]["mask"] == [{"size": [30, 40], "counts": expected["counts"].decode()}]


def test_lists_and_several_of_them_are_read(shelf):
    (shelf / "lists").mkdir()
    (shelf / "lists" / "a.txt").write_bytes(b"\xef\xbb\xbfimages/train/0.jpg\r\n./images\\train\\1.jpg\r\n\r\n")
    (shelf / "lists" / "b.txt").write_text(f"{shelf}/images/train/2.jpg\n../images/train/3.jpg\n")
    (shelf / "data.yaml").write_text("path: .\ntrain: [lists/a.txt, lists/b.txt]\nval: [images/val]\nnames: [cup, plate]\n")
    splits = load(Config(path=str(shelf), test=0))
    assert list(splits["train"]["id"]) == [f"images/train/{i}.jpg" for i in range(4)]


def test_roboflows_parent_paths_lie_beside_the_yaml(tmp_path, make):
    root = lay(tmp_path / "r", make, "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cup', 'plate']\n")
    for split, name in (("train", "train"), ("val", "valid")):
        (root / name).mkdir()
        for kind in ("images", "labels"):
            (root / kind / split).rename(root / name / kind)
    splits = load(Config(path=str(root), test=0))
    assert {name: len(part) for name, part in splits.items()} == {"train": 5, "validation": 5}
    assert rows(splits)["valid/images/4.jpg"]["objects"]["category"] == [0, 1]


def test_a_path_of_another_machine_is_passed_over(shelf):
    (shelf / "data.yaml").write_text("path: /datasets/shelf\ntrain: images/train\nnames: [cup, plate]\n")
    assert sum(map(len, load(Config(path=str(shelf))).values())) == 5


def test_nothing_on_a_picture_is_no_mistake_and_missing_texts_are_counted(shelf):
    (shelf / "labels" / "train" / "0.txt").write_text("")
    (shelf / "labels" / "train" / "1.txt").unlink()
    splits = load(Config(path=str(shelf), test=0))
    assert [len(rows(splits)[f"images/train/{i}.jpg"]["objects"]["bbox"]) for i in range(3)] == [0, 0, 2]
    assert splits.report.counts() == {"no labels": 1} and not splits.report.severe


def test_windows_line_ends_and_a_byte_order_mark_are_no_mistakes(shelf):
    for file in shelf.glob("labels/*/*.txt"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert len(rows(load(Config(path=str(shelf))))["images/val/0.jpg"]["objects"]["bbox"]) == 2


def test_keypoints_are_passed_over_with_a_count(shelf):
    (shelf / "data.yaml").write_text("train: images/train\nkpt_shape: [2, 3]\nnames: [cup, plate]\n")
    for file in shelf.glob("labels/*/*.txt"):
        file.write_text("0 0.5 0.5 0.25 0.2 0.4 0.4 2 0.6 0.6 1\n")
    splits = load(Config(path=str(shelf)))
    np.testing.assert_allclose(splits["train"][0]["objects"]["bbox"], [[15, 12, 25, 18]])
    assert [problem.detail for problem in splits.report.problems] == ["keypoints: 5 times"]


def test_boxes_without_keypoints_are_not_counted_among_those_that_have_some(shelf):
    (shelf / "data.yaml").write_text("train: images/train\ntask: pose\nkpt_shape: [2, 2]\nnames: [cup, plate]\n")
    for file in shelf.glob("labels/*/*.txt"):
        file.write_text("0 0.5 0.5 0.25 0.2 0.4 0.4 0.6 0.6\n1 0.5 0.5 0.25 0.2\n")
    splits = load(Config(path=str(shelf)))
    assert len(splits["train"][0]["objects"]["bbox"]) == 2 and "mask" not in splits["train"][0]["objects"]
    assert [problem.detail for problem in splits.report.problems] == ["keypoints: 5 times"]


CORNERS = "0 0.5 0.1 0.9 0.5 0.5 0.9 0.1 0.5"
"""A square that stands on its corner: a polygon, or an oriented box."""


@pytest.mark.parametrize(
    ("task", "others", "told"),
    [("", "", 1), ("", LINES[0], 1), ("", "0 0.1 0.1 0.9 0.2 0.5 0.8", 0), ("task: segment\n", "", 0)],
)
def test_four_corners_are_a_polygon_and_told_once_unless_the_yaml_says_what_they_are(shelf, task, others, told):
    (shelf / "data.yaml").write_text(f"{task}train: images/train\nnames: [cup, plate]\n")
    for file in shelf.glob("labels/train/*.txt"):
        file.write_text(f"{CORNERS}\n{others}\n")
    splits = load(Config(path=str(shelf), masks=LINES[0] != others))
    row = splits["train"][0]
    np.testing.assert_allclose(row["objects"]["bbox"][0], [4, 3, 36, 27])
    if LINES[0] != others:
        assert codes.area(row["objects"]["mask"][0]) == pytest.approx(0.32 * 40 * 30, rel=0.03)
    found = [(problem.problem, problem.detail) for problem in splits.report.problems]
    assert found == [("four corners", "5 polygons")] * told and not splits.report.severe


def test_a_changed_text_is_read_again(shelf):
    load(Config(path=str(shelf)))
    (shelf / "labels" / "val" / "0.txt").write_text("1 0.5 0.5 1 1")
    assert rows(load(Config(path=str(shelf))))["images/val/0.jpg"]["objects"]["bbox"] == [[0, 0, 40, 30]]


# ----------------------------------------------------------------------------------------------------------- what is wrong

PLACE = r"'images/train/0\.jpg': "
LINE = r"\(labels/train/0\.txt, line 2: "
MISTAKES = {
    "above 1": (
        "0 0.5 0.5 1.2 0.2",
        rf"{PLACE}bad label {LINE}'0 0\.5 0\.5 1\.2 0\.2': not all are from 0 to 1\); write class",
    ),
    "negative": ("0 -0.5 0.5 0.2 0.2", rf"bad label {LINE}.*not all are from 0 to 1"),
    "pixels": ("0 12 13 20 5", r"bad label .*not all are from 0 to 1"),
    "NaN": ("0 nan 0.5 0.2 0.2", r"bad label .*not all are from 0 to 1"),
    "words": ("cup 0.5 0.5 0.2 0.2", rf"bad label {LINE}.*not all are numbers"),
    "four": ("0 0.5 0.5 0.2", r"bad label .*: 4 numbers"),
    "six": ("0 0.5 0.5 0.2 0.2 0.9", r"bad label .*: 6 numbers"),
    "one": ("0", r"bad label .*: 1 numbers"),
    "odd polygon": ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", r"bad label .*: 8 numbers"),
    "commas": ("0,0.5,0.5,0.2,0.2", r"not all are numbers"),
    "unknown class": ("2 0.5 0.5 0.2 0.2", rf"{PLACE}unknown category {LINE}class 2; the yaml has 0, 1"),
    "half a class": ("0.5 0.5 0.5 0.2 0.2", r"unknown category .*class 0\.5"),
    "negative class": ("-1 0.5 0.5 0.2 0.2", r"unknown category"),
    "nothing wide": ("0 0.5 0.5 0 0.2", r"box reversed"),
    "off": ("0 0.95 0.5 0.3 0.2", r"box off the image .*the image is 40 × 30"),
    "flat polygon": ("0 0.1 0.1 0.2 0.1 0.3 0.1", r"mask without pixels|box reversed"),
    "mixed": ("0 0.1 0.1 0.9 0.2 0.5 0.8", r"object without mask \(labels/train/0\.txt, line 1\); .*data\.masks=false"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_one_clear_line_with_file_and_number(shelf, name):
    line, expected = MISTAKES[name]
    (shelf / "data.yaml").write_text("train: images/train\nnames: [cup, plate]\n")
    if name == "mixed":
        for file in shelf.glob("labels/train/*.txt"):
            file.write_text(line)
    (shelf / "labels" / "train" / "0.txt").write_text(f"{LINES[0]}\n{line}\n")
    with pytest.raises(UserError, match=expected) as error:
        load(Config(path=str(shelf)))
    assert len(str(error.value).splitlines()) == 1
    splits = load(Config(path=str(shelf), on_error="skip"))
    assert sum(map(len, splits.values())) == 4 and "images/train/0.jpg" not in rows(splits)


FILES = {
    "no names": ("train: images/train", r"data\.yaml: names must be a list of names"),
    "names of numbers": ("train: images/train\nnames: {a: cup}", r"names must be a list of names"),
    "no train": ("names: [cup]", r"data\.yaml must name the classes and the pictures"),
    "a list": ("- 1", r"data\.yaml must name"),
    "not there": ("train: images/trian\nnames: [cup, plate]", r"train: 'images/trian' is not there"),
    "outside": ("train: /etc\nnames: [cup, plate]", r"train: '/etc' leads out of"),
    "parents": ("train: ../../..\nnames: [cup, plate]", r"train: '\.\./\.\./\.\.' leads out of"),
    "mapping": ("train: {a: b}\nnames: [cup, plate]", r"train must name folders or lists of pictures"),
    "tag": ("train: !!python/object/apply:os.system [ls]\nnames: [cup]", r"data\.yaml"),
    "broken": ("train: [images/train\nnames: ]", r"data\.yaml"),
    "oriented": (
        "train: images/train\nnames: [cup]\ntask: obb",
        r"task: obb, and oriented boxes cannot be learnt\. Write task: segment",
    ),
    "pose of nothing": (
        "train: images/train\nnames: [cup]\ntask: pose",
        r"kpt_shape: None must be the number of keypoints and 2 or 3",
    ),
    "keypoints": ("train: images/train\nnames: [cup]\nkpt_shape: 17", r"kpt_shape: 17 must be"),
    "keypoints in 4": ("train: images/train\nnames: [cup]\nkpt_shape: [17, 4]", r"kpt_shape: \[17, 4\] must be"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrong_yaml_is_one_line(shelf, name):
    text, expected = FILES[name]
    (shelf / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=expected) as error:
        load(Config(path=str(shelf)))
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("images/train/77.jpg", r"'images/train/77\.jpg': missing picture \(no file"),
        ("../../secret.jpg", r"leads outside \(list\.txt, line 2\)"),
        ("/etc/passwd", r"leads outside \(list\.txt, line 2\)"),
    ],
)
def test_a_wrong_line_of_a_list_is_named(shelf, line, expected):
    (shelf / "list.txt").write_text(f"images/train/0.jpg\n{line}\nimages/train/1.jpg\n")
    (shelf / "data.yaml").write_text("train: list.txt\nnames: [cup, plate]")
    with pytest.raises(UserError, match=expected):
        load(Config(path=str(shelf)))


def test_a_picture_in_two_splits_is_refused_and_one_that_is_named_twice_is_read_once(shelf):
    (shelf / "data.yaml").write_text("train: [images/train, images/train]\nval: list.txt\nnames: [cup, plate]")
    (shelf / "list.txt").write_text("images/val/0.jpg\nimages/train/0.jpg\n")
    with pytest.raises(UserError, match=r"'images/train/0\.jpg': picture twice \(in train too\); name each picture once"):
        load(Config(path=str(shelf)))
    (shelf / "list.txt").write_text("images/val/0.jpg\n")
    splits = load(Config(path=str(shelf), test=0))
    assert {name: len(part) for name, part in splits.items()} == {"train": 5, "validation": 1}
    assert [problem.detail for problem in splits.report.problems] == ["pictures named twice: 5 times"]


def test_labels_that_lie_elsewhere_are_one_line_and_no_empty_pictures(shelf):
    (shelf / "labels").rename(shelf / "texts")
    with pytest.raises(
        UserError, match=r"none of 10 pictures has labels, such as 'images/train/0\.jpg' \(no file labels/train"
    ):
        load(Config(path=str(shelf), on_error="skip"))


def test_val_that_is_train_is_refused_in_one_line(shelf):
    """As in ultralytics' coco128.yaml."""
    (shelf / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [cup, plate]")
    with pytest.raises(UserError, match=r"data\.yaml: val names the pictures of train again\..* leave val out") as error:
        load(Config(path=str(shelf)))
    assert len(str(error.value).splitlines()) == 1


def test_a_text_that_is_none_is_named_and_left_out(shelf):
    (shelf / "labels" / "train" / "0.txt").write_bytes(b"\xff\xfe0\x00")
    with (shelf / "labels" / "train" / "1.txt").open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(UserError, match=r"unreadable annotations \(labels/train/0\.txt: 0\.txt: it is not UTF-8") as error:
        load(Config(path=str(shelf)))
    assert "1.txt: more than 16 MB" in str(error.value)
    assert len(load(Config(path=str(shelf), on_error="skip", test=0))["train"]) == 3


def test_texts_outside_the_folder_are_not_read(shelf, tmp_path):
    (shelf / "labels" / "train" / "0.txt").rename(tmp_path / "secret.txt")
    (shelf / "labels" / "train" / "0.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UserError, match=r"'images/train/0\.jpg': leads outside \(its labels, to .*secret\.txt\)"):
        load(Config(path=str(shelf)))


def test_a_folder_without_a_yaml_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"needs a data\.yaml\. Have: none"):
        load(Config(path=str(tmp_path)))
