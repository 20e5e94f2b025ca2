"""What `adapt predict` writes, others read: supervision, ultralytics, and a Label Studio that runs; each in an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapt.data import labelstudio
from adapt.verbs import predict
from adapt.verbs.predicting import answerers
from adapt.verbs.predicting.request import Request

pytestmark = pytest.mark.outside

NAMES = ["ant", "bee, wild", "cät"]
PICTURES = {
    "0.jpg": (60, 40),
    "0.png": (61, 40),
    "1.png": (64, 48),
    "2.png": (200, 10),
    "deep/a b.png": (33, 44),
    "deep/ü.png": (30, 90),
}
"""Name → width and height; two share a stem."""
TOKEN, USER, PASSWORD = "0123456789abcdef0123456789abcdef01234567", "one@example.org", "only for this test"


def boxes(width: int, height: int, number: int) -> dict:
    """Two boxes, of which one is at the picture's edges; none on every third picture."""
    found = [] if number % 3 == 2 else [[1.25, 2.5, width / 3, height - 1.5], [width / 2, 0, width, height / 3]]
    return {
        "bbox": np.array(found, np.float32).reshape(-1, 4),
        "category": np.array([number % 3, 1][: len(found)]),
        "score": np.array([0.9, 0.5][: len(found)], np.float32),
    }


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    """Pictures, for which an answerer by hand says `boxes`."""
    for number, (name, size) in enumerate(PICTURES.items()):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(path)
    numbers = {size: number for number, size in enumerate(PICTURES.values())}
    made = answerers.Answerer(
        "detections",
        NAMES,
        lambda image: image.size,
        lambda views, sizes: [boxes(*size, numbers[size]) for size in sizes],
        {"file": "by hand"},
        "by hand",
    )
    monkeypatch.setattr(answerers, "of_file", lambda path: made)
    return tmp_path / "photos"


def asked(photos: Path, to: str) -> predict.Answered:
    return predict.of_file(Request(images=str(photos), file="x.onnx", to=to, out=to))


def expected(name: str) -> list[tuple[list[float], str]]:
    """Box XYXY and class of the things on a picture."""
    found = boxes(*PICTURES[name], list(PICTURES).index(name))
    return [(box, NAMES[k]) for box, k in zip(found["bbox"].tolist(), found["category"], strict=True)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Callable[..., Path]:
    """(packages) → the Python of a new environment that has them and nothing else; `ours`: beside our own packages, without their needs."""

    def make(*packages: str, ours: bool = False) -> Path:
        place = tmp_path_factory.mktemp("environment")
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        python = place / "bin" / "python"
        uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        install = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
        subprocess.run([*install, "--quiet", *(["--no-deps"] if ours else []), *packages], check=True, timeout=900)
        if ours:
            (libraries,) = place.glob("lib/python*/site-packages")
            (libraries / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return python

    return make


def told(python: Path, script: str, **given: object) -> dict:
    """What a script prints as JSON; `given` is its variable of that name."""
    start = f"import json, os, sys\ngiven = json.loads({json.dumps(given)!r})\n"
    home = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    home |= {"HOME": str(Path.cwd()), "YOLO_CONFIG_DIR": str(Path.cwd()), "YOLO_OFFLINE": "true"}
    done = subprocess.run([python, "-c", start + script], env=home, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------------------------------------------------------- loaders

SUPERVISION = """
import supervision as sv
found = {"version": sv.__version__}
def rows(data):
    return {
        os.path.basename(path): [
            [box.tolist(), data.classes[k]] for box, k in zip(one.xyxy, one.class_id if one.class_id is not None else [])
        ]
        for path, image, one in data
    }
DataSet = sv.DetectionDataset
found["coco"] = rows(DataSet.from_coco(given["photos"], "coco/dataset.json"))
for part in (".", "deep"):
    found["yolo " + part] = rows(DataSet.from_yolo(f"yolo/images/{part}", f"yolo/labels/{part}", "yolo/data.yaml"))
    found["voc " + part] = rows(DataSet.from_pascal_voc(f"voc/JPEGImages/{part}", f"voc/Annotations/{part}"))
print(json.dumps(found))
"""


def test_supervision_pairs_every_picture_with_its_boxes(photos, environment):
    for to in ("coco", "yolo", "voc"):
        asked(photos, to)
    found = told(environment("supervision"), SUPERVISION, photos=str(photos))
    print("supervision", found["version"])
    links = {"0.jpg": "0_jpg", "0.png": "0_png"} | {name: Path(name).stem for name in PICTURES if not name.startswith("0")}
    assert len(found["coco"]) == len(PICTURES)
    for name in PICTURES:
        part = "deep" if name.startswith("deep") else "."
        for to, link, near in (
            ("coco", Path(name).name, 1e-4),
            (f"yolo {part}", links[name] + Path(name).suffix, 1e-4),
            (f"voc {part}", links[name] + ".jpg", 1.01),  # whole pixels, which supervision counts in its own way
        ):
            boxes_there = found[to][link]
            assert [label for _, label in boxes_there] == [label for _, label in expected(name)], (to, name)
            for (box, _), (right, _) in zip(boxes_there, expected(name), strict=True):
                np.testing.assert_allclose(box, right, atol=near, err_msg=f"{to} {name}")
    assert sum(len(found[f"{to} {part}"]) for to in ("yolo", "voc") for part in (".", "deep")) == 2 * len(PICTURES)


ULTRALYTICS = """
import ultralytics
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset
data = check_det_dataset("yolo/data.yaml", autodownload=False)
made = YOLODataset(img_path=data["train"], data=data, augment=False, imgsz=64, task="detect")
found = {
    os.path.relpath(one["im_file"], os.path.abspath("yolo/images")): [one["bboxes"].tolist(), one["cls"].ravel().tolist(), one["shape"]]
    for one in made.labels
}
print(json.dumps({"version": ultralytics.__version__, "names": data["names"], "found": found}))
"""


def test_ultralytics_pairs_every_picture_with_its_boxes(photos, environment):
    """Its licence is the AGPL: it is installed for this test alone, and runs in a process of its own."""
    asked(photos, "yolo")
    python = environment("ultralytics", "ultralytics-thop", "opencv-python-headless", ours=True)
    said = told(python, ULTRALYTICS)
    print("ultralytics", said["version"])
    assert said["names"] == {str(number): name for number, name in enumerate(NAMES)}
    links = {"0.jpg": "0_jpg.jpg", "0.png": "0_png.png"} | {name: name for name in PICTURES if not name.startswith("0")}
    assert sorted(said["found"]) == sorted(links.values())
    for name, link in links.items():
        shares, classes, (height, width) = said["found"][link]
        assert (width, height) == PICTURES[name]
        assert [NAMES[int(k)] for k in classes] == [label for _, label in expected(name)]
        for (x, y, w, h), (box, _) in zip(shares, expected(name), strict=True):
            sides = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
            assert sides == pytest.approx(box, abs=1e-4)


# ----------------------------------------------------------------------------------------------------------- Label Studio


@contextmanager
def server(python: Path, place: Path, documents: Path) -> Iterator[tuple[str, str]]:
    """A Label Studio on a free port of this machine: its address and version; it is stopped whatever happens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"HOME": str(place), "COLLECT_ANALYTICS": "false", "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true"}
    settings |= {"LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true", "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(documents)}
    command = [python.with_name("label-studio"), "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    command += ["--data-dir", place, "--username", USER, "--password", PASSWORD, "--user-token", TOKEN]
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with open(place / "server.txt", "w") as log:
        process = subprocess.Popen(
            [*command, "--enable-legacy-api-token"], env=plain | settings, stdout=log, stderr=subprocess.STDOUT, cwd=place
        )
        try:
            yield f"http://127.0.0.1:{port}", _version(process, f"http://127.0.0.1:{port}", place)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _version(process: subprocess.Popen, address: str, place: Path) -> str:
    until = time.monotonic() + 180
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/api/version/?json=1", timeout=5) as answer:
                return json.load(answer)["release"]
        except OSError:
            time.sleep(0.5)
    raise AssertionError((place / "server.txt").read_text()[-3000:])


LABEL_STUDIO = """
from importlib.metadata import version
from label_studio_sdk import LabelStudio
client = LabelStudio(base_url=given["address"], api_key=given["token"])
config = open("labelstudio/label_config.xml", encoding="utf-8").read()
tasks = json.load(open("labelstudio/tasks.json", encoding="utf-8"))
project = client.projects.create(title="ours", label_config=config)
client.import_storage.local.create(project=project.id, path=given["photos"], use_blob_urls=True)
client.projects.import_tasks(id=project.id, request=tasks)
held = {}
for task in client.tasks.list(project=project.id, fields="all"):
    (said,) = client.predictions.list(task=task.id)
    held[task.data["image"]] = {"result": said.result, "score": said.score, "model_version": said.model_version}
    client.annotations.create(id=task.id, result=said.result)
export = client.projects.exports.as_json(project.id)
json.dump(export, open("export.json", "w", encoding="utf-8"))
print(json.dumps({"held": held, "sdk": version("label-studio-sdk")}))
"""


def test_a_running_label_studio_holds_our_boxes_and_its_export_is_data(photos, environment, tmp_path):
    answered = asked(photos, "labelstudio")
    assert str(photos) in answered.notes[-1]
    python = environment("label-studio", "label-studio-sdk")
    place = tmp_path / "server"
    place.mkdir()
    with server(python, place, photos.parent) as (address, version):
        said = told(python, LABEL_STUDIO, address=address, token=TOKEN, photos=str(photos))
        print("label-studio", version, "label-studio-sdk", said["sdk"])
        tasks = json.loads(Path("labelstudio/tasks.json").read_text(encoding="utf-8"))
        for task, name in zip(tasks, sorted(PICTURES), strict=True):
            request = urllib.request.Request(
                address + task["data"]["image"].replace(" ", "%20"), headers={"Authorization": f"Token {TOKEN}"}
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.read() == (photos / name).read_bytes(), "the pictures are shown"
    for task in tasks:
        ours, theirs = task["predictions"][0], said["held"][task["data"]["image"]]
        assert theirs["model_version"] == ours["model_version"]
        assert len(theirs["result"]) == len(ours["result"])
        for one, other in zip(theirs["result"], ours["result"], strict=True):
            assert one["value"]["rectanglelabels"] == other["value"]["rectanglelabels"]
            for side in ("x", "y", "width", "height", "rotation"):
                assert one["value"][side] == pytest.approx(other["value"][side], abs=1e-6)
    read = labelstudio.load(labelstudio.Config(path="export.json", images=str(photos), validation=0, test=0))
    names = read["train"].features["objects"]["category"].feature.names
    sizes = {row["image"].size: row["objects"] for row in read["train"]}
    for name, size in PICTURES.items():
        labels = [names[k] for k in sizes[size]["category"]]
        assert labels == [label for _, label in expected(name)]
        np.testing.assert_allclose(
            np.array(sizes[size]["bbox"]).reshape(-1, 4), np.array([box for box, _ in expected(name)]).reshape(-1, 4), atol=1e-4
        )
