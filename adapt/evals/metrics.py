"""Metrics of single answers, as `evaluate.Metric`s of our own: no hub is asked, scikit-learn computes. Ties count against the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import confusion_matrix, recall_score


class Classification(evaluate.Metric):
    """Top-1, top-k, mean per class, ECE and NLL of class logits. A tie with another class is no hit."""

    def _info(self):
        features = datasets.Features(
            {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
        )
        return evaluate.MetricInfo(
            description="Top-1, top-k, mean per class, ECE (Guo et al. 2017, arXiv:1706.04599), NLL.",
            citation="",
            inputs_description="predictions: logits [C] a sample; references: labels",
            features=features,
        )

    def _compute(self, predictions, references, top: int = 5, bins: int = 15) -> dict[str, float]:
        logits, labels = np.asarray(predictions), np.asarray(references)
        probabilities, place, best = softmax(logits), rank(logits, labels), answers(logits, labels)
        truth = np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, None)
        return {
            "top1": float((place < 1).mean()),
            f"top{top}": float((place < top).mean()),
            "mean_per_class": float(recall_score(labels, best, labels=np.unique(labels), average="macro", zero_division=0)),
            "ece": calibration_error(reliability(probabilities, labels, bins)),
            "nll": float(-np.log(truth).mean()),
        }


def rank(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many other classes score as high as the label or higher, int64[N]: 0 is a hit; a tie is none, nor is NaN.

    Args:
        scores: float[N, C].
        labels: int[N].
    """
    own = scores[np.arange(len(labels)), labels][:, None]
    return (~(scores < own)).sum(1) - 1


def answers(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The class of the highest score, int64[N]; where the label ties with another class, the other."""
    best = scores.argmax(1)
    tied = np.flatnonzero((best == labels) & (rank(scores, labels) > 0))
    rest = np.where(np.arange(scores.shape[1]) == labels[tied, None], -np.inf, scores[tied])
    best[tied] = rest.argmax(1)
    return best


def softmax(logits: np.ndarray) -> np.ndarray:
    """float[N, C] → probabilities, float64[N, C]."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> dict[str, list]:
    """Equal-width bins of the largest probability: edges [bins + 1]; count, mean confidence and accuracy [bins]."""
    confidence, correct = probabilities.max(1), rank(probabilities, labels) < 1
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # (lower, upper], as Guo et al.
    count = np.bincount(place, minlength=bins)
    mean = [np.bincount(place, weights=values, minlength=bins) / np.maximum(count, 1) for values in (confidence, correct)]
    return {"edges": edges.tolist(), "count": count.tolist(), "confidence": mean[0].tolist(), "accuracy": mean[1].tolist()}


def calibration_error(bins: dict[str, list]) -> float:
    """ECE: the bins' gaps between confidence and accuracy, weighted by their counts."""
    count = np.asarray(bins["count"])
    gaps = np.abs(np.asarray(bins["confidence"]) - np.asarray(bins["accuracy"]))
    return float((gaps * count).sum() / max(1, count.sum()))


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> list[list[int]]:
    """Counts [C, C]: rows are labels, columns are predictions."""
    return confusion_matrix(labels, predictions, labels=range(classes)).tolist()


def floor(points: Iterable[dict[Any, float]]) -> float:
    """The best that one and the same answer to all would score: for each row the answers that score, and how much."""
    sums: Counter = Counter()
    count = 0
    for row in points:
        sums.update(row)
        count += 1
    return float(max(sums.values(), default=0)) / max(1, count)


def collapse(table: dict[str, list]) -> str:
    """What is suspicious of answers that hardly depend on the picture: a sentence without its full stop, or nothing.

    Answers have collapsed when all are one although there are several labels, or when their entropy is below half of the labels'.

    Args:
        table: with `label`, `prediction` and `correct`, as evals with one answer a row give it; of others nothing is said.
    """
    if not {"label", "prediction", "correct"} <= table.keys():
        return ""
    labels, said = Counter(table["label"]), Counter(table["prediction"])
    if len(labels) < 2:
        return ""
    if len(said) == 1:
        return f"all {len(table['prediction'])} answers are {next(iter(said))!r}"
    ours, theirs = _entropy(said), _entropy(labels)
    return f"the answers' entropy is {ours:.1f} bits, the labels' {theirs:.1f}" if ours < theirs / 2 else ""


def _entropy(counts: Counter) -> float:
    """In bits."""
    shares = np.array(list(counts.values())) / counts.total()
    return float(-(shares * np.log2(shares)).sum())
