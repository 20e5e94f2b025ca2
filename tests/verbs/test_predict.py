"""`adapt predict`: answers for a folder of pictures, in formats that others read; a kill loses nothing, a broken picture stops nothing."""

from __future__ import annotations

import csv
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from adapt.ahead import ahead
from adapt.cli import main
from adapt.export import gate
from adapt.export import onnx as target
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.run import Run
from adapt.students import classifier, detector, embedder, pixels
from adapt.verbs import predict
from adapt.verbs.answers import enlarged
from adapt.verbs.formats.plain import colour
from adapt.verbs.outcome import Outcome
from adapt.verbs.predicting import answerers, shards
from adapt.verbs.predicting.request import HELP, Request, parse
from adapt.vision.images import view

SPEC = {"size": (64, 64), "resize": 72, "interpolation": "bicubic", "crop": "floor", "mean": [0.5] * 3, "std": [0.5] * 3}
SQUARE = SPEC | {"resize": (64, 64), "crop": None}
NAMES = ["ant", "bee, wild", "cät"]


def picture(path: Path, number: int, size: tuple[int, int] = (60, 40)) -> None:
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def bomb(path: Path) -> None:
    """A PNG whose header says 60,000 × 60,000 pixels."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"0"), b"IEND"]
    parts = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.fixture
def photos(tmp_path) -> Path:
    """Eleven pictures, two of them in a folder, two of one stem; a note that is no picture."""
    folder = tmp_path / "photos"
    for number in range(8):
        picture(folder / f"{number}.png", number, (60 + number, 40))
    picture(folder / "0.jpg", 8)
    picture(folder / "deep" / "a b.png", 9)
    picture(folder / "deep" / "ü.png", 10, (30, 90))
    (folder / "notes.md").write_text("no picture")
    return folder


def student_of(kind: str):
    torch.manual_seed(0)
    if kind == "classifier":
        return classifier.Student("test_resnet", SPEC, NAMES).eval()
    if kind == "detector":
        return detector.Student("test_resnet", SQUARE, NAMES, width=24, convs=1, min_score=0.05).eval()
    if kind == "embedder":
        return embedder.Student("test_resnet", SPEC, [], width=24).eval()
    return pixels.Student("test_resnet", SQUARE, NAMES, stride=4, width=16).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(kind) → its fp32 file; made once a kind."""
    made: dict[str, Path] = {}

    def file(kind: str) -> Path:
        if kind not in made:
            student, folder = student_of(kind), tmp_path_factory.mktemp(kind)
            samples = (np.random.default_rng(0).random((4, 3, 64, 64)) * 255).astype(np.float32)
            config = target.Config(name="onnx", int8=False)
            made[kind] = gate.export(target, config, student.deployed(), samples, folder, student.about())[0].path
        return made[kind]

    return file


@pytest.fixture
def run():
    """A run folder with a student of each kind, whose recipe names the classifier."""
    recipe = load_recipe("clip_lora", ["tracker=none", "distill.as=classifier", "distill.student=test_resnet"])
    run = Run.open(recipe).begin(recipe)
    for kind in ("classifier", "detector", "pixels", "embedder"):
        student_of(kind).save(run.path / "student" / kind)
    run.record("distill classifier")
    return run


OBJECTS = [
    {"bbox": [[1.25, 2.5, 30.75, 20.0], [-3.0, 4.0, 500.0, 9.4]], "category": [0, 2], "score": [0.9, 0.5]},
    {"bbox": [], "category": [], "score": []},
    {"bbox": [[0.0, 0.0, 8.0, 8.0], [5.0, 5.0, 20.0, 30.0], [1, 1, 9, 9]], "category": [1, -1, 1], "score": [0.4, 0.8, 0.1]},
]


@pytest.fixture
def by_hand(monkeypatch):
    """Answers that are known: (predictor, function of a picture's number) → `file=` answers so; the pictures it was asked about."""

    def use(name: str, answer, names=NAMES) -> list[int]:
        asked: list[int] = []

        def many(views, sizes):
            found = [answer(len(asked) + i) for i in range(len(views))]
            asked.extend(range(len(asked), len(asked) + len(views)))
            return found

        made = answerers.Answerer(name, list(names), lambda image: image.size, many, {"file": name}, "by hand")
        monkeypatch.setattr(answerers, "of_file", lambda path: made)
        return asked

    return use


def boxes(number: int) -> dict:
    found = OBJECTS[number % 3]
    return {name: np.array(values, np.float32 if name != "category" else np.int64) for name, values in found.items()} | {
        "bbox": np.array(found["bbox"], np.float32).reshape(-1, 4)
    }


def logits(number: int) -> np.ndarray:
    return np.random.default_rng(number).normal(0, 3, (4, 10, 15)).astype(np.float32)


def asked(folder: Path, to: str, **options) -> predict.Answered:
    return predict.of_file(Request(images=str(folder), file="x.onnx", to=to, out="found", **options))


def rows(path: str | Path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------------------------------------------------- who answers


@pytest.mark.parametrize("kind", ["classifier", "detector", "pixels", "embedder"])
def test_a_file_without_its_run_answers_as_the_student(kind, exported, run, photos, capsys):
    """Prepared by the numbers in its metadata alone."""
    assert main(["predict", f"file={exported(kind)}", f"images={photos}", "out=by_file", *score(kind)]) == 0
    assert main(["predict", f"run={run.path}", f"by={kind}", f"images={photos}", "out=by_student", *score(kind)]) == 0
    texts = (Path(f"{by}/predictions.jsonl").read_text(encoding="utf-8") for by in ("by_file", "by_student"))
    ours, theirs = ([json.loads(line) for line in text.splitlines()] for text in texts)
    assert len(ours) == 11
    for one, other in zip(ours, theirs, strict=True):
        assert one["path"] == other["path"]
        if kind == "classifier":
            assert one["label"] == other["label"]
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)
        elif kind == "detector":
            assert len(one["objects"]) == len(other["objects"]) > 0
            for a, b in zip(one["objects"], other["objects"], strict=True):
                assert a["score"] == pytest.approx(b["score"], abs=1e-5)
        elif kind == "embedder":
            np.testing.assert_allclose(one["embedding"], other["embedding"], atol=1e-4)
        else:
            assert [mask["name"] for mask in one["masks"]] == [mask["name"] for mask in other["masks"]]
            assert [m["pixels"] for m in one["masks"]] == pytest.approx([m["pixels"] for m in other["masks"]], rel=0.01)


def score(kind: str) -> list[str]:
    return ["score=0.06"] if kind == "detector" else []


@pytest.mark.parametrize(
    "spec",
    [
        {"resize": 72, "crop": "floor", "size": (64, 64)},
        {"resize": (64, 48), "crop": None, "size": (64, 48)},
        {"resize": 64, "crop": "round", "size": (64, 56), "interpolation": "bilinear"},
        {"resize": "longest", "crop": None, "size": (64, 64), "mean": [0.485, 0.456, 0.406]},
    ],
)
def test_the_metadata_of_a_file_prepare_a_picture_as_the_student_does(spec):
    student = classifier.Student("test_resnet", SPEC | spec, NAMES)
    metadata = {name: json.dumps(value) for name, value in student.about().items()}
    about = answerers._about(Path("x.onnx"), metadata)
    image = Image.effect_noise((90, 70), 80).convert("RGB")
    theirs = student.preprocess({"image": image}, False)["image"].float()
    ours = view(image, about["input"]).float()
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=0)


def test_a_detector_answers_in_pixels_of_each_picture_as_where_it_is_measured(run, photos):
    recipe = load_recipe(run.path / "recipe.yaml")
    answered = predict.of_run(recipe, Request(images=str(photos), by="detector", score=0.06, batch=1))
    assert answered._repr_html_().count("<img") == min(8, answered.pictures), "the least sure are shown"
    measured = student_of("detector").predictors()["detections"]
    for line in map(json.loads, (answered.out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()):
        (found,) = measured([{"image": Image.open(photos / line["path"]).convert("RGB")}])
        width, height = line["width"], line["height"]
        kept = found["score"] >= 0.06
        expected = found["bbox"][kept].clip(0, [width, height, width, height])
        np.testing.assert_allclose([one["box"] for one in line["objects"]], expected, atol=1e-2)
        assert [one["name"] for one in line["objects"]] == [NAMES[k] for k in found["category"][kept]]


def test_a_run_answers_by_its_student_first(run, photos):
    answered = predict.of_run(load_recipe(run.path / "recipe.yaml"), Request(images=str(photos), to="csv"))
    student = student_of("classifier")
    first = rows(answered.out / "predictions.csv")[0]
    image = Image.open(photos / first["path"]).convert("RGB")
    with torch.no_grad():
        shares = student(student.preprocess({"image": image}, False)["image"][None].float()).softmax(1)[0]
    assert first["label"] == NAMES[int(shares.argmax())]
    assert float(first["probability"]) == pytest.approx(float(shares.max()), abs=1e-5)


def test_the_model_as_it_comes_answers_as_in_python(photos, capsys):
    recipe = ["recipe=clip_lora", "data.shots=2", "data.unlabelled=[]"]
    assert main(["predict", *recipe, "by=zero-shot", f"images={photos}", "to=csv", "out=found", "all=true"]) == 0
    found = rows("found/predictions.csv")
    loaded = load_recipe("clip_lora", ["tracker=none", *recipe[1:]])
    outcome = Outcome.open(Run.open(loaded).begin(loaded).path)
    session = outcome._session
    view = [
        session.family.preprocess({"image": Image.open(photos / row["path"]).convert("RGB")}, False)["image"] for row in found
    ]
    with torch.no_grad():
        shares = session.family.eval().predictors()["class_logits"](torch.stack(view).float()).softmax(1)
    assert [row["label"] for row in found] == [session.labels[k] for k in shares.argmax(1)]
    for row, share in zip(found, shares, strict=True):
        assert [float(row[name]) for name in session.labels] == pytest.approx(share.tolist(), abs=1e-5)


def test_a_model_of_words_is_asked_the_same_of_every_picture(tmp_path, capsys):
    for number in range(2):
        picture(tmp_path / "two" / f"{number}.png", number)
    given = ["predict", "recipe=paligemma_lora", "by=zero-shot", "images=two", "out=found"]
    assert main([*given, "text=caption en", "to=csv"]) == 0
    assert [row["path"] for row in rows("found/predictions.csv")] == ["0.png", "1.png"]
    assert main([*given, "text=detect cat", "to=csv"]) == 2
    assert "model.text changed" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------- a kill


def test_a_killed_run_goes_on_with_no_picture_twice_and_none_missing(photos, by_hand, monkeypatch):
    monkeypatch.setattr(shards, "SHARD", 3)
    limits = [4, 1, 5]

    def answer(number: int) -> np.ndarray:
        if limits and number >= limits[0]:
            raise KeyboardInterrupt
        return np.eye(3, dtype=np.float32)[number % 3]

    while limits:
        by_hand("class_logits", answer)
        with pytest.raises(KeyboardInterrupt):
            asked(photos, "csv", batch=2)
        assert not Path("found/predictions.csv").exists()
        assert not list(Path("found/.shards").glob(".0*")), "a shard is whole or is not there"
        limits.pop(0)
    assert sorted(path.name for path in Path("found/.shards").iterdir()) == ["000000.jsonl", "000001.jsonl"]
    again = by_hand("class_logits", answer)
    answered = asked(photos, "csv", batch=2)
    assert len(again) == 11 - 2 * 3
    assert not answered.finished
    paths = [row["path"] for row in rows("found/predictions.csv")]
    assert paths == sorted({path.relative_to(photos).as_posix() for path in photos.rglob("*.[pj]*g")})
    once_more = by_hand("class_logits", answer)
    answered = asked(photos, "csv")
    assert answered.finished
    assert once_more == []
    assert predict.sentences(answered)[0] == "Finished before: 11 pictures."


@pytest.mark.slow
def test_a_process_that_is_killed_loses_its_last_shard_at_most(exported, tmp_path):
    """SIGKILL, whenever it comes; what it leaves half-written is swept away."""
    for number in range(300):
        picture(tmp_path / "many" / f"{number:03d}.png", number, (16, 16))
    command = [sys.executable, "-m", "adapt", "predict", f"file={exported('classifier')}", "images=many", "to=csv", "out=found"]
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, env=here)
    while not Path("found/.shards/000000.jsonl").exists() and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    subprocess.run(command, env=here, check=True, timeout=120)
    assert [row["path"] for row in rows("found/predictions.csv")] == [f"{number:03d}.png" for number in range(300)]
    names = sorted(path.name for path in Path("found/.shards").iterdir())
    assert names == ["000000.jsonl", "000001.jsonl", "000002.jsonl", "csv.json"]


@pytest.mark.slow
def test_two_processes_share_the_pictures_and_write_the_same(exported, tmp_path):
    for number in range(300):
        picture(tmp_path / "many" / f"{number:03d}.png", number, (16, 16))
    Path("many/007.png").write_bytes(b"no picture")
    given = ["predict", f"file={exported('classifier')}", "images=many", "to=csv"]
    assert main([*given, "out=alone"]) == 0
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "-m", "adapt"]
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *given, "out=both", "--json"], env=here, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    document = json.loads(done.stdout)
    assert (document["pictures"], document["problems"]) == (299, 1)
    assert rows("both/predictions.csv") == rows("alone/predictions.csv")
    wrong = subprocess.run(
        [*launch, *given, "out=both", "score=7"], env=here, capture_output=True, text=True, check=False, timeout=300
    )
    assert wrong.returncode
    assert [line for line in wrong.stderr.splitlines() if line.startswith("score:")] == [
        "score: '7' is not a number from 0 to 1."
    ]


def test_another_format_is_written_from_the_same_answers(photos, by_hand):
    assert len(by_hand("detections", boxes)) == 0
    asked(photos, "coco")
    again = by_hand("detections", boxes)
    asked(photos, "yolo")
    assert again == []
    assert Path("found/dataset.json").is_file()
    assert Path("found/labels/1.txt").is_file()


def test_another_question_is_refused_in_the_same_folder(photos, by_hand):
    by_hand("detections", boxes)
    asked(photos, "coco")
    with pytest.raises(UserError, match=r"another question: options\.score changed\. Give another folder"):
        asked(photos, "coco", score=0.5)
    picture(photos / "new.png", 99)
    with pytest.raises(UserError, match=r"pictures\.count, pictures\.files changed"):
        asked(photos, "coco")


def test_without_out_each_question_has_its_own_folder(photos, by_hand):
    by_hand("detections", boxes)
    one = predict.of_file(Request(images=str(photos), file="x.onnx"))
    other = predict.of_file(Request(images=str(photos), file="x.onnx", score=0.5))
    assert one.out != other.out
    assert one.out.parent == Path("answers")
    assert one.out.name.startswith("photos-")


def test_a_spoiled_shard_is_named(photos, by_hand):
    by_hand("detections", boxes)
    asked(photos, "coco")
    Path("found/.shards/000000.jsonl").write_text('{"number": 0, "id"')
    with pytest.raises(UserError, match=r"000000\.jsonl: cannot be read.* Delete it, and run the same command again"):
        asked(photos, "voc")
    Path("found/.shards/000000.jsonl").unlink()
    assert asked(photos, "voc").pictures == 11


def test_a_changed_folder_of_files_is_not_written_into(photos, by_hand):
    by_hand("detections", boxes)
    Path("found").mkdir()
    Path("found/mine.txt").write_text("mine")
    with pytest.raises(UserError, match="has other files in it"):
        asked(photos, "coco")
    with pytest.raises(UserError, match="lies among the pictures"):
        predict.of_file(Request(images=str(photos), file="x.onnx", out=str(photos / "found")))


# --------------------------------------------------------------------------------------------------------------- pictures


def test_pictures_that_cannot_be_read_are_listed_and_do_not_stop_it(photos, by_hand):
    by_hand("class_logits", lambda number: np.zeros(3, np.float32))
    whole = (photos / "1.png").read_bytes()
    (photos / "1.png").write_bytes(whole[: len(whole) // 2])
    (photos / "2.png").write_bytes(b"no picture")
    (photos / "3.png").write_bytes(b"")
    bomb(photos / "4.png")
    picture(photos / "5.png", 5, (1000, 2))
    (photos / "6.png").unlink()
    (photos / "6.png").symlink_to("/etc/hostname")
    answered = asked(photos, "csv")
    assert (answered.pictures, answered.problems) == (5, 6)
    kinds = {row["path"]: row["problem"] for row in rows("found/problems.csv")}
    assert kinds == {
        "1.png": "truncated",
        "2.png": "unreadable",
        "3.png": "zero-size",
        "4.png": "decompression bomb",
        "5.png": "too thin",
        "6.png": "leads outside",
    }
    assert all(row["todo"] for row in rows("found/problems.csv"))
    assert {row["path"] for row in rows("found/predictions.csv")} & kinds.keys() == set()


def test_globs_lists_and_single_pictures_are_found_in_a_stable_order(photos, by_hand, tmp_path):
    def found(images: str) -> list[str]:
        by_hand("class_logits", lambda number: np.zeros(3, np.float32))
        answered = predict.of_file(Request(images=images, file="x.onnx", to="csv"))
        return [row["path"] for row in rows(answered.out / "predictions.csv")]

    assert found(f"{photos}/**/*.png") == [*(f"{i}.png" for i in range(8)), "deep/a b.png", "deep/ü.png"]
    assert found(str(photos / "3.png")) == ["3.png"]
    (tmp_path / "list.txt").write_bytes(
        "\ufeffphotos/3.png\r\n\r\nphotos/deep/ü.png\r\nphotos/3.png\r\nphotos/gone.png\r\n".encode()
    )
    assert found(str(tmp_path / "list.txt")) == ["3.png", "deep/ü.png"]
    assert [row["detail"] for row in rows(*Path().glob("answers/list*/problems.csv"))] == ["the file is missing"]


def test_a_turned_picture_is_answered_for_upright(by_hand, tmp_path):
    by_hand("semantic_logits", logits)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "turned.jpg", exif=exif)
    asked(tmp_path / "turned.jpg", "png")
    assert Image.open("found/masks/turned.png").size == (40, 60)


# ---------------------------------------------------------------------------------------------------------------- formats


def test_coco_is_read_by_pycocotools(photos, by_hand):
    from pycocotools.coco import COCO

    by_hand("detections", boxes)
    answered = asked(photos, "coco")
    data = COCO("found/dataset.json")
    found = data.loadRes("found/results.json")
    assert [category["name"] for category in data.loadCats(data.getCatIds())] == NAMES
    assert len(data.imgs) == 11, "a picture without objects is there"
    images = {image["file_name"]: image for image in data.imgs.values()}
    assert (images["deep/ü.png"]["width"], images["deep/ü.png"]["height"]) == (30, 90)
    first = data.loadImgs(1)[0]
    for one in (data, found):
        near, wide = one.loadAnns(one.getAnnIds(imgIds=[1]))
        assert near["bbox"] == [1.25, 2.5, 29.5, 17.5]
        assert near["category_id"] == 1
        assert wide["bbox"] == pytest.approx([0, 4, first["width"], 5.4], abs=1e-5), "cut at the picture's edges"
    assert found.loadAnns(found.getAnnIds(imgIds=[1]))[0]["score"] == pytest.approx(0.9)
    assert data.loadAnns(data.getAnnIds(imgIds=[1]))[0]["area"] == pytest.approx(29.5 * 17.5)
    assert min(one["score"] for one in found.anns.values()) >= 0.3
    assert answered.notes == ["3 objects of a name that is none of the classes: left out; to=jsonl has them."]


def test_yolo_is_read_by_its_documentation(photos, by_hand):
    by_hand("detections", boxes)
    asked(photos, "yolo")
    about = yaml.safe_load(Path("found/data.yaml").read_text())
    assert about["names"] == dict(enumerate(NAMES))
    pictures = sorted(path for path in Path("found/images").rglob("*") if path.suffix in (".png", ".jpg"))
    assert len(pictures) == 11
    answers = {row["path"]: [] for row in rows("found/scores.csv")}
    for row in rows("found/scores.csv"):
        answers[row["path"]].append(row)
    for path in pictures:
        name = path.relative_to("found/images")
        labels = Path("found/labels") / name.with_suffix(".txt")
        lines = [line.split() for line in labels.read_text().splitlines()]
        assert len(lines) == len(answers.get(path.resolve().relative_to(photos).as_posix(), []))
        assert all(len(line) == 5 and 0 <= float(value) <= 1 for line in lines for value in line[1:])
    width, height = Image.open(photos / "0.jpg").size
    kind, x, y, w, h = map(float, Path("found/labels/0_jpg.txt").read_text().split()[:5])
    box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
    assert kind == 0
    assert box == pytest.approx([1.25, 2.5, 30.75, 20.0], abs=1e-4)


def test_voc_is_read_by_torchvision_and_counts_from_1(photos, by_hand):
    from torchvision.datasets import VOCDetection

    by_hand("detections", boxes, ["ant", "b<&>\x01ee", "cät"])
    asked(photos, "voc")
    tree = ElementTree.parse("found/Annotations/0_jpg.xml").getroot()
    told = VOCDetection.parse_voc_xml(tree)["annotation"]
    assert (told["filename"], told["path"]) == ("0_jpg.jpg", "0.jpg")
    assert told["size"] == {"width": "60", "height": "40", "depth": "3"}
    near, wide = told["object"]
    assert near["name"] == "ant"
    assert near["bndbox"] == {"xmin": "2", "ymin": "3", "xmax": "31", "ymax": "20"}
    assert wide["bndbox"] == {"xmin": "1", "ymin": "5", "xmax": "60", "ymax": "9"}
    assert float(near["score"]) == pytest.approx(0.9)
    assert sorted(path.name for path in Path("found/Annotations/deep").iterdir()) == ["a b.xml", "ü.xml"]
    assert all(ElementTree.parse(path) for path in Path("found/Annotations").rglob("*.xml"))
    assert ElementTree.parse("found/Annotations/1.xml").findtext("object/name") == "b<&>?ee"


def test_voc_with_a_list_is_what_torchvision_loads(photos, by_hand):
    from torchvision.datasets import VOCDetection

    by_hand("detections", boxes)
    place = Path("root/VOCdevkit/VOC2012")
    predict.of_file(Request(images=str(photos), file="x.onnx", to="voc", out=str(place)))
    stems = sorted(path.relative_to(place / "JPEGImages").with_suffix("") for path in (place / "JPEGImages").rglob("*.jpg"))
    (place / "ImageSets" / "Main").mkdir(parents=True)
    (place / "ImageSets" / "Main" / "train.txt").write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
    loaded = list(VOCDetection("root", image_set="train"))
    assert len(loaded) == 11
    for image, about in loaded:
        theirs = about["annotation"]
        assert theirs["size"] == {"width": str(image.width), "height": str(image.height), "depth": "3"}
        assert image.size == Image.open(photos / theirs["path"]).size


@pytest.mark.parametrize("source", ["yolo", "voc"])
def test_our_own_source_reads_what_was_written(source, photos, by_hand):
    from adapt import plug

    for name in ("deep/a b.png", "deep/ü.png"):  # VOC has no folders in folders
        (photos / name).unlink()
    by_hand("detections", boxes)
    asked(photos, source)
    module = plug.load("data", source)
    rows = module.load(module.Config(path="found", follow_links=True, validation=0, test=0))["train"]
    asked(photos, "jsonl")
    lines = [json.loads(line) for line in Path("found/predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    names = {"0.jpg": "0_jpg", "0.png": "0_png"}
    read = {Path(row["id"]).stem: row["objects"] for row in rows}
    for line in lines:
        kept = [one["box"] for one in line["objects"] if one["name"]]
        found = read[names.get(line["path"], Path(line["path"]).stem)]["bbox"]
        np.testing.assert_allclose(
            np.array(found).reshape(-1, 4), np.array(kept).reshape(-1, 4), atol=1e-4 if source == "yolo" else 0.5
        )
    assert len(read) == 9


@pytest.mark.parametrize("to", ["yolo", "voc", "png"])
def test_pictures_of_one_stem_never_share_a_file(to, by_hand, tmp_path):
    for name in ("a.jpg", "a.png", "a_jpg.png", "a_png_.jpg", "A.png"):
        picture(tmp_path / "photos" / name, 0)
    by_hand(*(("semantic_logits", logits) if to == "png" else ("detections", boxes)))
    asked(tmp_path / "photos", to)
    written = {"yolo": "labels/*.txt", "voc": "Annotations/*.xml", "png": "masks/*.png"}[to]
    stems = sorted(path.stem for path in Path("found").glob(written))
    assert stems == ["A", "a_jpg", "a_jpg_", "a_png", "a_png_"]
    if to != "png":
        links = {path.stem: path.resolve().name for path in Path("found").glob("*mages/*")}
        assert links == {"A": "A.png", "a_jpg": "a_jpg.png", "a_jpg_": "a.jpg", "a_png": "a.png", "a_png_": "a_png_.jpg"}


def test_only_pictures_that_were_answered_are_linked(photos, by_hand, tmp_path):
    """A loader takes a picture without labels for one with nothing on it."""
    (photos / "1.png").write_bytes(b"no picture")
    (tmp_path / "list.txt").write_text("photos/1.png\nphotos/3.png\n")
    by_hand("detections", boxes)
    asked(tmp_path / "list.txt", "yolo")
    assert [path.name for path in Path("found/images").iterdir()] == ["3.png"]


def test_label_studio_gets_percent_and_its_own_names(photos, by_hand):
    by_hand("detections", boxes)
    asked(photos, "labelstudio")
    tasks = json.loads(Path("found/tasks.json").read_text())
    assert len(tasks) == 11
    (said,) = tasks[0]["predictions"]
    assert tasks[0]["data"]["image"] == "/data/local-files/?d=photos/0.jpg"
    assert tasks[-1]["data"]["image"] == "/data/local-files/?d=photos/deep/%C3%BC.png"
    first = said["result"][0]
    assert first["value"]["rectanglelabels"] == ["ant"]
    assert first["value"]["x"] == pytest.approx(100 * 1.25 / 60)
    assert first["value"]["height"] == pytest.approx(100 * 17.5 / 40)
    config = ElementTree.parse("found/label_config.xml").getroot()
    control = config.find("RectangleLabels")
    assert (first["from_name"], first["to_name"]) == (control.get("name"), control.get("toName"))
    assert [label.get("value") for label in control] == NAMES
    assert config.find("Image").get("value") == "$image"
    assert said["score"] == pytest.approx(0.5)


def test_label_studio_gets_choices_of_a_classifier(photos, by_hand):
    by_hand("class_logits", lambda number: np.eye(3, dtype=np.float32)[number % 3])
    asked(photos, "labelstudio")
    tasks = json.loads(Path("found/tasks.json").read_text())
    assert [task["predictions"][0]["result"][0]["value"]["choices"] for task in tasks[:3]] == [[name] for name in NAMES]
    assert ElementTree.parse("found/label_config.xml").find("Choices/Choice").get("value") == "ant"


def test_pngs_hold_the_classes_in_vocs_colours(photos, by_hand):
    import torch.nn.functional as F

    by_hand("semantic_logits", logits)
    asked(photos, "png")
    assert yaml.safe_load(Path("found/classes.yaml").read_text()) == dict(enumerate(["background", *NAMES]))
    mask = Image.open("found/masks/0_jpg.png")
    assert mask.mode == "P"
    assert mask.size == (60, 40)
    expected = F.interpolate(torch.from_numpy(logits(0))[None], (40, 60), mode="bilinear", align_corners=False)[0].argmax(0)
    np.testing.assert_array_equal(np.asarray(mask), expected.numpy())
    assert [colour(k) for k in range(4)] == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
    assert mask.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]


def test_masks_in_coco_are_rle_that_pycocotools_decodes(photos, by_hand):
    from pycocotools.coco import COCO

    by_hand("semantic_logits", logits)
    asked(photos, "coco")
    asked(photos, "png")
    data = COCO("found/dataset.json")
    found = data.loadRes("found/results.json")
    for number, image in data.imgs.items():
        name = {"0.jpg": "0_jpg.png", "0.png": "0_png.png"}.get(
            image["file_name"], Path(image["file_name"]).with_suffix(".png")
        )
        classes = np.asarray(Image.open(Path("found/masks") / name))
        for one in data.loadAnns(data.getAnnIds(imgIds=[number])):
            mask = data.annToMask(one).astype(bool)
            np.testing.assert_array_equal(mask, classes == one["category_id"])
            assert one["area"] == mask.sum()
    assert all(0 < one["score"] <= 1 for one in found.anns.values())


def test_a_table_has_each_class_when_asked_and_json_lines_have_all(photos, by_hand):
    by_hand("class_logits", lambda number: np.log(np.array([0.2, 0.7, 0.1], np.float32)))
    asked(photos, "csv", all=True)
    asked(photos, "jsonl", all=True)
    first = rows("found/predictions.csv")[0]
    assert list(first) == ["path", "label", "probability", *NAMES]
    assert first["label"] == "bee, wild"
    assert [float(first[name]) for name in NAMES] == pytest.approx([0.2, 0.7, 0.1], abs=1e-6)
    line = json.loads(Path("found/predictions.jsonl").read_text().splitlines()[0])
    assert line["probabilities"] == pytest.approx({"ant": 0.2, "bee, wild": 0.7, "cät": 0.1}, abs=1e-6)
    assert (line["path"], line["width"], line["height"]) == ("0.jpg", 60, 40)


def test_words_are_a_table_too(photos, by_hand):
    by_hand("text", lambda number: f'a "cat", {number}\nand more')
    asked(photos, "csv")
    assert [row["text"] for row in rows("found/predictions.csv")] == [f'a "cat", {k}\nand more' for k in range(11)]


@pytest.mark.parametrize(
    ("name", "to", "can"),
    [
        ("class_logits", "coco", "csv, jsonl, labelstudio"),
        ("detections", "png", "coco, yolo, voc, labelstudio, jsonl"),
        ("semantic_logits", "yolo", "png, coco, jsonl"),
        ("text", "voc", "jsonl, csv"),
        ("image_embedding", "csv", "jsonl"),
    ],
)
def test_a_format_that_cannot_hold_the_answer_is_refused_with_those_that_can(name, to, can, photos, by_hand):
    by_hand(name, lambda number: None)
    with pytest.raises(UserError, match=f"to: '{to}' cannot hold .* Formats that can: {can}"):
        asked(photos, to)
    assert not Path("found").exists()


# --------------------------------------------------------------------------------------------------------------- previews


def test_the_least_sure_are_drawn_and_no_more_than_24(tmp_path, by_hand):
    for number in range(30):
        picture(tmp_path / "many" / f"{number:02d}.png", number)
    by_hand("class_logits", lambda number: np.array([number / 5, 0, 0], np.float32))
    asked(tmp_path / "many", "csv")
    names = sorted(path.name for path in Path("found/previews").iterdir())
    assert len(names) == 24
    assert [name.rpartition("-")[2] for name in names] == [f"{number:02d}.jpg" for number in range(24)]


@pytest.mark.parametrize(("name", "answer"), [("detections", boxes), ("semantic_logits", logits)])
def test_boxes_and_masks_are_drawn(name, answer, photos, by_hand):
    by_hand(name, answer)
    asked(photos, "jsonl")
    drawn = sorted(Path("found/previews").iterdir())
    assert len(drawn) == (7 if name == "detections" else 11), "nothing found: nothing to be unsure of"
    assert Image.open(drawn[0]).mode == "RGB"


# --------------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "images: missing"),
        (["images=nowhere"], "images: there is no 'nowhere'"),
        (["images=photos/*.bmp"], "has no pictures"),
        (["images=empty"], "has no pictures"),
        (["images=photos", "to=cocoo"], "Did you mean 'coco'"),
        (["images=photos", "score=2"], "score: '2' is not a number from 0 to 1"),
        (["images=photos", "score=nan"], "score: 'nan' is not a number from 0 to 1"),
        (["images=photos", "batch=0"], "batch: '0' is not a whole number from 1 to 4096"),
        (["images=photos", "all=yes"], "all: 'yes' is not true or false"),
        (["images=photos", "images=photos"], "images: given twice"),
        (["images=photos", "imagse=photos"], "Did you mean 'images'"),
        (["images=photos", "photos"], "'photos' has no name before it"),
        (["images=photos", "by=adapted"], "by=adapted: an exported file answers alone"),
        (["images=photos", "train.epochs=1"], "train.epochs=1: an exported file answers alone"),
        (["images=photos", "score=0.5"], "score: is of boxes, and this model answers a class for a picture"),
        (["images=photos", "text=what"], "text: an exported file is asked no questions"),
        (["images=long.txt"], "line 2: longer than 4096 bytes"),
        (["images=latin.txt"], "line 1: not UTF-8"),
        (["images=nul.txt"], "line 1: has a NUL character"),
        (["images=none.txt"], "has no pictures"),
    ],
)
def test_a_mistake_is_one_line(given, words, photos, exported, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "none.txt").write_text("\n\n")
    (tmp_path / "long.txt").write_text("photos/1.png\n" + "x" * 10_000)
    (tmp_path / "latin.txt").write_bytes("photos/\xe4.png".encode("latin-1"))
    (tmp_path / "nul.txt").write_bytes(b"photos/\0.png")
    assert main(["predict", f"file={exported('classifier')}", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({}, "are not those of an exported student"),
        ({"kind": '"classifier"', "classes": '["a"]', "input": '{"size": [64]}'}, "are not those of an exported student"),
        ({"kind": '"classifier"', "classes": '["a"]', "input": "[1]"}, "are not those of an exported student"),
        ({"kind": '"classifier"', "classes": "3", "input": "{}"}, "are not those of an exported student"),
        ({"kind": "nonsense", "input": "{}"}, "are not those of an exported student"),
        ({"kind": '"classifier"', "classes": '["a"]', "input": "BIG"}, "sides of 1 to 8192 pixels"),
        ({"kind": '"promptable"', "classes": "[]", "input": "GOOD"}, "kind 'promptable', which does not answer"),
        ({"kind": '"classifier"', "classes": '["a", "b"]', "input": "GOOD"}, "has other outputs than classes"),
        ({"kind": '"classifier"', "classes": '["a", "b", "c"]', "input": "SMALL"}, "its metadata say otherwise"),
    ],
)
def test_metadata_of_a_stranger_are_checked_before_they_are_used(metadata, words, exported, photos, tmp_path, capsys):
    import onnx

    inputs = {"GOOD": SPEC, "BIG": SPEC | {"size": (64, 10**9)}, "SMALL": SPEC | {"size": (1, 1)}}
    model = onnx.load(exported("classifier"))
    del model.metadata_props[:]
    given = {name: json.dumps(inputs[value]) if value in inputs else value for name, value in metadata.items()}
    onnx.helper.set_model_props(model, given)
    onnx.save(model, tmp_path / "strange.onnx")
    if "SMALL" in metadata.values():  # a network that takes one size alone
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 64
        onnx.save(model, tmp_path / "strange.onnx")
    assert main(["predict", "file=strange.onnx", f"images={photos}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("file", "words"),
    [("gone.onnx", "there is no 'gone.onnx'"), ("bad.onnx", "cannot be read"), ("model.pt", "is no ONNX file")],
)
def test_a_file_that_is_none_is_one_line(file, words, photos, tmp_path, capsys):
    (tmp_path / "bad.onnx").write_bytes(b"\x08nonsense")
    (tmp_path / "model.pt").write_bytes(b"")
    assert main(["predict", f"file={file}", f"images={photos}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("by", "words"),
    [("clasifier", "Did you mean 'classifier'"), ("../student/classifier", "has no student"), ("adapted", "no adapter yet")],
)
def test_who_is_not_there_does_not_answer(by, words, run, photos, capsys):
    assert main(["predict", f"run={run.path}", f"images={photos}", f"by={by}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_run_with_nothing_learnt_says_what_comes_first(photos, capsys):
    recipe = load_recipe("clip_lora")
    path = Run.open(recipe).begin(recipe).path
    assert main(["predict", f"run={path}", f"images={photos}"]) == 2
    assert "First: adapt finetune" in capsys.readouterr().err


def test_an_answer_that_is_not_finite_names_its_picture(photos, by_hand):
    by_hand("class_logits", lambda number: np.full(3, np.nan if number == 4 else 0, np.float32))
    with pytest.raises(UserError, match=r"class_logits for '3\.png' holds NaN"):
        asked(photos, "csv")


def test_with_json_the_files_are_in_it(exported, photos, capsys):
    assert main(["predict", f"file={exported('classifier')}", f"images={photos}", "to=csv", "out=found", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {name: document[name] for name in ("verb", "status", "out", "pictures", "problems")} == {
        "verb": "predict",
        "status": 0,
        "out": "found",
        "pictures": 11,
        "problems": 0,
    }
    assert document["files"] == ["found/predictions.csv", "found/previews", "found/problems.csv"]


# ------------------------------------------------------------------------------------------------------------------ parts


def test_help_names_every_option_and_format():
    from adapt.verbs.predicting.request import FORMATS, OWN

    assert all(f"to={name}" in HELP for name in FORMATS)
    assert all(f"{name}=" in HELP for name in OWN)
    assert parse(["images=a", "to=csv", "run=x", "score=0.5"]) == Request(images="a", to="csv", score=0.5)


def test_every_format_is_of_some_answer():
    from adapt.verbs.predicting.request import FORMATS
    from adapt.verbs.predicting.writers import CALLED, WRITERS

    assert {name for formats in WRITERS.values() for name in formats} == set(FORMATS)
    assert WRITERS.keys() == CALLED.keys() == answerers.ANSWERS.keys()


def test_a_large_picture_is_enlarged_in_runs_of_rows_as_at_once(monkeypatch):
    import torch.nn.functional as F

    monkeypatch.setattr("adapt.verbs.answers.VALUES", 4 * 101 * 7)
    whole = F.interpolate(torch.from_numpy(logits(3))[None], (83, 101), mode="bilinear", align_corners=False)[0].argmax(0)
    assert (enlarged(logits(3), 101, 83) == whole.numpy()).mean() > 0.999


def test_pictures_are_decoded_ahead_but_not_far():
    begun: list[int] = []
    jobs = (lambda number=number: begun.append(number) or number for number in range(100))
    stream = ahead(jobs, 8)
    assert next(stream) == 0
    assert len(begun) <= 8
    assert list(stream) == list(range(1, 100))
