"""Splits."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from adapt.data._split import stratified

KEYS = st.lists(st.text(max_size=5), unique=True, max_size=60)


@settings(deadline=None)
@given(KEYS, st.integers(1, 5), st.floats(0, 0.9), st.floats(0, 0.9), st.integers(0, 99))
def test_every_class_trains_and_every_class_of_two_is_tested(keys, classes, validation, test, seed):
    labels = [i % classes for i in range(len(keys))]
    split = stratified(keys, labels, validation, test, seed)
    for label in set(labels):
        own = [place for place, other in zip(split, labels, strict=True) if other == label]
        assert "train" in own
        assert ("test" in own) == (test > 0 and len(own) > 1)


@settings(deadline=None)
@given(KEYS, st.randoms())
def test_a_split_depends_on_the_keys_and_not_on_their_order(keys, random):
    labels = dict.fromkeys(keys, "a")
    split = dict(zip(keys, stratified(keys, list(labels.values()), 0.2, 0.2, 1), strict=True))
    random.shuffle(keys)
    assert split == dict(zip(keys, stratified(keys, ["a"] * len(keys), 0.2, 0.2, 1), strict=True))


def test_shares_are_kept_and_seeds_differ():
    keys, labels = [str(i) for i in range(1000)], [i % 2 for i in range(1000)]
    split = stratified(keys, labels, 0.15, 0.25, 0)
    assert [split.count(name) for name in ("train", "validation", "test")] == [600, 150, 250]
    assert split != stratified(keys, labels, 0.15, 0.25, 1)
