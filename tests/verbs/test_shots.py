"""Few labels: draws, cells that are kept, the same numbers as finetune's, both halves of the classes, one table."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import concatenate_datasets

from adapt import pipeline, plug
from adapt.cli import main
from adapt.plug import UserError, names
from adapt.recipe import load_recipe
from adapt.report import shots as page
from adapt.run import Run
from adapt.verbs import finetune, measuring, shots
from adapt.verbs.session import Session
from adapt.verbs.shooting import published, samples, summary
from adapt.verbs.shooting.cell import packed, unpacked
from adapt.verbs.shooting.pool import Part, halves
from adapt.verbs.shooting.request import Request, parse

CLASSES = ("animal-bird", "animal-mammal", "clothing", "food-fruit", "music")
COUNTS = {"train": 5, "val": 3, "test": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory, emoji) -> Path:
    """A folder of five classes of the embedded world; the last has a single training picture."""
    root = tmp_path_factory.mktemp("world")
    every = concatenate_datasets([emoji[split] for split in ("train", "validation", "test")])
    labels = np.array(every["label"][:])
    for name in CLASSES:
        label = every.features["label"].str2int(name)
        own = iter(every.select(np.flatnonzero(labels == label)[: sum(COUNTS.values())])["image"])
        for split, count in COUNTS.items():
            place = root / "world" / split / name
            place.mkdir(parents=True)
            for i in range(1 if (split, name) == ("train", CLASSES[-1]) else count):
                next(own).save(place / f"{i}.png")
    return root / "world"


def recipe(world: Path, *overrides: str):
    """A small recipe on these pictures."""
    data = [f"data={{source: folder, path: {world}}}", "prompts={}", "tracker=none", "train={augment: {crop: 0.8}}"]
    return load_recipe("clip_lora", [*data, "distill=null", "export=[]", *overrides])


SMALL = Request(
    shots=(1, 3), seeds=2, methods=("zero-shot", "head", "tip_adapter"), train=("train.epochs=4", "train.cache=true")
)


@pytest.fixture(scope="module")
def swept(world, tmp_path_factory):
    """A sweep of two methods in a folder of its own."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        yield home, pipeline.shots(recipe(world), SMALL)


# ------------------------------------------------------------------------------------------------------------------ draws


IDS = {
    "train": [f"{name}/{i}" for name in "ab" for i in range(9)],
    "validation": [f"v{name}/{i}" for name in "ab" for i in range(6)],
}
LABELS = {"train": [0] * 9 + [1] * 9, "validation": [0] * 6 + [1] * 6}


def test_a_draw_has_so_many_of_each_class_and_at_most_four_for_validation():
    found = samples.draw(IDS, LABELS, [(2, 1), (8, 1), (20, 1)])
    for (count, _), drawn in found.items():
        for name in "ab":
            assert sum(one.startswith(name) for one in drawn.train) == min(count, 9)
            assert sum(one.startswith(f"v{name}") for one in drawn.validation) == min(count, 4)
    assert samples.fewer([0, 0, 1], ["a", "b", "c"], 2) == {"b": 1, "c": 0}


def test_a_draw_does_not_depend_on_the_order_of_the_rows_and_each_is_its_own():
    turned = (
        {name: list(reversed(ids)) for name, ids in IDS.items()},
        {name: list(reversed(own)) for name, own in LABELS.items()},
    )
    keys = [(2, 1), (2, 2), (4, 1)]
    found = samples.draw(IDS, LABELS, keys)
    assert found == samples.draw(*turned, keys)
    assert len({drawn.train for drawn in found.values()}) == 3
    assert not set(found[2, 1].train) <= set(found[4, 1].train), "as in CoOp's files, draws are not nested"


def test_a_file_of_draws_reads_back_as_it_was_written(tmp_path):
    keys = [(1, 1), (2, 1)]
    found = samples.draw(IDS, LABELS, keys)
    (tmp_path / "draws.jsonl").write_text(samples.written(found))
    assert samples.read(tmp_path / "draws.jsonl", keys, IDS) == found
    first = json.loads((tmp_path / "draws.jsonl").read_text().splitlines()[0])
    assert first == {"set": "train", "shots": 1, "seed": 1, "ids": list(found[1, 1].train)}


LINE = '{"set": "train", "shots": 1, "seed": 1, "ids": ["a/1"]}'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("oops", "line 1: 'oops' is no draw"),
        ('{"set": "train", "shots": 1, "seed": "1", "ids": ["a/1"]}', "is no draw"),
        (LINE.replace("train", "trian"), "'trian' is not train or validation. Did you mean 'train'?"),
        (LINE.replace("a/1", "a/11"), "no picture 'a/11'. Did you mean 'a/1'?"),
        (LINE.replace('"a/1"', '"a/1", "a/1"'), "'a/1' is there twice"),
        (LINE.replace("a/1", "t/1"), "'t/1' is of the test split"),
        (f"{LINE}\n{LINE}", "line 2: there is a line of train, 1 shots, seed 1 before it"),
        (LINE.replace('"seed": 1', '"seed": 2'), "no line of train, 1 shots, seed 1. Did you mean '1 shots, seed 2'?"),
        (f"{LINE}\n{LINE.replace('train', 'validation')}", "'a/1' is in train and in validation"),
    ],
)
def test_a_wrong_file_of_draws_is_one_line(tmp_path, text, words):
    (tmp_path / "x.jsonl").write_text(text)
    with pytest.raises(UserError) as error:
        samples.read(tmp_path / "x.jsonl", [(1, 1)], IDS | {"test": ["t/1"]})
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1


# ------------------------------------------------------------------------------------------------------------------ asked


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("shots=0", "shots: '0' is not a number from 1"),
        ("shots=2,two", "shots: 'two' is not a number"),
        ("shot=2", "shot: shots has no option of this name. Did you mean 'shots'?"),
        ("shots=2,2", "shots: 2 is in the list twice"),
        ("seeds=0", "seeds: '0' is not a number from 1"),
        ("cap=0", "cap: '0' is not a number"),
        ("methods=linear_txt", "there is no method 'linear_txt'. Did you mean 'linear_text'?"),
        ("methods=lora,lora", "'lora' is in the list twice"),
        ("methods=[{name: lora, rnk: 4}]", "methods.0.rnk: no such option. Did you mean 'rank'?"),
        ("splits=none.jsonl", "splits: no file 'none.jsonl'"),
        ("stop=no", "stop: 'no' is not true or false"),
    ],
)
def test_what_is_typed_wrong_is_one_line_before_anything_is_read(argument, words, capsys):
    assert main(["shots", "recipe=clip_lora", argument]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert not Path("runs").exists()


def test_what_is_typed_is_what_is_asked():
    arguments = ["recipe=clip_lora", "shots=4,1", "methods=[head, {name: lora, rank: 4}]", "train.lr=1e-3", "base_to_new=true"]
    request = parse(arguments)
    assert (request.shots, request.base_to_new, request.train) == ((1, 4), True, ("train.lr=1e-3",))
    assert request.methods[1].rank == 4
    assert arguments == ["recipe=clip_lora", "train.lr=1e-3"]


@pytest.mark.parametrize(
    ("overrides", "method", "words"),
    [
        (["strict=true"], "head", "1 class of 5 with fewer than 3 training pictures, such as 'music' with 1"),
        (["model={name: dinov2, checkpoint: dinov2-tiny}"], "zero-shot", "'zero-shot' is not for 'dinov2'"),
        (["model={name: dinov2, checkpoint: dinov2-tiny}"], "prolip", "'prolip' does not fit 'dinov2' here"),
    ],
)
def test_data_and_families_that_do_not_fit_are_refused_before_anything_is_encoded(world, overrides, method, words):
    with pytest.raises(UserError, match=words):
        pipeline.shots(recipe(world, "method={name: head}", *overrides), Request(shots=(3,), seeds=1, methods=(method,)))
    assert not Path("runs").exists()


def test_data_without_labels_are_refused(world):
    session = Session(recipe(world))
    session.data = {split: rows.remove_columns("label") for split, rows in session.data.items()}
    with pytest.raises(UserError, match=r"no class labels .*Take data with a class for each picture"):
        shots.shots(session, SMALL)


# ------------------------------------------------------------------------------------------------------------------ cells


def test_the_table_has_a_row_for_each_method_and_shots_and_says_what_it_is_of(swept):
    home, found = swept
    assert found._repr_html_().count("<tr>") == len(found.document["rows"]) + 1 and "<svg" in found._repr_html_()
    rows = found.document["rows"]
    assert [(row["method"], row["shots"]) for row in rows] == [
        ("zero-shot", 0),
        *((name, count) for name in ("head", "tip_adapter") for count in (1, 3)),
    ]
    assert [row["pictures"] for row in rows] == [0, 5, 13, 5, 13]
    assert found.document["fewer"] == {"1": {}, "3": {"music": 1}}
    for row in rows[1:]:
        score = row["scores"]["top1"]
        assert score["mean"] == pytest.approx(np.mean(score["values"]))
        low, high = score["change"][1:]
        assert low <= score["change"][0] <= high
        assert 0 <= row["stopped"] <= 2
    place = home / found.path / "shots"
    assert (place / "shots.png").read_bytes().startswith(b"\x89PNG")
    text = (place / "report.md").read_text()
    assert "| Tip-Adapter | 3 | 13 |" in text
    assert "1 class with fewer than 3 training pictures, which give what they have: music (1)." in text
    assert "<svg" in (place / "report.html").read_text()
    assert found.table.query("method == 'head' and shots == 3")["top1"].item() == rows[2]["scores"]["top1"]["mean"]


def test_a_cell_fits_no_temperature_though_the_recipe_does(world):
    request = Request(shots=(1,), seeds=1, methods=("head",), train=("train.epochs=1", "train.cache=true"))
    found = pipeline.shots(recipe(world, "evals=[{name: zeroshot, top: 3, fitted_on: validation}]"), request)
    (cell,) = (Path(found.path) / "shots" / "cells").glob("head-*.json")
    assert {"top1", "top3"} <= set(json.loads(cell.read_text())["metrics"]["all"])


def test_a_finished_cell_is_not_done_twice_and_a_killed_sweep_goes_on(swept, world, monkeypatch, capsys):
    home, before = swept
    monkeypatch.chdir(home)
    cells = sorted((home / before.path / "shots" / "cells").glob("*.json"))
    assert len(cells) == 8
    times = {file: file.stat().st_mtime_ns for file in cells}
    missing = [cells[1], cells[6]]
    for file in missing:
        file.unlink()
    real, done = shots.learnt, []

    def killed(pool, cell, *others):
        if done:
            raise KeyboardInterrupt
        done.append(cell.name)
        return real(pool, cell, *others)

    monkeypatch.setattr(shots, "learnt", killed)
    with pytest.raises(KeyboardInterrupt):
        pipeline.shots(recipe(world), SMALL)
    monkeypatch.setattr(shots, "learnt", real)
    again = pipeline.shots(recipe(world), SMALL)
    assert again.document == before.document | {"rows": again.document["rows"]}
    for now, then in zip(again.document["rows"], before.document["rows"], strict=True):
        assert now["scores"] == then["scores"], "the same to the last bit"
    assert {file: file.stat().st_mtime_ns for file in cells if file not in missing}.items() <= times.items()
    said = capsys.readouterr().out
    assert "6 of 8 cells finished before" in said
    assert "7 of 8 cells finished before" in said
    assert not list((home / before.path / "shots").glob("work/*"))


def test_other_options_make_a_cell_again_and_say_what_changed(swept, world, monkeypatch, capsys):
    home, _ = swept
    monkeypatch.chdir(home)
    other = Request(shots=(1,), seeds=1, methods=("head",), train=("train.epochs=5", "train.cache=true"))
    found = pipeline.shots(recipe(world), other)
    assert "head: learnt again: train.epochs changed" in capsys.readouterr().out
    assert len(list((home / found.path / "shots" / "cells").glob("head-1-1-*.json"))) == 2
    pipeline.shots(recipe(world), SMALL)
    assert "8 of 8 cells finished before" in capsys.readouterr().out


def test_the_draws_that_were_written_can_be_given(swept, world, monkeypatch, tmp_path):
    home, before = swept
    (tmp_path / "draws.jsonl").write_bytes((home / before.path / "shots" / "samples.jsonl").read_bytes())
    monkeypatch.chdir(home)
    given = Request(**{**vars(SMALL), "splits": str(tmp_path / "draws.jsonl")})
    again = pipeline.shots(recipe(world), given).document
    assert [row["scores"] for row in again["rows"]] == [row["scores"] for row in before.document["rows"]]


def test_a_cells_numbers_are_those_of_finetune_with_the_same_pictures_and_seed(swept, world, monkeypatch):
    home, found = swept
    file = next((home / found.path / "shots" / "cells").glob("head-3-2-*.json"))
    kept = json.loads(file.read_text())
    draws = [json.loads(line) for line in (home / found.path / "shots" / "samples.jsonl").read_text().splitlines()]
    ids = {line["set"]: line["ids"] for line in draws if (line["shots"], line["seed"]) == (3, 2)}
    alone = recipe(world, "method={name: head}", "train.epochs=4", "train.cache=true", "seed=2")
    session = Session(alone)
    whole = session.data
    place = {one: row for split in ids for row, one in enumerate(whole[split]["id"])}
    session.data = {split: whole[split].select([place[one] for one in own]) for split, own in ids.items()} | {
        "test": whole["test"]
    }
    session.data = Whole(session.data, whole)
    finetune.finetune(session)
    (entry,) = [entry for entry in Run(session.run.path).read_json("metrics.json")["entries"] if entry["name"] == "adapted"]
    for name, value in kept["metrics"]["all"].items():
        assert value == pytest.approx(entry["metrics"][name], abs=1e-4), name
    assert kept["validation"]["after"] == pytest.approx(measuring.validate(session, session.family))


class Whole(dict):
    """Splits with what their source found."""

    def __init__(self, parts, source):
        super().__init__(parts)
        self.report, self.origin = source.report, source.origin


# ------------------------------------------------------------------------------------------------------------------ halves


def test_the_first_half_of_the_classes_is_base():
    base, new = halves(["a", "b", "c", "d", "e"])
    assert (base.classes, new.classes) == (["a", "b", "c"], ["d", "e"])
    assert new.has(np.array([-1, 2, 3, 4])).tolist() == [False, False, True, True]
    assert Part("all", ["a"], 0).has(np.array([-1, 0])).tolist() == [False, True]


def test_new_classes_are_asked_by_their_words_where_a_method_can(world):
    coop = plug.schema("methods", "coop")(name="coop", tokens=4)
    request = Request(
        shots=(3,),
        seeds=1,
        methods=("head", "prolip", "lora", coop),
        base_to_new=True,
        cap=3,
        stop=False,
        train=("train.lr=1e-4",),
    )
    found = pipeline.shots(recipe(world, "train.lr=1e-4"), request).document
    rows = {row["method"]: row for row in found["rows"]}
    assert found["pictures"] == {"base": 12, "new": 8}
    assert set(rows["head"]["scores"]) == {"base"}
    assert rows["head"]["no_new"] == "its linear layer has no outputs of others"
    for name in ("zero-shot", "prolip", "lora", "coop"):
        base, new, both = (rows[name]["scores"][score]["values"][0] for score in ("base", "new", "harmonic"))
        assert both == pytest.approx(2 * base * new / (base + new) if base + new else 0)
    assert rows["zero-shot"]["scores"]["new"]["mean"] > 0.5, "classes that only the text tower knows"
    assert rows["prolip"]["scores"]["new"]["mean"] == pytest.approx(rows["zero-shot"]["scores"]["new"]["mean"], abs=0.26)
    cells = page.grid(found)
    assert cells[0][3:6] == ["base classes, %", "new classes, %", "harmonic mean, %"]
    assert next(row for row in cells if row[0] == "linear probe")[4] == "–"
    assert any("linear probe cannot be asked about new classes" in note for note in page.notes(found))


def test_what_is_of_another_size_beside_other_words_is_refused_with_the_size_that_fits_both():
    coop = plug.schema("methods", "coop")(name="coop")
    shots._alike(coop, [torch.nn.Embedding(10, 192)] * 2)
    with pytest.raises(UserError, match=r"10 × 192 numbers .* base classes, and 11 × 192 .*\{name: coop, tokens: 10\}"):
        shots._alike(coop, [torch.nn.Embedding(10, 192), torch.nn.Embedding(11, 192)])


# ------------------------------------------------------------------------------------------------------------------ table


def record(right, seed, before=0.5, after=0.6):
    return {
        "method": "head",
        "shots": 1,
        "seed": seed,
        "pictures": 5,
        "seconds": 1.0,
        "validation": {"before": before, "after": after, "pictures": 4},
        "right": {"all": packed(np.array(right, bool))},
    }


def test_answers_are_kept_a_bit_each():
    right = np.random.default_rng(0).random(21) < 0.5
    assert unpacked(packed(right), 21).tolist() == right.tolist()


def test_zero_shot_stands_where_a_training_was_no_better_on_validation_and_is_counted():
    start = {"all": np.array([1, 1, 0, 0], bool)}
    records = [record([1, 1, 1, 1], 1), record([0, 0, 0, 0], 2, after=0.5)]
    chosen = summary.row(records, start, {"all": 4}, stop=True)
    assert (chosen["stopped"], chosen["scores"]["top1"]["values"]) == (1, [1.0, 0.5])
    assert chosen["trained"]["top1"] == [1.0, 0.0]
    trained = summary.row(records, start, {"all": 4}, stop=False)
    assert (trained["stopped"], trained["scores"]["top1"]["values"]) == (0, [1.0, 0.0])


def test_the_interval_is_that_of_pictures_and_seeds_drawn_again():
    random = np.random.default_rng(1)
    start, right = random.random(60) < 0.4, random.random((3, 60)) < 0.6
    low, high = summary.scores({"all": right}, {"all": start})["top1"]["change"][1:]
    drawn = []
    for _ in range(4000):
        pictures, seeds = random.integers(0, 60, 60), random.integers(0, 3, 3)
        drawn.append(right[seeds][:, pictures].mean() - start[pictures].mean())
    assert (low, high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.02)


def test_a_method_below_zero_shot_by_more_than_its_interval_is_told_of():
    start = {"all": np.ones(50, bool)}
    worse = summary.row([record([0] * 50, 1), record([0] * 50, 2)], start, {"all": 50}, stop=False)
    assert summary.below(worse)
    guard = summary.guard([worse])
    assert guard.state == "broken"
    assert "head at 1 shots" in guard.message
    assert summary.guard([summary.row([record([1] * 50, 1)], start, {"all": 50}, stop=True)]).state == "kept"


def test_every_published_figure_has_a_source():
    literature = published.read()
    assert len(literature.datasets) == 11
    have = {*names("methods"), "zero-shot", "clip_adapter", "cocoop", "lp_plus_plus", "maple", "taskres"}
    for entry in [*literature.shots, *literature.base_to_new]:
        assert entry.method in have, entry
        for figures in filter(None, (entry.reported, entry.reproduced)):
            assert figures.paper or figures.repository or figures.via
    for entry in literature.shots:
        for figures in filter(None, (entry.reported, entry.reproduced)):
            assert set(figures.top1) <= {0, 1, 2, 4, 8, 16}
    for entry in literature.base_to_new:
        for figures in filter(None, (entry.reported, entry.reproduced)):
            base, new, both = (figures.top1[name] for name in ("base", "new", "harmonic"))
            assert both == pytest.approx(2 * base * new / (base + new), abs=0.01)
