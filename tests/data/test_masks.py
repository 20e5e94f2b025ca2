"""Pictures with PNG masks beside them."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest
from PIL import Image as Picture

from adapt.data.masks import Config, load
from adapt.plug import UserError
from adapt.vision.masks import box, unrle

SIZE = (24, 16)


def drawn(values: list[tuple[int, tuple[int, int, int, int]]], dtype=np.uint8) -> np.ndarray:
    """Rectangles XYXY of numbers on 0, [16, 24]."""
    mask = np.zeros(SIZE[::-1], dtype)
    for value, (left, top, right, bottom) in values:
        mask[top:bottom, left:right] = value
    return mask


@pytest.fixture
def shapes(tmp_path, make):
    """Ten pictures: a class 1 and, on every other, a class 2; a strip that nobody judged."""
    root = tmp_path / "shapes"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for i in range(10):
        make.picture(i, SIZE).save(root / "images" / f"{i}.jpg")
        values = [(1, (i, 2, i + 6, 9)), (255, (0, 15, 24, 16))] + ([(2, (18, 3, 22, 14))] if i % 2 else [])
        Picture.fromarray(drawn(values)).save(root / "masks" / f"{i}.png")
    (root / "classes.yaml").write_text("{0: background, 1: cat, 2: dog, 255: ignore}")
    return root


def by_id(splits) -> dict:
    return {row["id"]: row for rows in splits.values() for row in rows}


def test_a_class_s_pixels_are_one_object_and_a_map(shapes):
    splits = load(Config(path=str(shapes)))
    rows = by_id(splits)
    assert len(rows) == 10 and {name: len(part) for name, part in splits.items()} == {"train": 6, "validation": 2, "test": 2}
    row = rows["images/3.jpg"]
    assert row["image"].size == SIZE and row["image"].mode == "RGB"
    assert row["objects"]["bbox"] == [[3, 2, 9, 9], [18, 3, 22, 14]]
    names = splits["train"].features["objects"]["category"].feature.names
    assert [names[c] for c in row["objects"]["category"]] == ["cat", "dog"]
    expected = drawn([(1, (3, 2, 9, 9)), (255, (0, 15, 24, 16)), (2, (18, 3, 22, 14))])
    assert (np.asarray(row["segmentation"]) == expected).all()
    assert (unrle(row["objects"]["mask"][1]) == (expected == 2)).all()
    assert splits.report.problems == []
    assert set(splits["train"].column_names) == {"id", "image", "objects", "segmentation"}


def test_the_split_is_seeded_and_the_same_wherever_the_folder_lies(shapes, tmp_path):
    before = {name: list(rows["id"]) for name, rows in load(Config(path=str(shapes))).items()}
    shutil.copytree(shapes, tmp_path / "else" / "where")
    moved = load(Config(path=str(tmp_path / "else" / "where")))
    assert {name: list(rows["id"]) for name, rows in moved.items()} == before
    other = load(Config(path=str(shapes), seed=1))
    assert {name: list(rows["id"]) for name, rows in other.items()} != before


@pytest.mark.parametrize("above", [True, False])
def test_split_folders_are_kept(shapes, above):
    for split, numbers in (("train", range(7)), ("val", range(7, 10))):
        for folder, end in (("images", "jpg"), ("masks", "png")):
            target = shapes / split / folder if above else shapes / folder / split
            target.mkdir(parents=True)
            for i in numbers:
                (shapes / folder / f"{i}.{end}").rename(target / f"{i}.{end}")
    if above:
        (shapes / "images").rmdir()
        (shapes / "masks").rmdir()
    splits = load(Config(path=str(shapes), test=0))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 7, "validation": 3}
    assert splits["train"][0]["id"] == ("train/images/0.jpg" if above else "images/train/0.jpg")


def test_other_numbers_become_categories_from_one(shapes):
    for i in range(10):
        mask = np.where(drawn([(1, (i, 2, i + 6, 9))]) == 1, 40, 7).astype(np.uint8)
        Picture.fromarray(mask).save(shapes / "masks" / f"{i}.png")
    (shapes / "classes.yaml").unlink()
    splits = load(Config(path=str(shapes), background=7))
    assert splits["train"].features["objects"]["category"].feature.names == ["40"]
    row = splits["train"][0]
    assert np.unique(np.asarray(row["segmentation"])).tolist() == [0, 1]
    assert row["objects"]["bbox"] == [box(np.asarray(row["segmentation"]) == 1)]


def test_instances_are_objects_of_their_own(shapes):
    for i in range(10):
        values = [(1, (1, 1, 5, 5)), (2, (8, 1, 12, 5)), (300, (15, 6, 20, 12))]  # 16 bit
        Picture.fromarray(drawn(values, np.uint16)).save(shapes / "masks" / f"{i}.png")
    (shapes / "classes.yaml").unlink()
    splits = load(Config(path=str(shapes), kind="instance"))
    row = splits["train"][0]
    assert row["objects"]["bbox"] == [[1, 1, 5, 5], [8, 1, 12, 5], [15, 6, 20, 12]]
    assert row["objects"]["category"] == [0, 0, 0]
    assert splits["train"].features["objects"]["category"].feature.names == ["object"]


def test_an_instance_s_number_can_hold_its_class(shapes):
    for i in range(10):
        values = [(1001, (1, 1, 5, 5)), (1002, (8, 1, 12, 5)), (2001, (15, 6, 20, 12))]
        Picture.fromarray(drawn(values, np.uint16)).save(shapes / "masks" / f"{i}.png")
    row = load(Config(path=str(shapes), kind="instance", divisor=1000))["train"][0]
    assert row["objects"]["category"] == [0, 0, 1]
    assert np.bincount(np.asarray(row["segmentation"]).ravel()).tolist() == [16 * 24 - 32 - 30, 32, 30]


def test_numbers_below_the_divisor_are_no_instances(shapes):
    for i in range(10):
        mask = drawn([(1001, (1, 1, 5, 5)), (7, (8, 1, 12, 5))], np.uint16)  # a Cityscapes road
        Picture.fromarray(mask).save(shapes / "masks" / f"{i}.png")
    row = load(Config(path=str(shapes), kind="instance", divisor=1000))["train"][0]
    assert row["objects"]["category"] == [0]
    assert np.bincount(np.asarray(row["segmentation"]).ravel()).tolist() == [16 * 24 - 16, 16]


def test_palette_and_grey_written_as_rgb_are_read(shapes):
    for i in range(10):
        mask = Picture.open(shapes / "masks" / f"{i}.png")
        mask.load()
        if i < 5:
            mask = mask.copy()
            mask.putpalette([40, 10, 90] * 256)
        else:
            mask = mask.convert("RGB")
        mask.save(shapes / "masks" / f"{i}.png")
    row = by_id(load(Config(path=str(shapes))))["images/8.jpg"]
    assert row["objects"]["bbox"] == [[8, 2, 14, 9]]


def recoded(mask: np.ndarray, numbers: dict[int, int]) -> np.ndarray:
    """A mask with other numbers, written out."""
    return np.array([[numbers[value] for value in row] for row in mask.tolist()], np.uint8)


DOG = drawn([(1, (3, 2, 9, 9)), (255, (0, 15, 24, 16)), (2, (18, 3, 22, 14))])
"""The mask of picture 3: a cat, a dog, and a strip that nobody judged."""


@pytest.mark.parametrize(
    ("called", "names", "numbers", "objects"),
    [
        ({"dog": "hound"}, ["cat", "hound"], {0: 0, 1: 1, 2: 2, 255: 255}, [0, 1]),
        ({"dog": "cat"}, ["cat"], {0: 0, 1: 1, 2: 1, 255: 255}, [0]),
        ({"cat": "pet", "dog": "pet"}, ["pet"], {0: 0, 1: 1, 2: 1, 255: 255}, [0]),
        ({"cat": None}, ["dog"], {0: 0, 1: 0, 2: 1, 255: 255}, [0]),
    ],
)
def test_classes_are_renamed_joined_and_left_out_in_objects_and_map(shapes, called, names, numbers, objects):
    splits = load(Config(path=str(shapes), classes=called))
    row = by_id(splits)["images/3.jpg"]
    assert splits["train"].features["objects"]["category"].feature.names == names
    assert (np.asarray(row["segmentation"]) == recoded(DOG, numbers)).all()
    assert row["objects"]["category"] == objects
    for category, code, bbox in zip(row["objects"]["category"], row["objects"]["mask"], row["objects"]["bbox"], strict=True):
        here = recoded(DOG, numbers) == category + 1
        assert (unrle(code) == here).all() and bbox == box(here)
    left = [(problem.id, problem.problem, problem.detail) for problem in splits.report.problems]
    assert left == ([("cat", "class left out", "10 objects")] if None in called.values() else [])


def test_a_picture_of_left_out_classes_alone_is_kept_as_background(shapes):
    row = by_id(load(Config(path=str(shapes), classes={"cat": None})))["images/2.jpg"]
    assert row["objects"]["bbox"] == [] and np.unique(np.asarray(row["segmentation"])).tolist() == [0, 255]


def test_names_of_classes_in_latin_1_are_a_user_error(shapes):
    (shapes / "classes.yaml").write_bytes("{0: background, 1: Bär}".encode("latin-1"))
    with pytest.raises(UserError, match=r"data\.path: classes\.yaml: it is not UTF-8\. Save it as UTF-8\."):
        load(Config(path=str(shapes)))


def test_two_numbers_of_one_name_in_classes_yaml_are_one_class(shapes):
    (shapes / "classes.yaml").write_text("{0: background, 1: pet, 2: pet}")
    splits = load(Config(path=str(shapes)))
    assert splits["train"].features["objects"]["category"].feature.names == ["pet"]
    assert by_id(splits)["images/3.jpg"]["objects"]["category"] == [0]


def test_instances_of_joined_classes_stay_objects_of_their_own(shapes):
    (shapes / "classes.yaml").unlink()
    for i in range(10):
        values = [(1001, (1, 1, 5, 5)), (1002, (8, 1, 12, 5)), (2001, (15, 6, 20, 12)), (3001, (0, 13, 3, 15))]
        Picture.fromarray(drawn(values, np.uint16)).save(shapes / "masks" / f"{i}.png")
    # YAML reads the classes' numbers, which are their names, as numbers
    config = Config(path=str(shapes), kind="instance", divisor=1000, classes={1: "thing", 2: "thing", 3: None})
    row = load(config)["train"][0]
    assert row["objects"]["bbox"] == [[1, 1, 5, 5], [8, 1, 12, 5], [15, 6, 20, 12]] and row["objects"]["category"] == [0, 0, 0]
    assert np.bincount(np.asarray(row["segmentation"]).ravel()).tolist() == [16 * 24 - 32 - 30, 32 + 30]
    row = load(Config(path=str(shapes), kind="instance", classes={"object": "cell"}))
    assert row["train"].features["objects"]["category"].feature.names == ["cell"]


def test_more_classes_than_a_map_holds_can_be_joined(shapes):
    (shapes / "classes.yaml").write_text("\n".join(f"{number}: c{number % 2}x{number}" for number in range(1, 400)))
    with pytest.raises(UserError, match="398 classes in the masks"):  # but for 255
        load(Config(path=str(shapes)))
    joined = {f"c{number % 2}x{number}": f"c{number % 2}" for number in range(1, 400) if number != 255}
    assert load(Config(path=str(shapes), classes=joined))["train"].features["objects"]["category"].feature.names == ["c1", "c0"]


def test_other_names_of_classes_are_read_anew_and_wrong_ones_are_one_line(shapes):
    for called in ({}, {"cat": None}, {"cat": "puss"}, {}):
        row = by_id(load(Config(path=str(shapes), classes=called)))["images/3.jpg"]
        assert len(row["objects"]["bbox"]) == (1 if None in called.values() else 2)
    with pytest.raises(
        UserError, match=r"data\.classes: the data have no class 'cats'\. Did you mean 'cat'\? Have: cat, dog\."
    ):
        load(Config(path=str(shapes), classes={"cats": "dog"}))
    with pytest.raises(UserError, match=r"data\.classes leaves out all classes"):
        load(Config(path=str(shapes), classes={"cat": None, "dog": None}))


def spoil(root):
    (root / "masks" / "0.png").unlink()
    Picture.new("L", (10, 10), 1).save(root / "masks" / "1.png")
    Picture.fromarray(drawn([(9, (1, 1, 4, 4))])).save(root / "masks" / "2.png")
    Picture.new("RGB", SIZE, (10, 200, 30)).save(root / "masks" / "3.png")
    Picture.new("L", SIZE, 0).save(root / "masks" / "4.png")
    (root / "masks" / "5.png").rename(root / "masks" / "5b.png")
    (root / "images" / "6.jpg").write_bytes(b"")


def test_each_mistake_is_one_clear_line(shapes):
    spoil(shapes)
    with pytest.raises(UserError) as error:
        load(Config(path=str(shapes)))
    lines = sorted(line.removeprefix("data.path: ") for line in str(error.value).splitlines())
    assert len(lines) == 7
    expected = [
        "'images/0.jpg': no mask (no file masks/0.png); draw a mask",
        "'images/1.jpg': mask of another size (10 × 10; the picture is 24 × 16); scale the mask",
        "'images/2.jpg': unknown class (9; classes.yaml has 1, 2 …); name the number",
        "'images/3.jpg': unreadable mask (its pixels are colours (RGB); a mask has one number for each pixel",
        "'images/5.jpg': no mask (no file masks/5.png)",
        "'images/6.jpg': zero-size",
        "data.on_error=skip",
    ]
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)


def test_a_picture_too_thin_for_any_input_stops_or_is_left_out(shapes, make):
    make.picture(0, (5000, 1)).save(shapes / "images" / "0.jpg")
    Picture.fromarray(np.ones((1, 5000), np.uint8)).save(shapes / "masks" / "0.png")
    with pytest.raises(UserError, match=r"'images/0\.jpg': too thin \(5000 × 1\); crop the picture"):
        load(Config(path=str(shapes)))
    splits = load(Config(path=str(shapes), on_error="skip"))
    assert "images/0.jpg" not in by_id(splits) and splits.report.counts() == {"too thin": 1}


def test_mistakes_are_left_out_and_listed(shapes):
    spoil(shapes)
    splits = load(Config(path=str(shapes), on_error="skip"))
    rows = by_id(splits)
    assert sorted(rows) == [f"images/{i}.jpg" for i in (4, 7, 8, 9)]
    assert rows["images/4.jpg"]["objects"]["bbox"] == [], "nothing in the picture is no mistake"
    counts = splits.report.counts()
    assert counts["no mask"] == 2 and counts["empty mask"] == 1 and counts["mask alone"] == 1
    assert {problem.id for problem in splits.report.problems if problem.problem == "mask alone"} == {"masks/5b.png"}


def test_masks_of_0_and_255_are_told_apart_from_unjudged_pixels(shapes):
    for i in range(10):
        Picture.fromarray(drawn([(255, (1, 1, 9, 9))])).save(shapes / "masks" / f"{i}.png")
    (shapes / "classes.yaml").unlink()
    with pytest.raises(UserError, match=r"all masks of .* are 0 and 255: if 255 is the thing, set data\.ignore=null"):
        load(Config(path=str(shapes)))
    row = load(Config(path=str(shapes), ignore=None))["train"][0]
    assert row["objects"]["bbox"] == [[1, 1, 9, 9]] and np.asarray(row["segmentation"]).max() == 1


def test_masks_without_anything_are_called_empty(shapes):
    for i in range(10):
        Picture.new("L", SIZE, 0).save(shapes / "masks" / f"{i}.png")
    (shapes / "classes.yaml").unlink()
    with pytest.raises(UserError, match=r"all masks of .* are empty: they hold 0 alone"):
        load(Config(path=str(shapes)))


def smooth(i: int) -> Picture.Image:
    """A thing of 255 with an edge in shades of grey."""
    big = Picture.fromarray(np.kron(drawn([(255, (i, 2, i + 9, 13))]), np.ones((4, 4), np.uint8)))
    return big.rotate(10).resize(SIZE, Picture.Resampling.BOX)


@pytest.mark.parametrize("kind", ["smooth", "noise", "one shade", "many"])
@pytest.mark.parametrize("ignore", [255, None])
def test_shades_of_grey_are_no_classes(shapes, kind, ignore):
    for i in range(10):
        noise = np.random.default_rng(i).integers(0, 256, SIZE[::-1], np.uint8)
        one = drawn([(128, (i, 2, i + 9, 13)), (255, (i + 1, 3, i + 8, 12))])
        many = np.kron(np.arange(80, dtype=np.uint8).reshape(8, 10), np.ones((3, 3), np.uint8))[:16, :24] + i % 2 * 40
        mask = {"smooth": np.asarray(smooth(i)), "noise": noise, "one shade": one, "many": many}[kind]
        Picture.fromarray(mask).save(shapes / "masks" / f"{i}.png")
    (shapes / "classes.yaml").unlink()
    with pytest.raises(
        UserError,
        match=r"neither binary nor class numbers: values 0, .* as in 'masks/.\.png'\. Threshold them at 128.*classes\.yaml",
    ):
        load(Config(path=str(shapes), ignore=ignore))
    for i in range(10):
        mask = Picture.open(shapes / "masks" / f"{i}.png").point(lambda value: 255 * (value >= 128))
        mask.save(shapes / "masks" / f"{i}.png")
    if kind in ("smooth", "one shade"):
        load(Config(path=str(shapes), ignore=None))


def test_thin_things_are_classes(shapes):
    for i in range(10):
        mask = drawn([(1, (i, 2, i + 1, 13)), (2, (20, 1, 22, 12)), (255, (0, 14, 24, 15))])
        Picture.fromarray(mask).save(shapes / "masks" / f"{i}.png")
    (shapes / "classes.yaml").unlink()
    assert load(Config(path=str(shapes)))["train"].features["objects"]["category"].feature.names == ["1", "2"]


def test_shades_of_grey_are_no_instances(shapes):
    smooth(2).save(shapes / "masks" / "2.png")
    with pytest.raises(UserError, match=r"'images/2\.jpg': grey mask \(values 0, .*; threshold the mask at 128"):
        load(Config(path=str(shapes), kind="instance"))


def test_names_of_folders_and_of_masks_can_be_said(shapes):
    (shapes / "images").rename(shapes / "JPEGImages")
    (shapes / "masks").rename(shapes / "SegmentationClass")
    with pytest.raises(UserError, match=r"Have: JPEGImages, SegmentationClass\. Other names: data\.images"):
        load(Config(path=str(shapes)))
    for path in list((shapes / "SegmentationClass").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    config = Config(path=str(shapes), images="JPEGImages", masks="SegmentationClass", suffix="_mask")
    assert sum(map(len, load(config).values())) == 10


def test_a_suffix_that_is_not_said_is_one_line_for_all_pictures(shapes):
    for path in list((shapes / "masks").iterdir()):
        path.rename(path.with_name(f"{path.stem}_mask.png"))
    for on_error in ("stop", "skip"):
        with pytest.raises(UserError) as error:
            load(Config(path=str(shapes), on_error=on_error))
        assert str(error.value) == (
            "data.path: no mask beside 10 pictures, such as 'images/0.jpg' (no file masks/0.png); "
            "files there end in _mask.png: set data.suffix=_mask"
        )
    assert sum(map(len, load(Config(path=str(shapes), suffix="_mask")).values())) == 10
    with pytest.raises(
        UserError, match=r"\(no file masks/0_seg\.png\); files there end in _mask\.png: set data\.suffix=_mask$"
    ):
        load(Config(path=str(shapes), suffix="_seg"))


def test_masks_of_wholly_other_names_are_one_line(shapes):
    for path in list((shapes / "masks").iterdir()):
        path.rename(path.with_name(f"m{path.stem}.png"))
    with pytest.raises(UserError, match=r"no mask beside 10 pictures.*files there are called 'masks/m0\.png'") as error:
        load(Config(path=str(shapes)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["cat", "{cat: 1}", "{1: 2}"])
def test_a_wrong_classes_file_is_a_user_error(shapes, text):
    (shapes / "classes.yaml").write_text(text)
    with pytest.raises(UserError, match=r"classes\.yaml must map numbers to names"):
        load(Config(path=str(shapes)))


def test_pictures_with_the_same_bytes_are_never_on_both_sides(shapes):
    for i in range(10):
        shutil.copy(shapes / "images" / f"{i}.jpg", shapes / "images" / f"copy {i}.jpg")
        shutil.copy(shapes / "masks" / f"{i}.png", shapes / "masks" / f"copy {i}.png")
    splits = load(Config(path=str(shapes), validation=0.3, test=0.3))
    sides = {name: {item.removeprefix("images/").removeprefix("copy ") for item in rows["id"]} for name, rows in splits.items()}
    assert not sides["train"] & sides["test"] and not sides["train"] & sides["validation"]
    assert splits.report.counts()["duplicate"] == 10


def test_masks_outside_the_folder_are_not_read(shapes, tmp_path):
    (shapes / "masks" / "0.png").rename(tmp_path / "secret.png")
    (shapes / "masks" / "0.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match=r"'images/0\.jpg': leads outside \(its mask"):
        load(Config(path=str(shapes)))


def test_a_mask_of_the_same_size_and_time_is_read_again(shapes):
    mask = shapes / "masks" / "0.png"
    rgb = Picture.open(mask).convert("L")
    rgb.save(mask, compress_level=0)
    assert by_id(load(Config(path=str(shapes))))["images/0.jpg"]["objects"]["category"] == [0]
    before = mask.stat()
    rgb.point(lambda value: 2 if value == 1 else value).save(mask, compress_level=0)
    os.utime(mask, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert mask.stat().st_size == before.st_size
    assert by_id(load(Config(path=str(shapes))))["images/0.jpg"]["objects"]["category"] == [1]


def test_a_changed_mask_is_read_again(shapes):
    load(Config(path=str(shapes)))
    Picture.fromarray(drawn([(2, (1, 1, 3, 3)), (1, (5, 5, 20, 12))])).save(shapes / "masks" / "0.png")
    assert by_id(load(Config(path=str(shapes))))["images/0.jpg"]["objects"]["bbox"] == [[5, 5, 20, 12], [1, 1, 3, 3]]
