"""What a verb leaves behind is of use in Python: numbers as a table, models, answers for new pictures."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as Picture

from adapt import pipeline
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.run import Run
from adapt.verbs.outcome import Outcome
from adapt.verbs.predicting.request import Request as PredictRequest

pytestmark = pytest.mark.usefixtures("fewer")

SMALL = ["tracker=none", "data.shots=2", "data.unlabelled=[]", "train.epochs=1", "train.batch=16"]
SMALL += ["distill.train.epochs=1", "distill.views=1", "evals.0.bootstrap=100"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """The folder that holds runs/ with an adapted model and its student."""
    here, home = Path.cwd(), tmp_path_factory.mktemp("home")
    os.chdir(home)
    try:
        recipe = load_recipe("clip_lora", SMALL)
        pipeline.finetune(recipe)
        pipeline.distill(recipe)
    finally:
        os.chdir(here)
    return home


@pytest.fixture
def outcome(home, monkeypatch) -> Outcome:
    monkeypatch.chdir(home)
    (run,) = home.joinpath("runs").iterdir()
    return Outcome.open(f"runs/{run.name}")


def test_the_table_has_a_row_an_entry_with_its_numbers(outcome):
    table = outcome.table
    assert list(table.index) == ["zero-shot", "adapted", "student logits-resnet10t"]
    for entry in outcome.entries:
        row = table.loc[entry["name"]]
        assert row["value"] == entry["metrics"]["top1"] == outcome.metrics[entry["name"]]["top1"]
        assert [row["low"], row["high"]] == entry["intervals"]["top1"]
    assert table.loc["adapted", "change"] == pytest.approx(table.loc["adapted", "value"] - table.loc["zero-shot", "value"])
    assert table["split"].unique().tolist() == ["test"]


def test_it_prints_as_a_short_table(outcome):
    lines = str(outcome).splitlines()
    assert [line.split("  ")[0] for line in lines[1:4]] == ["zero-shot CLIP", "CLIP + LoRA", "CNN student logits-resnet10t"]
    assert repr(outcome) == str(outcome)
    assert str(outcome.path) in lines[-1]
    assert all(guard["name"] in str(outcome) for guard in outcome.guards)
    assert outcome._repr_html_().count("<tr>") == 4


def test_what_was_measured_of_nothing_prints_too(tmp_path):
    empty = Outcome(tmp_path, [], [])
    assert str(empty) == f"Run: {tmp_path}"
    assert len(empty.table) == 0
    assert empty.ok


def test_the_student_answers_for_paths_pictures_and_arrays_alike(outcome, tmp_path):
    picture = Picture.effect_noise((90, 70), 80).convert("RGB")
    picture.save(tmp_path / "noise.png")
    answers = outcome.predict([tmp_path / "noise.png", str(tmp_path / "noise.png"), picture, np.asarray(picture)])
    assert answers == [answers[0]] * 4
    assert set(answers[0]) == {"label", "probability"}
    assert answers[0]["label"] in outcome._session.labels
    assert 1 / len(outcome._session.labels) <= answers[0]["probability"] <= 1


def test_without_a_student_the_adapted_model_answers_as_it_was_measured(home, tmp_path, monkeypatch):
    """The same pictures get the labels that the table of predictions has."""
    import shutil

    import pyarrow.parquet as pq

    shutil.copytree(home / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    (run,) = Path("runs").iterdir()
    shutil.rmtree(run / "student")
    outcome = Outcome.open(run)
    rows = outcome._session.data["test"].select(range(8))
    kept = pq.read_table(run / "predictions" / "adapted.parquet").to_pylist()
    expected = {row["id"]: row["prediction"] for row in kept}
    answers = outcome.predict(rows["image"])
    assert [answer["label"] for answer in answers] == [expected[name] for name in rows["id"]]


def test_models_come_with_what_was_learnt(outcome):
    import torch

    images = torch.full((2, 3, 64, 64), 128.0)
    assert outcome.student().predictors()["class_logits"](images).shape == (2, len(outcome._session.labels))
    model = outcome.model()
    assert any("lora" in name for name, _ in model.named_parameters())


def test_a_clip_without_classes_answers_with_embeddings(tmp_path):
    """One that was adapted on captions."""
    noise = Picture.effect_noise((90, 70), 80).convert("RGB")
    noise.save(tmp_path / "noise.png")
    features = Features(image=Image(), caption=Value("string"))
    Dataset.from_dict({"image": [noise] * 2, "caption": ["noise", "snow"]}, features).to_parquet(tmp_path / "rows.parquet")
    data = ["data.source=hub", f"data.path={tmp_path}/*.parquet", "evals=[{name: retrieval, split: train}]"]
    recipe = load_recipe("clip_lora", [*data, "distill=null", "export=[]", "tracker=none", "train.epochs=1", "train.batch=2"])
    outcome = pipeline.finetune(recipe)
    (answer,) = outcome.predict([tmp_path / "noise.png"])
    assert answer["embedding"].shape == (256,)
    answered = pipeline.predict(recipe, PredictRequest(images=str(tmp_path / "noise.png"), to="jsonl"))
    assert answered.pictures == 1


def test_an_unreadable_picture_is_named(outcome, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"bad\.png: not an image"):
        outcome.predict([tmp_path / "bad.png"])


def test_a_picture_of_sixteen_bits_is_the_same_by_its_path_and_as_an_array_and_one_without_a_range_is_named(outcome, tmp_path):
    deep = np.random.default_rng(0).integers(0, 1 << 16, (70, 90)).astype(np.uint16)
    Picture.fromarray(deep).save(tmp_path / "deep.png")
    answers = outcome.predict([tmp_path / "deep.png", deep, Picture.open(tmp_path / "deep.png"), (deep >> 8).astype(np.uint8)])
    assert answers == [answers[0]] * 4
    with pytest.raises(UserError, match=r"predict: picture 1: no fixed range \(floating-point numbers of 32 bit\); convert it"):
        outcome.predict([deep, deep / np.float32(65535)])


def test_a_model_that_waits_for_prompts_says_how_to_ask_it(monkeypatch):
    recipe = load_recipe("sam_lora", ["tracker=none"])
    monkeypatch.setattr("adapt.verbs.kept.adapted", lambda session: session.family)
    outcome = Outcome.open(Run.open(recipe).begin(recipe).path)
    with pytest.raises(UserError, match=r"adapt prompt run=runs/sam_lora.* image=FILE"):
        outcome.predict([np.zeros((8, 8, 3), np.uint8)])


def test_a_run_elsewhere_is_refused_with_where_to_go(home, tmp_path):
    (run,) = home.joinpath("runs").iterdir()
    with pytest.raises(UserError, match="Go to the folder that holds runs/"):
        Outcome.open(run).model()
    with pytest.raises(UserError, match="not a run folder"):
        Outcome.open(tmp_path)


def test_a_run_without_numbers_opens_too():
    recipe = load_recipe("clip_lora")
    assert Outcome.open(Run.open(recipe).begin(recipe).path).entries == []
