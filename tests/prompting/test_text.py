"""The words that stand for labels."""

from __future__ import annotations

import pytest

from adapt.plug import UserError
from adapt.prompting.text import words
from adapt.recipe import Prompts


def test_words_follow_the_order_of_the_labels():
    assert words(Prompts(templates=["a {}"]), ["zebra_fish", "ant-eater"]) == (["zebra fish", "ant eater"], ["a {}"])
    assert words(Prompts(templates=["{}"], classes={"b": "Bee", "a": "Ant"}), ["b", "a"])[0] == ["Bee", "Ant"]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"templates": ["no place"]}, r"prompts\.templates\.0: 'no place' needs exactly one \{\}"),
        ({"templates": []}, "list is empty"),
        ({"templates": ["{}"], "classes": {"cat": "cat"}}, "no class name for the label 'dog'"),
    ],
)
def test_prompts_that_do_not_fit_are_one_clear_line(prompts, message):
    with pytest.raises(UserError, match=message):
        words(Prompts(**prompts), ["dog"])
