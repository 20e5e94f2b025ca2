"""What a frozen encoder makes of pictures is computed once, and stands for them in a validation."""

from __future__ import annotations

import pytest

from adapt import pipeline
from adapt.plug import UserError
from adapt.recipe import load_recipe
from adapt.verbs import features, finetune, measuring
from adapt.verbs.session import Session

pytestmark = pytest.mark.usefixtures("fewer")

FEW = ["data.shots=1", "data.unlabelled=[]", "distill=null", "export=[]", "tracker=none", "evals.0.bootstrap=100"]


@pytest.mark.parametrize("method", ["linear_text", "tip_adapter", "prolip", "head"])
def test_a_validation_by_features_is_that_by_pictures(method):
    more = ", views: 2" if method == "tip_adapter" else ""
    session = Session(load_recipe("clip_lora", [f"method={{name: {method}{more}}}", "train.cache=true", *FEW]))
    session.apply_method()
    finetune.prepare(session)
    by_features = finetune._validation(session)
    assert by_features.keywords["features"] is not None
    assert by_features(session.family) == measuring.validate(session, session.family)


def test_the_encoder_looks_at_each_picture_once(monkeypatch):
    from adapt.models.clip.family import Clip

    looked, real = [], Clip.image_embedding
    monkeypatch.setattr(Clip, "image_embedding", lambda self, images: looked.append(len(images)) or real(self, images))
    recipe = load_recipe("clip_lora", ["method={name: head}", "train={cache: true, epochs: 4, batch: 32}", *FEW])
    session = Session(recipe)
    session.apply_method()
    session.run.begin(recipe)
    finetune.fit(session)
    train, validation = (len(session.data[split]) for split in ("train", "validation"))
    assert sum(looked) == train + validation + 2, "and at one of each split to learn how large an item is"


def test_random_views_have_features_of_their_own_which_serve_in_turn(tmp_path):
    session = Session(load_recipe("clip_lora", ["method={name: head}", "train={cache: true, cache_views: 2}", *FEW]))
    session.apply_method()
    table = features.table(session, "train", 2)
    assert table.shape[:2] == (2, len(session.data["train"])) and (table[0] != table[1]).any()
    views = finetune._views(session)
    for epoch in range(4):
        views.epoch = epoch
        assert (views[5]["features"] == table[epoch % 2, 5]).all()
    assert {file.name.rpartition("-")[0] for file in (session.run.path / "cache").glob("*.json")} == {"features_2"}


def test_an_eval_that_asks_for_more_than_logits_is_asked_of_pictures():
    own = ["method={name: head}", "train.cache=true", "evals=[{name: knn, k: 1}]"]
    session = Session(load_recipe("clip_lora", [*own, *FEW[:-1]]))
    session.apply_method()
    assert "features" not in finetune._validation(session).keywords


def test_an_encoder_that_learns_has_none():
    session = Session(load_recipe("clip_lora", ["train.cache=true", *FEW]))
    session.apply_method()
    with pytest.raises(UserError, match=r"train\.cache: with method 'lora' the encoder of 'clip' learns") as error:
        features.cached(session)
    assert len(str(error.value).splitlines()) == 1


def test_what_is_computed_is_not_computed_again(capsys):
    recipe = load_recipe(
        "clip_lora", ["method={name: tip_adapter, tuned: true, views: 2}", "train={epochs: 1, cache_views: 2}", *FEW]
    )
    pipeline.finetune(recipe)
    assert "computed again" not in capsys.readouterr().out
