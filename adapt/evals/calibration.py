"""How sure a model is, put right: a temperature fitted on validation; and how much single templates matter.

    t = temperature(validation_logits, validation_labels)
    calibration_error(reliability(softmax(test_logits / t), test_labels, 15))     # of evals/metrics.py

Source: Guo et al. 2017, arXiv:1706.04599, §4.2: one number for all classes, by the negative log-likelihood; answers stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

RANGE = (1e-3, 1e3)
"""Temperatures that are looked at; logits that are never wrong have none that is best."""


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature by which logits are divided so that their likelihood is greatest.

    The negative log-likelihood is convex in 1 / T, so the zero of its slope is found by halving, to a relative 1e-6.

    Args:
        logits: float[N, C]; labels: int[N].

    Returns:
        T, within `RANGE`.
    """
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    own = shifted[np.arange(len(labels)), labels]

    def slope(sharpness: float) -> float:
        """Of the mean negative log-likelihood, by 1 / T: the expected logit less the label's."""
        weights = np.exp(sharpness * shifted)
        return float(((weights * shifted).sum(1) / weights.sum(1) - own).mean())

    low, high = 1 / RANGE[1], 1 / RANGE[0]
    if slope(high) <= 0:
        return RANGE[0]
    if slope(low) >= 0:
        return RANGE[1]
    while high / low > 1 + 1e-6:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(1 / (low * high) ** 0.5)


def spread(by_template: Mapping[str, float]) -> dict[str, float | str]:
    """How much a metric depends on the template: its mean, standard deviation and extremes over single templates, and whose they are.

    Args:
        by_template: template → the metric with this template alone; one at least.
    """
    values = np.array(list(by_template.values()), float)
    best, worst = max(by_template, key=by_template.__getitem__), min(by_template, key=by_template.__getitem__)
    return {
        "mean": float(values.mean()),
        "sd": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
        "best": best,
        "worst": worst,
    }
