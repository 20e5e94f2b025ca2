"""The canary says what an adaptation forgets, and the sweep finds how far it may go, for every method that has a way back."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoTokenizer, CLIPModel

from adapt import pipeline
from adapt.cli import main
from adapt.data.world import file
from adapt.evals import zeroshot
from adapt.models import checkpoint
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.run import Run
from adapt.verbs import canary, guests, sweep
from adapt.vision.pictures import open_picture

TEMPLATES = "{templates: ['an icon of a {}']}"
EVALS = "evals: [{name: zeroshot, bootstrap: 100}]"
TARGET = ["data={source: folder, path: target}", f"prompts={TEMPLATES}", "distill=null", "export=[]", "tracker=none"]
QUICK = [*TARGET, "train={epochs: 2, batch: 8, lr: 5e-3, augment: {crop: 1, flip: 0, colour: 0}}", "evals.0.bootstrap=100"]
ALIKE = f"{{name: alike, data: {{source: folder, path: alike}}, prompts: {TEMPLATES}, {EVALS}}}"
OTHER = f"{{data: {{path: other, validation: 0}}, prompts: {TEMPLATES}, {EVALS}}}"
CANARY = f"canary=[{OTHER}, {ALIKE}]"
SETS = {
    "target": ("openmoji", {"animal-mammal": "mammal", "food-fruit": "fruit", "transport-ground": "vehicle"}),
    "alike": ("twemoji", {"animal-mammal": "mammal", "food-fruit": "fruit", "transport-ground": "vehicle"}),
    "other": ("noto", {"animal-bird": "bird", "clothing": "clothes", "food-vegetable": "vegetable"}),
}
"""Folder → who drew its pictures, and its classes; of the third nobody but zero-shot has been told."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A working folder with the target's pictures and two sets of a canary, in class folders; `other` has no validation split."""
    folder = tmp_path_factory.mktemp("canary")
    for name, (hand, classes) in SETS.items():
        table = pq.read_table(file(hand)).to_pylist()
        for subgroup, label in classes.items():
            drawn = [row["image"] for row in table if row["subgroup"] == subgroup][:18]
            for number, picture in enumerate(drawn):
                split = ("train", "train" if name == "other" else "validation", "test")[number % 3]
                place = folder / name / split / label
                place.mkdir(parents=True, exist_ok=True)
                open_picture(picture).convert("RGBA").save(place / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def lora(home):
    """A finished run with a canary."""
    here = Path.cwd()
    os.chdir(home)
    try:
        return pipeline.finetune(load_recipe("clip_lora", [CANARY, *QUICK])).path.resolve()
    finally:
        os.chdir(here)


@pytest.fixture(autouse=True)
def at_home(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.setattr(sweep, "SCALES", [0.0, 0.5, 1.0])


def numbers(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


# --------------------------------------------------------------------------------------------------------------- measured


def test_its_score_is_what_evaluate_says_of_the_same_data(lora):
    record = numbers(lora)["canary"]["zero-shot"]
    own = {part["name"]: part["value"] for part in record["parts"]}
    assert list(own) == ["auto", "alike"]
    for name, path in (("auto", "other"), ("alike", "alike")):
        alone = [f"data={{source: folder, path: {path}}}", *TARGET[1:], "evals.0.bootstrap=100"]
        assert own[name] == pipeline.evaluate(load_recipe("clip_lora", alone)).metrics["zero-shot"]["top1"]
    assert record["value"] == pytest.approx((own["auto"] + own["alike"]) / 2)


def test_the_model_is_asked_about_its_own_classes_again():
    told = []
    family = SimpleNamespace(classes=["cat"], templates=["{}"], texts=[["cat", "kitten"]], combine="max")
    family.set_classes = lambda classes, templates, texts=None, combine="mean": told.append(
        (classes, templates, texts, combine)
    )
    guest = guests.Guest(None, "canary.0", "x", None, [], None)
    guest.labels, guest.words = ["bird"], {"classes": ["a bird"], "templates": ["x {}"]}
    with pytest.raises(UserError), guest.asked(family):
        raise UserError("of an eval")
    assert told == [(["a bird"], ["x {}"], None, "mean"), (["cat"], ["{}"], [["cat", "kitten"]], "max")]


def test_table_guard_and_page_have_it(lora):
    found = numbers(lora)
    change = found["canary"]["adapted"]["change"]
    before, after = (found["canary"][name]["value"] for name in ("zero-shot", "adapted"))
    assert change[0] == pytest.approx(after - before)
    assert change[1] <= change[0] <= change[2]
    guard = next(each for each in found["guards"] if "canary" in each["name"])
    assert guard["state"] == ("broken" if change[2] < 0 else "not shown" if change[1] < 0 else "kept")
    assert found["entries"][1]["metrics"]["canary"] == after
    assert found["entries"][1]["metrics"]["canary alike"] > 0
    text = (lora / "report.md").read_text()
    assert "| canary |" in text.splitlines()[6] and f"{100 * after:.1f} %" in text
    assert "other data that the model should not forget: alike, auto" in text


def test_what_is_up_to_date_is_not_measured_again_and_another_canary_is(lora, monkeypatch, tmp_path):
    kept = shutil.copytree(lora, tmp_path / "kept")
    asked = []
    real = canary.score
    monkeypatch.setattr(canary, "score", lambda session, *rest: asked.append(1) or real(session, *rest))
    pipeline.evaluate(load_recipe("clip_lora", [CANARY, *QUICK]))
    assert not asked
    pipeline.evaluate(load_recipe("clip_lora", [f"canary=[{OTHER}]", *QUICK]))
    assert len(asked) == 2, "zero-shot and adapted"
    assert [part["name"] for part in numbers(lora)["canary"]["adapted"]["parts"]] == ["auto"]
    assert "canary alike" not in numbers(lora)["entries"][1]["metrics"]
    shutil.rmtree(lora)
    kept.rename(lora)


def part(name: str, hits: list[int], ids: list[str]) -> canary.Part:
    table = {"id": ids, "correct": [bool(hit) for hit in hits]}
    return canary.Part(name, "top1", "test", float(np.mean(hits)), 0.0, len(hits), zeroshot, table)


def test_the_change_is_paired_and_of_the_parts_that_both_have():
    random = np.random.default_rng(0)
    hits = random.integers(0, 2, 200)
    ids = [f"a/{i}" for i in range(200)]
    one = [part("a", hits, ids), part("gone", [1, 0], ["x", "y"])]
    worse = hits.copy()
    worse[np.flatnonzero(hits)[:10]] = 0
    found = canary.change(one, [part("a", worse, ids)])
    assert found[0] == pytest.approx(-10 / 200)
    assert -0.09 < found[1] < -0.05 < found[2] < -0.015, "ten of 200 flips: ± 3 points, not the ± 7 of two unpaired means"
    assert canary.change(one, [part("other", hits, ids)]) is None


def test_sets_of_the_same_things_are_drawn_together():
    """Four hands that draw the same 200 things equally well tell no more than one hand does; four of other things twice as much."""
    hits = np.random.default_rng(0).integers(0, 2, 200)
    hands = [part(name, hits, [f"{name}/{i}" for i in range(200)]) for name in "abcd"]
    others = [part(name, hits, [f"{name}/{name}{i}" for i in range(200)]) for name in "abcd"]
    width = {
        name: np.diff(canary.interval(parts))[0] for name, parts in {"one": hands[:1], "same": hands, "other": others}.items()
    }
    assert width["same"] == pytest.approx(width["one"], rel=0.15)
    assert width["other"] == pytest.approx(width["one"] / 2, rel=0.2)


# ----------------------------------------------------------------------------------------------------------------- swept


def swept(run: Path, *more: str) -> dict:
    assert main(["merge", f"run={run}", "scale=sweep", *more]) == 0
    return numbers(run)


def consistent(run: Path, found: dict, keep: float) -> dict:
    """The sweep's own promises; returns it."""
    rows, first = found["sweep"]["rows"], found["sweep"]["rows"][0]
    assert found["sweep"]["by"] == "canary" and found["sweep"]["keep"] == keep
    assert found["sweep"]["budget"] == pytest.approx(keep * first["canary"])
    enough = [row for row in rows if row["canary"] >= found["sweep"]["budget"] - 1e-9]
    chosen = next(row for row in rows if row["scale"] == found["sweep"]["chosen"])
    assert chosen in enough and chosen["value"] == max(row["value"] for row in enough)
    assert all(row["kept"] == pytest.approx(row["canary"] / first["canary"]) for row in rows)
    assert (run / "forgetting.png").stat().st_size > 10_000
    assert Image.open(io.BytesIO((run / "forgetting.png").read_bytes())).size[0] > 500
    assert "at each scale of what it learnt" in (run / "report.html").read_text()
    return found["sweep"]


def test_lora_is_swept_on_both_validations_and_reported_on_both_tests(lora, capsys):
    found = swept(lora, "keep=0.97")
    sweeps = consistent(lora, found, 0.97)
    said = capsys.readouterr().out
    assert "keep 97 % of the canary's zero-shot score" in said
    assert [(each["name"], each["split"]) for each in sweeps["sets"]] == [("auto", "test"), ("alike", "validation")]
    assert "auto has no validation split: what is chosen by it is reported on the same pictures" in said
    test = {name: record["parts"] for name, record in found["canary"].items()}
    assert {each["split"] for each in test["merged"]} == {"test"}
    assert sweeps["held"]["canary"]["0"] == found["canary"]["zero-shot"]["value"]
    assert sweeps["held"]["kept"] == pytest.approx(found["canary"]["merged"]["value"] / found["canary"]["zero-shot"]["value"])
    entries = {entry["name"]: entry["metrics"]["top1"] for entry in found["entries"]}
    assert sweeps["held"]["target"] == {"0": entries["zero-shot"], "chosen": entries["merged"], "1": entries["adapted"]}
    assert any(guard["name"] == "merged keeps enough of the canary" for guard in found["guards"])


def test_full_is_written_as_the_checkpoint_between_base_and_what_learnt(home, capsys):
    recipe = load_recipe("clip_lora", [CANARY, *QUICK, "method={name: full}", "train.lr=3e-4"])
    run = pipeline.finetune(recipe).path
    found = swept(run, "keep=0.9")
    consistent(run, found, 0.9)
    pipeline.merge(recipe, scale=0.3)
    learned = load_file(run / "adapter" / "weights.safetensors")
    start = load_file(Path(checkpoint.resolve("clip-tiny")) / "model.safetensors")
    plain = CLIPModel.from_pretrained(run / "merged", dtype=torch.float32).state_dict()
    moved = 0
    for name, value in plain.items():
        if f"backbone.{name}" in learned and value.is_floating_point():
            a, b = start[name].float(), learned[f"backbone.{name}"].float()
            torch.testing.assert_close(value, a + 0.3 * (b - a), atol=1e-6, rtol=0)  # WiSE-FT eq. (1)
            moved += not torch.equal(a, b)
    assert moved > 50
    AutoTokenizer.from_pretrained(run / "merged")


def test_a_head_goes_from_the_zero_shot_classifier_to_what_it_learnt(home):
    recipe = load_recipe("clip_lora", [CANARY, *QUICK, "method={name: head}", "train.lr=1e-1"])
    run = pipeline.finetune(recipe).path
    found = swept(run, "keep=0.95")
    consistent(run, found, 0.95)
    zero = next(entry for entry in found["entries"] if entry["name"] == "zero-shot")
    assert [part["name"] for part in found["canary"]["zero-shot"]["parts"]] == ["auto", "alike"]
    assert [part["name"] for part in found["canary"]["merged"]["parts"]] == ["alike"], "a head knows its own classes alone"
    pipeline.merge(recipe, scale=0.25)
    mixed, learned = load_file(run / "merged" / "head.safetensors"), load_file(run / "adapter" / "weights.safetensors")
    assert mixed.keys() == {"head.weight", "head.bias"} and not (run / "merged" / "config.json").exists()
    net = CLIPModel.from_pretrained(checkpoint.resolve("clip-tiny"), dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.resolve("clip-tiny"))
    classes, templates = zero["classes"], ["an icon of a {}"]
    with torch.no_grad():
        rows = []
        for name in classes:
            tokens = tokenizer([each.replace("{}", name) for each in templates], padding=True, return_tensors="pt")
            hidden = net.text_projection(net.text_model(**tokens).pooler_output)
            rows.append(F.normalize(F.normalize(hidden, dim=-1).mean(0), dim=0))
        start = torch.stack(rows) * net.logit_scale.exp()
    torch.testing.assert_close(mixed["head.weight"], 0.75 * start + 0.25 * learned["head.weight"], atol=2e-4, rtol=0)
    torch.testing.assert_close(mixed["head.bias"], 0.25 * learned["head.bias"], atol=1e-7, rtol=0)


def test_what_did_not_begin_as_the_model_as_it_comes_is_refused(home, capsys):
    recipe = load_recipe("clip_lora", [*QUICK, "method={name: head, init: zero}"])
    run = pipeline.finetune(recipe).path
    capsys.readouterr()
    assert main(["merge", f"run={run}", "scale=sweep"]) == 2
    said = capsys.readouterr().err
    assert "scale: sweep is not for method 'head' as it was trained" in said and "method.init=text" in said
    assert len(said.splitlines()) == 1
    assert not (run / "merged").exists()
    assert main(["merge", f"run={run}"]) == 0


# ----------------------------------------------------------------------------------------------------------- wrong input

WORDS = "data: {source: emoji, hand: noto}, evals: [{name: zeroshot}]"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("canary=[{data: {source: emoji}}]", "canary.0.evals: nothing is measured. Name an eval"),
        ("canary=[{evals: [{name: zeroshot}]}]", "canary.0.data: missing. Name a source"),
        ("canary=source_hand", "there is no suite 'source_hand'; a file's path ends in .yaml. Did you mean 'source_hands'?"),
        ("canary=3", "canary: got 3; write a list of sets"),
        ("canary=[7]", "canary.0: got 7; write a mapping"),
        (f"canary=[{{{WORDS}}}, {{{WORDS}}}]", "canary.1.name: two sets are called 'emoji'"),
        (f"canary=[{{{WORDS}, tempaltes: []}}]", "canary.0.tempaltes: no such option"),
        ("canary=[{data: {source: emoji, hand: nobody}, evals: [{name: zeroshot}]}]", "canary.0.data.hand: got 'nobody'"),
        ("canary=[{data: {source: emoji}, evals: [{name: zero}]}]", "canary.0.evals.0.name: there is no eval 'zero'"),
        (f"canary=[{{{WORDS}, prompts: {{templates: []}}}}]", "canary.0.prompts.templates: the list is empty"),
        (f"canary=[{{{WORDS}, prompts: {{templates: [an icon]}}}}]", "canary.0.prompts.templates.0: 'an icon' needs"),
        ("canary=[{data: {path: nowhere}, evals: [{name: zeroshot}]}]", "canary.0.data.path: "),
    ],
)
def test_a_wrong_canary_is_one_line_before_anything_heavy(given, said, capsys, monkeypatch):
    monkeypatch.setattr("adapt.verbs.session.Session.__init__", None)
    assert main(["finetune", "recipe=clip_lora", given]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1


def test_class_names_that_do_not_match_are_found_before_the_training(capsys):
    wrong = "canary=[{data: {path: other}, prompts: {classes: {brid: bird}}, evals: [{name: zeroshot}]}]"
    assert main(["finetune", "recipe=clip_lora", wrong, *QUICK, "seed=11"]) == 2
    assert "canary.0.prompts.classes: the names do not match the data" in capsys.readouterr().err
    assert not Run.open(load_recipe("clip_lora", [*QUICK, "seed=11"])).path.exists()


@pytest.mark.parametrize("value", ["1.5", "-0.1", "all"])
def test_a_share_that_is_none_is_refused(lora, value, capsys):
    assert main(["merge", f"run={lora}", "scale=sweep", f"keep={value}"]) == 2
    assert f"keep: '{value}' is not a number from 0 to 1" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"keep: 1\.5 is not a number from 0 to 1"):
        pipeline.merge(load_recipe(lora / "recipe.yaml"), scale="sweep", keep=1.5)


def test_a_canary_that_zero_shot_knows_nothing_of_has_nothing_to_keep():
    zero = [part("a", [0, 0], ["a/1", "a/2"])]
    result = SimpleNamespace(metrics={"top1": 0.5}, intervals={}, table={"id": ["1"], "correct": [True]})
    with pytest.raises(UserError, match="zero-shot scores 0 on it"):
        sweep._row(SimpleNamespace(main="top1", name="zeroshot"), "canary", (result, zero), (result, zero))


def test_a_recipe_of_icons_leaves_its_canary_behind_on_other_data(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(load_recipe("clip_lora", ["canary=source_hands"]).to_yaml())
    assert len(load_recipe(mine).canary) == 4
    assert load_recipe(mine, ["data.path=photos"]).canary == []
    assert "canary=[]" in load_recipe(mine, ["data.path=photos"]).notes[0]
