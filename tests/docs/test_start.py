"""A newcomer's three commands, as the README has them: from a folder of class folders to an int8 file, and to its answers."""

from __future__ import annotations

import csv
import re
import shlex
from pathlib import Path

import pytest

from adapt.cli import main

README = Path(__file__).parents[2] / "README.md"
SMALL = ["model.checkpoint=clip-tiny", "train.epochs=1", "tracker=none", "evals.0.bootstrap=100"]
SMALL += ["distill.student=test_resnet", "distill.pretrained=false", "distill.train.epochs=1", "distill.views=1"]
SMALL += ["export.0.calibration=16", "export.0.bench=0.05"]
"""So that it takes seconds; a reader types none of it."""


def typed(verb: str) -> list[str]:
    """The first command of the verb in the README."""
    line = re.search(rf"^adapt ({verb} .*)$", README.read_text(encoding="utf-8"), re.MULTILINE)[1]
    return shlex.split(line, comments=True)


@pytest.mark.slow
def test_two_commands_lead_from_a_folder_to_an_int8_file_and_a_third_to_its_answers(photos, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    assert main(typed("init")) == 0
    road = typed("road")
    assert capsys.readouterr().out.splitlines()[-1] == f"Next: {shlex.join(['adapt', *road])}", "what init says comes next"
    assert main([*road, *SMALL]) == 0, capsys.readouterr().err
    (run,) = Path("runs").glob("mine-*")
    assert list(run.glob("export/*/onnx/model.int8.onnx"))
    assert str(run / "report.html") in capsys.readouterr().out.replace("\n", "")

    Path("new").mkdir()
    for name in ("lime", "snow"):
        Path(f"photos/{name}/0.png").rename(f"new/{name}.png")
    asked = [word if not word.startswith("run=") else f"run={run}" for word in typed("predict")]
    assert main(asked) == 0, capsys.readouterr().err
    (file,) = Path("answers").rglob("predictions.csv")
    with file.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["path"] for row in rows] == ["lime.png", "snow.png"]
    assert all(row["label"] in {path.name for path in Path("photos").iterdir()} for row in rows)
