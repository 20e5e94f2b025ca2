"""Random texts are WaffleCLIP's: as long as the class names, the same for all of them, a function of the seed."""

from __future__ import annotations

import re

import numpy as np
import pytest

from adapt.prompting.random_words import character_shape, descriptions, vocabulary, word_shape

PETS = ["Abyssinian", "american bulldog", "staffordshire bull terrier", "pug"]


@pytest.mark.parametrize("names", [["hen", "cup"], PETS, ["hot dog", "ice cream"], ["a b c", "d"], ["fire-engine truck"]])
def test_the_shapes_are_those_of_the_papers_code(names):
    """Written as the paper's code counts, mode `waffle`."""
    avg_words = int(np.max([np.round(np.mean([len(x.split(" ")) for x in names])), 1]))
    avg_length = int(np.round(np.mean([np.mean([len(y) for y in x.split(" ")]) for x in names])))
    assert word_shape(names) == (avg_words, avg_length)
    spaces = int(np.round(np.mean([np.sum(np.array(list(x)) == " ") for x in names]))) + 1
    letters = int(np.ceil(np.mean([np.max([len(y) for y in x.split(" ")]) for x in names])))
    letters += spaces - letters % spaces
    assert character_shape(names) == (spaces, letters // spaces)


def test_a_pair_is_a_text_of_words_and_one_of_characters():
    found = descriptions(PETS, 15, 0)
    count, letters = word_shape(PETS)
    groups, length = character_shape(PETS)
    assert len(found) == 30
    cut = {word[:letters] for word in vocabulary(PETS)}
    for text in found[::2]:
        assert len(text.split()) == count and set(text.split()) <= cut
    for text in found[1::2]:
        assert re.fullmatch(rf"[a-z]{{{length}}}(, [a-z]{{{length}}}){{{groups - 1}}}", text)


def test_the_seed_alone_decides_on_any_machine():
    assert descriptions(PETS, 1, 7) == ["miniski daisy", "mubcr, dlsbq"]
    assert descriptions(PETS, 3, 7) != descriptions(PETS, 3, 8)
    assert descriptions(PETS, 5, 7)[:6] == descriptions(PETS, 3, 7), "more pairs begin with the same"


def test_no_word_of_the_datas_classes_is_drawn():
    """A word that names a class would be a description, or mislead."""
    assert "hen" in vocabulary(["cup"]) and "hen" not in vocabulary(["Hen house"])
    assert len(vocabulary([])) > 1000
