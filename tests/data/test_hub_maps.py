"""Pictures of class maps in hub data sets, read as the source `masks` reads its own."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as Picture

from adapt.data import masks
from adapt.data.hub import Config, load
from adapt.plug import UserError
from adapt.vision.masks import unrle


def grid(*values, size=(24, 16)) -> np.ndarray:
    """A map of upright stripes."""
    stripes = np.repeat(values, -(-size[0] // len(values)))[: size[0]]
    return np.tile(np.array(stripes, np.uint8), (size[1], 1))


@pytest.fixture
def scenes(tmp_path, make):
    """A Parquet file with a picture and a class map in each row."""

    def write(*maps, column="annotation", kind="PNG", **columns):
        features = {"image": Image(), column: Image()}
        pictures = [make.encode(make.picture(i), "PNG") for i in range(len(maps))]
        encoded = [make.encode(Picture.fromarray(each), kind) if isinstance(each, np.ndarray) else each for each in maps]
        rows = {"image": pictures, column: encoded}
        rows = {name: [each and {"bytes": each, "path": None} for each in values] for name, values in rows.items()}
        for name, (feature, values) in columns.items():
            features[name], rows[name] = feature, values
        Dataset.from_dict(rows, Features(features)).to_parquet(tmp_path / "scenes.parquet")
        return str(tmp_path / "scenes.parquet")

    return write


def plain(rows) -> list[dict]:
    return [
        {"objects": row["objects"], "map": np.asarray(row["segmentation"]).tolist()}
        for row in rows.select_columns(["objects", "segmentation"])
    ]


@pytest.mark.parametrize("column", ["segmentation", "label", "annotation", "mask"])
def test_a_class_map_makes_the_rows_that_the_source_masks_makes_of_it(scenes, tmp_path, make, column):
    maps = [grid(0, 3, 7, 255), grid(7, 0), grid(3, 3)]
    for i, each in enumerate(maps):
        for kind, picture in (("images", make.picture(i)), ("masks", Picture.fromarray(each))):
            (tmp_path / "folder" / kind).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "folder" / kind / f"{i}.png")
    theirs = masks.load(masks.Config(path=str(tmp_path / "folder"), validation=0, test=0))["train"]
    rows = load(Config(path=scenes(*maps, column=column)))["train"]
    assert rows.features["objects"]["category"].feature.names == ["3", "7"]
    assert plain(rows) == plain(theirs)
    assert np.asarray(rows[0]["segmentation"])[0, ::6].tolist() == [0, 1, 2, 255]


def test_an_imagefolder_names_its_maps_in_a_column(tmp_path, make):
    (tmp_path / "set" / "train" / "maps").mkdir(parents=True)
    lines = []
    for i in range(3):
        make.picture(i).save(tmp_path / "set" / "train" / f"{i}.png")
        Picture.fromarray(grid(0, 1 + i % 2)).save(tmp_path / "set" / "train" / "maps" / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "mask_file_name": f"maps/{i}.png"}))
    (tmp_path / "set" / "train" / "metadata.jsonl").write_text("\n".join(lines))
    (tmp_path / "set" / "classes.yaml").write_text("{0: background, 1: cat, 2: dog}")
    rows = load(Config(path=str(tmp_path / "set")))["train"]
    assert rows.features["objects"]["category"].feature.names == ["cat", "dog"]
    assert [each["category"] for each in rows["objects"][:]] == [[0], [1], [0]]


def test_names_are_those_of_the_option_and_the_background_can_be_a_class(scenes):
    path = scenes(grid(0, 1), grid(1, 2))
    names = {0: "road", 1: "car", 2: "sky"}
    rows = load(Config(path=path, id2label=names, background=None))["train"]
    assert rows.features["objects"]["category"].feature.names == ["road", "car", "sky"]
    assert [row["category"] for row in rows["objects"][:]] == [[0, 1], [1, 2]]
    assert load(Config(path=path, id2label=names))["train"].features["objects"]["category"].feature.names == ["car", "sky"]


def test_classes_are_renamed_joined_and_left_out_of_maps(scenes):
    path = scenes(grid(1, 2, 3, 0), grid(3, 3))
    names = {1: "car", 2: "bus", 3: "sky"}
    splits = load(Config(path=path, id2label=names, classes={"car": "vehicle", "bus": "vehicle", "sky": None}))
    rows = splits["train"]
    assert rows.features["objects"]["category"].feature.names == ["vehicle"]
    (one,) = rows[0]["objects"]["mask"]
    assert unrle(one).tolist() == (grid(1, 1, 0, 0) > 0).tolist()
    assert np.array_equal(np.asarray(rows[0]["segmentation"]), grid(1, 1, 0, 0))
    assert {(one.problem, one.detail) for one in splits.report.problems} == {("class left out", "2 maps")}


def test_maps_are_passed_over_where_there_is_something_else_to_learn_unless_they_are_named(scenes):
    label = ClassLabel(names=["a", "b"]), [0, 1, 0, 1]
    path = scenes(*[grid(0, 1)] * 4, column="mask", label=label)
    splits = load(Config(path=path, validation=0, test=0))
    assert set(splits["train"].column_names) == {"id", "image", "label"}
    assert "the column mask: 4 times" in {one.detail for one in splits.report.problems}
    both = load(Config(path=path, validation=0, test=0, segmentation="mask"))["train"]
    assert set(both.column_names) == {"id", "image", "label", "objects", "segmentation"}


def test_what_is_read_stays_on_the_disk_and_is_read_once(scenes, monkeypatch):
    from adapt.data.hub import maps

    looked = []
    look = maps.read
    monkeypatch.setattr(maps, "read", lambda value: looked.append(1) or look(value))
    path = scenes(grid(0, 1), grid(1, 0))
    config = Config(path=path, id2label={1: "cat"})
    assert len(load(config)["train"].cache_files) == 2 and len(looked) == 2
    load(config)
    assert len(looked) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.stack([grid(0, 9)] * 2 + [grid(9, 0)], -1), r"unreadable mask \(its pixels are colours \(RGB\)"),
        (grid(0, 1, size=(16, 24)), r"mask of another size \(16 × 24; the picture is 24 × 16 \(turned by its EXIF tag\)\)"),
        (grid(0, 8), r"unknown class \(8; the data have 1 …\)"),
        (b"no picture", r"unreadable mask \(not an image in a known format"),
        (None, r"data\.segmentation: 'segmentation' has a row without a picture"),
    ],
)
def test_a_map_that_cannot_be_used_is_one_line_and_is_left_out_with_skip(scenes, wrong, message):
    config = Config(path=scenes(grid(0, 1), wrong), id2label={1: "cat"})
    with pytest.raises(UserError, match=message) as error:
        load(config)
    assert "\n" not in str(error.value)
    splits = load(config.model_copy(update={"on_error": "skip"}))
    assert splits["train"]["id"] == ["train/0"] and len(splits.report.severe) == 1


def test_pictures_that_are_not_there_are_left_out_where_there_are_no_classes(tmp_path, make):
    lines = [{"file_name": f"{i}.png", "mask_file_name": f"map{i}.png"} for i in range(3)]
    (tmp_path / "set").mkdir()
    for i, line in enumerate(lines):
        make.picture(i).save(tmp_path / "set" / line["file_name"])
        Picture.fromarray(grid(0, 1)).save(tmp_path / "set" / line["mask_file_name"])
    (tmp_path / "set" / "metadata.jsonl").write_text(
        "\n".join(map(json.dumps, [*lines, {"file_name": None}, {"file_name": "x.png"}]))
    )
    splits = load(Config(path=str(tmp_path / "set"), on_error="skip"))
    assert splits["train"]["id"] == ["train/0", "train/1", "train/2"]
    assert [one.id for one in splits.report.severe] == ["train/3", "train/4"]


def test_shades_of_grey_are_no_classes(scenes):
    smooth = np.tile(np.linspace(0, 255, 24).astype(np.uint8), (16, 1))
    with pytest.raises(
        UserError, match=r"neither binary nor class numbers: .* or name the classes in data\.id2label\."
    ) as error:
        load(Config(path=scenes(smooth, smooth)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segmentation": "maps"}, r"data\.segmentation: no column 'maps' in train\. Pictures are in: image, annotation\."),
        ({"segmentation": "more"}, r"data\.segmentation: it holds Value\('string'\)\. Name a column of pictures"),
        ({"segmentation": "annotation", "objects": "more"}, r"data\.segmentation and data\.objects both say"),
        ({"background": 5, "ignore": 1}, r"data\.path: all masks of .* are 5 and 1"),
        ({"classes": {"cat": "dog"}}, r"data\.classes: the data have no class 'cat'\."),
        ({"classes": {"1": None}}, r"data\.classes leaves out all classes"),
        ({"id2label": {0: "nothing"}}, r"data\.path: 0 classes in the masks"),
    ],
)
def test_options_that_do_not_fit_are_one_line(scenes, options, message):
    path = scenes(grid(1, 1), more=(Value("string"), ["x"]))
    with pytest.raises(UserError, match=message) as error:
        load(Config(path=path, **options))
    assert "\n" not in str(error.value)


def test_several_columns_that_could_be_it_are_asked_about(scenes, make):
    more = Image(), [{"bytes": make.encode(Picture.fromarray(grid(0, 1)), "PNG"), "path": None}]
    with pytest.raises(UserError, match=r"several columns that could be class maps: annotation, mask\. Name one"):
        load(Config(path=scenes(grid(0, 1), mask=more)))


def test_a_map_elsewhere_is_not_read(tmp_path, make, scenes):
    secret = tmp_path / "secret.png"
    secret.write_bytes(make.encode(Picture.fromarray(grid(0, 1)), "PNG"))
    table = pq.read_table(scenes(grid(0, 1), column="mask"))
    place = table.column_names.index("mask")
    elsewhere = pa.array([{"bytes": None, "path": str(secret)}], table.schema.field("mask").type)
    (tmp_path / "own").mkdir()
    pq.write_table(table.set_column(place, table.schema.field("mask"), elsewhere), tmp_path / "own" / "a.parquet")
    with pytest.raises(UserError, match=r"data\.segmentation: .* names a picture elsewhere: .*secret\.png"):
        load(Config(path=str(tmp_path / "own" / "a.parquet")))
