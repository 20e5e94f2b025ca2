"""COCO's JSON: what is read equals what pycocotools reads; what is wrong is one clear line."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as codes
from pycocotools.coco import COCO

from adapt.data import coco
from adapt.data.coco import Config, load
from adapt.data.coco.stream import elements
from adapt.plug import UserError

SIZE = (40, 30)
CATEGORIES = [{"id": 3, "name": "cup", "supercategory": "kitchen"}, {"id": 90, "name": "plate"}]


def blob(seed: int) -> np.ndarray:
    """A mask bool[30, 40]."""
    mask = np.zeros(SIZE[::-1], bool)
    mask[seed % 9 + 1 : seed % 9 + 12, seed % 13 + 2 : seed % 13 + 15] = True
    return mask & (np.random.default_rng(seed).random(SIZE[::-1]) > 0.1)


def segmentation(number: int):
    """Polygons, two of them, run lengths, compressed ones, by turns."""
    code = codes.encode(np.asfortranarray(blob(number), dtype=np.uint8))
    flat = blob(number).ravel(order="F").astype(int)
    ends = np.flatnonzero(np.diff(np.concatenate([[0], flat]))).tolist()
    runs = np.diff([0, *ends, flat.size]).tolist()
    return [
        [[2.5, 3.25, 20.1, 4.0, 18.75, 22.5]],
        [[2, 2, 9, 2, 9, 9, 2, 9], [20.3, 10.1, 30.7, 10.9, 25, 19]],
        {"size": [30, 40], "counts": runs},
        {"size": [30, 40], "counts": code["counts"].decode()},
    ][number % 4]


def content(pictures: int = 8, first: int = 100) -> dict:
    """Two annotations on each picture but the last, which has none."""
    images = [{"id": first + 7 * i, "file_name": f"{i}.jpg", "width": 40, "height": 30} for i in range(pictures)]
    annotations = []
    for i in range(pictures - 1):
        for k in range(2):
            number = 2 * i + k
            box = [1.1 + i, 2.07, 20.333333333333332 / 3, 11.9 - i]
            entry = {"id": 1000 + number, "image_id": first + 7 * i, "category_id": (3, 90)[k], "bbox": box, "area": 9.5}
            annotations.append(entry | {"segmentation": segmentation(number), "iscrowd": int(number % 4 == 2)})
    annotations = annotations[::2] + annotations[1::2]  # not in the order of the pictures
    return {"info": {"year": 2017}, "images": images, "annotations": annotations, "categories": CATEGORIES}


def written(root, make, data: dict, name: str = "all.json", pictures: str = "", seed: int = 0):
    folder = root / pictures
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(data["images"]):
        if not (folder / image["file_name"]).exists():
            make.picture(seed + i, SIZE).save(folder / image["file_name"])
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(json.dumps(data))
    return root / name


@pytest.fixture
def shelf(tmp_path, make):
    """Eight pictures and a JSON beside them."""
    return written(tmp_path / "shelf", make, content())


def rows(splits) -> dict:
    return {row["id"]: row for part in splits.values() for row in part}


def theirs(file) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(file))


# ------------------------------------------------------------------------------------------------------------ what is read


def test_boxes_are_exact_and_masks_are_pycocotools_own_bit_for_bit(shelf):
    found, reference = rows(load(Config(path=str(shelf)))), theirs(shelf)
    assert len(found) == 8
    for image in reference.loadImgs(reference.getImgIds()):
        row = found[image["file_name"]]
        assert row["image_id"] == image["id"] and row["image"].size == SIZE
        annotations = reference.loadAnns(reference.getAnnIds(image["id"]))
        objects = row["objects"]
        assert len(objects["bbox"]) == len(annotations)
        boxes = {}
        for box, category, code, crowd in zip(
            *(objects[name] for name in ("bbox", "category", "mask", "iscrowd")), strict=True
        ):
            boxes[category] = ([box[0], box[1], box[2] - box[0], box[3] - box[1]], code, crowd)
        for annotation in annotations:
            box, code, crowd = boxes[(3, 90).index(annotation["category_id"])]
            assert np.abs(np.subtract(box, annotation["bbox"])).max() < 1e-9
            assert crowd == annotation["iscrowd"]
            expected = reference.annToRLE(annotation)
            expected = expected["counts"] if isinstance(expected["counts"], str) else expected["counts"].decode()
            assert code == {"size": [30, 40], "counts": expected}


def test_a_category_is_its_name_whatever_its_number(shelf):
    splits = load(Config(path=str(shelf)))
    assert splits["train"].features["objects"]["category"].feature.names == ["cup", "plate"]
    assert splits.report.problems == []
    assert set(splits["train"].column_names) == {"id", "image", "objects", "image_id"}


def test_cocos_own_folder_is_read_with_its_splits_and_captions(tmp_path, make):
    root = tmp_path / "coco"
    for split, first in (("train2017", 0), ("val2017", 500)):
        data = content(first=first)
        written(root, make, data, f"annotations/instances_{split}.json", split, first)
        captions = [
            {"id": i, "image_id": image["id"], "caption": f"a shelf {k} "}
            for k in "ab"
            for i, image in enumerate(data["images"])
        ]
        told = {"images": data["images"], "annotations": captions}
        written(root, make, told, f"annotations/captions_{split}.json", split, first)
        (root / "annotations" / f"person_keypoints_{split}.json").write_text("{}")
    splits = load(Config(path=str(root), test=0.25))
    assert {name: len(part) for name, part in splits.items()} == {"train": 6, "validation": 8, "test": 2}
    row = rows(splits)["val2017/3.jpg"]
    assert row["image_id"] == 521 and row["caption"] == ["a shelf a", "a shelf b"] and len(row["objects"]["bbox"]) == 2
    assert splits.origin["validation"] == "captions_val2017.json and instances_val2017.json"
    assert splits.origin["test"].startswith("25 % drawn from captions_train2017.json and instances_train2017.json")


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize("captions", [False, True])
def test_two_files_of_one_split_that_have_a_picture_are_named_and_one_can_be_chosen(tmp_path, make, captions, on_error):
    file = written(tmp_path, make, content(), "train.json")
    file.with_name("train_backup.json").write_text(file.read_text())
    if captions:
        told = [{"id": i, "image_id": image["id"], "caption": "a shelf"} for i, image in enumerate(content()["images"])]
        written(tmp_path, make, {"images": content()["images"], "annotations": told}, "captions_train.json")
    with pytest.raises(UserError, match=r"'0.jpg' is in train.json and in train_backup.json, .*data\.path=\S+train.json"):
        load(Config(path=str(tmp_path), on_error=on_error))
    assert len(rows(load(Config(path=str(file))))["3.jpg"]["objects"]["bbox"]) == 2


def test_two_files_of_one_split_with_pictures_of_their_own_are_one_split(tmp_path, make):
    written(tmp_path, make, content(), "train_a.json")
    other = content(first=1000)
    other["images"] = [one | {"file_name": f"b{one['file_name']}"} for one in other["images"]]
    written(tmp_path, make, other, "train_b.json", seed=50)
    found = rows(load(Config(path=str(tmp_path))))
    assert len(found) == 16 and all(len(found[name]["objects"]["bbox"]) == 2 for name in ("3.jpg", "b3.jpg"))


def test_captions_alone_are_data_too(tmp_path, make):
    images = content()["images"]
    captions = [{"id": i, "image_id": image["id"], "caption": "a shelf"} for i, image in enumerate(images)]
    splits = load(Config(path=str(written(tmp_path / "c", make, {"images": images, "annotations": captions}))))
    assert set(splits["train"].column_names) == {"id", "image", "image_id", "caption"}


@pytest.mark.parametrize("layout", ["roboflow", "beside", "images"])
def test_other_layouts_are_found(tmp_path, make, layout):
    root = tmp_path / layout
    for split, first in (("train", 0), ("valid", 500), ("test", 900)):
        data = content(first=first)
        name, folder = {
            "roboflow": (f"{split}/_annotations.coco.json", split),
            "beside": (f"{split}.json", split),
            "images": (f"annotations/{split}.json", f"images/{split}"),
        }[layout]
        written(root, make, data, name, folder, first)
    splits = load(Config(path=str(root)))
    assert {name: len(part) for name, part in splits.items()} == {"train": 8, "validation": 8, "test": 8}
    assert splits.report.problems == []


def test_a_lone_validation_file_is_split_here(tmp_path, make):
    written(tmp_path / "coco", make, content(), "annotations/instances_val2017.json", "val2017")
    splits = load(Config(path=str(tmp_path / "coco"), validation=0.25, test=0.25))
    assert {name: len(part) for name, part in splits.items()} == {"train": 4, "validation": 2, "test": 2}


def test_pictures_may_lie_elsewhere_and_names_may_have_both_separators(tmp_path, make):
    data = content()
    file = written(tmp_path / "notes", make, data)
    (tmp_path / "pictures" / "a").mkdir(parents=True)
    for image in data["images"]:
        (file.parent / image["file_name"]).rename(tmp_path / "pictures" / "a" / image["file_name"])
        image["file_name"] = f".\\a\\{image['file_name']}"
    file.write_text(json.dumps(data))
    assert "a/3.jpg" in rows(load(Config(path=str(file), images=str(tmp_path / "pictures"))))


def test_a_byte_order_mark_and_windows_line_ends_are_no_mistakes(shelf):
    before = load(Config(path=str(shelf)))["train"][:]["objects"]
    text = json.dumps(json.loads(shelf.read_text()), indent=1)
    shelf.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load(Config(path=str(shelf)))["train"][:]["objects"] == before


def test_a_small_window_reads_the_same(shelf, monkeypatch):
    whole = list(elements(shelf, {"images", "annotations"}))
    for window in (1, 7, 64):
        monkeypatch.setattr(coco.stream, "WINDOW", window)
        assert list(elements(shelf, {"images", "annotations"})) == whole
    data = json.loads(shelf.read_text())
    assert whole == [("images", one) for one in data["images"]] + [("annotations", one) for one in data["annotations"]]


def test_boxes_alone_are_read_without_masks_and_keypoints_are_counted(shelf):
    data = json.loads(shelf.read_text())
    for one in data["annotations"]:
        one |= {"segmentation": [], "keypoints": [1, 2, 2]}
    shelf.write_text(json.dumps(data))
    splits = load(Config(path=str(shelf)))
    assert set(splits["train"].features["objects"]) == {"bbox", "category", "iscrowd"}
    (problem,) = splits.report.problems
    assert (problem.problem, problem.detail) == ("passed over", "keypoints: 14 times")


def test_a_mask_without_a_box_gets_the_box_around_it(shelf):
    data = json.loads(shelf.read_text())
    for one in data["annotations"]:
        one.pop("bbox")
    shelf.write_text(json.dumps(data))
    row = rows(load(Config(path=str(shelf))))["0.jpg"]
    for box, code in zip(row["objects"]["bbox"], row["objects"]["mask"], strict=True):
        left, top, width, height = codes.toBbox({"size": code["size"], "counts": code["counts"].encode()})
        assert box == [left, top, left + width, top + height]


def test_kept_rows_are_read_again_when_a_file_has_changed(shelf, monkeypatch):
    load(Config(path=str(shelf)))
    with monkeypatch.context() as patch:
        patch.setattr("adapt.data.coco.annotations.Reader.read", None)
        load(Config(path=str(shelf), seed=3, validation=0.4))
    data = json.loads(shelf.read_text())
    data["annotations"] = data["annotations"][:1]
    shelf.write_text(json.dumps(data))
    assert sum(len(row["objects"]["bbox"]) for row in rows(load(Config(path=str(shelf)))).values()) == 1


def test_two_categories_of_one_name_are_one(shelf):
    data = json.loads(shelf.read_text())
    data["categories"][1]["name"] = "cup"
    shelf.write_text(json.dumps(data))
    splits = load(Config(path=str(shelf)))
    assert splits["train"].features["objects"]["category"].feature.names == ["cup"]


def test_a_picture_that_a_file_names_twice_is_two_rows(shelf):
    data = json.loads(shelf.read_text())
    data["images"][1]["file_name"] = "0.jpg"
    shelf.write_text(json.dumps(data))
    found = rows(load(Config(path=str(shelf))))
    assert {"0.jpg", "0.jpg#107"} <= set(found) and found["0.jpg#107"]["image_id"] == 107


# ----------------------------------------------------------------------------------------------------------- what is wrong


def annotation(**values):
    return lambda data: data["annotations"][0].update(values)


def image(**values):
    return lambda data: data["images"][0].update(values)


def category(**values):
    return lambda data: data["categories"][0].update(values)


MISTAKES = {
    "unknown category": (
        annotation(category_id=4),
        r"'0\.jpg': unknown category \(annotation 1000: category_id 4; the file has 3, 90",
    ),
    "category in a list": (annotation(category_id=[3]), r"unknown category \(annotation 1000: category_id \[3\]"),
    "unknown image": (annotation(image_id=1), r"'all\.json': annotation of no picture \(annotation 1000: image_id 1\)"),
    "image id in a list": (annotation(image_id=[1]), r"annotation of no picture \(annotation 1000: image_id \[1\]\)"),
    "no object": (lambda data: data["annotations"].append(7), r"annotation of no picture \(number 14: 7 is no object\)"),
    "reversed": (annotation(bbox=[9, 9, -3, 4]), r"'0\.jpg': box reversed \(annotation 1000: 9, 9, 6, 13\)"),
    "no width": (annotation(bbox=[9, 9, 0, 4]), r"box reversed"),
    "off": (annotation(bbox=[30, 9, 12, 4]), r"box off the image \(annotation 1000: 30, 9, 42, 13; the image is 40 × 30\)"),
    "NaN": (annotation(bbox=[float("nan"), 9, 3, 4]), r"box unreadable \(annotation 1000: \[nan, 9, 3, 4\]\)"),
    "infinite": (annotation(bbox=[1e999, 9, 3, 4]), r"box unreadable \(annotation 1000: \[inf"),
    "huge": (annotation(bbox=[10**400, 9, 3, 4]), r"box unreadable \(annotation 1000: \[1000"),
    "three numbers": (annotation(bbox=[1, 2, 3]), r"box unreadable \(annotation 1000: \[1, 2, 3\]\)"),
    "words": (annotation(bbox=["1", 2, 3, 4]), r"box unreadable"),
    "nothing": (annotation(bbox=[], segmentation=[]), r"box unreadable \(annotation 1000: no box\)"),
    "two points": (
        annotation(segmentation=[[1, 1, 5, 5]]),
        r"bad polygon \(annotation 1000: 2 points\); give each polygon three",
    ),
    "odd": (
        annotation(segmentation=[[1, 1, 5, 5, 6, 7, 8]]),
        r"bad polygon \(annotation 1000: 7 numbers, which are no pairs\)",
    ),
    "polygon of a text": (annotation(segmentation="M1 1"), r"bad polygon"),
    "polygon of numbers": (annotation(segmentation=[1, 1, 5, 5, 6, 7]), r"bad polygon"),
    "polygon off": (annotation(segmentation=[[1, 1, 1e9, 5, 6, 7]]), r"polygon off the image \(annotation 1000: x 1 to 1e\+09"),
    "polygon of nothing": (annotation(segmentation=[[1, 1, 1, 1, 1, 1]]), r"mask without pixels|bad polygon"),
    "another size": (
        annotation(segmentation={"size": [40, 30], "counts": [1200]}),
        r"mask of another size \(.*30 × 40; the picture is 40 × 30",
    ),
    "short runs": (annotation(segmentation={"size": [30, 40], "counts": [3, 4]}), r"bad run lengths \(.*with the sum 1,200"),
    "negative runs": (annotation(segmentation={"size": [30, 40], "counts": [1201, -1]}), r"bad run lengths"),
    "broken code": (annotation(segmentation={"size": [30, 40], "counts": "ooooo"}), r"bad run lengths"),
    "not even a text": (
        annotation(segmentation={"size": [30, 40], "counts": None}),
        r"bad run lengths \(annotation 1000: None\)",
    ),
    "foreign letters": (annotation(segmentation={"size": [30, 40], "counts": "é"}), r"bad run lengths"),
    "no size": (annotation(segmentation={"counts": [1200]}), r"mask of another size"),
    "no mask": (annotation(segmentation=[]), r"object without mask \(annotation 1000\); draw its mask, or .*data\.masks=false"),
    "odd crowd": (annotation(iscrowd=2), r"bad entry \(annotation 1000: iscrowd 2"),
    "missing picture": (image(file_name="gone.jpg"), r"'gone\.jpg': missing picture \(no file 'gone\.jpg'\); copy the picture"),
    "parent path": (image(file_name="../../0.jpg"), r"'\.\./\.\./0\.jpg': leads outside"),
    "absolute path": (image(file_name="/etc/passwd"), r"'/etc/passwd': leads outside"),
    "drive": (image(file_name="C:\\0.jpg"), r"leads outside"),
    "NUL": (image(file_name="0\0.jpg"), r"leads outside"),
    "half a character": (image(file_name="\ud800.jpg"), r"'\?\.jpg': missing picture"),
    "folder": (image(file_name="."), r"missing picture \('\.' is no regular file\)"),
    "no file name": (image(file_name=None), r"bad entry \(image .* needs an id and a file_name"),
    "other size": (
        image(width=30, height=40),
        r"picture of another size \(40 × 30 .turned by its EXIF tag.; the annotations say 30 × 40",
    ),
    "id twice": (image(id=107), r"'0\.jpg': id twice \(image id 107 in all\.json\)"),
    "category id twice": (category(id=90), r"all\.json: category id 90 is there twice"),
    "nameless": (category(name=" "), r"category .* needs an id and a name"),
    "no list": (lambda data: data.update(images={}), r"'images' must be a list"),
    "no annotations": (lambda data: data.pop("annotations"), r"all\.json has no annotations"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_one_clear_line(shelf, name):
    spoil, expected = MISTAKES[name]
    data = json.loads(shelf.read_text())
    spoil(data)
    shelf.write_text(json.dumps(data).replace("Infinity", "1e999"))
    with pytest.raises(UserError, match=expected) as error:
        load(Config(path=str(shelf)))
    lines = str(error.value).splitlines()
    assert all(line.startswith(("data.path: ", "data.on_error")) and len(line) < 400 for line in lines)
    assert len(lines) <= (5 if name == "id twice" else 1), "the annotations of the id that is gone are two more"


@pytest.mark.parametrize(
    "name", [name for name in MISTAKES if name not in ("category id twice", "nameless", "no list", "no annotations")]
)
def test_skipping_leaves_the_picture_out_and_lists_it(shelf, name):
    data = json.loads(shelf.read_text())
    MISTAKES[name][0](data)
    shelf.write_text(json.dumps(data))
    splits = load(Config(path=str(shelf), on_error="skip"))
    of_no_picture = name in ("unknown image", "image id in a list", "no object")
    left_out = 2 if name == "id twice" else 0 if of_no_picture else 1
    assert sum(map(len, splits.values())) == 8 - left_out
    assert splits.report.severe


TEXTS = {
    "truncated": ('{"images": [{"id": 1, "file_name": "a', r"line 1, column \d+: no JSON: Unterminated string"),
    "cut between": (
        '{"images": [{"id": 1}',
        r"line 1, column 22: no JSON: ',' or ']' is expected, and here is the end of the file",
    ),
    "later line": ('{"images": [\n {"id": 1},\n {"id": oops}]}', r"line 3, column 9: no JSON: Expecting value"),
    "zeros": ("\0" * 100, r"line 1, column 1: no JSON: '\{' is expected, and here is '\\x00'"),
    "empty": ("", r"'\{' is expected, and here is the end of the file"),
    "a list": ("[1]", r"'\{' is expected, and here is '\['"),
    "nothing in it": ("{}", r"has no annotations and images"),
    "deep": ('{"images": [' + "[" * 100_000, r"lists in lists, too deep|Expecting value"),
    "digits": ('{"images": [' + "1" * 5000 + "]}", r"Exceeds the limit"),
    "odd key": ("{7: 1}", r"'7' stands where a key should"),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_what_is_no_json_is_named_by_line_and_column(shelf, name, on_error):
    text, expected = TEXTS[name]
    shelf.write_text(text)
    with pytest.raises(UserError, match=expected) as error:
        load(Config(path=str(shelf), on_error=on_error))
    assert len(str(error.value).splitlines()) == 1 and "all.json" in str(error.value)


def test_a_file_of_two_gigabytes_without_anything_is_refused_at_once(shelf):
    with shelf.open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(UserError, match=r"line 1, column 1: no JSON"):
        load(Config(path=str(shelf)))


def test_latin_1_is_a_user_error(shelf):
    shelf.write_bytes('{"images": ["é"]}'.encode("latin-1"))
    with pytest.raises(UserError, match=r"all\.json: it is not UTF-8"):
        load(Config(path=str(shelf)))


def test_links_out_of_the_folder_are_not_read(shelf, tmp_path):
    (shelf.parent / "0.jpg").rename(tmp_path / "secret.jpg")
    (shelf.parent / "0.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(UserError, match=r"'0\.jpg': leads outside \(to .*secret\.jpg\)"):
        load(Config(path=str(shelf)))
    assert len(rows(load(Config(path=str(shelf), follow_links=True)))) == 8


def test_rounding_is_clipped(shelf):
    data = json.loads(shelf.read_text())
    data["annotations"][0]["bbox"] = [-0.4, 0, 40.7, 30.2]
    shelf.write_text(json.dumps(data))
    assert rows(load(Config(path=str(shelf))))["0.jpg"]["objects"]["bbox"][0] == [0, 0, 40, 30]


@pytest.mark.parametrize("given", ["nowhere", "nowhere/all.json"])
def test_a_path_that_is_not_there_is_a_user_error(given):
    with pytest.raises(UserError, match=r"data\.path: no file or folder 'nowhere"):
        Config(path=given).check_paths()


def test_a_folder_without_json_says_what_it_has(tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match=r"has no JSON of COCO's: .* Have: cat\."):
        load(Config(path=str(tmp_path / "photos")))
