"""The workbench: halves, halving, each drawing and text encoded once, and a recipe that gives the confirmed number."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from adapt import pipeline, plug
from adapt.cli import main
from adapt.evals import bootstrap
from adapt.plug import UserError
from adapt.prompting.visual import Visual
from adapt.recipe import load_recipe
from adapt.report import workbench as page
from adapt.verbs import export, measuring
from adapt.verbs.searching import candidates as parts
from adapt.verbs.searching.encoded import Encoded
from adapt.verbs.searching.frozen import frozen
from adapt.verbs.searching.halving import FIRST, KEPT, halves, intervals, rounds
from adapt.verbs.searching.request import Request, Space, parse_request
from adapt.verbs.session import Session
from adapt.verbs.workbench import workbench

BOXES = [
    "data={source: emoji_scenes, hands: [openmoji], train: 48, validation: 4, test: 4, size: 64}",
    "evals=[{name: region, split: test, negatives: 8}]",
    "tracker=none",
]
SMALL = Space(
    templates=["{}", "emoji"],
    drawings=["crop", "crop+white", ["crop", "crop+white"], "ellipse"],
    expand=[0.01],
    line=[2.0],
    fit=["squash", "pad"],
    subtract=[0.0, 0.5],
)


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search of boxes in a folder of its own, and how often each picture and text was encoded."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        session = Session(load_recipe("clip_boxes", BOXES))
        seen = counted(session.family, patch)
        found = workbench(session, Request(pictures=36, space=SMALL))
        yield home, found, seen


def counted(family, patch) -> dict[str, Counter]:
    """How often the family's encoders are given each view and each text, from now on."""
    seen = {"images": Counter(), "texts": Counter()}
    image, text = family.image_embedding, family.text_embedding

    def images(views):
        seen["images"].update(view.cpu().numpy().tobytes() for view in views)
        return image(views)

    def texts(several):
        seen["texts"].update(several)
        return text(several)

    patch.setattr(family, "image_embedding", images)
    patch.setattr(family, "text_embedding", texts)
    return seen


# ---------------------------------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize(("looks", "pictures"), [(42, 200), (40, 192), (5, 1000), (3, 50), (64, 30), (17, 48)])
def test_each_round_has_half_the_looks_on_twice_the_pictures_and_costs_no_more_than_the_first(looks, pictures):
    plan = rounds(looks, pictures)
    assert plan[0][0] == looks and plan[-1][1] == pictures
    for (more, fewer), (less, many) in pairwise(plan):
        assert less == -(-looks // 2 ** (plan.index((less, many)))) and less < more
        assert abs(many - 2 * fewer) <= 1
        assert less * many <= more * fewer + looks + 2 * pictures / looks + many, "equal but for rounding"
    assert plan[0][1] >= FIRST or len(plan) == 1
    if pictures >= FIRST * looks:
        assert plan[-1][0] <= KEPT


def test_a_plan_written_out():
    assert rounds(40, 192) == [(40, 24), (20, 48), (10, 96), (5, 192)]
    assert [looks * pictures for looks, pictures in rounds(40, 192)] == [960] * 4


def test_halves_share_no_picture_and_have_the_classes_alike():
    pictures = [f"p{i // 2}" for i in range(80)]  # two rows a picture
    labels = [i // 2 % 4 for i in range(80)]
    first, second = halves(pictures, labels, 32)
    assert len(first) == len(second) == 32, "32 pictures of two rows"
    assert not {pictures[i] for i in first} & {pictures[i] for i in second}
    assert Counter(labels[i] for i in first) == pytest.approx(Counter(labels[i] for i in second), abs=4)
    again = halves(pictures, labels, 32)
    assert np.array_equal(first, again[0]) and not np.array_equal(first, halves(pictures, labels, 32, seed=1)[0])


def test_intervals_of_many_candidates_are_those_of_each():
    random = np.random.default_rng(0)
    owner, right = np.sort(random.integers(0, 60, 150)), random.random((150, 3)) < [0.2, 0.5, 0.9]
    owner = np.unique(owner, return_inverse=True)[1]
    hits = np.stack([np.bincount(owner, right[:, k]) for k in range(3)], 1)
    values, ends = intervals(hits, np.bincount(owner), samples=4000)
    assert values == pytest.approx(right.mean(0))
    for k in range(3):
        assert ends[k] == pytest.approx(bootstrap.interval(bootstrap.mean(right[:, k], list(map(str, owner))), 4000), abs=0.015)


def test_what_differs_in_nothing_is_tried_once():
    things = parts.Things(masked=True, square=True)
    visual = Visual(drawings=["contour"])
    assert parts.unit(visual, "contour", things) == ("contour", ("line", 0.3))
    assert parts.unit(visual, "contour", parts.Things(False, False)) == (
        "contour",
        ("expand", 0.01),
        ("line", 0.3),
        ("fit", "squash"),
    )
    assert parts.unit(visual, "crop+blur", things) == ("blur+crop", ("expand", 0.01), ("blur", 16.0), ("fit", "squash"))
    recipe = load_recipe("clip_boxes", ["prompts={templates: ['{}']}"])
    found = parts.tried(recipe, ["a", "b"], Space(drawings=["grey", "crop"], expand=[0.01, 0.5]), (visual, 0.0), things)
    assert [look.title for look in found.looks] == [
        "crop, expand 0.01, squash",
        "contour, line 0.3 %",
        "grey",
        "crop, expand 0.01, pad",
        "crop, expand 0.5, squash",
        "crop, expand 0.5, pad",
    ]
    assert found.plain == parts.Candidate(0, 0, 0.0) and found.own == parts.Candidate(1, 1, 0.0)


def test_whole_texts_are_combined_but_stand_in_no_template():
    recipe, things = load_recipe("clip_boxes", ["prompts={texts: {a: [one, two], b: [three]}}"]), parts.Things(False, True)
    found = parts.tried(recipe, ["a", "b"], Space(), None, things)
    assert [(each.words.templates, each.words.combine) for each in found.wordings] == [
        (["a photo of a {}."], "mean"),
        (["{}"], "mean"),
        (["{}"], "similarity"),
    ]
    with pytest.raises(UserError, match="which stand in no template"):
        parts.tried(recipe, ["a", "b"], Space(templates=["{}"]), None, things)


# --------------------------------------------------------------------------------------------------------------- the search


def test_each_drawing_of_a_thing_and_each_text_is_encoded_once(searched):
    _, found, seen = searched
    encoded = found.document["encoded"]
    assert set(seen["texts"].values()) == {1}
    assert len(seen["texts"]) == encoded["texts"] == 49 * 6, "five templates of emoji, one of them {}, and the plain one"
    assert sum(seen["images"].values()) == encoded["pictures"]
    # pad and squash show a square box alike, so that a view may be there twice, but never a thing's drawing
    assert max(seen["images"].values()) <= 2
    assert encoded["pictures"] < sum(step["looks"] for step in found.document["rounds"]) * sum(found.document["things"])


def test_the_document_shows_both_figures_and_every_candidate(searched, monkeypatch):
    home, found, _ = searched
    monkeypatch.chdir(home)
    document = found.document
    assert len(document["candidates"]) == document["rounds"][0]["candidates"]
    assert all(row["interval"][0] <= row["value"] <= row["interval"][1] for row in document["candidates"])
    best = next(row for row in document["finalists"] if row["role"] == "chosen")
    last = [row for row in document["candidates"] if row["round"] == len(document["rounds"])]
    assert best["chosen"]["value"] == max(row["value"] for row in last)
    plain = next(row for row in document["finalists"] if row["role"] == "plain")
    assert document["gain"][0] == pytest.approx(best["confirmed"]["value"] - plain["confirmed"]["value"])
    assert document["gain"][1] <= document["gain"][0] <= document["gain"][2]
    head, *rows = page.grid(document)
    assert len({len(row) for row in (head, *rows)}) == 1 and rows[0][0] == "the choice" and rows[-1][0] == "plain"
    assert (found.path / "workbench" / "workbench.png").read_bytes()[:4] == b"\x89PNG"
    assert "half that confirms" in (found.path / "workbench" / "report.html").read_text()
    assert (
        page.shown(found.document) in page.panel(found.path)
        and "<svg" in found._repr_html_()
        and page.panel(Path("elsewhere")) == ""
    )


def test_the_frozen_recipe_gives_the_confirmed_number(searched, monkeypatch):
    home, found, _ = searched
    monkeypatch.chdir(home)
    session = Session(load_recipe(found.document["recipe"]))
    (config,) = [each for each in session.recipe.evals if each.name == "region"]
    definition = plug.load("evals", "region")
    rows, *_ = definition.asked(session.data["train"], "train")
    names = bootstrap.pictures(rows)
    _, second = halves(names, [0] * len(rows), 36)
    confirmed = rows.select(second.tolist())
    bank = session.data[config.bank] if config.bank else None
    result = definition.evaluate(config, measuring.predictor(session, session.family), confirmed, dict(session.words), bank)
    best = next(row for row in found.document["finalists"] if row["role"] == "chosen")
    assert result.metrics["region"] == pytest.approx(best["confirmed"]["value"])


def test_what_is_new_is_looked_up_once_when_it_is_written(tmp_path, monkeypatch):
    asked = []

    class Key(tuple):
        def __hash__(self):
            asked.append(1)
            return super().__hash__()

    encoded = object.__new__(Encoded)
    keys = [Key((("train", str(i)), parts.WHOLE)) for i in range(200)]
    encoded._fresh, encoded._things = list(keys), {key: np.zeros((1, 2), np.float32) for key in keys}
    encoded._things[keys[7]][:] = np.nan
    encoded.session = SimpleNamespace(run=SimpleNamespace(writes=True))
    monkeypatch.setattr(Encoded, "_folder", tmp_path)
    asked.clear()
    encoded._write()
    assert encoded._fresh == [keys[7]], "what is not whole yet is written later"
    assert len(asked) < 10 * len(keys)


def test_a_killed_search_reads_what_was_encoded(searched, monkeypatch):
    home, found, _ = searched
    monkeypatch.chdir(home)
    files = sorted((found.path / "workbench" / "encoded").rglob("*.npz"))
    files[-1].write_bytes(files[-1].read_bytes()[:100])  # what a kill may leave of it on a broken disk
    session = Session(load_recipe("clip_boxes", BOXES))
    again = workbench(session, Request(pictures=36, space=SMALL)).document
    assert 0 < again["encoded"]["pictures"] < found.document["encoded"]["pictures"]
    assert again["finalists"] == found.document["finalists"] and again["candidates"] == found.document["candidates"]


def test_whole_pictures_are_searched_by_their_words_and_the_recipe_scores_as_confirmed(tmp_path):
    recipe = load_recipe("clip_lora", ["tracker=none", "data.unlabelled=[]", "distill=null", "export=[]"])
    found = pipeline.workbench(recipe, Request(pictures=120, write=str(tmp_path / "mine.yaml")))
    document = found.document
    assert document["question"] == "whole" and document["encoded"]["pictures"] == 120, "each picture once"
    session = Session(load_recipe(tmp_path / "mine.yaml"))
    rows = session.data["train"]
    _, second = halves(bootstrap.pictures(rows), rows["label"][:], 120)
    definition = plug.load("evals", "zeroshot")
    predict = measuring.predictor(session, session.family)
    result = definition.evaluate(session.recipe.evals[0], predict, rows.select(second.tolist()), {})
    best = next(row for row in document["finalists"] if row["role"] == "chosen")
    assert result.metrics["top1"] == pytest.approx(best["confirmed"]["value"])


# ---------------------------------------------------------------------------------------------------------------- freezing


def test_a_choice_stands_in_prompts_and_in_every_eval_of_boxes():
    recipe = load_recipe("clip_boxes")
    visual = Visual(drawings=["ellipse"], line=2, expand=0.2)
    made = frozen(recipe, recipe.prompts.model_copy(update={"templates": ["a {}"], "combine": "similarity"}), visual, 0.5)
    assert (made.prompts.templates, made.prompts.classes, made.prompts.combine) == (["a {}"], "emoji", "similarity")
    region, referring = made.evals
    assert region.visual.drawings == referring.visual.drawings == ["ellipse"] and region.visual.line == 2
    assert region.subtract == 0.5 and referring.visual.subtract == recipe.evals[1].visual.subtract
    alone = frozen(load_recipe("clip_boxes", ["evals=[]"]), recipe.prompts, visual, 0.5)
    assert [config.name for config in alone.evals] == ["region"]


def test_the_exported_student_says_how_its_teacher_was_asked():
    recipe = load_recipe("clip_boxes", ["data.train=4", "data.validation=2", "data.test=2", "prompts.templates=['a {}']"])
    said = json.loads(json.dumps(export.asked(Session(recipe))))
    assert said == {"prompts": {"templates": ["a {}"]}, "visual": {"drawings": ["crop+white"], "fit": "pad"}}


# ------------------------------------------------------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["space={drawings: [crop, elipse]}"], "there is no drawing 'elipse'. Did you mean 'ellipse'?"),
        (["space={drawings: [[crop, crop]]}"], "'crop' is there twice"),
        (["space={templates: ['a photo']}"], "'a photo' needs exactly one {} (or {c})"),
        (["space={templates: [[a, '{}']]}"], "'a' needs exactly one {}"),
        (["space={templates: [emojy]}"], "there is no prompt 'emojy'"),
        (["space={drawing: [crop]}"], "Did you mean 'drawings'?"),
        (["space={expand: [-1]}"], "space.expand"),
        (["space={blur: []}"], "space.blur"),
        (["space=nothing.yaml"], "no file 'nothing.yaml'"),
        (["space={classes: [{dog: a}]}"], "the names do not match the data"),
        (["evals=[{name: region, visual: {drawings: [tokens]}}]"], "'tokens' is no drawing"),
        (["pictures=3"], "pictures: '3' is not a number from 16"),
        (["split=tst"], "there is no split 'tst'. Have: train, validation, test"),
        (["data.train=9"], "'train' has 9 labelled pictures, too few"),
        (["write=mine"], "write: 'mine' is no recipe's name"),
        (["split=train", "split=test"], "split: given twice"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_encoded(arguments, words, capsys, monkeypatch):
    from adapt.models.clip.family import Clip

    monkeypatch.setattr(Clip, "image_embedding", lambda *_: pytest.fail("a picture was encoded"))
    assert main(["workbench", "recipe=clip_boxes", *BOXES[:1], "tracker=none", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and len(error.splitlines()) == 1


def test_data_without_labels_and_models_without_words_are_refused(photos, capsys):
    bare = ["recipe=clip_lora", "data={source: jsonl, path: rows.jsonl}", "tracker=none"]
    with open("rows.jsonl", "w") as file:
        for place in range(16):
            file.write(json.dumps({"image": f"photos/lime/{place}.png", "prefix": "caption en", "suffix": "a lime"}) + "\n")
    assert main(["workbench", *bare]) == 2
    assert "there are no labels to choose by" in capsys.readouterr().err
    assert main(["workbench", "recipe=dinov2_lora", "tracker=none"]) == 2
    assert "has no embeddings of pictures and of texts" in capsys.readouterr().err


def test_what_is_typed_is_taken_out_of_the_recipe_s_arguments():
    rest = ["recipe=clip_boxes", "pictures=40", "space={drawings: [crop]}", "split=validation", "train.epochs=1"]
    request = parse_request(rest)
    assert rest == ["recipe=clip_boxes", "train.epochs=1"]
    assert (request.pictures, request.split, request.space.drawings) == (40, "validation", ["crop"])
    Path("list.yaml").write_text("[crop]")
    with pytest.raises(UserError, match=r"space: 'list\.yaml' is no mapping"):
        parse_request(["space=list.yaml"])
