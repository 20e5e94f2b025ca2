"""`adapt doctor data` says what is there and what is wrong with it, whatever the source."""

from __future__ import annotations

import base64
import csv
import io
import json
import sqlite3
import time
from html.parser import HTMLParser
from pathlib import Path

import imagehash
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets import Image as Stored
from PIL import Image, ImageEnhance, ImageOps
from pycocotools.mask import iou

from adapt import hardware
from adapt.cli import main
from adapt.contracts import Input
from adapt.data import emoji
from adapt.data import folder as folders
from adapt.data import scan as scanning
from adapt.data.world import read
from adapt.plug import Plugin, UserError
from adapt.recipe import load_recipe
from adapt.verbs.doctor import _joined, look
from adapt.verbs.doctoring import alike, pictures
from adapt.verbs.doctoring.counts import Balance, measured
from adapt.verbs.doctoring.objects import TWICE, objects_of, scales
from adapt.verbs.doctoring.request import Request, parse
from adapt.verbs.doctoring.rows import examined, input_of
from adapt.vision.masks import rle
from adapt.vision.pictures import BOXES, MASKS, RGB


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hardware, "guard", lambda: None)  # it has been called; in an empty cache it would ask again


def drawing(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Smooth coloured patches, others for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def stored(image: Image.Image, kind: str = "PNG", **options) -> dict:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return {"bytes": out.getvalue(), "path": None}


def rows(images: list[dict], **columns) -> Dataset:
    """Rows of pictures, with columns of (feature, values)."""
    features = {"id": Value("string"), "image": RGB()} | {name: feature for name, (feature, _) in columns.items()}
    values = {"id": [f"p{i}" for i in range(len(images))], "image": images}
    return Dataset.from_dict(values | {name: given for name, (_, given) in columns.items()}, Features(features))


def with_objects(*given: dict, size: tuple[int, int] = (96, 72), **others) -> Dataset:
    """A picture for each dictionary of objects."""
    names = [name for name in given[0] if name in ("bbox", "category", "mask", "iscrowd")]
    kinds = {"bbox": BOXES, "category": [ClassLabel(names=["cat", "dog"])], "mask": MASKS, "iscrowd": [Value("int32")]}
    images = [stored(drawing(i, size)) for i in range(len(given))]
    return rows(images, objects=({name: kinds[name] for name in names}, list(given)), **others)


def looks(data: Dataset) -> pictures.Looks:
    return pictures.looked(DatasetDict(train=data))["train"]


# ----------------------------------------------------------------------------------------------------------------- pictures


def test_the_hash_is_that_of_imagehash_and_the_size_that_of_the_picture():
    images = [drawing(i, (60 + i, 80)) for i in range(5)]
    seen = looks(rows([stored(image) for image in images]))
    theirs = [int(str(imagehash.phash(image)), 16) for image in images]
    assert seen.hash.tolist() == theirs
    assert seen.size.tolist() == [[60 + i, 80] for i in range(5)]
    assert seen.clear.all() and len(set(seen.digest.tolist())) == 5


def test_a_picture_of_one_colour_has_no_hash_and_what_is_no_picture_no_size():
    seen = looks(
        rows([stored(Image.new("RGB", (20, 20), "red")), {"bytes": b"none", "path": None}, {"bytes": None, "path": "/x"}])
    )
    assert seen.clear.tolist() == [False, False, False]
    assert seen.size.tolist() == [[20, 20], [0, 0], [0, 0]]


def test_the_size_is_that_of_the_picture_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert looks(rows([stored(drawing(0, (40, 30)), "JPEG", exif=exif)])).size.tolist() == [[30, 40]]


def test_a_second_look_opens_nothing_and_a_changed_file_is_looked_at_again(tmp_path, monkeypatch):
    files = [tmp_path / f"{i}.png" for i in range(4)]
    for i, file in enumerate(files):
        drawing(i).save(file)
    data = rows([*({"bytes": None, "path": str(file)} for file in files), stored(drawing(9))])
    before = looks(data)
    opened = []
    see = pictures.seen
    monkeypatch.setattr(pictures, "seen", lambda data: opened.append(1) or see(data))
    assert np.array_equal(looks(data).hash, before.hash) and not opened
    drawing(8).save(files[1])
    assert (looks(data).hash != before.hash).tolist() == [False, True, False, False, False]
    assert len(opened) == 1


def odd_files(root: Path) -> None:
    """Two classes of pictures of many formats, modes and turns, one of them broken."""
    exif = Image.Exif()
    exif[0x0112] = 6
    big, small = drawing(0, (900, 700)), drawing(1)
    clear = small.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(small.size))
    deep = Image.fromarray((np.asarray(small.convert("L")).astype(np.uint16) << 8) + 7)
    for name, image, options in [
        ("big.jpg", big, {}), ("turned.jpg", big, {"exif": exif}), ("slow.jpg", big, {"progressive": True}),
        ("print.jpg", big.convert("CMYK"), {}), ("grey.jpg", big.convert("L"), {}), ("small.png", small, {}), ("clear.png", clear, {}),
        ("deep.png", deep, {}), ("few.png", small.quantize(16), {"transparency": 3}), ("turned.tif", small, {"exif": exif}),
        ("film.gif", small.quantize(), {"save_all": True, "append_images": [drawing(2).quantize()]}), ("film.webp", clear, {}),
        ("flat.bmp", Image.new("RGB", (40, 30), "red"), {}), ("bits.png", small.convert("1"), {}),
    ]:  # fmt: skip
        for folder in ("cat", "dog"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            image.save(root / folder / name, **options)
    (root / "cat" / "cut.jpg").write_bytes((root / "cat" / "big.jpg").read_bytes()[:5000])


def memories(cache: Path) -> tuple[dict, dict]:
    """What is remembered of looks, and of scans."""
    with sqlite3.connect(cache / "looks.sqlite") as memory:
        seen = dict(memory.execute("SELECT key, look FROM looks"))
    return seen, {file.name: json.loads(file.read_text()) for file in (cache / "scans").iterdir()}


def test_each_file_is_read_and_decoded_once_and_all_that_is_remembered_is_as_if_it_had_been_twice(tmp_path, monkeypatch):
    odd_files(tmp_path / "photos")
    opened, kept, documents = [], [], []
    for module in (scanning, pictures):
        open_one = module.open_picture
        monkeypatch.setattr(module, "open_picture", lambda value, one=open_one: opened.append(1) or one(value))
    config = folders.Config(source="folder", path=str(tmp_path / "photos"))
    for apart in (False, True):
        cache = tmp_path / f"cache {apart}"
        monkeypatch.setenv("ADAPT_CACHE", str(cache))
        if apart:
            monkeypatch.setattr(pictures.Shared, "_see", lambda *_: None)
        documents.append(look(config, Request(sheet="none"))[1])
        kept.append(memories(cache))
    files = len(list((tmp_path / "photos").rglob("*.*")))
    assert len(opened) == files + (2 * files - 1), "once; then twice, but for the one that cannot be read"
    assert kept[0] == kept[1] and len(kept[0][0]) == files - 1
    assert {**documents[0], "sheet": 0} == {**documents[1], "sheet": 0}
    opened.clear()
    look(config, Request(sheet="none"))
    assert not opened


def test_a_memory_that_cannot_be_read_or_written_costs_time_and_nothing_else(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "looks.sqlite").write_text("no data base " * 999)
    assert looks(rows([stored(drawing(0))])).clear.all()
    (tmp_path / "cache" / "looks.sqlite").unlink()
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert looks(rows([stored(drawing(0))])).clear.all()


# ------------------------------------------------------------------------------------------------------------------- alike


def test_pairs_are_those_that_all_comparisons_find():
    random = np.random.default_rng(0)
    centres = random.integers(0, 2**64, 200, np.uint64)
    near = [centres.copy()]
    for _ in range(6):
        near.append(near[-1] ^ (np.uint64(1) << random.integers(0, 64, 200, np.uint64)))
    hashes = np.unique(np.concatenate(near))
    one, other = np.nonzero(np.triu(np.bitwise_count(hashes[:, None] ^ hashes) <= alike.NEAR, 1))
    found = {tuple(sorted(pair)) for a, b, _ in alike.pairs(hashes) for pair in zip(a.tolist(), b.tolist(), strict=True)}
    assert found == set(zip(one.tolist(), other.tolist(), strict=True)) and len(found) > 1000


def test_a_hundred_thousand_hashes_are_compared_in_seconds():
    hashes = np.unique(np.random.default_rng(0).integers(0, 2**64, 100_000, np.uint64))
    start = time.perf_counter()
    assert sum(len(bits) for *_, bits in alike.pairs(hashes)) < 5
    assert time.perf_counter() - start < 5


def test_a_smaller_darker_worse_copy_is_a_leak_and_the_same_bytes_are_left_to_the_source():
    train = [drawing(i) for i in range(8)]
    worse = ImageEnhance.Brightness(train[3].resize((64, 48))).enhance(0.85)
    test = [stored(drawing(50)), stored(worse, "JPEG", quality=60), stored(train[5]), stored(ImageOps.mirror(train[1]))]
    copies = [stored(image) for image in train] + [stored(train[2], "JPEG", quality=70), stored(train[4])]
    parts = DatasetDict(train=rows(copies), test=rows(test), unlabelled=rows([stored(train[0], "JPEG"), test[0]]))
    found = alike.alike(pictures.looked(parts))
    places = [(one.split, one.row, one.other_split, one.other_row, one.leak) for one in found]
    assert places == [("train", 8, "train", 2, False), ("test", 1, "train", 3, True)]
    assert all(one.bits <= alike.NEAR for one in found)


def test_each_picture_has_one_partner_however_many_look_alike():
    film = [stored(ImageEnhance.Brightness(drawing(0)).enhance(0.7 + 0.01 * i)) for i in range(30)]
    found = alike.alike(pictures.looked(DatasetDict(train=rows(film[:20]), validation=rows(film[20:]))))
    assert [(one.split, one.row) for one in found] == [
        *(("train", i) for i in range(1, 20)),
        *(("validation", i) for i in range(10)),
    ]
    assert all(one.other_row < one.row for one in found if not one.leak)


# ------------------------------------------------------------------------------------------------------------------- objects


def checked(data: Dataset, seen: Input | None = None):
    return objects_of("train", data, looks(data).size, ["cat", "dog"], seen)


def test_each_box_that_is_wrong_is_found_by_its_number():
    boxes = [[5, 5, 40, 40], [30, 5, 20, 9], [float("nan"), 1, 5, 9], [0, 0, 99, 20], [-0.4, 0, 96.4, 72.4], [50, 50, 53, 70]]
    found = checked(with_objects({"bbox": [], "category": []}, {"bbox": boxes, "category": [0] * 6})).found
    assert [(one.row, one.object, one.problem) for one in found] == [
        (1, 1, "box reversed"),
        (1, 2, "box reversed"),
        (1, 3, "box off the image"),
        (1, 5, "tiny box"),
    ]
    assert found[2].detail == "object 3: 0, 0, 99, 20; the image is 96 × 72"
    assert found[3].detail == "object 5: 50, 50, 53, 70; 3 × 20 pixels"


def test_without_a_model_a_box_is_tiny_in_pixels_or_as_a_share_of_its_picture():
    data = with_objects({"bbox": [[0, 0, 4, 4], [0, 0, 3.9, 40], [10, 10, 16, 16]], "category": [0, 0, 1]}, size=(800, 600))
    assert [one.object for one in checked(data).found] == [0, 1, 2]  # 16 and 36 of 480,000 pixels are below a ten-thousandth
    data = with_objects({"bbox": [[0, 0, 4, 4], [10, 10, 16, 16]], "category": [0, 1]}, size=(200, 150))
    assert checked(data).found == []


@pytest.mark.parametrize(
    ("resize", "size", "scale"),
    [
        ("longest", (128, 128), (128 / 96, 128 / 96)),
        (36, (36, 36), (0.5, 0.5)),
        ((36, 24), (36, 24), (0.25, 0.5)),
        (None, (9, 9), (1, 1)),
    ],
)
def test_with_a_model_a_box_is_tiny_by_what_the_model_sees(resize, size, scale):
    seen = Input(size=size, resize=resize, interpolation="bilinear", crop=None)
    assert [float(one[0]) for one in scales(seen, np.array([96]), np.array([72]))] == pytest.approx(scale)
    across, down = scale
    boxes = [[0, 0, 3.9 / across, 60], [0, 0, 60, 3.9 / down], [20, 20, 20 + 4.1 / across, 20 + 4.1 / down]]
    assert [one.object for one in checked(with_objects({"bbox": boxes, "category": [0, 1, 1]}), seen).found] == [0, 1]


@pytest.mark.parametrize(
    ("checkpoint", "resize"), [("clip-tiny", 48), ("dinov2-tiny", 48), ("sam-tiny", "longest"), ("paligemma-tiny", (128, 128))]
)
def test_how_a_model_sees_is_read_without_its_weights(checkpoint, resize):
    class Model(Plugin):
        checkpoint: str

    assert input_of(Model(name="x", checkpoint=checkpoint)).resize == resize
    assert input_of(Model(name="x", checkpoint="open_clip:ViT-B-16/x")) is None


def test_the_same_thing_boxed_twice_is_found_as_pycocotools_overlap_says():
    random = np.random.default_rng(0)
    base = random.uniform(0, 40, (40, 2)).repeat(8, 0)
    low = base + random.uniform(0, 1, base.shape)
    boxes = np.concatenate([low, low + 20 + random.uniform(0, 2, low.shape)], 1).astype(np.float32)
    category = random.integers(0, 2, len(boxes))
    category[:8], boxes[:8, 2:] = 0, boxes[:8, :2] + 25
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).astype(float)
    shared = np.tril(iou(xywh, xywh, [0] * len(boxes)) > TWICE, -1) & (category[:, None] == category)
    found = checked(with_objects({"bbox": boxes.tolist(), "category": category.tolist()})).found
    numbers = {tuple(map(int, one.detail.partition(":")[0].removeprefix("objects ").split(" and "))) for one in found}
    assert numbers == {(int(b), int(a)) for a, b in zip(*shared.nonzero(), strict=True)} and len(numbers) > 100


def test_crowds_are_counted_apart_and_neither_tiny_nor_twice():
    box = [10.0, 10.0, 12.0, 60.0]
    found = checked(with_objects({"bbox": [box, box, [10, 10, 60, 60]], "category": [0, 0, 0], "iscrowd": [1, 1, 0]}))
    assert (found.each.tolist(), found.crowds, found.found) == ([1], 2, [])


def test_masks_without_a_pixel_or_of_another_size_are_found():
    mask = np.zeros((72, 96), bool)
    mask[10:30, 10:30] = True
    codes = [rle(mask), rle(~mask & mask), rle(mask.T), {"size": [72, 96], "counts": ""}]
    data = with_objects({"bbox": [[0, 0, 9, 9]] * 4, "category": [0, 1, 0, 1], "mask": codes})
    found = [one for one in checked(data).found if one.problem == "mask off the image"]
    assert [one.object for one in found] == [1, 2, 3]
    assert found[1].detail == "object 2: 72 × 96; the image is 96 × 72"


def test_rows_without_objects_and_many_batches_keep_their_numbers(monkeypatch):
    monkeypatch.setattr("adapt.verbs.doctoring.objects.BATCH", 2)
    wrong, good = {"bbox": [[0, 0, 9, 9], [9, 9, 3, 3]], "category": [1, 1]}, {"bbox": [[0, 0, 9, 9]], "category": [0]}
    found = checked(with_objects(good, None, wrong, {"bbox": [], "category": []}, wrong))
    assert found.each.tolist() == [1, 0, 2, 0, 2]
    assert np.bincount(found.categories).tolist() == [1, 4]
    assert [(one.row, one.object) for one in found.found] == [(2, 1), (4, 1)]


def test_maps_of_one_value_are_found_but_for_what_nobody_judged():
    maps = [np.zeros((4, 4)), np.full((4, 4), 3), np.full((4, 4), 255), np.eye(4), np.where(np.eye(4), 255, 2)]
    given = [stored(Image.fromarray(one.astype(np.uint8))) for one in maps]
    data = rows([stored(drawing(i)) for i in range(5)], segmentation=(Stored(), given))
    for _ in range(2):
        seen = examined(DatasetDict(train=data))
        found = [(one.id, one.problem, one.detail) for one in seen.problems]
        assert found == [
            ("p0", "empty mask", ""),
            ("p1", "map of one value", "3 all over"),
            ("p2", "empty mask", ""),
            ("p4", "map of one value", "2 all over"),
        ]


# -------------------------------------------------------------------------------------------------------------------- counts


def test_the_balance_is_a_line_a_split():
    balance = Balance("picture", ["axolotl", "cat", "dog"], {"train": np.array([3, 410, 20]), "test": np.array([0, 7, 0])})
    assert balance.sentences() == [
        "classes in train: 3; the rarest, 'axolotl', has 3 pictures, the commonest, 'cat', 410",
        "classes in test: 3; the rarest, 'axolotl' and 1 more have no picture, the commonest, 'cat', 7",
    ]
    assert Balance("object", ["a", "b"], {"train": np.array([5, 5])}).sentences() == [
        "classes in train: 2, with 5 objects each"
    ]


def test_sizes_are_the_least_the_median_and_the_most_and_odd_ones_are_named():
    sizes = np.array([[640, 480]] * 9 + [[640, 480], [3000, 2000], [64, 64], [640, 100], [0, 0]])
    told = measured({"train": sizes})
    assert str(told) == "pictures: 64 × 64 to 3000 × 2000 pixels, median 640 × 480"
    assert [row for row, _ in told.odd(sizes)] == [10, 11, 12]
    assert str(measured({"train": sizes[:3]})) == "pictures: 640 × 480 pixels each"
    assert measured({"train": sizes[-1:]}) is None


# ---------------------------------------------------------------------------------------------------------------- the verb


def folder(root, hand: str, classes: int, change: float = 0.0, seed: int = 0) -> dict[str, tuple[str, str]]:
    """Class folders of the largest classes of one hand; returns the changed labels: file → (true class, given class)."""
    data = read(hand)
    names = data.features["label"].names
    labels = np.array(data["label"])
    largest = np.argsort(-np.bincount(labels), kind="stable")[:classes]
    chosen = [int(i) for i in np.flatnonzero(np.isin(labels, largest))]
    random = np.random.default_rng(seed)
    changed = set(random.choice(chosen, round(change * len(chosen)), False).tolist())
    wrong = {}
    for i in chosen:
        given = labels[i]
        if i in changed:
            given = random.choice([label for label in largest if label != labels[i]])
            wrong[f"{names[given]}/{i}.png"] = (names[labels[i]], names[given])
        place = root / names[given] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        data[i]["image"].save(place)
    return wrong


def test_labels_that_were_changed_are_found_far_better_than_by_chance(tmp_path, capsys):
    """A tenth of the labels is changed: by chance a tenth of what is found would be among them."""
    wrong = folder(tmp_path / "photos", "noto", 8, change=0.1)
    assert main(["doctor", "data", "data.path=photos", "noise=true", "sheet=none", "write=list.csv", "--json"]) == 0
    said = capsys.readouterr()
    noise = json.loads(said.out)["noise"]
    found = {one["id"]: one for one in noise["doubts"]}
    right = found.keys() & wrong.keys()
    assert len(right) / len(found) >= 0.85, "precision"
    assert len(right) / len(wrong) >= 0.7, "recall"
    assert all(found[name]["given"] == wrong[name][1] for name in right)
    assert np.mean([found[name]["suggested"] == wrong[name][0] for name in right]) >= 0.8
    assert noise["judged"] == 329 and noise["agreement"] > 0.8
    with open("list.csv", newline="", encoding="utf-8") as file:
        listed = [row for row in csv.DictReader(file) if row["problem"] == "doubtful label"]
    assert {row["id"] for row in listed} == found.keys()
    assert all(repr(found[row["id"]]["suggested"]) in row["detail"] and "% sure" in row["detail"] for row in listed)
    assert f"labels: {len(found)} of 329 are doubtful; a linear probe on features of dinov2-tiny" in said.err
    assert "too few" not in said.err


def test_features_are_those_of_the_recipes_model_if_it_has_an_embedding_and_are_kept(tmp_path, monkeypatch):
    from adapt.verbs.doctoring import noise

    data = emoji.load(emoji.Config())
    splits = DatasetDict(train=data["train"].select(range(60)))
    seen = pictures.looked(splits)
    clip, sam = (load_recipe(name).model for name in ("clip_lora", "sam_lora"))
    assert noise.doubtful(splits, seen, clip).features == clip.checkpoint
    assert noise.doubtful(splits, seen, sam).features == "dinov2-tiny"
    monkeypatch.setattr(noise, "_embedded", None)
    assert noise.doubtful(splits, seen, clip).judged > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["noise=maybe"], "noise: 'maybe' is not true or false."),
        (["noise=true", "noise=true"], "noise: given twice"),
        (["sheet=page.png"], "sheet: 'page.png' does not end in .html"),
        (["write="], "write: no file"),
        (["sheets=x.html"], "Did you mean 'sheet'?"),
    ],
)
def test_what_the_verb_does_not_take_is_one_line(arguments, words, capsys):
    assert main(["doctor", "data", "data.path=photos", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1


def test_labels_cannot_be_doubted_where_there_are_none_or_too_few(tmp_path, capsys):
    assert (
        main(["doctor", "data", "data={source: emoji_scenes, train: 6, validation: 2, test: 2}", "noise=true", "sheet=none"])
        == 2
    )
    assert "noise: these data have no class for each picture" in capsys.readouterr().err
    for i, name in enumerate(("cat", "dog") * 3):
        (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
        drawing(i).save(tmp_path / "photos" / name / f"{i}.png")
    assert main(["doctor", "data", "data.path=photos", "noise=true", "sheet=none"]) == 2
    error = capsys.readouterr().err
    assert "noise: two classes or more need 5 pictures or more each" in error and len(error.splitlines()) == 1


def test_the_numbers_of_any_source_are_in_the_json(tmp_path, capsys):
    data = "data={source: emoji_scenes, train: 12, validation: 4, test: 4}"
    assert main(["doctor", "data", data, "sheet=none", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    train = next(row for row in found["splits"] if row["split"] == "train")
    assert train["pictures"] == 12 and train["objects"] == sum(train["object_classes"].values())
    assert train["objects_each"]["least"] >= 1 and train["sizes"]["median"] == [128, 128]
    assert found["alike"] == {"near_leaks": 0, "near_duplicates": 0} and found["noise"] is None


def test_a_picture_that_looks_like_one_of_train_is_told_with_both_names(tmp_path, capsys):
    for split, first in (("train", 0), ("test", 20)):
        for i in range(6):
            place = tmp_path / "photos" / split / ("cat", "dog")[i % 2]
            place.mkdir(parents=True, exist_ok=True)
            drawing(first + i).save(place / f"{i}.png")
    drawing(2).resize((60, 45)).save(tmp_path / "photos/test/dog/small.jpg", quality=70)
    assert main(["doctor", "data", "data.path=photos", "data.validation=0", "sheet=none", "write=list.json"]) == 0
    assert "near leak: 1; look at both" in capsys.readouterr().out
    (problem,) = json.loads((tmp_path / "list.json").read_text())["problems"]
    assert problem["id"] == "test/dog/small.jpg" and problem["split"] == "test" and not problem["severe"]
    assert problem["detail"].startswith("looks like 'train/cat/2.png' in train; ")


def test_what_the_source_has_told_is_not_told_again(capsys):
    """The embedded pictures are looked at by `check`, which finds the same boxes."""
    mask = rle(np.ones((72, 96), bool))
    data = with_objects({"bbox": [[0, 0, 99, 20]], "category": [0], "mask": [mask]})
    seen = examined(DatasetDict(train=data))
    from adapt.data.check import check

    report = _joined(check(DatasetDict(train=data)), seen.problems)
    assert report.counts() == {"box off the image": 1}


def test_arguments_of_the_verb_are_taken_out_of_the_others():
    given = ["data.path=x", "write=a.csv", "noise=true", "sheet=b.html"]
    assert parse(given) == Request("a.csv", "b.html", True)
    assert given == ["data.path=x"]
    with pytest.raises(UserError, match="given twice"):
        parse(["data.path=x", "write=a", "write=b"])
    assert parse(["recipe=x"]).recipe


# ------------------------------------------------------------------------------------------------------------------- sheet

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> & 蚂蚁"


class Page(HTMLParser):
    """Tags with their attributes, and texts."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, name: str) -> list[dict]:
        return [attributes for tag, attributes in self.tags if tag == name]


def coco(root: Path, boxes: list[list[list[float]]], names: list[str], size: tuple[int, int] = (96, 72)) -> None:
    """A COCO file with these boxes XYWH on each picture, their categories in turn."""
    root.mkdir()
    images, annotations = [], []
    for i, given in enumerate(boxes):
        drawing(i, size).save(root / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": size[0], "height": size[1]})
        for box in given:
            number = len(annotations)
            about = {"id": number, "image_id": i, "category_id": number % len(names), "iscrowd": 0, "area": 1}
            annotations.append(about | {"bbox": box})
    categories = [{"id": i, "name": name} for i, name in enumerate(names)]
    (root / "all.json").write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def test_the_sheet_is_one_page_without_any_other_file_and_its_boxes_lie_where_they_are(capsys):
    coco(Path("photos"), [[[10, 20, 30, 40]]], ["cat"])
    data = ["data.path=photos", "data.validation=0", "data.test=0"]
    assert main(["doctor", "data", *data, "sheet=page.html", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sheet"] == "page.html"
    page = Page(Path("page.html"))
    (image,), (box,), (drawn,) = page.all("image"), page.all("rect"), page.all("svg")
    assert drawn["viewbox"] == "0 0 96 72"
    assert [float(box[name]) for name in ("x", "y", "width", "height")] == [10, 20, 30, 40]
    inside = Image.open(io.BytesIO(base64.b64decode(image["href"].removeprefix("data:image/jpeg;base64,"))))
    assert inside.size == (96, 72)
    theirs, ours = (np.asarray(one.convert("RGB"), float) for one in (drawing(0), inside))
    assert np.abs(theirs - ours).mean() < 8
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(link.startswith("data:") for link in links) and not page.all("script") and not page.all("link")


def test_a_large_picture_is_scaled_and_its_boxes_with_it():
    coco(Path("photos"), [[[100, 200, 300, 400]]], ["cat"], (1600, 1200))
    assert main(["doctor", "data", "data.path=photos", "data.validation=0", "data.test=0", "sheet=page.html"]) == 0
    (box,), (drawn,) = Page(Path("page.html")).all("rect"), Page(Path("page.html")).all("svg")
    assert drawn["viewbox"] == "0 0 440 330"
    assert [float(box[name]) for name in ("x", "y", "width", "height")] == [27.5, 55, 82.5, 110]


def test_the_pictures_with_the_least_and_the_most_objects_are_shown_and_the_same_page_is_made_again():
    boxes = [[[10, 10, 20, 20]] * 2 for _ in range(40)]
    boxes[17], boxes[29] = [], [[3 * i, 2 * i, 20, 20] for i in range(15)]
    coco(Path("photos"), boxes, ["cat", "dog"])
    data = ["data.path=photos", "data.validation=0", "data.test=0"]
    for name in ("a", "b"):
        assert main(["doctor", "data", *data, f"sheet={name}.html"]) == 0
    shown = [drawn["aria-label"] for drawn in Page(Path("a.html")).all("svg")]
    assert shown[:2] == ["17.png", "29.png"] and len(shown) == len(set(shown)) == 12
    assert Path("a.html").read_bytes() == Path("b.html").read_bytes()


def test_names_and_ids_are_text_on_the_page():
    coco(Path("photos"), [[[10, 10, 40, 40], [10, 10, 40, 40]]], [EVIL])
    assert main(["doctor", "data", "data.path=photos", "data.validation=0", "data.test=0", "sheet=page.html"]) == 0
    page = Page(Path("page.html"))
    assert not page.all("script") and not page.all("img")
    assert EVIL in [one.get("title") for one in page.all("span")]


def test_what_is_wrong_is_shown_and_drawn_thicker_than_the_others():
    coco(Path("photos"), [[[50, 40, 30, 30], [10, 10, 2, 40]], [[5, 5, 60, 60]]], ["cat"])
    assert main(["doctor", "data", "data.path=photos", "data.validation=0", "data.test=0", "sheet=page.html"]) == 0
    page = Page(Path("page.html"))
    assert "Boxes and masks to look at" in page.texts and "train: tiny box" in page.texts
    first = page.all("rect")[:2]
    assert [float(one["x"]) for one in first] == [50, 10]  # the wrong one last, above the other
    assert float(first[1]["stroke-width"]) == pytest.approx(2 * float(first[0]["stroke-width"]), rel=0.01)


def test_doubts_and_look_alikes_stand_side_by_side_on_the_page(tmp_path):
    folder(tmp_path / "photos", "noto", 8, change=0.1)
    assert main(["doctor", "data", "data.path=photos", "noise=true", "sheet=page.html"]) == 0
    texts = Page(Path("page.html")).texts
    assert {"Doubtful labels", "Pictures that look alike", "Some of train", "Some of test"} <= set(texts)
    assert any("? Looks like " in text for text in texts) and any("of 64 bits differ." in text for text in texts)


def test_many_classes_and_splits_without_a_picture_of_some_have_a_row_each():
    coco(Path("photos"), [[[5, 5, 30, 30]] * 3 for _ in range(20)], [f"a long name of a class, number {i}" for i in range(100)])
    assert main(["doctor", "data", "data.path=photos", "sheet=page.html"]) == 0
    page = Page(Path("page.html"))
    assert any("The 30 commonest and the 30 rarest of 100 classes." in text for text in page.texts)
    assert len([one for one in page.all("span") if one.get("class") == "bar"]) == 60


def test_by_default_the_sheet_lies_in_a_folder_of_its_own_and_costs_nothing_where_it_cannot(capsys):
    coco(Path("my photos"), [[[10, 10, 40, 40]]], ["cat"])
    data = ["doctor", "data", "data.path=my photos", "data.validation=0", "data.test=0"]
    assert main([*data, "sheet=none"]) == 0 and not Path("doctor").exists()
    assert main(data) == 0 and main(data) == 0
    (page,) = Path("doctor").iterdir()
    assert page.name.startswith("my_photos-") and f"Sheet: {page}" in capsys.readouterr().out
    page.unlink()
    page.parent.rmdir()
    page.parent.write_text("a file where the folder should be")
    assert main(data) == 0
    assert "No sheet: doctor/my_photos-" in capsys.readouterr().out
    assert main([*data, "sheet=doctor/page.html"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_captions_and_answers_are_on_the_page(tmp_path):
    drawing(0).save(tmp_path / "a.png")
    lines = [{"image": "a.png", "prefix": "caption en", "suffix": f"{EVIL} {'very ' * 99}long"}]
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = "data={source: jsonl, path: lines.jsonl, validation: 0, test: 0}"
    assert main(["doctor", "data", data, "sheet=page.html"]) == 0
    (text,) = [text for text in Page(Path("page.html")).texts if text.startswith("caption en → <script>")]
    assert len(text) == 160


def test_a_map_without_objects_is_laid_over_its_picture(tmp_path):
    from adapt.data.problems import Report
    from adapt.data.split import Splits
    from adapt.verbs.doctoring.sheet import draw

    halves = np.zeros((72, 96), np.uint8)
    halves[:, 48:] = 1
    grey = stored(Image.new("RGB", (96, 72), (128, 128, 128)))
    data = rows([grey], segmentation=(Stored(), [stored(Image.fromarray(halves))]))
    splits = Splits({"train": data}, {"train": "here"})
    path, _ = draw(examined(splits), Report(1), load_recipe("clip_lora").data, "page.html")
    (image,) = Page(Path(path)).all("image")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(image["href"].partition(",")[2]))), int)
    assert np.abs(shown[:, :40] - 128).max() < 12 and np.abs(shown[:, 60:] - 128).max() > 30
