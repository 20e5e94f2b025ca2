"""Boxes, categories and masks as hub data sets and imagefolders hold them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, LargeList, List, Value
from pycocotools import mask as coco

from adapt.data.coco import Config as CocoConfig
from adapt.data.coco import load as read_coco
from adapt.data.hub import Config, load
from adapt.data.hub.orders import corners
from adapt.plug import UserError
from adapt.vision.masks import rle, unrle

SIZE = (24, 16)
TWO = {"bbox": [[12.0, 9, 10, 6], [0, 0, 3, 16]], "categories": [3, 1]}
"""XYWH; as XYXY the first is reversed, as centres the second leaves the picture."""


@pytest.fixture
def folder(tmp_path, make):
    """An imagefolder with a line of metadata.jsonl for each objects, as the documentation of `datasets` has it."""

    def write(*objects, column="objects", size=SIZE, **more):
        root = tmp_path / "set"
        (root / "train").mkdir(parents=True, exist_ok=True)
        lines = []
        for i, each in enumerate(objects):
            (root / "train" / f"{i:04}.png").write_bytes(make.encode(make.picture(i, size), "PNG"))
            lines.append(
                json.dumps({"file_name": f"{i:04}.png", column: each} | {key: value[i] for key, value in more.items()})
            )
        (root / "train" / "metadata.jsonl").write_text("\n".join(lines))
        return str(root)

    return write


def test_an_imagefolder_as_the_documentation_has_it_is_read(folder, capsys):
    splits = load(Config(path=folder(TWO, {"bbox": [], "categories": []})))
    rows = splits["train"]
    assert rows["objects"][:] == [{"bbox": [[12, 9, 22, 15], [0, 0, 3, 16]], "category": [1, 0]}, {"bbox": [], "category": []}]
    assert rows.features["objects"]["category"].feature.names == ["1", "3"]
    said = "xywh (left, top, width, height), the only order that fits all 2 boxes"
    assert [(one.problem, one.detail) for one in splits.report.problems] == [("order of boxes", said)]
    assert f"data: boxes are taken as {said}. The same by name: data.boxes=xywh" in capsys.readouterr().out


@pytest.mark.parametrize("box", ["bbox", "boxes"])
@pytest.mark.parametrize("category", ["category", "categories", "category_id", "label", "labels"])
@pytest.mark.parametrize("listed", [False, True])
def test_fields_have_their_usual_names_in_a_struct_of_lists_and_a_list_of_structs(folder, box, category, listed):
    objects = {box: TWO["bbox"], category: [3, 1], "is_crowd": [0, 1], "area": [60.0, 48.0], "bbox_id": [7, 8]}
    if listed:
        objects = [dict(zip(objects, each, strict=True)) for each in zip(*objects.values(), strict=True)]
    splits = load(Config(path=folder(objects)))
    assert splits["train"][0]["objects"] == {
        "bbox": [[12, 9, 22, 15], [0, 0, 3, 16]],
        "category": [1, 0],
        "iscrowd": [0, 1],
    }
    over = {problem.detail for problem in splits.report.problems if problem.problem == "passed over"}
    assert over == {"area of objects: 2 times", "bbox_id of objects: 2 times"}


def test_parquet_reads_alike_whatever_its_lists_are(tmp_path, make):
    objects = [{"bbox": TWO["bbox"], "category": [1, 0]}] * 3
    images = [{"bytes": make.encode(make.picture(i)), "path": None} for i in range(3)]
    names = ClassLabel(names=["cat", "dog"])
    found = []
    for name, boxes in (("a", List(List(Value("float32")))), ("b", LargeList(List(Value("int64"), length=4)))):
        feature = {"bbox": boxes, "category": List(names)}
        rows = Dataset.from_dict({"image": images, "objects": objects}, Features(image=Image(), objects=feature))
        rows.to_parquet(tmp_path / f"{name}.parquet")
        found.append(load(Config(path=str(tmp_path / f"{name}.parquet")))["train"])
    assert found[0]["objects"][:] == found[1]["objects"][:]
    assert found[0].features["objects"] == found[1].features["objects"]
    assert found[0].features["objects"]["category"].feature == names


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_boxes_lie_on_the_picture_as_it_is_seen_whatever_turns_it(tmp_path, make, kind):
    exif = make.picture().getexif()
    exif[0x0112] = 6
    images = [{"bytes": make.encode(make.picture(), kind, exif=exif), "path": None}]  # 24 × 16, seen as 16 × 24
    feature = {"bbox": List(List(Value("float32"))), "category": List(ClassLabel(names=["cat"]))}
    rows = {"image": images, "objects": [{"bbox": [[0, 0.75, 0.5, 1]], "category": [0]}]}
    Dataset.from_dict(rows, Features(image=Image(), objects=feature)).to_parquet(tmp_path / "a.parquet")
    row = load(Config(path=str(tmp_path / "a.parquet"), boxes="relative_xyxy"))["train"][0]
    assert row["image"].size == (16, 24) and row["objects"]["bbox"] == [[0, 18, 8, 24]]


def test_names_of_numbers_are_those_of_the_option_or_of_the_file(folder, tmp_path):
    path = folder(TWO)
    named = load(Config(path=path, id2label={1: "cat", 2: "owl", 3: "dog"}))["train"]
    assert named.features["objects"]["category"].feature.names == ["cat", "owl", "dog"]
    assert named[0]["objects"]["category"] == [2, 0]
    (tmp_path / "set" / "id2label.json").write_text('{"1": "cat", "3": "dog"}')
    assert load(Config(path=path))["train"].features["objects"]["category"].feature.names == ["cat", "dog"]


def test_names_that_are_given_stand_in_the_place_of_those_of_the_data(tmp_path, make):
    feature = {"bbox": List(List(Value("float32"))), "category": List(ClassLabel(names=["0", "1", "2", "3"]))}
    objects = [{"bbox": TWO["bbox"], "category": [3, 1]}]
    images = [{"bytes": make.encode(make.picture()), "path": None}]
    rows = Dataset.from_dict({"image": images, "objects": objects}, Features(image=Image(), objects=feature))
    rows.to_parquet(tmp_path / "a.parquet")
    rows = load(Config(path=str(tmp_path / "a.parquet"), id2label={1: "cat", 3: "dog"}))["train"]
    assert rows.features["objects"]["category"].feature.names == ["cat", "dog"]
    assert rows[0]["objects"]["category"] == [1, 0]


def test_another_column_can_be_named(folder):
    rows = load(Config(path=folder(TWO, column="things"), objects="things"))["train"]
    assert set(rows.column_names) == {"id", "image", "objects"}
    with pytest.raises(UserError, match=r"data\.objects: no column 'thing' in train\. Did you mean 'things'\?"):
        load(Config(path=folder(TWO, column="things"), objects="thing"))


def test_beside_something_else_to_learn_objects_are_read_when_they_are_asked_for(folder, capsys):
    path = folder(TWO, TWO, caption=["a cat", "a dog"])
    splits = load(Config(path=path))
    assert set(splits["train"].column_names) == {"id", "image", "caption"}
    assert "objects is there, beside caption, and left out. To read it: data.objects=objects" in capsys.readouterr().out
    assert [one.detail for one in splits.report.problems if one.problem == "passed over"] == ["the column objects: 2 times"]
    for options in ({"objects": "objects"}, {"boxes": "xywh"}):
        assert set(load(Config(path=path, **options))["train"].column_names) == {"id", "image", "caption", "objects"}


# ------------------------------------------------------------------------------------------------------------------ orders


@pytest.mark.parametrize(
    ("order", "box"),
    [
        ("xyxy", [4.0, 2, 12, 10]),
        ("xywh", [4.0, 2, 8, 8]),
        ("cxcywh", [8.0, 6, 8, 8]),
        ("relative_xyxy", [4 / 24, 2 / 16, 12 / 24, 10 / 16]),
        ("relative_xywh", [4 / 24, 2 / 16, 8 / 24, 8 / 16]),
        ("relative_cxcywh", [8 / 24, 6 / 16, 8 / 24, 8 / 16]),
    ],
)
def test_each_order_is_what_its_name_says(order, box):
    assert corners(np.array([box]), order, np.array([SIZE])) == pytest.approx(np.array([[4, 2, 12, 10]]), abs=1e-12)


CORNERS = np.array([[0, 0, 3, 16], [12, 9, 22, 15], [20, 1, 24, 16]], float)
WAYS = {
    "xyxy": lambda left, top, right, bottom: [left, top, right, bottom],
    "xywh": lambda left, top, right, bottom: [left, top, right - left, bottom - top],
    "cxcywh": lambda left, top, right, bottom: [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top],
}
WAYS |= {
    f"relative_{name}": lambda *box, way=way: (np.array(way(*box)) / [*SIZE, *SIZE]).tolist() for name, way in WAYS.items()
}


@pytest.mark.parametrize("order", WAYS)
def test_the_data_decide_the_order_where_one_alone_fits(folder, order):
    boxes = [WAYS[order](*box) for box in CORNERS]
    splits = load(Config(path=folder({"bbox": boxes, "label": ["a", "b", "a"]})))
    assert np.array(splits["train"][0]["objects"]["bbox"]) == pytest.approx(CORNERS, abs=1e-5)
    (said,) = [one.detail for one in splits.report.problems]
    assert said.startswith(f"{order} (") and said.endswith("the only order that fits all 3 boxes")


def test_two_orders_that_fit_are_asked_about_and_two_that_mean_the_same_are_not(folder):
    with pytest.raises(
        UserError,
        match=r"3, 4, 10, 6 of 'train/0', can be read in 2 ways that fit the only box.* data\.boxes=xywh .* data\.boxes=xyxy",
    ):
        load(Config(path=folder({"bbox": [[3.0, 4, 10, 6]], "label": [0]})))
    rows = load(Config(path=folder({"bbox": [[0.0, 0, 20, 12]], "label": [0]})))["train"]
    assert rows[0]["objects"]["bbox"] == [[0, 0, 20, 12]]


def test_an_order_that_the_data_contradict_is_told_with_the_one_that_fits(folder):
    path = folder({"bbox": CORNERS.tolist(), "label": [0, 0, 1]})
    with pytest.raises(UserError) as error:
        load(Config(path=path, boxes="xywh", on_error="skip"))
    assert str(error.value) == (
        "data.boxes: as xywh (left, top, width, height), 2 of 3 boxes are reversed or leave their pictures, such as 'train/0': "
        "12, 9, 22, 15. All fit with data.boxes=xyxy (left, top, right, bottom)."
    )
    shares = folder({"bbox": [WAYS["relative_xyxy"](*box) for box in CORNERS], "label": [0, 0, 1]})
    with pytest.raises(
        UserError, match=r"the numbers of all 3 boxes are 0 to 1, and xyxy is in pixels.*data\.boxes=relative_xyxy"
    ):
        load(Config(path=shares, boxes="xyxy"))


def test_a_few_bad_boxes_are_named_or_left_out_where_the_order_is_said(folder):
    path = folder({"bbox": [[0.0, 0, 3, 16]], "label": [0]}, {"bbox": [[20.0, 9, 10, 6]], "label": [0]})
    with pytest.raises(
        UserError,
        match=r"no order fits all 2 boxes: xywh fits 1; xyxy fits 1; cxcywh fits 0\. A box .*: 20, 9, 10, 6 of 'train/1'\.",
    ):
        load(Config(path=path))
    with pytest.raises(UserError, match=r"'train/1': box off the image \(object 0: 20, 9, 30, 15; the image is 24 × 16\)"):
        load(Config(path=path, boxes="xywh"))
    assert load(Config(path=path, boxes="xywh", on_error="skip"))["train"]["id"] == ["train/0"]


def test_sizes_are_those_of_turned_pictures(folder, tmp_path, make):
    """A camera held upright: 24 × 16 pixels are stored, and 16 × 24 are seen."""
    path = folder({"bbox": [[0.0, 0, 0.5, 1]], "label": [0]})
    exif = make.picture().getexif()
    exif[0x0112] = 6
    (tmp_path / "set" / "train" / "0000.png").write_bytes(make.encode(make.picture(), "PNG", exif=exif))
    assert load(Config(path=path, boxes="relative_xywh"))["train"][0]["objects"]["bbox"] == [[0, 0, 8, 24]]


# ------------------------------------------------------------------------------------------------------------------- masks

SHAPE = [4.0, 2, 20, 2, 20, 12, 4, 12]
OTHER = [0.0, 0, 3, 0, 3, 16]
BOXES = {"bbox": [[4.0, 2, 16, 10], [0, 0, 3, 16]], "category": ["cat", "dog"]}


def drawn(*shapes):
    parts = coco.frPyObjects([*shapes], SIZE[1], SIZE[0])
    return coco.decode(coco.merge(parts)).astype(bool)


@pytest.mark.parametrize("listed", [False, True])
def test_polygons_become_masks_as_pycocotools_draws_them(folder, listed):
    objects = BOXES | {"segmentation": [[SHAPE, OTHER], [OTHER]]}
    if listed:
        objects = [dict(zip(objects, each, strict=True)) for each in zip(*objects.values(), strict=True)]
    found = load(Config(path=folder(objects), boxes="xywh"))["train"][0]["objects"]
    assert [unrle(code).tolist() for code in found["mask"]] == [drawn(SHAPE, OTHER).tolist(), drawn(OTHER).tolist()]
    assert found["bbox"] == [[4, 2, 20, 12], [0, 0, 3, 16]]


def test_a_polygon_that_is_not_in_a_list_of_its_own_is_read_too(folder):
    found = load(Config(path=folder(BOXES | {"segmentation": [SHAPE, OTHER]}), boxes="xywh"))["train"][0]["objects"]
    assert [unrle(code).tolist() for code in found["mask"]] == [drawn(SHAPE).tolist(), drawn(OTHER).tolist()]


def test_run_lengths_stay_as_they_are_and_plain_ones_are_packed(folder):
    masks = [drawn(SHAPE), drawn(OTHER)]
    packed = [rle(mask) for mask in masks]
    found = load(Config(path=folder(BOXES | {"segmentation": packed}), boxes="xywh"))["train"]
    assert found[0]["objects"]["mask"] == packed
    plain = []
    for mask in masks:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel(), [0]])))
        ends = np.append(edges[edges < mask.size], mask.size)
        plain.append({"size": [16, 24], "counts": np.diff(ends, prepend=0).tolist()})
    again = load(Config(path=folder(BOXES | {"segmentation": plain}), boxes="xywh"))["train"]
    assert [unrle(code).tolist() for code in again[0]["objects"]["mask"]] == [mask.tolist() for mask in masks]


def test_masks_are_left_out_when_boxes_are_enough(folder):
    splits = load(Config(path=folder(BOXES | {"segmentation": [[SHAPE], [OTHER]]}), boxes="xywh", masks=False))
    assert "mask" not in splits["train"].features["objects"]
    assert [one.detail for one in splits.report.problems] == ["segmentation of objects: 2 times"]


def test_the_objects_are_those_of_the_same_annotations_in_cocos_json(folder, tmp_path):
    shapes = {"segmentation": [[SHAPE, OTHER], [OTHER]], "iscrowd": [0, 1], "category_id": [7, 3]}
    objects = {"bbox": BOXES["bbox"]} | shapes
    path = folder(objects, objects)
    annotations = [
        {"id": 2 * i + j, "image_id": i} | {name: values[j] for name, values in objects.items()}
        for i in range(2)
        for j in range(2)
    ]
    images = [{"id": i, "file_name": f"{i:04}.png", "width": 24, "height": 16} for i in range(2)]
    categories = [{"id": 3, "name": "3"}, {"id": 7, "name": "7"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "set" / "train" / "all.json").write_text(json.dumps(content))
    theirs = read_coco(CocoConfig(path=f"{path}/train/all.json", validation=0, test=0))["train"]
    assert load(Config(path=path, boxes="xywh"))["train"]["objects"][:] == theirs["objects"][:]


# --------------------------------------------------------------------------------------------------------- what is not good

GOOD = {"bbox": [[4.0, 2, 16, 10]], "category": [1]}
WRONG = {
    "three numbers": (
        GOOD | {"bbox": [[4.0, 2, 16]]},
        r"box unreadable \(object 0: \[4\.0, 2\.0, 16\.0\]\); give each box four",
    ),
    "no box": (GOOD | {"bbox": [None]}, r"box unreadable \(object 0: None\)"),
    "a number lacks": (GOOD | {"bbox": [[4.0, 2, None, 10]]}, r"box unreadable \(object 0: \[4\.0, 2\.0, None, 10\.0\]\)"),
    "no number": (GOOD | {"bbox": [[4.0, 2, float("nan"), 10]]}, r"box unreadable \(object 0: \[4\.0, 2\.0, nan, 10\.0\]\)"),
    "a number far out": (
        GOOD | {"bbox": [[4.0, 2, 1e300, 10]]},
        r"box unreadable \(object 0: \[4\.0, 2\.0, 1e\+300, 10\.0\]\)",
    ),
    "more boxes": (GOOD | {"bbox": [[4.0, 2, 16, 10]] * 2}, r"box unreadable \(2 bbox, 1 category: not as many of each\)"),
    "no category": (GOOD | {"category": [None]}, r"unknown category \(object 0: None; the data have 0, 1 …\)"),
    "a category beyond": (GOOD | {"category": [7]}, r"unknown category \(object 0: 7; the data have 0, 1 …\)"),
    "reversed": (GOOD | {"bbox": [[4.0, 2, -3, 10]]}, r"box reversed \(object 0: 4, 2, 1, 12\)"),
    "off the picture": (
        GOOD | {"bbox": [[14.0, 2, 16, 10]]},
        r"box off the image \(object 0: 14, 2, 30, 12; the image is 24 × 16\)",
    ),
    "a crowd of 5": (GOOD | {"iscrowd": [5]}, r"bad entry \(object 0: iscrowd 5, and it can be 0 or 1\)"),
    "two points": (GOOD | {"segmentation": [[[1.0, 2, 3, 4]]]}, r"bad polygon \(object 0: 2 points\)"),
    "five numbers": (
        GOOD | {"segmentation": [[[1.0, 2, 3, 4, 5]]]},
        r"bad polygon \(object 0: 5 numbers, which are no pairs\)",
    ),
    "a polygon outside": (
        GOOD | {"segmentation": [[[1.0, 2, 90, 4, 5, 6]]]},
        r"polygon off the image \(object 0: x 1 to 90, y 2 to 6; the image is 24 × 16\)",
    ),
    "a polygon of no pixel": (GOOD | {"segmentation": [[[1.0, 2, 1, 2, 1, 2]]]}, r"mask without pixels \(object 0\)"),
    "run lengths of another size": (
        GOOD | {"segmentation": [{"size": [24, 16], "counts": rle(np.ones((24, 16), bool))["counts"]}]},
        r"mask of another size \(object 0: 16 × 24; the picture is 24 × 16\)",
    ),
    "no run lengths": (GOOD | {"segmentation": [{"size": [16, 24], "counts": "no"}]}, r"bad run lengths \(object 0: 'no'\)"),
    "run lengths with another sum": (
        GOOD | {"segmentation": [{"size": [16, 24], "counts": [3, 4]}]},
        r"bad run lengths \(object 0: they must be whole numbers with the sum 384\)",
    ),
    "negative run lengths": (
        GOOD | {"segmentation": [{"size": [16, 24], "counts": [-16, 400]}]},
        r"bad run lengths \(object 0",
    ),
    "an empty mask": (
        GOOD | {"segmentation": [{"size": [16, 24], "counts": rle(np.zeros((16, 24), bool))["counts"]}]},
        r"mask without pixels \(object 0\)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line_and_is_left_out_with_skip(folder, name):
    wrong, message = WRONG[name]
    good = {key: {"bbox": [[4.0, 2, 3, 10]], "category": [0], "iscrowd": [0]}.get(key) for key in wrong}
    if "segmentation" in wrong:
        is_rle = isinstance(wrong["segmentation"][0], dict)
        kind = list if is_rle and isinstance(wrong["segmentation"][0]["counts"], list) else str
        counts = {list: [0, 384], str: rle(np.ones((16, 24), bool))["counts"]}[kind]
        good["segmentation"] = [{"size": [16, 24], "counts": counts}] if is_rle else [[SHAPE]]
    path = folder(good, wrong)
    config = Config(path=path, boxes="xywh", id2label={0: "cat", 1: "dog"})
    with pytest.raises(UserError, match=message) as error:
        load(config)
    assert "\n" not in str(error.value) and "train/1" in str(error.value) and "data.on_error=skip" in str(error.value)
    splits = load(config.model_copy(update={"on_error": "skip"}))
    assert splits["train"]["id"] == ["train/0"]
    assert [problem.id for problem in splits.report.severe] == ["train/1"]


def test_an_object_without_a_mask_among_others_is_told(folder):
    path = folder(BOXES | {"segmentation": [[SHAPE], None]}, BOXES | {"segmentation": [[SHAPE], [OTHER]]})
    with pytest.raises(UserError, match=r"'train/0': object without mask \(object 1\); draw its mask, or .* data\.masks=false"):
        load(Config(path=path, boxes="xywh"))
    assert load(Config(path=path, boxes="xywh", on_error="skip"))["train"]["id"] == ["train/1"]
    assert len(load(Config(path=path, boxes="xywh", masks=False))["train"]) == 2


@pytest.mark.parametrize(
    ("objects", "options", "message"),
    [
        ("a text", {"boxes": "xywh"}, r"data\.boxes: objects of train must hold bbox or boxes"),
        ({"bbox": ["4 2 16 10"], "category": [1]}, {"boxes": "xywh"}, r"data\.boxes: objects of train must hold"),
        ({"bbox": [[4.0, 2, 16, 10]]}, {"boxes": "xyxy"}, r"data\.boxes: objects of train must hold"),
        ({"bbox": [[4.0, 2, 16, 10]], "category": [0.5]}, {"boxes": "xyxy"}, r"data\.boxes: objects of train must hold"),
        (GOOD, {"boxes": "xywh", "id2label": {0: "cat"}}, r"'train/0': unknown category \(object 0: 1; the data have 0 …\)"),
        (GOOD, {"boxes": "xywh", "classes": {"2": "cat"}}, r"data\.classes: the data have no class '2'\."),
        (GOOD, {"boxes": "xywh", "classes": {"1": None}}, r"data\.classes leaves out all classes of the data"),
    ],
)
def test_columns_and_options_that_do_not_fit_are_one_line(folder, objects, options, message):
    with pytest.raises(UserError, match=message) as error:
        load(Config(path=folder(objects), **options))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("objects", ["a text", {"bbox": [[4.0, 2, 16, 10]]}])
def test_without_an_order_such_columns_are_passed_over_aloud(folder, objects, capsys):
    splits = load(Config(path=folder(objects)))
    assert splits["train"].column_names == ["id", "image"]
    assert "has no boxes with categories, and is left out" in capsys.readouterr().out
    assert [one.detail for one in splits.report.problems] == ["the column objects: 1 time"]


@pytest.mark.parametrize("text", ["{", "[1]", '{"1": 2}', '{"a": "b"}', "{}"])
def test_a_file_of_names_that_is_none_is_one_line(folder, tmp_path, text):
    path = folder(GOOD)
    (tmp_path / "set" / "id2label.json").write_text(text)
    with pytest.raises(UserError, match=r"data\.path: id2label\.json.* write data\.id2label\.") as error:
        load(Config(path=path, boxes="xywh"))
    assert "\n" not in str(error.value)


def test_a_second_look_opens_no_picture(folder, monkeypatch):
    from adapt.data.hub import annotations

    opened = []
    look = annotations.sides
    monkeypatch.setattr(annotations, "sides", lambda value: opened.append(1) or look(value))
    path = folder(TWO, TWO)
    first = load(Config(path=path))["train"]["objects"][:]
    assert len(opened) == 2
    assert load(Config(path=path))["train"]["objects"][:] == first and len(opened) == 2
