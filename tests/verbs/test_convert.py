"""`adapt convert`: data in another format say the same; COCO's own files stay word by word."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Image as Stored
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from adapt.cli import main
from adapt.data import coco, folder, masks, voc, yolo
from adapt.plug import UserError, load, schema
from adapt.verbs.convert import convert
from adapt.verbs.converting.request import FORMATS, Request, parse
from adapt.vision.masks import rle, unrle

SIZE = (60, 40)


def picture(path: Path, number: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)).save(path)


def disk() -> np.ndarray:
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    return (x - 30) ** 2 + (y - 20) ** 2 < 150


@pytest.fixture
def original(tmp_path) -> Path:
    """COCO as it comes: ids with gaps, fields that nobody knows, polygons, both kinds of run lengths, a crowd, a picture of nothing."""
    root = tmp_path / "COCO"
    for number in range(12):
        picture(root / "images" / "deep" / f"{number}.png", number)
    counts = [int(n) for n in np.diff(np.flatnonzero(np.diff(np.r_[-1, disk().T.ravel().astype(int), -1]) != 0))]
    counts = counts if not disk()[0, 0] else [0, *counts]
    document = {
        "info": {"description": "mine", "year": 2017},
        "licenses": [{"id": 4, "name": "free"}],
        "videos": [],
        "categories": [
            {"id": 3, "name": "cup", "supercategory": "kitchen", "keypoints": ["handle"]},
            {"id": 90, "name": "spoon", "supercategory": "kitchen"},
            {"id": 17, "name": "cat", "supercategory": "animal"},
        ],
        "images": [
            {"id": 1000 + 7 * n, "file_name": f"deep/{n}.png", "width": 60, "height": 40, "license": 4, "date": f"d{n}"}
            for n in range(12)
        ],
        "annotations": [],
    }
    polygon = [[10.1, 10.2, 30.3, 10.2, 30.3, 25.7], [40, 5, 50, 5, 50, 15.123456789012345, 40, 15]]
    for n in range(11):  # the last picture has nothing
        document["annotations"] += [
            {
                "id": 50 + n,
                "image_id": 1000 + 7 * n,
                "category_id": 3,
                "bbox": [10.1, 5, 39.9 + n / 7, 20.7],
                "area": 123.456 + n,
            }
            | {"segmentation": polygon, "iscrowd": 0, "attributes": {"seen": n}},
            {
                "id": 9_000_000_000 + n,
                "image_id": 1000 + 7 * n,
                "category_id": (90, 17)[n % 2],
                "bbox": [17, 7, 26, 26],
                "area": 0.1,
            }
            | {"segmentation": {"size": [40, 60], "counts": counts if n % 3 else rle(disk())["counts"]}, "iscrowd": int(n == 4)}
            | {"keypoints": [1, 2, 2], "num_keypoints": 1},
        ]
    (root / "all.json").write_text(json.dumps(document))
    return root


def converted(source: str, path, to: str, out: Path, copy: bool = False, **options):
    config = schema("data", source).model_validate({"source": source, "path": str(path)} | options)
    return convert(config, Request(to, str(out), copy))


def documents(out: Path, kind: str = "instances") -> dict[str, dict]:
    return {
        file.stem.split("_")[1]: json.loads(file.read_text()) for file in sorted((out / "annotations").glob(f"{kind}_*.json"))
    }


def joined(out: Path, name: str) -> list[dict]:
    return sorted((one for document in documents(out).values() for one in document[name]), key=lambda one: one["id"])


# -------------------------------------------------------------------------------------------------------- COCO to COCO


def test_coco_to_coco_keeps_every_entry_word_by_word(original, tmp_path):
    found = converted("coco", original, "coco", tmp_path / "out")
    before = json.loads((original / "all.json").read_text())
    assert found.pictures == {"train": 8, "val": 2, "test": 2}
    assert joined(tmp_path / "out", "images") == before["images"]  # ids, licences, dates, and the picture of nothing
    assert joined(tmp_path / "out", "annotations") == sorted(before["annotations"], key=lambda one: one["id"])
    for document in documents(tmp_path / "out").values():
        rest = {name: document[name] for name in document if name not in ("images", "annotations")}
        assert rest == {name: before[name] for name in before if name not in ("images", "annotations")}
        mine = {image["id"] for image in document["images"]}
        assert {one["image_id"] for one in document["annotations"]} <= mine


def test_what_is_written_is_read_by_pycocotools_and_by_us_as_before(original, tmp_path):
    converted("coco", original, "coco", tmp_path / "out")
    before = coco.load(coco.Config(path=str(original)))
    after = coco.load(coco.Config(path=str(tmp_path / "out")))
    assert {split: len(rows) for split, rows in after.items()} == {split: len(rows) for split, rows in before.items()}
    for split, rows in before.items():
        assert rows["objects"][:] == after[split]["objects"][:]
        assert rows["image_id"][:] == after[split]["image_id"][:]
    old, new = COCO(original / "all.json"), COCO(tmp_path / "out" / "annotations" / "instances_train.json")
    for number in new.getAnnIds():
        assert np.array_equal(new.annToMask(new.anns[number]), old.annToMask(old.anns[number]))
    for image in new.imgs.values():
        assert (tmp_path / "out" / "images" / image["file_name"]).is_file()


def test_classes_that_are_renamed_joined_and_left_out(original, tmp_path):
    converted("coco", original, "coco", tmp_path / "out", classes={"spoon": "cup", "cat": None}, validation=0, test=0)
    document = documents(tmp_path / "out")["train"]
    assert document["categories"] == [{"id": 3, "name": "cup", "supercategory": "kitchen", "keypoints": ["handle"]}]
    before = json.loads((original / "all.json").read_text())
    left = [one | {"category_id": 3} for one in before["annotations"] if one["category_id"] != 17]
    assert document["annotations"] == left
    assert len(document["images"]) == 12  # those that lost their cat stay, as negatives


def test_captions_of_files_of_their_own_stay_there(original, tmp_path):
    document = json.loads((original / "all.json").read_text())
    (original / "annotations").mkdir()
    (original / "all.json").rename(original / "annotations" / "instances_train.json")
    said = [{"id": 50 + n, "image_id": one["id"], "caption": f"picture {n} …"} for n, one in enumerate(document["images"])]
    text = json.dumps({"images": document["images"], "annotations": said})
    (original / "annotations" / "captions_train.json").write_text(text)
    converted("coco", original, "coco", tmp_path / "out")
    found = documents(tmp_path / "out", "captions")
    assert sorted((one for each in found.values() for one in each["annotations"]), key=lambda one: one["id"]) == said
    assert [len(each["images"]) for each in found.values()] == [
        len(each["images"]) for each in documents(tmp_path / "out").values()
    ]
    rows = coco.load(coco.Config(path=str(tmp_path / "out")))["train"]
    assert rows["caption"][0][0].startswith("picture ")


def test_limit_group_and_masks_hold(original, tmp_path):
    converted("coco", original, "coco", tmp_path / "out", limit=3, validation=0, test=0, masks=False)
    document = documents(tmp_path / "out")["train"]
    assert len(document["images"]) == 3
    assert all(one["segmentation"] == [] for one in document["annotations"]) and document["annotations"]


def test_two_files_that_number_alike_are_not_mixed(original, tmp_path):
    (original / "annotations").mkdir()
    text = (original / "all.json").read_text()
    for name, number in (("instances_a.json", 0), ("instances_b.json", 6)):
        document = json.loads(text)
        document["images"] = [
            one | {"file_name": f"deep/{(n + number) % 12}.png"} for n, one in enumerate(document["images"][:6])
        ]
        document["annotations"] = document["annotations"][:12]
        (original / "annotations" / name).write_text(json.dumps(document))
    (original / "all.json").unlink()
    with pytest.raises(UserError, match=r"image id \d+ means different things in instances_a.json and instances_b.json"):
        converted("coco", original, "coco", tmp_path / "out", validation=0, test=0)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------- to another


def flat(splits) -> dict[str, list]:
    """File name → category names and boxes, in their order."""
    found = {}
    for rows in splits.values():
        names = rows.features["objects"]["category"].feature.names
        for row in rows.cast_column("image", Stored(decode=False)).select_columns(["image", "objects"]):
            objects = row["objects"]
            found[Path(row["image"]["path"]).stem.split("_")[-1]] = [
                (names[category], box) for category, box in zip(objects["category"], objects["bbox"], strict=True)
            ]
    return found


@pytest.mark.parametrize(("to", "source", "tolerance"), [("coco", coco, 1e-9), ("yolo", yolo, 1e-4), ("voc", voc, 0.5)])
def test_boxes_go_to_a_format_and_back(original, tmp_path, to, source, tolerance):
    converted("coco", original, "yolo", tmp_path / "first", on_error="skip")
    before = flat(yolo.load(yolo.Config(path=str(tmp_path / "first"))))
    converted("yolo", tmp_path / "first", to, tmp_path / "second")
    after = flat(source.load(source.Config(path=str(tmp_path / "second"))))
    assert after.keys() == before.keys()
    for name, objects in before.items():
        assert [category for category, _ in after[name]] == [category for category, _ in objects]
        assert np.allclose([box for _, box in after[name]], [box for _, box in objects], rtol=0, atol=tolerance)


def test_yolo_to_coco_and_back_is_the_same_to_a_ten_thousandth_of_a_pixel(original, tmp_path):
    converted("coco", original, "yolo", tmp_path / "a")
    converted("yolo", tmp_path / "a", "coco", tmp_path / "b")
    converted("coco", tmp_path / "b", "yolo", tmp_path / "c")
    files = sorted(file.relative_to(tmp_path / "a") for file in (tmp_path / "a" / "labels").rglob("*.txt"))
    assert files and len(files) == 12
    other = {file.name: file for file in (tmp_path / "c" / "labels").rglob("*.txt")}
    for file in files:
        one, two = (
            np.array(text.split(), float).reshape(-1, 5)
            for text in ((tmp_path / "a" / file).read_text(), other[file.name].read_text())
        )
        assert np.array_equal(one[:, 0], two[:, 0])
        assert np.allclose(one[:, 1:] * [60, 40, 60, 40], two[:, 1:] * [60, 40, 60, 40], rtol=0, atol=1e-4)
    assert yaml.safe_load((tmp_path / "c" / "data.yaml").read_text())["names"] == {0: "cup", 1: "spoon", 2: "cat"}
    assert sum(not (tmp_path / "a" / file).read_text() for file in files) == 1  # the picture of nothing: a negative


def test_pictures_in_folders_called_images_have_their_labels_where_readers_look(tmp_path):
    root = tmp_path / "roboflow"
    for number, split in enumerate(("train", "valid")):
        for n in range(3):
            picture(root / split / "images" / f"{n}.png", 10 * number + n)
            (root / split / "labels").mkdir(exist_ok=True)
            (root / split / "labels" / f"{n}.txt").write_text(f"{n % 2} 0.5 0.5 0.{n + 1} 0.{number + 2}\n")
    (root / "data.yaml").write_text("train: ../train/images\nval: ../valid/images\nnames: [cup, plate]\n")
    before = yolo.load(yolo.Config(path=str(root), test=0))
    converted("yolo", root, "yolo", tmp_path / "out", test=0)
    after = yolo.load(yolo.Config(path=str(tmp_path / "out"), test=0))
    for split, rows in before.items():
        assert [one["category"] for one in rows["objects"]] == [one["category"] for one in after[split]["objects"]]
        for one, two in zip(rows["objects"], after[split]["objects"], strict=True):
            assert one["bbox"] and np.allclose(one["bbox"], two["bbox"], rtol=0, atol=1e-4)


def test_masks_of_another_source_become_run_lengths_bit_for_bit(tmp_path):
    numbers = np.random.default_rng(0)
    for n in range(6):
        picture(tmp_path / "photos" / "images" / f"{n}.png", n)
        drawn = numbers.integers(0, 3, (40, 60)).astype(np.uint8)
        drawn[0] = 255
        (tmp_path / "photos" / "masks").mkdir(exist_ok=True)
        Image.fromarray(drawn).save(tmp_path / "photos" / "masks" / f"{n}.png")
    (tmp_path / "photos" / "classes.yaml").write_text("{0: background, 1: leaf, 2: stem, 255: ignore}")
    before = masks.load(masks.Config(path=str(tmp_path / "photos")))
    converted("masks", tmp_path / "photos", "coco", tmp_path / "coco")
    for image in joined(tmp_path / "coco", "images"):
        drawn = np.asarray(Image.open(tmp_path / "photos" / "masks" / Path(image["file_name"]).name))
        mine = [one for one in joined(tmp_path / "coco", "annotations") if one["image_id"] == image["id"]]
        assert [one["segmentation"] for one in mine] == [rle(drawn == one["category_id"]) for one in mine] and mine
        assert [one["area"] for one in mine] == [int((drawn == one["category_id"]).sum()) for one in mine]
        assert all(np.array_equal(coco_mask.decode(one["segmentation"]), drawn == one["category_id"]) for one in mine)
    converted("masks", tmp_path / "photos", "png", tmp_path / "png")
    after = masks.load(masks.Config(path=str(tmp_path / "png")))
    for split, rows in before.items():
        assert rows["objects"][:] == after[split]["objects"][:]
        for one, two in zip(rows["segmentation"], after[split]["segmentation"], strict=True):
            assert np.array_equal(np.asarray(one), np.asarray(two))
            assert 255 in np.asarray(two)


def test_the_embedded_world_as_coco_is_read_as_it_was(tmp_path):
    config = schema("data", "emoji_scenes").model_validate({"source": "emoji_scenes", "train": 6, "validation": 2, "test": 2})
    convert(config, Request("coco", str(tmp_path / "out")))
    before = load("data", "emoji_scenes").load(config)
    after = coco.load(coco.Config(path=str(tmp_path / "out")))
    for split, rows in before.items():
        assert [[text] if isinstance(text, str) else text for text in rows["caption"]] == after[split]["caption"][:]
        for one, two, old, new in zip(
            rows["objects"], after[split]["objects"], rows["image"], after[split]["image"], strict=True
        ):
            assert np.allclose(one["bbox"], two["bbox"], rtol=0, atol=1e-9)
            assert one["category"] == two["category"] and one["mask"] == two["mask"]
            assert np.array_equal(np.asarray(old), np.asarray(new))


def test_classes_of_pictures_go_to_a_table_and_to_folders_and_back(tmp_path):
    for n in range(20):
        picture(tmp_path / "photos" / ("ant" if n % 2 else "bee, wild") / f"{n}.png", n)
    before = folder.load(folder.Config(path=str(tmp_path / "photos")))
    found = converted("folder", tmp_path / "photos", "csv", tmp_path / "csv", copy=True)
    assert (
        found.pictures
        == {"train": 12, "val": 4, "test": 4}
        == {word: len(before[split]) for word, split in (("train", "train"), ("val", "validation"), ("test", "test"))}
    )
    with open(tmp_path / "csv" / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(not (tmp_path / "csv" / row["path"]).is_symlink() for row in rows)
    assert {row["label"] for row in rows} == {"ant", "bee, wild"}
    converted("table", tmp_path / "csv" / "labels.csv", "folder", tmp_path / "folders")
    after = folder.load(folder.Config(path=str(tmp_path / "folders")))
    for split, rows in before.items():
        assert sorted(np.asarray(image).tobytes() for image in rows["image"]) == sorted(
            np.asarray(image).tobytes() for image in after[split]["image"]
        )
        names = rows.features["label"].names
        assert names == after[split].features["label"].names
        assert sorted(rows["label"][:]) == sorted(after[split]["label"][:])


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("dog/big_1.png", "dog_big/1.png", "cat/2.png"), {"dog_big": "dog"}),
        (("cat/day/1_001.png", "cat/day_1/001.png", "dog/2.png"), {}),
    ],
)
def test_pictures_whose_names_meet_in_one_folder_stay_two_and_the_originals_stay_as_they_were(tmp_path, names, classes, copy):
    for number, name in enumerate(names):
        picture(tmp_path / "pets" / name, number)
    before = {name: (tmp_path / "pets" / name).read_bytes() for name in names}
    converted("folder", tmp_path / "pets", "folder", tmp_path / "out", copy, classes=classes, validation=0, test=0)
    assert {name: (tmp_path / "pets" / name).read_bytes() for name in names} == before
    assert sorted(file.read_bytes() for file in (tmp_path / "out").rglob("*.png")) == sorted(before.values())


@pytest.mark.parametrize("copy", [False, True])
def test_a_picture_is_never_written_over_another(tmp_path, copy):
    from adapt.verbs.converting.rows import Rows

    for n in range(4):
        picture(tmp_path / "photos" / ("ant" if n % 2 else "bee") / f"{n}.png", n)
    rows = Rows(folder.load(folder.Config(path=str(tmp_path / "photos"), validation=0, test=0)), copy)
    first, second, *_ = rows.lines()
    rows.put(first, tmp_path / "out" / "a.png")
    before = Path(first["row"]["image"]["path"]).read_bytes()
    held = second | {"row": {"image": {"bytes": b"another", "path": None}}}
    for line in (second, held):
        with pytest.raises(UserError, match=f"{second['id']}.*a second 'a.png' in one folder"):
            rows.put(line, tmp_path / "out" / "a.png")
    assert Path(first["row"]["image"]["path"]).read_bytes() == before == (tmp_path / "out" / "a.png").read_bytes()


def test_label_studio_reads_annotations_back(original, tmp_path):
    converted("coco", original, "labelstudio", tmp_path / "out")
    after = load("data", "labelstudio").load(
        schema("data", "labelstudio").model_validate(
            {
                "source": "labelstudio",
                "path": str(tmp_path / "out" / "tasks.json"),
                "images": str(tmp_path / "out" / "images"),
            }
        )
    )
    before = flat(coco.load(coco.Config(path=str(original))))
    for name, objects in flat({split: rows for split, rows in after.items() if split != "unlabelled"}).items():
        singles = [one for one in before[name] if name != "4" or one[0] == "cup"]  # picture 4 has a crowd, which is left out
        assert [category for category, _ in objects] == [category for category, _ in singles]
        assert np.allclose([box for _, box in objects], [box for _, box in singles], rtol=0, atol=1e-9)


def test_torchvision_reads_voc_with_its_lists(original, tmp_path):
    from torchvision.datasets import VOCDetection

    converted("coco", original, "voc", tmp_path / "VOCdevkit" / "VOC2012", copy=True)
    found = VOCDetection(tmp_path, year="2012", image_set="train", download=False)
    assert len(found) == 8
    image, about = found[0]
    assert image.size == SIZE and about["annotation"]["object"][0]["name"] == "cup"


# --------------------------------------------------------------------------------------------------------------- names


def test_pictures_of_one_name_and_of_no_file_get_names_of_their_own(tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    from adapt.data.split import Splits
    from adapt.verbs.converting.rows import Rows
    from adapt.vision.pictures import RGB, encoded

    data = encoded(Image.new("RGB", (8, 8), "red"))
    rows = {"id": ["../../a", "a", "a", None, "x:y/..//z.PNG"], "image": [data] * 5, "label": [0, 1, 0, 1, 0]}
    features = Features(id=Value("string"), image=RGB(), label=ClassLabel(names=["x", "y"]))
    found = Rows(Splits({"train": Dataset.from_dict(rows, features=features)}, {"train": ""}), False)
    assert found.ids == ["a.png", "a_2.png", "a_3.png", "picture.png", "x_y/z.PNG"]


# --------------------------------------------------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["data.path=x", "out=o"], "to: missing"),
        (["data.path=x", "to=coco"], "out: missing"),
        (["data.path=x", "to=cocoo", "out=o"], "Did you mean 'coco'"),
        (["data.path=x", "to=coco", "to=yolo", "out=o"], "to: given twice"),
        (["data.path=x", "to=coco", "out=o", "pictures=move"], "pictures: 'move' is not link or copy"),
        (["to=coco", "out=o"], "convert: which pictures?"),
        (["data.path=x", "to=coco", "out=o", "speed=3"], "convert: 'speed' is unknown"),
    ],
)
def test_a_wrong_command_is_one_line(arguments, said):
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        parse(arguments)


def test_wrong_data_and_places_are_one_line_and_leave_nothing(original, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me")
    for out, to, said in (
        (tmp_path / "full", "coco", "is there and not empty. Give a new folder."),
        (tmp_path / "new", "csv", "to: 'csv' holds classes of pictures, and these data have boxes, masks"),
    ):
        assert main(["convert", f"data.path={original}", f"to={to}", f"out={out}"]) == 2
        assert said in capsys.readouterr().err
    (original / "all.json").write_text((original / "all.json").read_text()[:-300])
    assert main(["convert", f"data.path={original}", "to=yolo", f"out={tmp_path / 'new'}"]) == 2
    assert "no JSON" in capsys.readouterr().err
    assert not (tmp_path / "new").exists() and (tmp_path / "full" / "mine.txt").read_text() == "keep me"


def test_a_class_that_no_folder_can_be_called_is_refused(tmp_path):
    picture(tmp_path / "a.png", 1)
    (tmp_path / "labels.csv").write_text("path,label\n" + "a.png,x/y\n" + "b.png,z\n")
    picture(tmp_path / "b.png", 2)
    with pytest.raises(UserError, match=r"no folder can be called 'x/y'"):
        converted("table", tmp_path / "labels.csv", "folder", tmp_path / "out", validation=0, test=0)


def test_every_format_is_in_the_help_and_has_a_writer():
    from adapt.verbs.converting.request import HELP
    from adapt.verbs.converting.writers import WRITERS

    assert set(FORMATS) == set(WRITERS)
    assert all(f"to={name} " in HELP for name in FORMATS)


def test_the_document_for_programs_says_what_was_done(original, tmp_path, capsys):
    assert main(["convert", f"data.path={original}", "to=yolo", f"out={tmp_path / 'out'}", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["pictures"] == {"train": 8, "val": 2, "test": 2} and document["out"] == str(tmp_path / "out")
    assert "1 region of crowds left out" in " ".join(document["notes"])
    assert unrle(rle(disk())).sum() == disk().sum()
