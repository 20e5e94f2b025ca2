"""The embedded world as classes, and as scenes."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from pydantic import ValidationError

from adapt.data import emoji, emoji_scenes
from adapt.data.emoji_scenes import compose, grounds
from adapt.data.split import SPLITS
from adapt.data.world import file
from adapt.vision.masks import unrle

HANDS = get_args(emoji.Hand)


def concepts(splits, split):
    return {name.split("/")[1] for name in splits[split]["id"]}


@pytest.fixture(scope="module")
def worlds():
    return {hand: emoji.load(emoji.Config(hand=hand)) for hand in HANDS}


def test_every_concept_is_in_the_same_split_for_every_hand(worlds):
    for split in SPLITS:
        assert len({frozenset(concepts(world, split)) for world in worlds.values()}) == 1
    sizes = [len(worlds["noto"][split]) for split in SPLITS]
    assert sum(sizes) == 849
    assert np.abs(np.array(sizes) / 849 - [0.6, 0.15, 0.25]).max() < 0.02


def test_every_class_is_trained_and_every_class_of_two_concepts_is_tested(worlds):
    world = worlds["openmoji"]
    names = world["train"].features["label"].names
    assert len(names) == 49
    assert set(world["train"]["label"]) == set(range(49))
    untested = set(range(49)) - set(world["test"]["label"])
    assert [names[label] for label in untested] == ["animal-amphibian"]  # there is one frog


def test_classes_are_the_same_for_every_hand_and_split(worlds):
    assert len({tuple(rows.features["label"].names) for world in worlds.values() for rows in world.values()}) == 1


def test_a_row_is_a_sample(worlds):
    row = next(row for rows in worlds["openmoji"].values() for row in rows if row["caption"] == "tiger")
    assert row["id"] == "openmoji/1F405"
    assert row["image"].mode == "RGB"
    assert row["image"].getpixel((0, 0)) == (255, 255, 255)
    mask = unrle(row["objects"]["mask"][0])
    left, top, right, bottom = (int(side) for side in row["objects"]["bbox"][0])
    assert mask[top:bottom, left:right].sum() == mask.sum() > 300
    assert row["objects"]["category"] == [row["label"]]


def test_shots_limit_the_training_pictures_alone(worlds):
    few = emoji.load(emoji.Config(shots=2))
    assert max(np.bincount(few["train"]["label"])) == 2
    assert few["test"]["id"][:] == worlds["openmoji"]["test"]["id"][:]


def test_unlabelled_hands_have_no_words():
    rows = emoji.load(emoji.Config(unlabelled=["noto", "twemoji"]))["unlabelled"]
    assert len(rows) == 2 * 849
    assert rows.column_names == ["id", "image"]


@pytest.mark.parametrize(("hand", "other"), [("openmoji", "openmoji"), ("fluent_flat", "fluent_3d")])
def test_an_artist_does_not_show_the_test_to_themselves(hand, other):
    with pytest.raises(ValidationError, match="artist"):
        emoji.Config(hand=hand, unlabelled=[other])


# ---------------------------------------------------------------------------------------------------------------- scenes


def small(**options):
    return emoji_scenes.load(emoji_scenes.Config(size=96, **({"train": 12, "validation": 3, "test": 6} | options)))


def test_both_files_know_the_same_hands():
    assert get_args(emoji_scenes.Hand) == HANDS
    assert all(file(hand).is_file() for hand in HANDS)


def test_masks_and_boxes_are_of_what_is_visible():
    for row in small()["train"]:
        masks = [unrle(mask) for mask in row["objects"]["mask"]]
        assert 1 <= row["count"] == len(masks) == len(row["objects"]["category"]) <= 4
        assert np.sum(masks, 0).max() == 1  # no pixel belongs to two things
        for mask, (left, top, right, bottom) in zip(masks, row["objects"]["bbox"], strict=True):
            rows, columns = np.nonzero(mask)
            assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (left, top, right, bottom)


def test_a_scene_depends_on_seed_split_and_index_alone():
    many, few = small(), small(train=3)
    assert [np.asarray(row["image"]).tobytes() for row in few["train"]] == [
        np.asarray(many["train"][i]["image"]).tobytes() for i in range(3)
    ]
    assert few["train"][2]["objects"] == many["train"][2]["objects"]
    other = small(train=3, seed=1)
    assert np.asarray(other["train"][0]["image"]).tobytes() != np.asarray(few["train"][0]["image"]).tobytes()


def test_test_scenes_show_test_concepts_alone():
    names = {split: {thing["name"] for thing in compose.cast(["openmoji"], split)[0]} for split in SPLITS}
    assert not names["train"] & names["test"]
    scenes = small(test=20)
    for row in scenes["test"]:
        assert sum(name in row["caption"] for name in names["test"]) >= row["count"]


def test_for_pre_training_every_split_shows_every_thing():
    everything, _ = compose.cast(["noto"], None)
    assert len(everything) == sum(len(compose.cast(["noto"], split)[0]) for split in SPLITS)
    assert small(things="all")["train"]["caption"] != small()["train"]["caption"]


def test_a_cast_is_the_same_for_every_hand_and_split_as_everything_is():
    names = {hand: [thing["name"] for thing in compose.cast([hand], None, 64)[0]] for hand in ("noto", "openmoji")}
    assert names["noto"] == names["openmoji"]
    assert len(set(names["noto"])) == 64
    parts = [{thing["name"] for thing in compose.cast(["noto"], split, 64)[0]} for split in SPLITS]
    assert sum(map(len, parts)) == 64
    assert set().union(*parts) == set(names["noto"])
    shown = " ".join(small(things="all", cast=8, train=30)["train"]["caption"])
    assert sum(thing["name"] in shown for thing in compose.cast(["openmoji"], None, 8)[0]) == 8


def test_categories_are_things_where_that_is_asked_for():
    names = [thing["name"] for thing in compose.cast(["noto"], None, 8)[0]]
    for split, rows in small(hands=["noto", "openmoji"], things="all", cast=8, classes="thing").items():
        assert rows.features["objects"]["category"].feature.names == names
        for row in rows:
            shown = [names[category] for category in row["objects"]["category"]]
            assert row["caption"] == compose.listing(shown), split
    things, every = compose.cast(["noto"], "test", 64, "thing")
    assert len(every) == 64 > len(things)
    assert all(every[thing["category"]] == thing["name"] for thing in things)


def test_scenes_have_as_many_things_as_are_asked_for():
    assert set(small(max_things=1)["train"]["count"]) == {1}
    assert max(small()["train"]["count"]) <= 4


def test_captions_are_prefix_and_suffix():
    row = small()["train"][0]
    assert (row["prefix"], row["suffix"]) == ("caption en", row["caption"])


def test_paper_is_light_and_its_ink_is_as_dark_as_an_outline():
    sheets = np.stack([grounds.paper(np.random.default_rng(i), 96) for i in range(60)]).mean(3)
    assert (np.median(sheets, (1, 2)) > 200).all()
    inked = (sheets < 190).mean((1, 2))
    assert (inked > 0.002).all() and (inked < 0.5).all()
    assert sheets.min() < 40
    textures = np.stack([grounds.textured(np.random.default_rng(i), 96) for i in range(60)])
    assert textures.mean(3).min() > 60


def test_paper_has_its_lines_at_any_size():
    for seed in range(6):
        small, large = (grounds.paper(np.random.default_rng(seed), size).mean() for size in (96, 384))
        assert large == pytest.approx(small, abs=1.5)


def test_scenes_lie_on_what_is_asked_for():
    textured, paper = small(test=4)["test"], small(test=4, ground="paper")["test"]
    light = [np.median(np.asarray(row["image"])) for rows in (textured, paper) for row in rows]
    assert max(light[:4]) < 210 < min(light[4:])
    row = small(test=2, ground="paper")["test"][1]
    assert (np.asarray(row["image"]) == np.asarray(paper[1]["image"])).all()


def test_scenes_are_drawn_once_and_memory_mapped(tmp_path):
    first = small()
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "scenes").iterdir()}
    assert len(files) == 3
    again = small()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "scenes").iterdir()} == files
    assert again["train"].cache_files == first["train"].cache_files != []


def test_a_failure_leaves_no_half_written_scenes(tmp_path, monkeypatch):
    whole = compose.scene
    monkeypatch.setattr(compose, "scene", lambda *args: whole(*args) if args[4] < 5 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        small()
    assert list((tmp_path / "cache" / "scenes").iterdir()) == []


@pytest.mark.parametrize(
    ("names", "caption"),
    [
        (["tiger"], "a tiger"),
        (["red apple", "tiger"], "a red apple and a tiger"),
        (["umbrella", "unicorn", "scissors", "bus"], "an umbrella, a unicorn, scissors and a bus"),
        (["hourglass done", "bouquet of roses"], "an hourglass done and a bouquet of roses"),
    ],
)
def test_captions_are_english(names, caption):
    assert compose.listing(names) == caption
