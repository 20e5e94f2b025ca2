"""Label Studio's exports: classes, objects and texts, and one clear line for each way to be wrong."""

from __future__ import annotations

import json
from itertools import groupby

import numpy as np
import pytest

from adapt.data.check import check
from adapt.data.labelstudio import Config, load
from adapt.data.labelstudio.brush import decode
from adapt.data.problems import Bad
from adapt.plug import UserError
from adapt.vision.masks import unrle

WIDTH, HEIGHT = 80, 60


@pytest.fixture
def folder(tmp_path, make):
    root = tmp_path / "media"
    root.mkdir()
    for i in range(20):
        (root / f"{i}.jpg").write_bytes(make.encode(make.picture(i, (WIDTH, HEIGHT))))
    return root


def write(root, tasks) -> str:
    (root / "export.json").write_text(tasks if isinstance(tasks, str) else json.dumps(tasks))
    return str(root / "export.json")


def task(number: int, *results, annotations: list | None = None, **other) -> dict:
    """As Label Studio 1.x exports it."""
    if annotations is None:
        annotations = [{"id": 100 + number, "result": list(results), "was_cancelled": False, "ground_truth": False}]
    return {"id": number, "data": {"image": f"{number}.jpg"}, "annotations": annotations, "predictions": []} | other


def region(kind: str, value: dict, label: str = "cat", **other) -> dict:
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    return {"id": "a", "type": kind, "from_name": "tag", "to_name": "img", "value": value | {kind: [label]}} | size | other


def choice(*names: str) -> dict:
    return {"id": "c", "type": "choices", "from_name": "kind", "to_name": "img", "value": {"choices": list(names)}}


def box(x=10, y=20, width=50, height=25, rotation=0, **other) -> dict:
    return region("rectanglelabels", {"x": x, "y": y, "width": width, "height": height, "rotation": rotation}, **other)


TRIANGLE = {"points": [[10, 10], [60, 15], [40, 50]], "closed": True}
TEXT = {"id": "t", "type": "textarea", "value": {"text": ["a cat ", "on a mat"]}}


def packed(flat: np.ndarray) -> list[int]:
    """thi.ng's rle-pack as Label Studio's converter writes it (`encode_rle`): words of 8 bits, lengths of 3, 4, 8 and 16 bits."""
    bits = f"{len(flat):032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    for value, same in groupby(flat.tolist()):
        count = len(list(same))
        while count:
            run = min(count, 2**16)
            which, size = next((i, size) for i, size in enumerate((3, 4, 8, 16)) if run <= 2**size)
            bits += f"{int(run > 1)}{which:02b}{run - 1:0{size}b}{value:08b}"
            count -= run
    bits += "0" * (8 - len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def stroke(mask: np.ndarray) -> list[int]:
    """A mask bool[H, W] as RGBA bytes, packed."""
    return packed(np.repeat(mask.astype(np.uint8) * 255, 4))


@pytest.mark.parametrize("seed", range(8))
def test_strokes_are_unpacked_as_they_were_packed(seed):
    random = np.random.default_rng(seed)
    width, height = random.integers(1, 90, 2).tolist()
    mask = random.random((height, width)) < random.random() ** 3
    if seed == 0:
        mask = np.ones((300, 400), bool)  # runs longer than 2^16
    assert (decode(stroke(mask), mask.shape[::-1]) == mask).all()


def test_a_stroke_with_literal_runs_is_unpacked():
    """By hand: four words; a run of four different ones (0, 00 length 3 bits = 4 - 1)."""
    bits = f"{4:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16)) + "0" + "00" + "011"
    bits += "".join(f"{word:08b}" for word in (1, 2, 3, 200))
    bits += "0" * (-len(bits) % 8)
    data = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert decode(data, (1, 1)).tolist() == [[True]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (stroke(np.ones((5, 4), bool))[:-3], "it ends in the middle"),
        (stroke(np.ones((5, 5), bool)), "it has 100 values, and its picture 80"),
        ([256], "bytes must be in range"),
        ("abc", "string argument without an encoding"),
        (None, "cannot convert 'NoneType' object to bytes"),
        ([255] * 40, "it has 4,294,967,295 values"),
        (packed(np.zeros(80, np.uint8))[:4] + [255] * 40, "its words have 32 bits, not 8"),
    ],
)
def test_a_stroke_that_cannot_be_unpacked_is_told(data, said):
    with pytest.raises(Bad, match=said):
        decode(data, (4, 5))


# --------------------------------------------------------------------------------------------------------------- pictures


def test_choices_become_labels(folder):
    path = write(folder, [task(i, choice("cat" if i % 2 else "dog")) for i in range(20)])
    splits = load(Config(path=path))
    assert {split: len(part) for split, part in splits.items()} == {"train": 12, "validation": 4, "test": 4}
    assert splits["train"].features["label"].names == ["cat", "dog"]
    assert splits.report.problems == []


def test_the_short_format_means_the_same(folder):
    whole = load(Config(path=write(folder, [task(i, choice("cat" if i % 2 else "dog")) for i in range(20)])))
    other = {"annotator": 1, "annotation_id": 3, "created_at": "2024-01-01", "lead_time": 2.5}
    short = [{"image": f"{i}.jpg", "id": i, "choice": "cat" if i % 2 else "dog"} | other for i in range(20)]
    again = load(Config(path=write(folder, short)))
    for split in whole:
        assert again[split].remove_columns("image")[:] == whole[split].remove_columns("image")[:]
    assert again.report.problems == []


def test_rectangles_are_percent_of_the_picture(folder):
    path = write(folder, [task(0, box(), box(0, 0, 100, 100, label="dog")), task(1)])
    rows = load(Config(path=path, validation=0, test=0))["train"]
    assert rows["objects"][0] == {"bbox": [[8, 12, 48, 27], [0, 0, 80, 60]], "category": [0, 1], "iscrowd": [0, 0]}
    assert rows["objects"][1] == {"bbox": [], "category": [], "iscrowd": []}, "annotated, and nothing is there"


def test_polygons_and_strokes_have_masks(folder):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:20, 30:50] = True
    brush = region("brushlabels", {"format": "rle", "rle": stroke(mask)}, "dog")
    path = write(folder, [task(0, region("polygonlabels", TRIANGLE), brush, box())])
    splits = load(Config(path=path, validation=0, test=0))
    found = splits["train"]["objects"][0]
    assert np.allclose(found["bbox"], [[8, 6, 48, 30], [30, 5, 50, 20], [8, 12, 48, 27]]) and found["category"] == [0, 1, 0]
    assert (unrle(found["mask"][1]) == mask).all()
    assert check(splits["train"]).problems == []


def test_the_short_format_has_objects_too(folder):
    value = {"x": 10, "y": 20, "width": 50, "height": 25, "rotation": 0, "rectanglelabels": ["cat"]}
    path = write(folder, [{"id": 1, "image": "1.jpg", "tag": [value | {"original_width": WIDTH, "original_height": HEIGHT}]}])
    rows = load(Config(path=path, validation=0, test=0))["train"]
    assert rows["objects"][0] == {"bbox": [[8, 12, 48, 27]], "category": [0], "iscrowd": [0]}


def test_texts_become_captions(folder):
    rows = load(Config(path=write(folder, [task(0, TEXT)]), validation=0, test=0))["train"]
    assert rows["caption"][:] == ["a cat on a mat"] and rows.column_names == ["id", "image", "caption"]
    rows = load(Config(path=write(folder, [{"id": 1, "image": "1.jpg", "caption": "a dog"}]), validation=0, test=0))["train"]
    assert rows["caption"][:] == ["a dog"]


def test_what_is_not_read_is_counted(folder):
    annotations = [
        {"result": [choice("dog")], "was_cancelled": True},
        {"result": [choice("dog")]},
        {"result": [choice("cat"), {"type": "keypointlabels", "value": {}}], "ground_truth": True},
    ]
    tasks = [
        task(0, annotations=annotations, predictions=[{"result": []}] * 2),
        task(1, choice("dog")),
        task(2, annotations=[]),
    ]
    splits = load(Config(path=write(folder, tasks), validation=0, test=0))
    assert splits["train"]["id"][:] == ["0", "1"] and splits["unlabelled"]["id"][:] == ["2"]
    assert splits["train"]["label"][:] == [0, 1], "ground truth comes first"
    told = [each.detail for each in splits.report.problems]
    assert told == [
        "predictions: 2 times",
        "cancelled annotations: 1 time",
        "further annotations of a picture: 1 time",
        "keypointlabels: 1 time",
    ]


def test_choices_and_objects_in_one_export_are_refused_with_both_named(folder):
    path = write(folder, [task(0, choice("cat")), task(1, box()), task(2, choice("dog"))])
    with pytest.raises(UserError, match=r"choices \(task 0: 'cat'\) and objects \(task 1: rectanglelabels\)"):
        load(Config(path=path))
    assert "label" in load(Config(path=path, kind="choices", validation=0, test=0))["train"].column_names
    assert "objects" in load(Config(path=path, kind="objects", validation=0, test=0))["train"].column_names


@pytest.mark.parametrize(
    "name",
    [
        "/data/upload/3/1a2b3c4d-0.jpg",
        "/data/upload/3/0.jpg",
        "/data/local-files/?d=far/away/0.jpg",
        "0.jpg",
        "/data/upload/0%2Ejpg",
    ],
)
def test_pictures_are_found_by_their_names_in_label_studio(folder, name):
    path = write(folder.parent, [task(0, TEXT, data={"image": name})])
    assert len(load(Config(path=path, images=str(folder), validation=0, test=0))["train"]) == 1


def test_the_longest_name_counts(folder, make):
    (folder / "3").mkdir()
    (folder / "3" / "0.jpg").write_bytes(make.encode(make.picture(99, (10, 10))))
    path = write(folder, [task(0, TEXT, data={"image": "/data/upload/3/0.jpg"})])
    assert load(Config(path=path, validation=0, test=0))["train"][0]["image"].size == (10, 10)


# ----------------------------------------------------------------------------------------------------------- what is wrong


def named(name: str) -> dict:
    return task(19, box(), data={"image": name})


BAD = {
    "turned": (
        task(19, box(rotation=12.5)),
        "region 0 (rectanglelabels): it is turned by 12.5°; oriented boxes cannot be read",
    ),
    "no label": (
        task(19, region("polygonlabels", TRIANGLE, label="")),
        "region 0 (polygonlabels): it needs one label, and has ['']",
    ),
    "off": (
        task(19, box(x=80)),
        "box off the image (export.json, task 19, region 0 (rectanglelabels): 64, 12, 104, 27; the image is 80 × 60)",
    ),
    "no area": (task(19, box(width=0)), "box reversed (export.json, task 19, region 0"),
    "words": (
        task(19, box(x="left")),
        "box unreadable (export.json, task 19, region 0 (rectanglelabels): x must be a number, got 'left')",
    ),
    "huge": (
        task(19, box(x=10**400)),
        "box unreadable (export.json, task 19, region 0 (rectanglelabels): x must be a number, got '1000",
    ),
    "two points": (
        task(19, region("polygonlabels", {"points": [[1, 1], [2, 2]]})),
        "bad polygon (export.json, task 19, region 0 (polygonlabels): 2 points)",
    ),
    "no points": (task(19, region("polygonlabels", {"points": 3})), "points must be a list of x and y, in percent, got 3"),
    "no stroke": (task(19, region("brushlabels", {"rle": [1, 2]})), "a brush stroke cannot be unpacked: it ends in the middle"),
    "other size": (
        task(19, region("brushlabels", {"rle": []}, original_width=81)),
        "drawn on 81 × 60; the picture is",
    ),
    "no result": (task(19, 3), "a result must be an object with type and value, got '3'"),
    "no value": (task(19, {"type": "choices", "value": 3}), "the value of choices must be an object, got '3'"),
    "no list": (task(19, annotations=3), "annotations must be a list, got '3'"),
    "no picture": (named("99.jpg"), "no picture (no picture '99.jpg' in"),
    "no upload": (named("/data/upload/3/99.jpg"), "no picture (no picture '3/99.jpg' in"),
    "web": (named("https://example.org/1.jpg"), "web address ('https://example.org/1.jpg'; nothing is fetched)"),
    "bucket": (named("s3://bucket/1.jpg"), "web address ('s3://bucket/1.jpg'; nothing is fetched)"),
    "parent": (named("../secret.jpg"), "leads outside ('../secret.jpg' lies outside"),
    "local parent": (named("/data/local-files/?d=../../secret.jpg"), "leads outside ('../../secret.jpg' lies outside"),
    "absolute": (named("/etc/passwd"), "leads outside ('/etc/passwd' lies outside"),
    "no field": (task(19, box(), data={"text": "a"}), "no picture in the field 'image'; have: text"),
    "two fields": (task(19, box(), data={"a": "1.jpg", "b": "2.jpg"}), "several pictures: a, b; name the field: data.image=a"),
    "same id": (task(1, box()), "named twice (its id is that of the task at position 1)"),
    "no object": ("task", "it must be an object, got 'task'"),
}


@pytest.mark.parametrize("way", BAD)
def test_a_task_that_cannot_be_used_is_one_line_and_skip_goes_on(folder, way):
    bad, said = BAD[way]
    path = write(folder, [*(task(i, box()) for i in range(5)), bad])
    with pytest.raises(UserError) as error:
        load(Config(path=path))
    text = str(error.value)
    assert text.startswith("data.path: '") and "export.json, task " in text and said in text and "\n" not in text, text
    splits = load(Config(path=path, validation=0, test=0, on_error="skip"))
    assert len(splits["train"]) == 5 and len(splits.report.severe) == 1


def test_a_picture_of_several_choices_is_named(folder):
    path = write(folder, [task(0, choice("cat", "dog")), task(1, choice("cat"))])
    with pytest.raises(
        UserError, match=r"'export.json, task 0': bad annotation \(several choices: cat, dog; a picture has one label\)"
    ):
        load(Config(path=path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[{", "export.json: line 1: it is not JSON"),
        (
            '{"images": [], "annotations": []}',
            "export.json is no list of tasks. It looks like COCO's format: data.source=coco.",
        ),
        ("[]", "export.json has no task"),
        ("[" * 100_000, "export.json: nested too deeply"),
        ("3", "export.json is no list of tasks"),
    ],
)
def test_a_file_that_is_no_export_is_one_line(folder, text, said):
    with pytest.raises(UserError) as error:
        load(Config(path=write(folder, text)))
    assert str(error.value).startswith(f"data.path: {said}") and "\n" not in str(error.value)
