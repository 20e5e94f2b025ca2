"""What every method promises; and one that somebody else has written as a single file."""

from __future__ import annotations

import inspect
from textwrap import dedent

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file

from adapt import pipeline, plug
from adapt.contracts import MethodConfig, Train
from adapt.methods import adapter
from adapt.models.clip import Config as ClipConfig
from adapt.models.clip import load as load_clip
from adapt.recipe import load_recipe

SHIFT = '''
"""Shift: the class names keep their words, and one vector that is added to all of them learns."""

import torch
from pydantic import Field
from torch import nn

from adapt.contracts import MethodConfig
from adapt.plug import UserError


class Config(MethodConfig):
    """A learned shift of words."""

    title = "shift"
    train = {"optimizer": "sgd", "lr": 2e-3, "warmup_lr": 1e-5, "weight_decay": 5e-4}

    scale: float = Field(1, gt=0)
    """How much of the vector is added."""


class Shift(nn.Module):
    def __init__(self, slot, classes, scale):
        super().__init__()
        self.slot, self.scale = slot, scale
        self.register_buffer("words", slot.tokens(list(classes)), persistent=False)
        with torch.no_grad():
            self.register_buffer("fixed", slot.embed(self.words), persistent=False)
        self.vector = nn.Parameter(torch.zeros_like(self.fixed[:1, :1]))

    def forward(self):
        return self.slot.encode(self.words, self.fixed + self.scale * self.vector)


def apply(family, config, rows):
    if family.slots.text is None:
        raise UserError("method.name: 'shift' needs a family with a text tower, such as clip.")
    family.requires_grad_(False)
    family.slots.classifier(Shift(family.slots.text, family.classes, config.scale))
'''


@pytest.mark.parametrize("name", plug.names("methods"))
def test_a_method_says_what_the_contract_asks(name):
    config, module = plug.schema("methods", name), plug.load("methods", name)
    assert issubclass(config, MethodConfig) and config.title
    assert list(inspect.signature(module.apply).parameters) == ["family", "config", "rows"]
    assert config.places == (hasattr(module, "place") and hasattr(module, "placed"))
    assert (config.prepares, config.searches) == (hasattr(module, "prepare"), hasattr(module, "search"))
    Train(**config(name=name).train)
    assert all(Train(**config(name=name).train | config(name=name).few(shots)) for shots in (1, 16))


@pytest.mark.parametrize("name", plug.names("methods"))
def test_a_method_lets_something_learn_and_saves_all_of_it(name, tmp_path):
    from adapt.models import sam

    def changed():
        torch.manual_seed(0)
        family = sam.load(sam.Config(name="sam")) if name == "decoder" else load_clip(ClipConfig(name="clip"))
        if name != "decoder":
            family.set_classes(["cat", "dog"], ["{}"])
        plug.load("methods", name).apply(family, config, Dataset.from_dict({"label": [0, 1, 1]}))
        return family

    config = plug.schema("methods", name)(name=name)
    one, two = changed(), changed()
    learning = {key for key, value in one.named_parameters() if value.requires_grad}
    assert bool(learning) == config.trains
    kept = learning | ({key for key, _ in one.named_buffers()} & one.state_dict().keys())
    assert kept
    with torch.no_grad():
        for key, value in one.state_dict().items():
            if key in kept:
                value.add_(1)
    adapter.save(one, tmp_path / "adapter")
    adapter.load(two, tmp_path / "adapter")
    theirs = two.state_dict()
    assert all(torch.equal(theirs[key], value) for key, value in one.state_dict().items() if key in learning)
    assert config.trains or all(torch.equal(theirs[key], one.state_dict()[key]) for key in kept)


@pytest.fixture
def shift(tmp_path, monkeypatch):
    place = tmp_path / "mine" / "methods"
    place.mkdir(parents=True)
    (place / "shift.py").write_text(dedent(SHIFT))
    monkeypatch.setenv("ADAPT_PLUGINS", str(tmp_path / "mine"))


def test_a_methods_own_defaults_beat_the_global_ones_and_the_users_beat_both(shift):
    recipe = load_recipe("clip_lora", ["method={name: shift}", "train={epochs: 3, lr: 0.5}"])
    assert (recipe.train.optimizer, recipe.train.warmup_lr, recipe.train.weight_decay) == ("sgd", 1e-5, 5e-4)
    assert recipe.train.lr == 0.5 and recipe.train.epochs == 3


def test_a_method_of_one_file_learns_is_saved_and_measured(shift, photos):
    few = ["data.path=photos", "evals.0.bootstrap=100", "distill=null", "export=[]", "tracker=none"]
    recipe = load_recipe(
        "clip_lora", ["method={name: shift}", "train={epochs: 2, batch: 16, lr: 0.02, augment: {crop: 1, flip: 0}}", *few]
    )
    outcome = pipeline.finetune(recipe)
    assert [entry["title"] for entry in outcome.entries] == ["zero-shot CLIP", "CLIP + shift"]
    saved = load_file(outcome.path / "adapter" / adapter.FILE)
    assert list(saved) == ["learned.vector"] and saved["learned.vector"].abs().sum() > 0, "it began at zero"
    again = pipeline.evaluate(recipe)
    assert again.entries == outcome.entries, "what was saved answers as what was trained"
