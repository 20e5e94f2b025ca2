"""The wheel has recipes, prompts and assets, and works from any folder without the clone, as the README says to a newcomer."""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A fresh environment with the wheel; the libraries are this environment's own."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("adapt_vision-*.whl")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True, capture_output=True)
    site = next((folder / "env" / "lib").glob("python*")) / "site-packages"
    # a .pth line adds the libraries, but not the .pth files among them: the editable clone stays out
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "env" / "bin"


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_wheel_works_from_any_folder(installed, tmp_path):
    where = run(installed / "python", "-c", "import adapt; print(adapt.__file__)", cwd=tmp_path)
    assert str(installed.parent) in where.stdout, where.stderr
    read = "from adapt.verbs.shooting import published; print(len(published.read().shots))"
    assert int(run(installed / "python", "-c", read, cwd=tmp_path).stdout) > 5
    listed = run(installed / "adapt", "recipes", cwd=tmp_path)
    assert "clip_lora" in listed.stdout, listed.stderr
    assert "zoo/clip_tiny" in listed.stdout
    code = "from adapt.suite import load_suite; from adapt.literature import figures; print(len(load_suite('core').sets), len(figures()))"
    data = run(installed / "python", "-c", code, cwd=tmp_path)
    assert data.stdout.split()[0] == "41" and int(data.stdout.split()[1]) > 500, data.stderr
    suite = run(installed / "adapt", "recipes", "clip_lora", "canary=source_hands", cwd=tmp_path)
    assert "hand: fluent_3d" in suite.stdout, suite.stderr
    code = "from adapt.data.emoji import Config, load; print(len(load(Config())['test']))"
    assert run(installed / "python", "-c", code, cwd=tmp_path).stdout.split() == ["213"]


def test_the_source_archive_is_the_repository(tmp_path):
    """So that `make setup` and the tests work in it; but for hidden files."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    if not tracked:
        pytest.skip("not a git checkout")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.glob("adapt_vision-*.tar.gz")
    with tarfile.open(archive) as members:
        names = {name.partition("/")[2] for name in members.getnames()}
    assert not {name for name in tracked if not name.startswith(".") and (ROOT / name).exists()} - names


SMALL = ["model.checkpoint=clip-tiny", "train.epochs=1", "tracker=none", "evals.0.bootstrap=100"]
SMALL += ["distill.student=test_resnet", "distill.pretrained=false", "distill.train.epochs=1", "distill.views=1"]
SMALL += ["export.0.calibration=16", "export.0.bench=0.05"]
"""So that it takes seconds and no network; a reader types none of it."""


def typed(verb: str) -> list[str]:
    """The README's first command of the verb."""
    line = re.search(rf"^(adapt {verb} .*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)[1]
    return shlex.split(line, comments=True)[1:]


@pytest.mark.slow
def test_two_commands_lead_a_newcomer_from_a_folder_to_an_int8_file_and_a_third_to_its_answers(installed, photos, tmp_path):
    written = run(installed / "adapt", *typed("init"), cwd=tmp_path)
    road = typed("road")
    assert written.stdout.splitlines()[-1] == f"Next: {shlex.join(['adapt', *road])}", written.stderr
    done = run(installed / "adapt", *road, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = (tmp_path / "runs").glob("mine-*")
    assert list(path.glob("export/*/onnx/model.int8.onnx"))
    assert f"runs/{path.name}" in done.stdout.replace("\n", ""), "the last line names the run folder"

    (tmp_path / "new").mkdir()
    for name in ("lime", "snow"):
        (tmp_path / "photos" / name / "0.png").rename(tmp_path / "new" / f"{name}.png")
    asked = [word if not word.startswith("run=") else f"run=runs/{path.name}" for word in typed("predict")]
    answered = run(installed / "adapt", *asked, cwd=tmp_path)
    assert answered.returncode == 0, answered.stderr[-2000:]
    (file,) = (tmp_path / "answers").rglob("predictions.csv")
    rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
    assert [row["path"] for row in rows] == ["lime.png", "snow.png"]
    assert all((tmp_path / "photos" / row["label"]).is_dir() for row in rows)
