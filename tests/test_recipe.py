"""Recipes: one error with all problems, YAML without surprises, no input that ends in a traceback."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt.overrides import override, parse_yaml
from adapt.plug import UserError
from adapt.recipe import find, load_recipe, validate


def problems(*overrides: str) -> list[str]:
    with pytest.raises(UserError) as error:
        load_recipe("clip_lora", overrides)
    return str(error.value).splitlines()


def test_all_problems_are_reported_at_once():
    lines = problems("train.epoch=3", "method.name=lorra", "train.lr=fast", "data.hand=picasso", "model.chekpoint=x")
    text = "\n".join(lines)
    assert len(lines) == 5
    assert "train.epoch: no such option. Did you mean 'epochs'?" in text
    assert "method.name: 'lorra' is none of adapt/methods. Did you mean 'lora'? Have: " in text
    assert "train.lr: got 'fast'" in text
    assert "data.hand: got 'picasso'" in text
    assert "model.chekpoint: no such option. Did you mean 'checkpoint'?" in text


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("train.epochs=0", "train.epochs"),
        ("evals.0.top=1", "evals.0.top"),
        ("evals=[{name: zero}]", "evals.0.name"),
        ("distill.train.augment.crop=2", "distill.train.augment.crop"),
        ("name=../up", "name"),
        ("prompts.classes=3", "prompts.classes"),
        ("export={name: onnx}", "export"),
        ("seed=1.5", "seed"),
    ],
)
def test_the_place_is_the_dotted_path_that_the_user_types(given, place):
    assert any(line.startswith(f"{place}:") for line in problems(given)), problems(given)


def test_yaml_has_no_surprises():
    assert parse_yaml("[1e-3, no, 010, yes, ~, .5, 1_0, 0x1]", "x") == [1e-3, "no", 10, "yes", None, 0.5, "1_0", "0x1"]
    shapes = ("{a: 1, a: 2}", "[&x 1, *x]", "[" * 5000, "{[1]: 2}", "a: b: c")
    tags = ("!!python/object:os.system x", "!!bool foo", "!!timestamp foo", "!!binary aGk=", "!!set {a}", '"\\UFFFFFFFF"')
    for text in shapes + tags:
        with pytest.raises(UserError) as caught:
            parse_yaml(text, "x")
        assert len(str(caught.value)) < 400


def test_overrides_reach_lists_and_whole_sections():
    recipe = load_recipe("clip_lora", ["evals.0.top=7", "method={name: full}", "export=[]", "distill=null"])
    assert recipe.evals[0].top == 7
    assert recipe.method.name == "full"
    assert recipe.distill is None


def test_naming_another_plug_in_starts_its_section_afresh():
    assert load_recipe("clip_lora", ["method.name=full"]).method.model_dump() == {"name": "full", "checkpointing": False}
    assert problems("method.name=full", "method.rank=3")[0].startswith("method.rank: no such option")


def test_overrides_mean_the_same_in_any_order():
    given = ["method.rank=8", "method.name=qlora", "prompts.classes={a: b}", "data.path=photos", "data.source=folder"]
    one, other = (load_recipe("clip_lora", order) for order in (given, given[::-1]))
    assert one == other
    assert (one.method.name, one.method.rank, one.data.path, one.prompts.classes) == ("qlora", 8, "photos", {"a": "b"})
    assert load_recipe("clip_lora", ["data.source=emoji", "data.unlabelled=[]"]).prompts.classes == "emoji", (
        "the source is the same"
    )


def test_a_student_has_no_precision_of_its_own():
    assert problems("distill.train.precision=fp32")[0].startswith(
        "distill.train.precision: got 'fp32'; a run has one precision"
    )


def test_a_plug_in_twice_in_a_list_is_refused():
    assert problems("evals=[{name: zeroshot}, {name: zeroshot, split: validation}]")[0].startswith(
        "evals.1.name: 'zeroshot' is"
    )


def test_a_path_alone_means_a_folder():
    recipe = load_recipe("clip_lora", ["data.path=photos"])
    assert recipe.data.source == "folder"
    assert recipe.data.path == "photos"
    assert recipe.prompts.classes is None, "the emojis' class names are not the photos'"
    assert load_recipe("clip_lora", ["data.path=photos", "prompts.classes=emoji"]).prompts.classes == "emoji"


def test_a_resolved_recipe_reads_back_as_itself():
    recipe = load_recipe("clip_lora")
    assert validate(yaml.safe_load(recipe.to_yaml())) == recipe


def test_unknown_recipes_have_a_nearest_name():
    with pytest.raises(UserError, match="Did you mean 'clip_lora'"):
        load_recipe("clip_lorra")
    with pytest.raises(UserError, match=r"no file 'nowhere\.yaml'"):
        load_recipe("nowhere.yaml")


RAW = parse_yaml(find("recipes", "clip_lora").read_text(), "x")
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)
PLACES = """name model model.name data.source data.path method method.rank prompts.templates train.lr evals evals.0 evals.0.name evals.1
    evals.99999999999 distill.train export.0.int8 train.augment.crop seed .. a.b.c""".split()  # noqa: SIM905
paths = st.sampled_from(PLACES) | st.text(max_size=10)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_fuzz_yaml_never_ends_in_a_traceback(text):
    try:
        parse_yaml(text, "fuzz")
    except UserError as error:
        assert str(error)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(paths, values), max_size=4))
def test_fuzz_overrides_never_end_in_a_traceback(pairs):
    try:
        validate(override(RAW, [f"{path}={yaml.safe_dump(value, default_flow_style=True).strip()}" for path, value in pairs]))
    except UserError as error:
        assert str(error)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from([*RAW, "x"]), values, max_size=4))
def test_fuzz_sections_never_end_in_a_traceback(changes):
    try:
        validate(RAW | changes)
    except UserError as error:
        assert str(error)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=3))
def test_fuzz_the_command_line_never_ends_in_a_traceback(arguments):
    from adapt.cli import main

    assert main(["recipes", "clip_lora", *arguments]) in (0, 2)
