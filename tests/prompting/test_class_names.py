"""Which entry of a list means which label."""

from __future__ import annotations

import pytest

from adapt.plug import UserError
from adapt.prompting.class_names import matched
from adapt.prompting.word_lists import WordList


def of(content, ordered: bool = True) -> WordList:
    return WordList("classes", content, ordered)


@pytest.mark.parametrize(
    ("labels", "content", "numbers"),
    [
        (["cup", "hen"], {"hen": "a bird", "cup": "a mug"}, [1, 0]),  # the order is the labels'
        (["cup", "hen"], ["hen", "cup"], [1, 0]),
        (["forest", "River"], {"Forest": "forest", "River": "river"}, [0, 1]),  # a name of one entry
        (["smiling"], {"sad": "sad", "happy": ["happy", "smiling"]}, [1]),  # an alias
        (["Apple_Pie", "hot-dog"], ["hot dog", "apple pie"], [1, 0]),  # spelled alike
        (["cat", "Cat"], {"Cat": "b", "cat": "a"}, [1, 0]),  # exactness first
        (["00002", "00000", "00001"], ["stop", "yield", "turn"], [2, 0, 1]),  # numbers, whatever their order
        (["1", "0"], ["0", "1"], [1, 0]),  # numbers that are names are names
    ],
)
def test_labels_find_their_entry_by_name(labels, content, numbers):
    assert matched(labels, of(content), "prompts.classes", "name")[0] == numbers


def test_what_was_not_exact_is_told():
    def told(labels, content):
        return matched(labels, of(content), "prompts.classes", "name")[1]

    assert told(["hen"], ["hen"]) == []
    assert told(["Apple_Pie"], ["apple pie"]) == [
        "prompts.classes: 1 label matched by spelling, such as 'Apple_Pie' with 'apple pie'."
    ]
    assert told(["0", "1"], ["hen", "cup"]) == [
        "prompts.classes: labels are numbers and mean the list's classes in its order, '0' is 'hen', '1' is 'cup'."
    ]
    assert told(["hen"], ["hen", "cup"]) == [
        "prompts.classes: of the list's names, the data lack 1 ('cup'). They are not used."
    ]


def test_names_that_do_not_match_are_refused_with_both_differences():
    with pytest.raises(UserError) as error:
        matched(["hen", "cup", "dog"], of(["cup", "fork", "knife", "hen"]), "prompts.classes", "name")
    assert str(error.value) == (
        "prompts.classes: the names do not match the data. Of the data's, the list lacks 1 ('dog'); of the list's, the data lack "
        "2 ('fork', 'knife')."
    )
    with pytest.raises(UserError, match=r"If both are in the same order, write prompts\.match=position\."):
        matched(["hen", "dog"], of(["chicken", "hound"]), "prompts.classes", "name")


@pytest.mark.parametrize(
    ("labels", "content"),
    [
        (["Hot-dog", "hot_dog"], ["hot dog", "cup"]),  # two labels are spelled like one entry
        (["hotdog", "missile"], {"a": "missile", "b": "missile", "c": "hotdog"}),  # one label, the name of two entries
        (["1", "2"], ["hen", "cup"]),  # numbers that do not begin with 0
        (["0", "1"], ["hen", "cup", "dog"]),  # fewer than the list has
    ],
)
def test_what_is_not_certain_is_not_matched(labels, content):
    with pytest.raises(UserError, match="do not match"):
        matched(labels, of(content), "prompts.classes", "name")


def test_positions_count_only_when_asked_and_are_shown():
    found = matched(list("abcdef"), of(["u", "v", "w", "x", "y", "z"]), "prompts.classes", "position")
    assert found == (
        [0, 1, 2, 3, 4, 5],
        ["prompts.classes: matched by position, as asked: 'a' is 'u', 'b' is 'v', 'c' is 'w', …, 'f' is 'z'."],
    )
    with pytest.raises(UserError, match="the list has 2, the data have 1"):
        matched(["a"], of(["u", "v"]), "prompts.classes", "position")


def test_numbers_that_are_sorted_as_texts_are_told_as_they_are_paired():
    labels, names = sorted(map(str, range(12))), [f"name{i}" for i in range(12)]
    found, notes = matched(labels, of(names), "prompts.classes", "position")
    assert found == list(range(12))
    assert notes == [
        "prompts.classes: matched by position, as asked: '0' is 'name0', '1' is 'name1', '10' is 'name2', …, '9' is 'name11'."
    ]
    found, notes = matched(labels, of(names), "prompts.classes", "name")
    assert [labels[i] for i in (2, 4)] == ["10", "2"] and [found[i] for i in (2, 4)] == [10, 2]
    assert "'0' is 'name0', '1' is 'name1', '10' is 'name10', …, '9' is 'name9'" in notes[0]


def test_descriptions_are_found_by_the_label_or_by_the_name_of_its_class():
    labels, names = ["n01", "n02", "n03"], [["tench"], ["missile"], ["missile"]]
    given = of({"missile": "a tail", "tench": "fins"}, False)
    assert matched(labels, given, "prompts.descriptions", "name", names)[0] == [1, 0, 0], (
        "two classes of one name have one entry"
    )
    assert matched(["n01", "n02"], of({"n02": "a", "Tench": "b"}, False), "prompts.descriptions", "name", names)[0] == [1, 0]
    with pytest.raises(UserError, match=r"the list lacks 1 \('fins'\)"):  # a description is no name
        matched(["fins"], of({"tench": "fins"}, False), "prompts.descriptions", "name", [["fins"]])


def test_the_order_of_a_mapping_of_ones_own_means_nothing():
    with pytest.raises(UserError, match="do not match"):
        matched(["0", "1"], of({"hen": "hen", "cup": "cup"}, False), "prompts.classes", "name")
