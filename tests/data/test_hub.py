"""What `datasets.load_dataset` reads, in our columns; without a network."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from adapt.data import emoji_scenes, scan
from adapt.data.hub import Config, load
from adapt.plug import UserError
from adapt.vision.masks import rle
from adapt.vision.pictures import BOXES, MASKS


@pytest.fixture
def parquet(tmp_path, make):
    """40 rows: img, class name, text, more; sorted by class."""

    def write(name="data.parquet", **columns):
        rows = {
            "img": [{"bytes": make.encode(make.picture(i, mode="RGBA"), "PNG"), "path": None} for i in range(40)],
            "kind": ["cat"] * 20 + ["dog"] * 20,
            "text": [f"picture {i}" for i in range(40)],
            "more": [0.5] * 40,
        } | columns
        features = Features(img=Image(), kind=Value("string"), text=Value("string"), more=Value("float32"))
        features |= {key: ClassLabel(names=["x", "y"]) for key in columns if key == "coded"}
        features |= {key: Value("string") for key in columns if key == "caption"}
        features |= {key: Value("int64") for key in columns if key == "number"}
        Dataset.from_dict(rows, Features(features)).to_parquet(tmp_path / name)
        return str(tmp_path / name)

    return write


def test_a_parquet_file_becomes_samples_with_a_split_by_class(parquet):
    splits = load(Config(path=parquet(), image="img", label="kind", caption="text", validation=0.1, test=0.2))
    assert splits["train"].column_names == ["id", "image", "label", "caption"]
    assert splits["train"].features["label"] == ClassLabel(names=["cat", "dog"])
    assert {name: sorted(rows["label"]) for name, rows in splits.items()} == {
        "train": [0] * 14 + [1] * 14,
        "validation": [0, 0, 1, 1],
        "test": [0] * 4 + [1] * 4,
    }
    row = splits["test"][0]
    assert row["image"].mode == "RGB"
    assert row["caption"] == f"picture {row['id'].split('/')[1]}"


def test_rows_stay_memory_mapped(parquet):
    rows = load(Config(path=parquet(), image="img", caption="text"))["train"]
    assert rows.cache_files
    assert rows.cast_column("image", Image(decode=False))[3]["image"]["bytes"][:4] == b"\x89PNG"


def test_captions_alone_need_no_other_split(parquet):
    path = parquet()
    assert set(load(Config(path=path, image="img", caption="text"))) == {"train"}
    splits = load(Config(path=path, image="img", caption="text", validation=0.1))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 36, "validation": 4}


def test_our_name_for_another_column_is_no_clash(parquet):
    splits = load(Config(path=parquet(caption=["x"] * 40), image="img", caption="text"))
    assert splits["train"][0]["caption"] == "picture 0"


def test_our_own_objects_come_back(tmp_path):
    scenes = emoji_scenes.load(emoji_scenes.Config(size=64, train=3, validation=1, test=1))["train"]
    scenes.to_parquet(tmp_path / "scenes.parquet")
    row = load(Config(path=str(tmp_path / "scenes.parquet")))["train"][2]
    assert row["objects"] == scenes[2]["objects"]
    assert row["suffix"] == scenes[2]["suffix"]


@pytest.fixture
def foreign(tmp_path, make):
    """Four rows with COCO's boxes, the second without any."""

    def write(kind=None, categories=("dog", "cat"), box=(3.0, 4, 10, 6), **more):
        objects = [{"bbox": [] if i == 1 else [box] * 2, "category": [] if i == 1 else list(categories)} for i in range(4)]
        images = [{"bytes": make.encode(make.picture(i)), "path": None} for i in range(4)]
        features = Features(
            image=Image(), objects={"bbox": List(List(Value("float64"))), "category": List(kind or Value("string"))}
        )
        Dataset.from_dict({"image": images, "objects": objects}, features).to_parquet(tmp_path / "foreign.parquet")
        return Config(path=str(tmp_path / "foreign.parquet"), **more)

    return write


def test_boxes_are_left_out_aloud_if_they_are_not_to_be_read(foreign, capsys):
    splits = load(foreign(boxes=None))
    assert splits["train"].column_names == ["id", "image"]
    assert "objects is there, and left out, since data.boxes is null" in capsys.readouterr().out
    assert [(one.problem, one.detail) for one in splits.report.problems] == [("passed over", "the column objects: 4 times")]


@pytest.mark.parametrize(
    ("kind", "categories", "names"),
    [
        (Value("string"), ("dog", "cat"), ["cat", "dog"]),
        (Value("int64"), (7, 3), ["3", "7"]),
        (ClassLabel(names=["cat", "dog", "owl"]), (1, 0), ["cat", "dog", "owl"]),
    ],
)
def test_boxes_of_others_become_ours(foreign, kind, categories, names):
    rows = load(foreign(kind, categories, boxes="xywh"))["train"]
    assert rows.features["objects"] == {"bbox": BOXES, "category": List(ClassLabel(names=names))}
    assert rows["objects"][:2] == [{"bbox": [[3, 4, 13, 10]] * 2, "category": [1, 0]}, {"bbox": [], "category": []}]
    assert rows[0]["image"].size == (24, 16)


def test_boxes_in_another_order_are_found(foreign):
    with pytest.raises(
        UserError, match=r"as xyxy .*, 6 of 6 boxes are .*, such as 'train/0': 12, 9, 10, 6\. .*data\.boxes=xywh"
    ):
        load(foreign(box=(12.0, 9, 10, 6), boxes="xyxy"))
    with pytest.raises(
        UserError, match=r"as xywh .*, 6 of 6 boxes are .*, such as 'train/0': 12, 9, 23, 15\. .*data\.boxes=xyxy"
    ):
        load(foreign(box=(12.0, 9, 23, 15), boxes="xywh"))
    with pytest.raises(UserError, match=r"'train/0': box unreadable \(object 0: \[1\.0, 2\.0\]\)"):
        load(foreign(box=(1.0, 2), boxes="xywh"))
    with pytest.raises(UserError, match=r"data\.boxes: objects of train must hold bbox .* category_id, numbers or names"):
        load(foreign(kind=Value("float64"), categories=(0.5, 1), boxes="xywh"))


@pytest.fixture
def spoilt(tmp_path, make):
    """Ten rows with a box each; of row 2 it is reversed, of row 5 off the picture; picture 7 is cut."""
    pictures = [{"bytes": make.encode(make.picture(i), "PNG"), "path": None} for i in range(10)]
    pictures[7]["bytes"] = pictures[7]["bytes"][:200]
    boxes = [[[9.0, 9, 3, 3]] if i == 2 else [[3.0, 3, 99, 9]] if i == 5 else [[3.0, 3, 9, 9]] for i in range(10)]
    mask = rle(np.ones((16, 24), bool))
    objects = [{"bbox": each, "category": [0], "mask": [mask]} for each in boxes]
    features = Features(image=Image(), objects={"bbox": BOXES, "category": [ClassLabel(names=["cat"])], "mask": MASKS})
    Dataset.from_dict({"image": pictures, "objects": objects}, features).to_parquet(tmp_path / "spoilt.parquet")
    return tmp_path / "spoilt.parquet"


def test_bad_pictures_and_boxes_stop_before_training(spoilt):
    with pytest.raises(UserError) as error:
        load(Config(path=str(spoilt)))
    lines = str(error.value).splitlines()
    assert lines[0].startswith("data.path: 'train/2': box reversed (object 0: 9, 9, 3, 3); write boxes as left, top")
    assert lines[1].startswith("data.path: 'train/5': box off the image (object 0: 3, 3, 99, 9; the image is 24 × 16); clip")
    assert lines[2].startswith("data.path: 'train/7': truncated")
    assert lines[3].startswith("data.on_error=skip")


def test_bad_rows_are_left_out_and_listed(spoilt):
    splits = load(Config(path=str(spoilt), on_error="skip", test=0.3))
    left = [f"train/{i}" for i in (0, 1, 3, 4, 6, 8, 9)]
    assert sorted([*splits["train"]["id"], *splits["test"]["id"]]) == left
    assert {problem.id for problem in splits.report.severe} == {"train/2", "train/5", "train/7"}


def test_rows_that_cannot_be_read_at_all_are_left_out_and_listed(foreign, tmp_path):
    """A box of two numbers, and boxes without categories: before, the first of them stopped the set in spite of on_error."""
    load(foreign(boxes="xywh"))
    rows = Dataset.from_parquet(str(tmp_path / "foreign.parquet"))
    objects = rows["objects"][:]
    objects[0]["bbox"][0], objects[2]["category"] = [1.0, 2.0], ["dog"]
    feature = rows.features["objects"]
    rows.remove_columns("objects").add_column("objects", objects, feature=feature).to_parquet(tmp_path / "more.parquet")
    config = Config(path=str(tmp_path / "more.parquet"), boxes="xywh")
    with pytest.raises(UserError, match=r"'train/2': box unreadable \(2 bbox, 1 category: not as many of each\)"):
        load(config)
    splits = load(config.model_copy(update={"on_error": "skip"}))
    assert splits["train"]["id"] == ["train/1", "train/3"]
    assert [(problem.id, problem.problem) for problem in splits.report.severe] == [
        ("train/0", "box unreadable"),
        ("train/2", "box unreadable"),
    ]


def test_pictures_that_are_missing_or_outside_are_left_out_and_listed(photos, tmp_path, make):
    (tmp_path / "secret.jpg").write_bytes(make.encode(make.picture()))
    lines = [f"{path.relative_to(photos)},{path.parent.name}" for path in sorted(photos.rglob("*.jpg"))]
    (photos / "list.csv").write_text("\n".join(["image,label", "../secret.jpg,cat", *lines, "cat/gone.jpg,cat"]))
    with pytest.raises(UserError, match="outside"):
        load(Config(path=str(photos / "list.csv")))
    splits = load(Config(path=str(photos / "list.csv"), on_error="skip"))
    assert sum(map(len, splits.values())) == 20
    assert {problem.id: problem.problem for problem in splits.report.severe} == {
        "train/0": "leads outside",
        "train/21": "unreadable",
    }


def test_rows_without_a_class_are_left_out_and_listed_unless_all_of_a_split_are(parquet):
    config = Config(path=parquet(coded=[0, 1] * 18 + [-1] * 4), image="img", label="coded", test=0, validation=0)
    with pytest.raises(UserError, match=r"data\.label: 4 of 40 rows of train have no class"):
        load(config)
    splits = load(config.model_copy(update={"on_error": "skip"}))
    assert len(splits["train"]) == 36
    assert splits.report.counts()["no class"] == len(splits.report.severe) == 4
    hidden = {"splits": {"train": "train[:36]", "test": "train[36:]"}, "on_error": "skip"}
    with pytest.raises(UserError, match=r"data\.label: 4 of 4 rows of test have no class"):
        load(config.model_copy(update=hidden))


def test_validation_and_test_share_no_rows(parquet):
    with pytest.raises(UserError, match=r"data\.splits: validation and test share rows 30 to 34 of 'train'"):
        load(
            Config(
                path=parquet(),
                image="img",
                splits={"train": "train[:20]", "validation": "train[20:35]", "test": "train[30:]"},
            )
        )


def test_rows_are_opened_again_only_when_they_have_changed(spoilt, monkeypatch):
    config = Config(path=str(spoilt), on_error="skip")
    before = load(config).report
    opened = []
    look = scan.inspect
    monkeypatch.setattr(scan, "inspect", lambda value: opened.append(1) or look(value))
    assert load(config).report == before and not opened
    Dataset.from_parquet(str(spoilt)).select([0, 1, 2]).to_parquet(spoilt)
    assert load(config).report.counts() == {"box reversed": 1} and len(opened) == 3


def test_numbers_and_class_labels_are_classes_too(parquet):
    path = parquet(number=[3, 10] * 20, coded=[0, 1] * 20)
    assert load(Config(path=path, image="img", label="number"))["train"].features["label"].names == ["3", "10"]
    assert load(Config(path=path, image="img", label="coded"))["train"].features["label"].names == ["x", "y"]


def test_a_glob_of_files_is_one_split(parquet, tmp_path):
    parquet("a.parquet")
    parquet("b.parquet")
    assert len(load(Config(path=str(tmp_path / "*.parquet"), image="img"))["train"]) == 80


def test_each_split_says_where_its_rows_come_from(parquet):
    drawn = load(Config(path=parquet(), image="img", label="kind", validation=0.125))
    assert drawn.origin == {
        "train": "what is left of their 'train'",
        "validation": "12.5 % drawn from their 'train', since there is no validation split",
        "test": "15 % drawn from their 'train', since there is no test split",
    }
    named = load(Config(path=parquet(), image="img", splits={"train": "train[:30]", "test": "train[30:]"}))
    assert named.origin == {"train": "their 'train[:30]'", "test": "their 'train[30:]'"}


def test_slices_make_splits(parquet):
    splits = load(Config(path=parquet(), image="img", splits={"train": "train[:50%]+train[30:]", "validation": "train[20:30]"}))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 30, "validation": 10}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "imag"}, r"data\.image: no column 'imag' in train\. Pictures are in: img\. Did you mean 'img'\?"),
        ({"label": "kin"}, r"data\.label: no column 'kin' in train\. Did you mean 'kind'\?"),
        ({"caption": "more"}, r"data\.caption: 'more' holds .*float"),
        ({"label": "more"}, r"data\.label: it holds .*float"),
        ({"image": "kind"}, r"data\.image: 'kind' names '.*cat', which is not a file"),
        ({"label": "text", "caption": "text"}, r"data\.caption: 'text' is already one of our other columns"),
        ({"image": "more"}, r"data\.image: 'more' holds .*, not pictures"),
        ({"splits": {"train": "train", "test": "train[90%:]"}}, r"data\.splits: train and test share rows 36 to 39 of 'train'"),
        ({"splits": {"train": "tran"}}, r"data\.splits\.train: 'tran' is not one of its splits\. Have: train \(40 rows\)"),
        ({"splits": {"train": "train[:x%]"}}, r"data\.splits\.train: 'train\[:x%\]' is not one"),
        ({"splits": {"test": "train"}}, "which is train"),
        ({"splits": {"train": "train[:0]"}}, r"data\.splits\.train: 'train\[:0\]' has no rows"),
        (
            {"label": "kind", "splits": {"train": "train[:50%]", "test": "train[50%:]"}},
            r"data\.label: train has only one class, 'cat'",
        ),
    ],
)
def test_mistakes_are_one_clear_line(parquet, options, message):
    config = Config(**({"path": parquet(), "image": "img"} | options))
    with pytest.raises(UserError, match=message) as error:
        load(config)
    assert "\n" not in str(error.value)


def test_a_class_that_training_never_saw_is_a_user_error(parquet):
    path = parquet(kind=["cat"] * 15 + ["dog"] * 15 + ["bird"] * 10)
    with pytest.raises(UserError, match=r"data\.label: test has classes that train never saw: 'bird'"):
        load(Config(path=path, image="img", label="kind", splits={"train": "train[:30]", "test": "train[30:]"}))


def test_rows_without_a_class_are_a_user_error(parquet):
    # how the hub's hidden test labels look
    path = parquet(coded=[0, 1] * 15 + [-1] * 10)
    with pytest.raises(UserError, match=r"data\.label: 10 of 10 rows of test have no class"):
        load(Config(path=path, image="img", label="coded", splits={"train": "train[:30]", "test": "train[30:]"}))


def test_an_imagefolder_is_read_with_its_splits(photos, tmp_path):
    for split, last in (("train", "01234567"), ("test", "89")):
        for name in ("cat", "dog"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in last:
                (photos / name / f"{i}.jpg").rename(tmp_path / "set" / split / name / f"{i}.jpg")
    splits = load(Config(path=str(tmp_path / "set"), validation=0))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 16, "test": 4}
    assert splits["test"].features["label"].names == ["cat", "dog"]
    assert splits["test"][0]["image"].size == (24, 16)


def archive(path, make, **texts) -> str:
    """Twelve pictures in a WebDataset archive, with files of other endings: ending=function of the number."""
    with tarfile.open(path, "w") as tar:
        for i in range(12):
            files = {"jpg": make.encode(make.picture(i))} | {name: text(i).encode() for name, text in texts.items()}
            for ending, data in files.items():
                info = tarfile.TarInfo(f"{i:03}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return str(path)


def test_class_names_in_a_cls_are_one_clear_line_and_a_txt_is_read(tmp_path, make):
    with pytest.raises(
        UserError, match=r"data\.path: a \.cls in '.*shard\.tar' holds 'cat', and must hold a class's number"
    ) as error:
        load(Config(path=archive(tmp_path / "shard.tar", make, cls=lambda i: ("cat", "dog")[i % 2]), image="jpg", label="cls"))
    assert "\n" not in str(error.value)
    path = archive(tmp_path / "names.tar", make, txt=lambda i: ("cat", "dog")[i % 2])
    assert load(Config(path=path, image="jpg", label="txt"))["train"].features["label"].names == ["cat", "dog"]


def test_a_webdataset_archive_is_read(tmp_path, make):
    archive(tmp_path / "shard.tar", make, cls=lambda i: str(i % 3), txt=lambda i: "a thing")
    splits = load(Config(path=str(tmp_path / "shard.tar"), image="jpg", label="cls", caption="txt"))
    assert splits["train"].features["label"].names == ["0", "1", "2"]
    row = splits["test"][0]
    assert (row["image"].mode, row["caption"], int(row["id"]) % 3) == ("RGB", "a thing", row["label"])


def test_relative_paths_in_tables_of_several_folders_are_refused_and_absolute_ones_read(tmp_path, make):
    for day in (1, 2):
        (tmp_path / f"day{day}").mkdir()
        for i in range(4):
            make.picture(10 * day + i).save(tmp_path / f"day{day}" / f"{i}.png")
    for day in (1, 2):
        (tmp_path / f"day{day}" / "labels.csv").write_text(
            "image,label\n" + "".join(f"{i}.png,{'ab'[i % 2]}\n" for i in range(4))
        )
    with pytest.raises(
        UserError, match=r"data\.image: 'image' names '0.png', and the tables lie in several folders: .*day1.*day2"
    ):
        load(Config(path=str(tmp_path / "day*" / "labels.csv"), validation=0, test=0))
    for day in (1, 2):
        lines = "".join(f"{tmp_path}/day{day}/{i}.png,{'ab'[i % 2]}\n" for i in range(4))
        (tmp_path / f"day{day}" / "labels.csv").write_text(f"image,label\n{lines}")
    rows = load(Config(path=str(tmp_path / "day*" / "labels.csv"), validation=0, test=0))["train"]
    found = [np.asarray(image).tobytes() for image in rows["image"]]
    assert found == [np.asarray(make.picture(10 * day + i)).tobytes() for day in (1, 2) for i in range(4)]


def test_a_csv_of_paths_reads_pictures_beside_it_and_none_elsewhere(photos, tmp_path, make):
    lines = [f"{path.relative_to(photos)},{path.parent.name}" for path in sorted(photos.rglob("*.jpg"))]
    (photos / "list.csv").write_text("\n".join(["image,label", *lines]))
    splits = load(Config(path=str(photos / "list.csv")))
    assert splits["train"][0]["image"].mode == "RGB"
    (tmp_path / "secret.jpg").write_bytes(make.encode(make.picture()))
    (photos / "list.csv").write_text("\n".join(["image,label", *lines, "../secret.jpg,cat"]))
    with pytest.raises(UserError, match=r"secret\.jpg' lies outside"):
        load(Config(path=str(photos / "list.csv")))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("owner/name", "no file or folder here, and the hub cannot be reached"),
        ("./nowhere", "no file or folder './nowhere'"),
        ("nowhere.parquet", "no file or folder 'nowhere.parquet'"),
        ("some/*.parquet", r"no file or folder 'some/\*.parquet'"),
    ],
)
def test_what_cannot_be_had_is_one_clear_line(path, message, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=rf"^data\.path: .*{message}") as error:
        load(Config(path=path))
    assert "\n" not in str(error.value)


def test_broken_files_are_one_clear_line(tmp_path):
    (tmp_path / "data.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UserError, match=r"data\.path: .*data\.parquet' cannot be read"):
        load(Config(path=str(tmp_path / "data.parquet")))
    (tmp_path / "data.xyz").write_bytes(b"")
    with pytest.raises(UserError, match=r"has files \.xyz"):
        load(Config(path=str(tmp_path / "data.xyz")))
