"""The wheel has recipes, prompts and assets, and works from any folder without the clone."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
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
    overrides = ["train.epochs=1", "data.shots=1", "data.unlabelled=[]", "tracker=none"]
    done = run(installed / "adapt", "finetune", "recipe=clip_lora", *overrides, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "runs").glob("*/adapter/adapter_model.safetensors"))
