"""`adapt predict tile=…`: large pictures are cut with overlap, and the answers are as if somebody had seen the whole."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from adapt.cli import main
from adapt.data.emoji_scenes import Config, load
from adapt.plug import ROOT, UserError
from adapt.recipe import load_recipe
from adapt.run import Run
from adapt.students import detector
from adapt.verbs import predict
from adapt.verbs.predicting import answerers, joins, shards
from adapt.verbs.predicting.request import Request
from adapt.verbs.predicting.tiles import Tiling

NAMES = ["red", "green"]


def asked(images: Path, to: str = "jsonl", **options) -> predict.Answered:
    return predict.of_file(Request(images=str(images), file="x.onnx", to=to, out=options.pop("out", "found"), **options))


def lines(out: str = "found") -> list[dict]:
    return [json.loads(line) for line in Path(out, "predictions.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def seeing(monkeypatch):
    """An answerer of a kind that sees coloured things on black, by a function of RGB pixels uint8[H, W, 3]; the sizes it was shown."""

    def use(kind: str, see) -> list[tuple[int, int]]:
        shown: list[tuple[int, int]] = []

        def many(pictures, sizes):
            shown.extend(sizes)
            assert [picture.shape[1::-1] for picture in pictures] == list(sizes)
            return [see(picture) for picture in pictures]

        made = answerers.Answerer(kind, NAMES, np.asarray, many, {"file": kind}, "by colour")
        monkeypatch.setattr(answerers, "of_file", lambda path: made)
        return shown

    return use


def coloured(pixels: np.ndarray) -> dict[str, np.ndarray]:
    """The box of each thing, which has a shade of its own: red 100 and more is class 0, green class 1; large things are surer."""
    found = []
    for channel, category in ((0, 0), (1, 1)):
        values = pixels[..., channel]
        for shade in np.unique(values[values >= 100]):
            rows, columns = np.nonzero(values == shade)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            found.append((box, category, 0.5 + min(0.4, len(rows) / 10_000)))
    return {
        "bbox": np.array([box for box, _, _ in found], np.float32).reshape(-1, 4),
        "category": np.array([category for _, category, _ in found], np.int64),
        "score": np.array([score for _, _, score in found], np.float32),
    }


def drawn(size: tuple[int, int], things: list[tuple[list[int], int]]) -> Image.Image:
    """Things (box XYXY, class) on black, each with its own shade."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    for number, ((left, top, right, bottom), category) in enumerate(things):
        pixels[top:bottom, left:right, category] = 100 + number
    return Image.fromarray(pixels)


# ---------------------------------------------------------------------------------------------------------------- cutting


@pytest.mark.parametrize("size", [(100, 100), (101, 257), (640, 64), (1000, 1001), (65, 64), (64, 64), (10, 300)])
@pytest.mark.parametrize("overlap", [0, 0.2, 0.5])
def test_tiles_cover_every_pixel_and_share_what_was_asked(size, overlap):
    tiles = Tiling(64, overlap).boxes(*size)
    seen = np.zeros(size[::-1], int)
    for left, top, right, bottom in tiles:
        assert (right - left, bottom - top) == (min(64, size[0]), min(64, size[1]))
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1
    for axis in (0, 1):
        starts = sorted({tile[axis] for tile in tiles})
        assert all(64 - (b - a) >= int(64 * overlap) - 1 for a, b in pairwise(starts))
    assert len(set(tiles)) == len(tiles)
    if overlap == 0:
        assert len(tiles) == -(-size[0] // 64) * -(-size[1] // 64), "no more tiles than are needed"


def test_a_mosaic_is_answered_as_its_four_pictures(seeing, tmp_path):
    things = [[([5, 5, 30, 20], 0), ([40, 30, 60, 60], 1)], [([3, 40, 33, 61], 1)], [], [([10, 10, 50, 50], 0)]]
    shown = seeing("detections", coloured)
    mosaic = Image.new("RGB", (128, 128))
    for number, (left, top) in enumerate([(0, 0), (64, 0), (0, 64), (64, 64)]):
        part = drawn((64, 64), things[number])
        mosaic.paste(part, (left, top))
        (tmp_path / "four").mkdir(exist_ok=True)
        part.save(tmp_path / "four" / f"{number}.png")
    mosaic.save(tmp_path / "mosaic.png")
    asked(tmp_path / "mosaic.png", tile=64, overlap=0, out="one")
    assert shown == [(64, 64)] * 4
    asked(tmp_path / "four", out="parts")
    expected = []
    for line, (left, top) in zip(lines("parts"), [(0, 0), (64, 0), (0, 64), (64, 64)], strict=True):
        near = [left, top, left, top]
        expected += [one | {"box": [a + b for a, b in zip(one["box"], near, strict=True)]} for one in line["objects"]]
    (line,) = lines("one")
    assert line["objects"] == expected
    assert (line["width"], line["height"]) == (128, 128)


@pytest.fixture
def boxes(tmp_path):
    """A run whose student finds boxes."""
    spec = {
        "size": (64, 64),
        "resize": (64, 64),
        "interpolation": "bilinear",
        "crop": None,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
    }
    torch.manual_seed(0)
    student = detector.Student("test_resnet", spec, NAMES, width=24, convs=1).eval()
    recipe = load_recipe("clip_lora", ["tracker=none"])
    run = Run.open(recipe).begin(recipe)
    student.save(run.path / "student" / "boxes")
    return run.path


def test_a_networks_mosaic_of_scenes_is_answered_as_the_scenes(boxes, tmp_path):
    scenes = load(Config(train=1, validation=1, test=4))["test"]
    mosaic, corners = Image.new("RGB", (256, 256)), [(0, 0), (128, 0), (0, 128), (128, 128)]
    (tmp_path / "four").mkdir()
    for number, corner in enumerate(corners):
        mosaic.paste(scenes[number]["image"], corner)
        scenes[number]["image"].save(tmp_path / "four" / f"{number}.png")
    mosaic.save(tmp_path / "mosaic.png")
    given = ["predict", f"run={boxes}", "by=boxes", "score=0.06", "batch=1"]
    assert main([*given, "images=mosaic.png", "tile=128", "overlap=0", "out=one"]) == 0
    assert main([*given, "images=four", "out=parts"]) == 0
    (line,) = lines("one")
    expected = [
        (one["name"], one["score"], [side + by for side, by in zip(one["box"], 2 * corner, strict=True)])
        for part, corner in zip(lines("parts"), corners, strict=True)
        for one in part["objects"]
    ]
    assert len(expected) > 10
    for one, (name, score, box) in zip(line["objects"], expected, strict=True):
        assert (one["name"], one["score"]) == (name, pytest.approx(score, abs=1e-5))
        assert one["box"] == pytest.approx(box, abs=1e-3)


# ------------------------------------------------------------------------------------------------------------------ boxes


@pytest.mark.parametrize("seed", range(8))
def test_things_smaller_than_the_overlap_are_found_once_and_whole(seed, seeing, tmp_path):
    seeing("detections", coloured)
    draw = np.random.default_rng(seed)
    things = []
    for top in range(0, 200, 33):
        for left in range(0, 300, 33):
            wide, high = draw.integers(3, 31, 2)
            x, y = left + draw.integers(0, 33 - wide), top + draw.integers(0, 33 - high)
            things.append(([int(x), int(y), int(min(x + wide, 300)), int(min(y + high, 200))], int(draw.integers(2))))
    things = [thing for thing in things if thing[0][2] > thing[0][0] and thing[0][3] > thing[0][1]]
    drawn((300, 200), things).save(tmp_path / "a.png")
    asked(tmp_path / "a.png", tile=100, overlap=0.3)
    (line,) = lines()
    found = sorted((one["box"], NAMES.index(one["name"])) for one in line["objects"])
    assert found == sorted(([float(side) for side in box], category) for box, category in things)


def test_things_larger_than_the_overlap_stay_in_pieces(seeing, tmp_path):
    seeing("detections", coloured)
    drawn((160, 80), [([40, 10, 120, 30], 0)]).save(tmp_path / "a.png")
    asked(tmp_path / "a.png", tile=100, overlap=0.2)
    (line,) = lines()
    assert [one["box"] for one in line["objects"]] == [[40, 10, 100, 30], [60, 10, 120, 30]]


def test_a_cut_box_stays_where_nobody_saw_more(seeing):
    tiles = [(0, 0, 100, 100), (80, 0, 180, 100)]
    cut, whole = [70, 10, 100, 30], [3, 10, 30, 30]

    def joined(first, second, categories=(0, 0), scores=(0.9, 0.4)):
        parts = [
            (tile, {"bbox": np.array([box], np.float32), "category": np.array([k]), "score": np.array([s], np.float32)})
            for tile, box, k, s in zip(tiles, (first, second), categories, scores, strict=True)
        ]
        return joins.boxes(parts, (180, 100), 0.3)["bbox"].tolist()

    assert joined([85, 10, 100, 30], [4, 10, 30, 30]) == [[84, 10, 110, 30]], "the whole one stays, though it is less sure"
    assert joined([85, 10, 100, 30], [4, 10, 30, 30], (0, 1)) == [[85, 10, 100, 30], [84, 10, 110, 30]], "another class"
    assert joined(cut, whole) == [[70, 10, 100, 30], [83, 10, 110, 30]], "most of it is not covered: another thing"
    assert joined([85, 10, 100, 30], [4, 10, 30, 30], scores=(0.9, 0.2)) == [[85, 10, 100, 30]], "a box that is not sure enough"
    assert joined([85, 10, 95, 30], [5, 10, 15, 30]) == [[85, 10, 95, 30]], "of two whole ones the surer"


def test_what_a_tile_itself_keeps_is_not_thinned_out():
    near = np.array([[10, 10, 30, 30], [11, 10, 31, 30]], np.float32)
    found = {"bbox": near, "category": np.array([0, 0]), "score": np.array([0.9, 0.8], np.float32)}
    empty = {"bbox": np.zeros((0, 4), np.float32), "category": np.zeros(0, int), "score": np.zeros(0, np.float32)}
    joined = joins.boxes([((0, 0, 100, 100), found), ((80, 0, 180, 100), empty)], (180, 100), 0.3)
    np.testing.assert_array_equal(joined["bbox"], near)


def test_no_box_in_any_tile_is_an_empty_answer(seeing, tmp_path):
    seeing("detections", coloured)
    drawn((160, 80), []).save(tmp_path / "a.png")
    asked(tmp_path / "a.png", "yolo", tile=64)
    assert Path("found/labels/a.txt").read_text() == ""


# ----------------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("overlap", [0, 0.2, 0.6])
def test_a_map_is_the_mean_of_the_probabilities_of_its_tiles(overlap, seeing, tmp_path, monkeypatch):
    monkeypatch.setattr(joins, "VALUES", 3 * 17 * 5)  # a few rows at a time
    random = np.random.default_rng(0)
    told: list[np.ndarray] = []

    def see(pixels):
        told.append(random.normal(0, 2, (3, 7, 9)).astype(np.float32))
        return told[-1]

    seeing("semantic_logits", see)
    Image.new("RGB", (150, 101)).save(tmp_path / "a.png")
    asked(tmp_path / "a.png", "png", tile=48, overlap=overlap)
    asked(tmp_path / "a.png", "coco", tile=48, overlap=overlap)
    tiles = Tiling(48, overlap).boxes(150, 101)
    assert len(told) == len(tiles)
    shares, seen = torch.zeros(3, 101, 150), torch.zeros(101, 150)
    for (left, top, right, bottom), logits in zip(tiles, told, strict=True):
        large = F.interpolate(torch.from_numpy(logits)[None], (bottom - top, right - left), mode="bilinear")[0]
        shares[:, top:bottom, left:right] += large.softmax(0)
        seen[top:bottom, left:right] += 1
    shares /= seen
    ours = np.asarray(Image.open("found/masks/a.png"))
    assert (ours == shares.argmax(0).numpy()).mean() > 0.9999
    for one in json.loads(Path("found/results.json").read_text()):
        there = shares.argmax(0) == one["category_id"]
        assert one["score"] == pytest.approx(float(shares[one["category_id"]][there].mean()), abs=1e-4)


# --------------------------------------------------------------------------------------------------------------- pictures


def test_small_turned_and_broken_pictures_lie_among_large_ones(seeing, tmp_path):
    shown = seeing("detections", coloured)
    folder = tmp_path / "photos"
    folder.mkdir()
    drawn((200, 90), [([150, 20, 170, 40], 1)]).save(folder / "a large.png")
    drawn((64, 64), [([1, 1, 9, 9], 0)]).save(folder / "b whole.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn((200, 90), [([150, 20, 170, 40], 1)]).save(folder / "c turned.png", exif=exif)
    (folder / "d cut off.png").write_bytes((folder / "a large.png").read_bytes()[:150])
    Image.new("L", (3000, 2)).save(folder / "e strip.png")
    random = np.random.default_rng(0).integers(0, 2**16, (90, 200)).astype(np.uint16)
    Image.fromarray(random).save(folder / "f 16 bit.png")
    answered = asked(folder, tile=100, overlap=0.25, batch=3)
    assert (answered.pictures, answered.problems) == (5, 1)
    with open("found/problems.csv", newline="") as file:
        assert {row["path"]: row["problem"] for row in csv.DictReader(file)} == {
            "d cut off.png": "truncated",
        }
    large, whole, turned, strip, _ = lines()
    assert [one["box"] for one in large["objects"]] == [[150, 20, 170, 40]]
    assert [one["box"] for one in whole["objects"]] == [[1, 1, 9, 9]]
    assert (turned["width"], turned["height"]) == (90, 200)
    assert [one["box"] for one in turned["objects"]] == [[90 - 40, 150, 90 - 20, 170]]
    assert (strip["width"], strip["height"]) == (3000, 2), "its tiles are not too thin"
    assert shown.count((64, 64)) == 1
    assert sorted(path.suffix for path in Path("found/previews").iterdir())[0] == ".jpg"


def test_a_killed_run_goes_on_and_another_tiling_is_another_question(seeing, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "TILED", 1)
    for number in range(3):
        (tmp_path / "photos").mkdir(exist_ok=True)
        drawn((160, 80), [([10 * number, 10, 10 * number + 9, 20], 0)]).save(tmp_path / "photos" / f"{number}.png")

    def killed(pixels):
        if len(shown) > 8:  # in the second picture
            raise KeyboardInterrupt
        return coloured(pixels)

    shown = seeing("detections", killed)
    with pytest.raises(KeyboardInterrupt):
        asked(tmp_path / "photos", tile=64, batch=2)
    again = seeing("detections", coloured)
    answered = asked(tmp_path / "photos", tile=64, batch=2)
    assert len(again) == 2 * len(Tiling(64, 0.2).boxes(160, 80)), "the first picture is not asked about again"
    assert [line["objects"][0]["box"][0] for line in lines()] == [0, 10, 20]
    assert not answered.finished
    assert asked(tmp_path / "photos", tile=64, overlap=0.2).finished, "0.2 is what it was"
    for options in ({"tile": 65}, {"tile": 64, "overlap": 0.3}, {}):
        with pytest.raises(UserError, match=r"another question: tiles"):
            asked(tmp_path / "photos", **options)


@pytest.mark.slow
def test_a_picture_above_pillows_limit_is_cut_in_bounded_memory(boxes, tmp_path):
    """A hundred and forty-four million pixels: whole, it is refused; cut, it takes its own bytes and some tiles."""
    picture = np.zeros((12_000, 12_000), np.uint8)
    picture[::97] = 255
    Image.fromarray(picture).save(tmp_path / "large.png", compress_level=1)
    Image.new("L", (200, 200)).save(tmp_path / "small.png")
    code = "import resource, sys; from adapt.cli import main; code = main(sys.argv[1:]); "
    code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"

    def peak(images: str, *given: str) -> float:
        command = [sys.executable, "-c", code, "predict", f"run={boxes}", "by=boxes", f"images={images}", "score=0.1", *given]
        environment = os.environ | {"PYTHONPATH": str(ROOT.parent), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
        return int(done.stdout.split()[-1]) / 1024

    more = peak("large.png", "tile=1024", "out=found") - peak("small.png", "out=small")
    assert more < 700, f"{more:.0f} MiB for a picture of 137 MiB"
    assert len(lines()) == 1
    assert main(["predict", f"run={boxes}", "by=boxes", "images=large.png", "out=whole"]) == 0
    with open("whole/problems.csv", newline="") as file:
        assert [row["problem"] for row in csv.DictReader(file)] == ["decompression bomb"]


# --------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("kind", ["class_logits", "text", "image_embedding"])
def test_what_is_of_a_whole_picture_is_not_cut(kind, seeing, tmp_path):
    seeing(kind, coloured)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with pytest.raises(
        UserError, match=r"^tile: is for boxes and for a class a pixel, and this model answers .* Leave tile= out\.$"
    ):
        asked(tmp_path / "a.png", tile=64)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["tile=0"], "tile: '0' is not a whole number of pixels from 32 to 8192"),
        (["tile=1e3"], "tile: '1e3' is not a whole number of pixels from 32 to 8192"),
        (["tile=64", "overlap=1"], "overlap: '1' is not a number from 0 to 0.9"),
        (["overlap=0.3"], "overlap: is of tiles, and pictures stay whole. Give tile= too"),
    ],
)
def test_a_wrong_tile_is_one_line(given, words, boxes, tmp_path, capsys):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    assert main(["predict", f"run={boxes}", "by=boxes", "images=a.png", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
