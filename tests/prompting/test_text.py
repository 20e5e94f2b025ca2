"""The texts that stand for labels."""

from __future__ import annotations

import pytest

from adapt.plug import UserError
from adapt.prompting.random_words import descriptions
from adapt.prompting.text import check, words
from adapt.recipe import Prompts, load_recipe


def test_words_follow_the_order_of_the_labels():
    found = words(Prompts(templates=["a {}"]), ["zebra_fish", "ant-eater"])
    assert (found.classes, found.templates) == (["zebra fish", "ant eater"], ["a {}"])
    assert words(Prompts(templates=["{}"], classes={"b": "Bee", "a": "Ant"}), ["a", "b"]).classes == ["Ant", "Bee"]


def test_coops_templates_take_the_labels_as_coop_does():
    assert words(Prompts(templates="coop/fgvc_aircraft"), ["707-320", "DC_10"]).classes == ["707-320", "DC 10"]


def test_plain_names_are_told_as_ever():
    """So what was measured and learnt with them before is used again."""
    assert words(Prompts(templates=["a {}"]), ["hen"]).told == {"classes": ["hen"], "templates": ["a {}"]}
    assert words(Prompts(templates=["a {}"], combine="max"), ["hen"]).told == {"classes": ["hen"], "templates": ["a {}"]}
    told = words(Prompts(templates=["a {}"], combine="similarity"), ["hen"]).told
    assert told == {"classes": ["hen"], "templates": ["a {}"], "texts": [["hen"]], "combine": "similarity"}


def test_both_places_for_the_name_are_the_same():
    assert words(Prompts(templates=["a {c}.", "the {}"]), ["hen"]).templates == ["a {}.", "the {}"]


def test_a_class_can_have_several_names():
    found = words(Prompts(templates=["a {}"], classes={"cup": "cup", "hen": ["hen", "chicken"]}, combine="max"), ["hen", "cup"])
    assert found.classes == ["hen", "cup"], "the first is its name"
    assert found.told["texts"] == [["hen", "chicken"], ["cup"]] and found.told["combine"] == "max"


def test_descriptions_follow_the_name():
    given = {
        "cup": ["with a handle", "which is empty", ""],
        "hen": "a red comb",
        "dog": ["a {} on a leash", "a drawing of a {c}"],
    }
    found = words(Prompts(templates=["a photo of a {}."], descriptions=given), ["hen", "cup", "dog"])
    assert found.texts == [
        ["hen, which has a red comb"],
        ["cup, with a handle", "cup, which is empty", "cup"],
        ["a dog on a leash", "a drawing of a dog"],
    ]


def test_whole_texts_stand_in_no_template():
    given = {"hen": ["a bird with a red comb", "a {} in a yard"], "cup": "to drink from: {c}"}
    found = words(Prompts(classes={"hen": "chicken", "cup": "mug"}, texts=given), ["cup", "hen"])
    assert found.templates == ["{}"]
    assert found.texts == [["to drink from: mug"], ["a bird with a red comb", "a chicken in a yard"]]


def test_random_words_stand_in_each_template_the_same_for_all_classes():
    found = words(Prompts(templates=["a photo of a {}.", "{}"], random={"pairs": 2, "seed": 5}), ["hen", "cup"])
    drawn = descriptions(["hen", "cup"], 2, 5)
    assert found.templates == [f"a photo of a {{}}, which has {text}." for text in drawn] + [
        f"{{}}, which has {text}" for text in drawn
    ]
    assert found.texts == [["hen"], ["cup"]]


def test_lists_of_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("templates: ['a {c}']\ndescriptions: {hen: [a red comb], 0: [round]}\n")
    found = words(Prompts(templates=str(path), descriptions=str(path)), ["0", "hen"])
    assert found.texts == [["0, which has round"], ["hen, which has a red comb"]]
    with pytest.raises(UserError, match=r"has no mapping named 'texts'\. It has: templates, descriptions\."):
        words(Prompts(texts=str(path)), ["hen"])


WRONG = {
    "no place": ({"templates": ["no place"]}, r"prompts\.templates\.0: 'no place' needs exactly one \{\}"),
    "two places": ({"templates": ["{}", "{} and {c}"]}, r"prompts\.templates\.1: '\{\} and \{c\}' needs exactly one"),
    "another place": ({"templates": ["a {name}"]}, r"'a \{name\}' needs exactly one"),
    "no template": ({"templates": []}, "list is empty"),
    "a template twice": ({"templates": ["a {}", "a {c}"]}, r"'a \{\}' is in the list twice.*prompts\.allow=\[duplicates\]"),
    "no such class": (
        {"classes": {"cat": "cat", "hen": "hen"}},
        r"prompts\.classes: the names do not match the data\. Of the data's, the list lacks 1 \('cup'\); of the list's, the data lack 1 \('cat'\)",
    ),
    "no such description": (
        {"descriptions": {"hen": "x", "dog": "y"}},
        r"prompts\.descriptions: the names do not match.*'cup'.*'dog'",
    ),
    "no such text": ({"texts": {"hen": "x"}}, r"prompts\.texts: the names do not match.*'cup'.*none"),
    "one name for two": (
        {"classes": {"hen": "x", "cup": "x"}},
        r"'x' stands for both 'hen' and 'cup'.*prompts\.allow=\[duplicates\]",
    ),
    "an alias for two": ({"classes": {"hen": ["hen", "x"], "cup": ["cup", "x"]}}, "'x' stands for both 'hen' and 'cup'"),
    "a text for two": ({"texts": {"hen": "x", "cup": "x"}}, r"prompts\.texts: 'x' stands for both"),
    "a description twice": ({"descriptions": {"hen": ["x", "x"], "cup": "y"}}, "'hen, which has x' is twice in 'hen'"),
    "an empty name": (
        {"classes": {"hen": " ", "cup": "x"}},
        r"the text of 'hen' is empty\. Write one, or prompts\.allow=\[empty\]",
    ),
    "no name at all": ({"classes": {"hen": [], "cup": "x"}}, "'hen' has an empty list"),
    "two families": (
        {"templates": "clip/eurosat", "classes": "coop/eurosat"},
        r"templates 'clip/eurosat' and classes 'coop/eurosat' are of two families of lists, clip/ and coop/.*prompts\.templates=coop/eurosat, "
        r"or write prompts\.allow=\[mixed\]",
    ),
    "two families unasked": ({"classes": "coop/eurosat"}, "templates 'simple' and classes 'coop/eurosat' are of two families"),
    "texts and descriptions": ({"texts": {"hen": "x", "cup": "y"}, "descriptions": {"hen": "x"}}, "take no descriptions"),
    "texts and random words": ({"texts": {"hen": "x", "cup": "y"}, "random": {}}, "take no random"),
    "descriptions and random words": ({"descriptions": {"hen": "x", "cup": "y"}, "random": {}}, "in the place of descriptions"),
}


@pytest.mark.parametrize("case", WRONG)
def test_prompts_that_do_not_fit_are_one_clear_line(case):
    prompts, message = WRONG[case]
    with pytest.raises(UserError, match=message) as error:
        words(Prompts(**prompts), ["hen", "cup"])
    assert "\n" not in str(error.value)


def test_a_list_that_is_meant_by_position_waits_for_the_data():
    check(Prompts(classes=["a hen", "a cup"], match="position"))


def test_what_is_refused_passes_where_it_is_allowed():
    doubled = {"templates": ["a {}", "a {c}"], "classes": {"hen": "x", "cup": "x"}, "allow": ["duplicates"]}
    assert words(Prompts(**doubled), ["hen", "cup"]).notes == [
        "prompts.classes: 'x' stands for both 'hen' and 'cup': such classes cannot be told apart."
    ]
    assert words(Prompts(classes={"hen": ""}, allow=["empty"]), ["hen"]).notes
    mixed = {"templates": "clip/eurosat", "classes": "coop/eurosat", "allow": ["mixed"]}
    assert words(Prompts(**mixed), ["Forest", "River"]).classes == ["Forest", "River"]


def test_labels_that_read_alike_are_told_and_pass():
    """They are the data's, and no list that could be corrected."""
    assert words(Prompts(), ["hot_dog", "hot-dog"]).notes == [
        "prompts.classes: 'hot dog' stands for both 'hot_dog' and 'hot-dog': such classes cannot be told apart."
    ]


def test_what_names_the_classes_of_other_data_is_forgotten(tmp_path):
    """A recipe's descriptions are of its own data's classes."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "name: mine\nmodel: {name: clip}\ndata: {source: emoji}\nmethod: {name: lora}\nprompts: {descriptions: {sport: [a ball]}}\n"
    )
    assert load_recipe(path).prompts.descriptions == {"sport": ["a ball"]}
    assert load_recipe(path, ["data.source=folder", f"data.path={tmp_path}"]).prompts.descriptions is None
