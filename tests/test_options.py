"""Options explain themselves: what is printed comes from the schema, fits a terminal and reads back as a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

import pytest
from pydantic import Field

from adapt.cli import main
from adapt.mistakes import nested
from adapt.options import annotated, leaves, lookup, options, overview, sections
from adapt.overrides import parse_yaml
from adapt.plug import SECTIONS, Spec, UserError, names
from adapt.recipe import Recipe, available, load_recipe


class Inner(Spec):
    """A part."""

    share: float = Field(0.5, gt=0, le=1)
    """A share."""


class Outer(Spec):
    """A whole."""

    must: str
    """A word that nobody can guess."""
    kind: Literal["a", "b", 4] = "a"
    """One of three."""
    grid: list[Annotated[int, Field(ge=1)]] = Field([1, 2], min_length=1)
    """Numbers."""
    maybe: int | None = Field(None, ge=8, lt=32, multiple_of=4)
    """A number, or none."""
    words: dict[str, str] = {}
    """From one to the other."""
    inner: Inner = Inner(share=0.25)
    """Its part."""
    other: Inner | None = None
    """Another part."""


def test_types_ranges_and_defaults_are_said_in_words():
    found = {option.path: option.facts for option in leaves(options(Outer))}
    assert found == {
        "must": "text; required",
        "kind": "a | b | 4; default a",
        "grid": "list of int (1 or more), at least 1 long; default [1, 2]",
        "maybe": "int or null, 8 or more, below 32, a multiple of 4; default null",
        "words": "mapping of text to text; default {}",
        "inner.share": "float, above 0, 1 at most; default 0.25",
        "other.share": "float, above 0, 1 at most; default 0.5",
    }


@pytest.mark.parametrize("name", available("recipes"))
def test_an_annotated_recipe_is_that_recipe(name):
    recipe = load_recipe(name)
    text = annotated(recipe)
    assert parse_yaml(text, name) == recipe.model_dump(mode="json")
    for line in text.splitlines():
        assert len(line) <= 80 or not line.lstrip().startswith("#")


def test_an_annotated_recipe_explains_every_option():
    text = " ".join(line.strip().removeprefix("# ") for line in annotated(load_recipe("clip_lora")).splitlines())
    for option in leaves(options(Recipe)):
        if option.name not in SECTIONS:
            assert option.text in text, option.path
    assert "Passes over the training split. [int, 1 or more; default 10]" in text
    assert "Passes over the training split. [int, 1 or more; default 20]" in text, "a student's default is its objective's"


@pytest.mark.parametrize(
    ("words", "place", "first"),
    [
        (["train"], "train", "train.epochs"),
        (["train.augment.drawing"], "train.augment.drawing", "train.augment.drawing.line"),
        (["train", "lr"], "train.lr", "train.lr"),
        (["distill", "logits"], "distill.logits", "distill.as"),
        (["distill.logits.train.lr"], "distill.train.lr", "distill.train.lr"),
        (["evals.knn"], "evals.knn", "evals.0.split"),
        (["evals.0.name=knn"], "evals.knn", "evals.0.split"),
        (["method=lora"], "method.lora", "method.checkpointing"),
        (["data.source=folder"], "data.folder", "data.draft"),
        (["seed"], "seed", "seed"),
        (["canary"], "canary", "canary.0.name"),
        (["canary.0.prompts"], "canary.0.prompts", "canary.0.prompts.templates"),
    ],
)
def test_a_section_a_plug_in_and_an_option_are_found_however_they_are_written(words, place, first):
    found, _, listed = lookup(words)
    assert (found, listed[0].path) == (place, first)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "there is no section 'trian'. Did you mean 'train'?"),
        (["distill"], "distill of which plug-in?"),
        (["distill", "logit"], "There is no objective 'logit'. Did you mean 'logits'?"),
        (["train.epoch"], "train has no option 'epoch'. Did you mean 'epochs'?"),
        (["train.lr.x"], "train.lr has no option 'x'. Have: none."),
        (["evals", "knn", "kk"], "evals.knn has no option 'kk'"),
        ([""], "there is no section"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(words, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        lookup(words)


def test_the_overview_names_every_plug_in_with_a_sentence():
    found = {name: dict(plugins) for name, _, plugins in overview()}
    assert list(found) == list(Recipe.model_fields)
    for section, (kind, _, _) in SECTIONS.items():
        assert list(found[section]) == names(kind)
        assert all(len(text) > 20 for text in found[section].values())


@pytest.mark.parametrize("arguments", [[], ["train"], ["distill", "semantic"], ["data", "hub"]])
def test_what_is_printed_fits_80_columns(arguments, capsys):
    assert main(["options", *arguments]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_every_option_of_every_section_is_documented():
    for place, spec in sections():
        for option in options(spec):
            assert option.text, f"{place}.{option.path}"


def test_the_names_that_are_given_now_are_there():
    """Each section's `renamed` leads to an option, and no former name is one."""
    for place, spec in sections():
        for former, now in spec.renamed.items():
            assert former not in spec.model_fields, place
            inside = spec
            for step in now.split("."):
                assert step in inside.model_fields, f"{place}.{former}"
                inside = nested(inside.model_fields[step].annotation) or inside
