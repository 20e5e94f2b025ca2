"""Recipes: one error with all problems, YAML without surprises, no input that ends in a traceback."""

from __future__ import annotations

import shlex

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from adapt.contracts import Augment
from adapt.other_data import PUBLIC
from adapt.overrides import parse_yaml
from adapt.plug import UserError
from adapt.recipe import Prompts, find, load_recipe, validate


def problems(*overrides: str) -> list[str]:
    with pytest.raises(UserError) as error:
        load_recipe("clip_lora", overrides)
    return str(error.value).splitlines()


def test_all_problems_are_reported_at_once():
    lines = problems("train.epoch=3", "method.name=lorra", "train.lr=fast", "data.hand=picasso", "model.chekpoint=x")
    text = "\n".join(lines)
    assert len(lines) == 5
    assert "train.epoch: no such option. Did you mean 'epochs'?" in text
    assert "method.name: there is no method 'lorra'. Did you mean 'lora'? Have: " in text
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


@pytest.mark.parametrize(
    ("text", "comment"), [("photos #2", "#2"), ("#2", "#2"), ("it's #2", "#2"), ('say "a" #2', "#2"), ("'a' # b", "# b")]
)
def test_a_value_that_yaml_would_cut_at_a_comment_is_refused_with_what_to_type(text, comment):
    with pytest.raises(UserError) as error:
        load_recipe("clip_lora", [f"data.path={text}"])
    told, _, typed = str(error.value).partition(" Leave it out, or quote it: ")
    assert told == f"data.path: YAML takes {comment!r} for a comment."
    (override,) = shlex.split(typed)
    assert load_recipe("clip_lora", [override]).data.path == text


@pytest.mark.parametrize(("text", "path"), [("photos#2", "photos#2"), ("'photos #2'", "photos #2"), ('"#2" ', "#2")])
def test_a_sign_within_a_word_or_in_quotes_begins_no_comment(text, path):
    assert load_recipe("clip_lora", [f"data.path={text}"]).data.path == path


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


def test_a_path_alone_means_what_lies_there():
    recipe = load_recipe("clip_lora", ["data.path=photos"])
    assert recipe.data.source == "auto"
    assert recipe.data.path == "photos"
    assert recipe.prompts.classes is None, "the emojis' class names are not the photos'"
    assert load_recipe("clip_lora", ["data.path=photos", "prompts.classes=emoji"]).prompts.classes == "emoji"


WAYS = (["data.path=photos"], ["data.source=auto", "data.path=photos"], ["data={source: auto, path: photos}"])


@pytest.mark.parametrize(
    "name", ["clip_lora", "dinov2_segment", "dinov2_distill", "paligemma_detect_student", "sam_semantic_student"]
)
def test_other_data_mean_the_same_however_they_are_written(name):
    recipes = [load_recipe(name, way) for way in WAYS]
    assert recipes[0] == recipes[1] == recipes[2]
    assert recipes[0].notes == recipes[1].notes == recipes[2].notes


@pytest.mark.parametrize("way", WAYS)
def test_what_was_chosen_for_icons_gives_way_on_other_data(way):
    recipe = load_recipe("clip_lora", way)
    assert recipe.prompts == Prompts()
    assert recipe.train.augment == recipe.distill.train.augment == Augment()
    assert recipe.distill.pretrained == "auto"
    assert (recipe.train.lr, recipe.distill.student) == (2e-3, "resnet10t"), "all else stays"
    assert load_recipe("dinov2_segment", way).model.image_size is None
    assert load_recipe("paligemma_detect_student", way).distill.size is None
    words = load_recipe("sam_semantic_student", way).distill.words
    assert (words.templates, words.background, words.scale) == (["a photo of a {}"], "blur", 20)


def test_what_the_user_sets_stays_on_other_data():
    own = [
        "prompts.templates=emoji",
        "train.augment.rotate=5",
        "distill.pretrained=cnn-tiny",
        "distill.train.augment={crop: 0.9}",
    ]
    for order in ([*WAYS[0], *own], [*own, *WAYS[2]]):
        recipe = load_recipe("clip_lora", order)
        assert (recipe.prompts.templates, recipe.prompts.classes) == ("emoji", None)
        assert recipe.train.augment == Augment(rotate=5)
        assert recipe.distill.train.augment == Augment(crop=0.9)
        assert recipe.distill.pretrained == "cnn-tiny"
        assert not any(word in recipe.notes[0] for word in ("templates", "train.augment", "pretrained"))
    assert load_recipe("clip_lora", ["data.hand=noto", "data.unlabelled=[]"]).prompts.templates == "emoji", "the same world"
    assert load_recipe("clip_lora", ["data={source: emoji, hand: noto}"]).distill.pretrained == "cnn-tiny"


def test_one_line_says_what_was_chosen_on_other_data_and_why():
    (chosen, checkpoint) = load_recipe("clip_lora", ["data.path=photos"]).notes
    assert chosen == (
        "data.source=auto: the recipe's choices for icons are not used on other data. Now: prompts.templates=simple "
        "(7 templates of photographs; clip/imagenet has 80), prompts.classes=null (the labels' own names), "
        "train.augment={crop: 0.6, flip: 0.5, colour: 0.2}, distill.pretrained=auto (timm's weights, where they can be fetched), "
        "distill.train.augment={crop: 0.6, flip: 0.5, colour: 0.2}. Set any of them to choose yourself."
    )
    assert checkpoint == (
        "model.checkpoint=clip-tiny was trained on icons only. For your own pictures, use a public checkpoint: "
        "model.checkpoint=openai/clip-vit-base-patch32"
    )
    assert load_recipe("clip_lora").notes == []
    assert load_recipe("clip_lora", ["data.path=photos", "model.checkpoint=openai/clip-vit-base-patch32"]).notes == [chosen]
    notes = load_recipe(
        "sam_semantic_student", ["data.source=masks", "data.path=x", "model.checkpoint=facebook/sam-vit-base"]
    ).notes
    assert notes[1:] == [
        "distill.clip=clip-tiny was trained on icons only. For your own pictures, use a public checkpoint: "
        "distill.clip=openai/clip-vit-base-patch32"
    ]


def test_a_resolved_recipe_has_nothing_to_say_but_that_its_checkpoint_is_small(tmp_path):
    (tmp_path / "photos.yaml").write_text(load_recipe("clip_lora", ["data.path=photos"]).to_yaml())
    assert [note.split("=")[0] for note in load_recipe(tmp_path / "photos.yaml").notes] == ["model.checkpoint"]


def test_every_embedded_checkpoint_has_a_public_sister():
    from adapt.models.checkpoint import embedded

    assert set(PUBLIC) == set(embedded())


def test_whole_sections_and_their_options_mean_the_same_in_any_order():
    given = ["data={source: folder, path: photos}", "data.seed=3", "method={name: qlora}", "method.rank=8"]
    one, other = (load_recipe("clip_lora", order) for order in (given, given[::-1]))
    assert one == other
    assert (one.data.seed, one.method.rank) == (3, 8)
    assert load_recipe("clip_lora", ["evals.0.top=3", "evals=[]", "distill.views=2", "distill=null"]).evals == [], (
        "the last word"
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("epochs=5", "epochs: no such option. Did you mean train.epochs? Have: name, model,"),
        ("lr=1e-3", "lr: no such option. Did you mean train.lr?"),
        ("student=resnet18", "student: no such option. Did you mean distill.student?"),
        ("epoch=5", "epoch: no such option. Did you mean train.epochs?"),
        ("train.distill.epochs=5", "train.distill.epochs: no such option. Did you mean distill.train.epochs? Have: epochs,"),
        ("train.student=resnet18", "train.student: no such option. Did you mean distill.student?"),
        ("train.split=test", "train.split: no such option. Did you mean evals.0.split?"),
        (
            "data.pth=photos",
            "data.pth: no such option. Did you mean 'path', of data.source=auto, clip_benchmark, coco, folder, hub, jsonl, labelme, labelstudio, masks, table, voc, webdataset, winogavil, winoground, yolo?",
        ),
        (
            "data.seed=3",
            "data.seed: no such option. Did you mean 'seed', of data.source=auto, coco, emoji_scenes, folder, hub, jsonl, labelme, labelstudio, masks, table, voc, webdataset, yolo?",
        ),
        ("method.bits=4", "method.bits: no such option. Did you mean 'bits', of method.name=qlora? Have: name,"),
        ("method.xyzzy=4", "method.xyzzy: no such option. Have: name,"),
        ("none=4", "none: no such option."),
        ("evals.0.tops=5", "evals.0.tops: no such option. Did you mean 'top'?"),
        ("train.augment.rotat=5", "train.augment.rotat: no such option. Did you mean 'rotate'?"),
        ("{epochs: 5}=3", "no such option"),
    ],
)
def test_a_mistyped_option_is_answered_with_where_the_right_one_is(given, words):
    (line,) = problems(given)
    assert words in line, line


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("data={source: emoji_scenes, most: 2}", "data.most is called data.max_things now."),
        ("train.augment.line=0.2", "train.augment.line is called train.augment.drawing.line now."),
        ("train={augment: {invert: 0.1}}", "train.augment.invert is called train.augment.drawing.invert now."),
        (
            "distill.train.augment.background=0.1",
            "distill.train.augment.background is called distill.train.augment.drawing.background now.",
        ),
        ("most=3", "most: no such option."),
    ],
)
def test_a_former_name_is_answered_by_the_name_now(given, line):
    (said,) = problems(given)
    assert said == line or (said.startswith(line) and "now." not in said)


def test_a_former_name_inside_a_section_that_may_be_left_out_is_answered_too():
    from adapt.mistakes import explain
    from adapt.plug import Spec

    class Inner(Spec):
        renamed = {"old": "new"}
        new: int = 1

    class Outer(Spec):
        inner: Inner | None = None

    with pytest.raises(ValidationError) as error:
        Outer.model_validate({"inner": {"old": 2}})
    assert explain(error.value, "evals.0", Outer, Outer, {}) == ["evals.0.inner.old is called evals.0.inner.new now."]


def test_a_student_that_timm_has_not_is_found_with_all_other_mistakes():
    lines = problems("distill.student=resnet81", "train.epochs=0")
    assert lines[0].startswith("distill.student: there is no timm model 'resnet81'. Did you mean 'resnet18'?")
    assert lines[1].startswith("train.epochs:")


def test_the_students_are_found_without_timm_and_are_timms():
    import timm

    from adapt.architectures import architectures

    assert architectures() == sorted(timm.list_models())


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
    evals.99999999999 distill.train export.0.int8 train.augment.crop seed .. a.b.c epochs none data distill.student distill
    train.distill.epochs data.pth prompts train.augment""".split()  # noqa: SIM905
paths = st.sampled_from(PLACES) | st.text(max_size=10)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_fuzz_yaml_never_ends_in_a_traceback(text):
    try:
        parse_yaml(text, "fuzz")
    except UserError as error:
        assert str(error)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(paths, values), max_size=4))
def test_fuzz_overrides_never_end_in_a_traceback(pairs):
    try:
        overrides = [f"{path}={yaml.safe_dump(value, default_flow_style=True).strip()}" for path, value in pairs]
        assert all(isinstance(note, str) for note in load_recipe("clip_lora", overrides).notes)
    except UserError as error:
        assert str(error)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from([*RAW, "x"]), values, max_size=4))
def test_fuzz_sections_never_end_in_a_traceback(changes):
    try:
        validate(RAW | changes)
    except UserError as error:
        assert str(error)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=3))
def test_fuzz_the_command_line_never_ends_in_a_traceback(arguments):
    from adapt.cli import main

    assert main(["recipes", "clip_lora", *arguments]) in (0, 2)


def test_a_notebook_shows_what_a_recipe_says_first_and_folds_the_rest():
    recipe = load_recipe("clip_lora", ["prompts.templates=['<b>{}']"])
    said, _, rest = recipe._repr_html_().partition("<details>")
    assert "<th>method</th>" in said and "rank: 16" in said and "seed" not in said, "what was left at its default"
    assert "<b>" not in said and "&lt;b&gt;{}" in said
    assert "seed: 0" in rest
