"""Sentences that mean one thing: made of boxes and names, or those of the data."""

from __future__ import annotations

import pytest

from adapt.plug import UserError
from adapt.prompting.referring import made, sentences


def boxes(*lefts: float) -> list[list[float]]:
    return [[left, 0, left + 10, 10] for left in lefts]


@pytest.mark.parametrize(
    ("lefts", "names", "said"),
    [
        ((0, 20), ["cat", "dog"], ["the cat", "the dog"]),
        ((20, 0), ["cat", "cat"], ["the right cat", "the left cat"]),
        (
            (40, 0, 20, 60),
            ["cat", "cat", "cat", "dog"],
            ["the third cat from the left", "the first cat from the left", "the second cat from the left", "the dog"],
        ),
        ((5, 5, 30), ["cat", "cat", "dog"], [None, None, "the dog"]),
        ((), [], []),
    ],
)
def test_a_sentence_is_made_where_it_is_true_of_one_thing_alone(lefts, names, said):
    expected = [{"sentence": text, "object": i} for i, text in enumerate(said) if text]
    assert made(boxes(*lefts), names) == expected


def test_the_sentences_of_the_data_are_taken_where_there_are_some():
    objects = {"bbox": boxes(0, 20, 40), "category": [0, 0, 0], "iscrowd": [0, 1, 0]}
    row = {"id": "a", "objects": objects}
    assert sentences(row, ["cat"]) == [("the left cat", 0), ("the right cat", 1)], "crowds are not counted"
    said = [{"sentence": "the grey one", "object": 2}, {"sentence": "the many", "object": 1}]
    assert sentences(row | {"referring": said}, []) == [("the grey one", 1)]


@pytest.mark.parametrize(
    ("each", "said"),
    [
        ({"sentence": "  ", "object": 0}, "row 'a' has an empty sentence in 'referring'"),
        ({"sentence": "it", "object": 3}, "row 'a': 'it' means object 3, and the row has 1, counted from 0"),
        ({"sentence": "it", "object": -1}, "means object -1"),
    ],
)
def test_a_sentence_that_means_nothing_is_one_clear_line(each, said):
    row = {"id": "a", "objects": {"bbox": boxes(0), "category": [0]}, "referring": [each]}
    with pytest.raises(UserError, match=said):
        sentences(row, ["cat"])
