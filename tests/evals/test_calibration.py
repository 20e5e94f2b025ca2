"""A temperature against an independent minimiser, and what it must and must not change."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from adapt.evals.calibration import RANGE, spread, temperature
from adapt.evals.metrics import calibration_error, reliability, softmax


def drawn(count: int = 4000, classes: int = 12, sharp: float = 3.0):
    """Logits that are `sharp` times too large for labels drawn from their softmax."""
    random = np.random.default_rng(0)
    logits = random.normal(scale=1.5, size=(count, classes))
    labels = np.array([random.choice(classes, p=row) for row in softmax(logits)])
    return sharp * logits, labels


def test_a_temperature_is_the_minimum_of_the_likelihood():
    logits, labels = drawn()
    loss = lambda log: -log_softmax(logits / np.exp(log), axis=1)[np.arange(len(labels)), labels].mean()  # noqa: E731
    theirs = np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-8}).x)
    assert temperature(logits, labels) == pytest.approx(theirs, rel=1e-4)


def test_the_true_temperature_is_found_and_calibrates():
    logits, labels = drawn(sharp=3)
    found = temperature(logits, labels)
    assert found == pytest.approx(3, rel=0.06)
    before, after = (calibration_error(reliability(softmax(logits / t), labels, 15)) for t in (1, found))
    assert before > 0.2 and after < 0.02
    assert ((logits / found).argmax(1) == logits.argmax(1)).all()


def test_logits_twice_as_large_have_twice_the_temperature():
    logits, labels = drawn(500)
    assert temperature(2 * logits, labels) == pytest.approx(2 * temperature(logits, labels), rel=1e-5)


def test_what_is_never_or_always_wrong_has_the_ends_of_the_range():
    logits = 5 * np.eye(4)
    assert temperature(logits, np.arange(4)) == RANGE[0]
    assert temperature(logits, (np.arange(4) + 1) % 4) == RANGE[1]


def test_the_spread_over_templates():
    found = spread({"a {}": 0.5, "{}": 0.7, "the {}": 0.6})
    assert found == {
        "mean": pytest.approx(0.6),
        "sd": pytest.approx(np.std([0.5, 0.7, 0.6])),
        "min": 0.5,
        "max": 0.7,
        "best": "{}",
        "worst": "a {}",
    }
