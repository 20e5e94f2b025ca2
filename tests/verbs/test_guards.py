"""Guards say what a careful colleague would: kept, broken, or not shown by so few pictures."""

from __future__ import annotations

import pytest

from adapt.verbs import guards


@pytest.mark.parametrize(
    ("after", "change", "state"),
    [
        (0.60, (0.10, 0.04, 0.16), "kept"),
        (0.48, (-0.02, -0.03, -0.01), "kept"),
        (0.50, (0.00, -0.16, 0.16), "not shown"),
        (0.46, (-0.04, -0.20, 0.12), "broken"),
        (0.46, (-0.04, -0.05, -0.03), "broken"),
    ],
)
def test_a_loss_is_kept_only_when_its_whole_interval_is(after, change, state):
    guard = guards.loss("student", 0.50, after, 0.03, change, pictures=37, floor=0.02)
    assert guard.state == state
    assert ("37 pictures cannot show less than ±16.0 points" in guard.message) == (state == "not shown")


def test_a_loss_of_nothing_from_nothing_earns_no_tick():
    guard = guards.loss("student", 0.0, 0.0, 0.1, (0.0, 0.0, 0.0), pictures=100)
    assert guard.state == "not shown"
    assert "at the metric's floor" in guard.message
    assert "nothing was right" in guards.floored("map50", 0.0, 0.0)


def test_one_answer_for_all_pictures_is_at_the_floor_and_collapsed():
    """Two classes, 19 ants and 18 bees, and a student that says ants: 51.4 %, three points above zero-shot."""
    guard = guards.loss("student", 0.486, 19 / 37, 0.03, (0.028, -0.13, 0.19), pictures=37, floor=19 / 37)
    assert guard.state == "not shown"
    assert "one constant answer reaches 51.4 %" in guards.floored("top1", 19 / 37, 19 / 37)
    assert guards.varied("answers", "all 37 answers are 'ants'").state == "broken"
    assert guards.varied("answers", "").state == "kept"


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (None, "kept"),
        ((0.05, -0.01, 0.11), "kept"),
        ((-0.05, -0.11, 0.01), "not shown"),
        ((-0.05, -0.09, -0.01), "broken"),
    ],
)
def test_a_test_that_falls_takes_back_what_validation_promised(change, state):
    kept = guards.loss("no worse", 0.5, 0.6, 0.0, (0.1, 0.05, 0.15), pictures=500)
    assert kept.state == "kept"
    guard = guards.contradicted(kept, change, "test")
    assert guard.state == state
    assert ("changes by -5.0 points" in guard.message) == (state != "kept")


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ((-0.05, -0.09, -0.01), "broken"),
        ((-0.05, -0.11, 0.01), "not shown"),
        ((0.02, -0.01, 0.05), "not shown"),
        ((0.02, 0.01, 0.03), "kept"),
        ((0.0, 0.0, 0.0), "kept"),
        (None, "broken"),
    ],
)
def test_what_should_not_change_has_fallen_when_its_whole_interval_is_below_zero(change, state):
    guard = guards.fallen("canary", 0.5, 0.5 + (change[0] if change else -0.05), change, 300, "Sweep.")
    assert guard.state == state
    assert ("Sweep." in guard.message) == (state == "broken")
    assert ("300 pictures cannot show less" in guard.message) == (state == "not shown")


def test_a_file_that_is_as_slow_is_not_faster():
    assert guards.faster("int8", 2.0, 1.0, "plain convolutions").state == "kept"
    assert guards.faster("int8", 1.0, 1.0, "plain convolutions").state == "broken"
