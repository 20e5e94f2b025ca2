"""What a session says and hands on of its words, and what its processes do once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapt import pipeline
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.verbs import lineage
from adapt.verbs.session import Session
from tests.suite_trees import SETS, write_set

QUICK = ["data.path=photos", "distill=null", "export=[]", "tracker=none"]
BOTH = """
import os
from pathlib import Path
from adapt.data import scan
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.verbs.session import Session

looked, rank = scan._looked, os.environ["RANK"]

def noted(value, guest):
    with open(f"looked-{rank}.txt", "a") as file:
        print(value["path"], file=file)
    return looked(value, guest)

def session(path):
    return Session(load_recipe("clip_lora", [f"data.path={path}", "distill=null", "export=[]", "tracker=none"]))

scan._looked = noted
Path(f"found-{rank}.txt").write_text(str(session("photos").fingerprints))
try:
    session("broken").data
except UserError as error:
    Path(f"error-{rank}.txt").write_text(str(error))
"""
"""What each of two processes runs."""


@pytest.fixture
def photos(tmp_path):
    random = np.random.default_rng(0)
    for name in ("Forest", "river"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            picture = random.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / "photos" / name / f"{i}.png")


def test_what_was_not_exact_is_said_once(photos, capsys):
    session = Session(load_recipe("clip_lora", [*QUICK, "prompts={templates: clip/eurosat, classes: clip/eurosat}"]))
    assert session.words["classes"] == session.words["classes"] == ["forest", "river"]
    assert list(session.family.classes) == ["forest", "river"]
    out = capsys.readouterr().out
    assert out.count("prompts.classes: of the list's names, the data lack 8 ('AnnualCrop', ") == 1


def test_data_without_train_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPT_CACHE", str(tmp_path / "cache"))
    place = write_set(tmp_path, next(one for one in SETS if one.name == "cups"))

    def opened(train: str):
        data = f"data={{source: clip_benchmark, path: {place}, train: {train}}}"
        return Session(load_recipe("clip_lora", [data, "distill=null", "export=[]", "tracker=none"]))

    assert set(opened("true").data) == {"train", "test"}
    with pytest.raises(
        UserError, match=r"^data\.source: 'clip_benchmark' gives test and no train.* data\.train=true reads"
    ) as error:
        _ = opened("false").data
    assert "\n" not in str(error.value)


def test_a_list_that_does_not_match_is_refused_before_a_model_is_there(photos, monkeypatch):
    session = Session(load_recipe("clip_lora", [*QUICK, "prompts={descriptions: {Forest: trees, lake: water}}"]))
    monkeypatch.setattr("adapt.models.clip.family.Clip.text_embedding", lambda *_: pytest.fail("encoded"))
    with pytest.raises(UserError, match=r"the list lacks 1 \('river'\); of the list's, the data lack 1 \('lake'\)"):
        _ = session.family


def test_texts_are_part_of_what_a_number_was_measured_with(photos):
    def recipe(*more: str):
        return load_recipe("clip_lora", [*QUICK, *more])

    green, brown = (f"prompts.descriptions={{Forest: [tall, {colour}], river: water}}" for colour in ("green", "brown"))
    found = {given: lineage.model(Session(recipe(given)))["words"]["texts"] for given in (green, brown)}
    assert found[green] != found[brown]
    assert "texts" not in lineage.model(Session(recipe()))["words"], "what was made of plain names stays valid"
    protocol = pipeline.evaluate(recipe(green)).entries[0]["protocol"]
    assert (protocol["texts"], protocol["combine"]) == (found[green], "mean")
    assert (protocol["metric"], protocol["precision"]) == ("top1", "fp32")
    assert protocol["logit_scale"] == pytest.approx(Session(recipe(green)).family.slots.text.scale().item(), abs=1e-3)


@pytest.mark.slow
def test_of_two_processes_one_looks_at_the_pictures_and_both_meet_the_error_of_broken_ones(photos, tmp_path):
    shutil.copytree(tmp_path / "photos", tmp_path / "broken")
    (tmp_path / "broken" / "river" / "0.png").write_bytes(b"cut")
    (tmp_path / "both.py").write_text(BOTH)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "both.py"]
    here = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2]), "ADAPT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(launch, cwd=tmp_path, env=os.environ | here, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    found, errors = ([(tmp_path / f"{name}-{rank}.txt").read_text() for rank in (0, 1)] for name in ("found", "error"))
    assert found[0] == found[1] and "train" in found[0]
    assert errors[0] == errors[1] and "river/0.png" in errors[0]
    assert not (tmp_path / "looked-1.txt").exists()
    assert len((tmp_path / "looked-0.txt").read_text().splitlines()) == 2 * 20
