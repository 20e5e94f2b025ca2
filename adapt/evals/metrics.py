"""Metrics of single answers, as `evaluate.Metric`s of our own: no hub is asked, scikit-learn computes. Ties count against the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np
from sklearn.metrics import confusion_matrix, recall_score

from adapt.evals.by_set import macro_f1

BLOCK = 2**20
"""Numbers of one array in memory: logits are looked at in blocks of rows."""
FULL = 200
"""Classes up to which a confusion is stored with its zeros."""


@dataclass(frozen=True)
class Judged:
    """What logits say of each row's label: all that the metrics need."""

    rank: np.ndarray
    """int64[N], see `rank`."""
    answer: np.ndarray
    """int64[N], see `answers`."""
    confidence: np.ndarray
    """The largest probability, float64[N]."""
    truth: np.ndarray
    """The probability of the label, float64[N]."""
    first: np.ndarray
    """Is the label's probability above all others? bool[N]."""

    @classmethod
    def of(cls, logits: np.ndarray, labels: np.ndarray) -> Judged:
        """Look at logits float[N, C] and labels int[N], block by block."""
        step = max(1, BLOCK // max(1, logits.shape[1]))
        parts = [_judged(logits[i : i + step], labels[i : i + step]) for i in range(0, max(1, len(labels)), step)]
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    def table(self, ids: list[str], labels: np.ndarray, names: list[str]) -> dict[str, list]:
        """A row each: id, label and answer by their names, confidence, whether it is right, and its rank."""
        return {
            "id": ids,
            "label": [names[i] for i in labels],
            "prediction": [names[i] for i in self.answer],
            "confidence": self.confidence.tolist(),
            "correct": (self.rank < 1).tolist(),
            "rank": self.rank.tolist(),
        }

    def reliability(self, bins: int) -> dict[str, list]:
        """See `reliability`."""
        return _binned(self.confidence, self.first, bins)


def _judged(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
    """The fields of `Judged` for a few rows."""
    probabilities, place = softmax(logits), rank(logits, labels)
    truth = probabilities[np.arange(len(labels)), labels]
    return place, _answers(logits, labels, place), probabilities.max(1), truth, rank(probabilities, labels) < 1


class Classification(evaluate.Metric):
    """Top-1, top-k, mean per class, macro F1, ECE and NLL of class logits. A tie with another class is no hit."""

    rows: Judged
    """Of the logits that were computed last."""

    def _info(self):
        features = datasets.Features(
            {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
        )
        return evaluate.MetricInfo(
            description="Top-1, top-k, mean per class, macro F1, ECE (Guo et al. 2017, arXiv:1706.04599), NLL.",
            citation="",
            inputs_description="predictions: logits [C] a sample; references: labels",
            features=features,
        )

    def compute(self, *, predictions=None, references=None, **options) -> dict[str, float]:
        """As any metric's; arrays are looked at where they lie, not copied into Arrow."""
        if predictions is None:  # `add` and `add_batch` have brought them
            return super().compute(**options)
        return self._compute(predictions, references, **options)

    def _compute(self, predictions, references, top: int = 5, bins: int = 15) -> dict[str, float]:
        labels = np.asarray(references)
        self.rows = rows = Judged.of(np.asarray(predictions), labels)
        recall = recall_score(labels, rows.answer, labels=np.unique(labels), average="macro", zero_division=0)
        return {
            "top1": float((rows.rank < 1).mean()),
            f"top{top}": float((rows.rank < top).mean()),
            "mean_per_class": float(recall),
            "f1_macro": macro_f1(labels, rows.answer),
            "ece": calibration_error(rows.reliability(bins)),
            "nll": float(-np.log(np.clip(rows.truth, 1e-12, None)).mean()),
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
    return _answers(scores, labels, rank(scores, labels))


def _answers(scores: np.ndarray, labels: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The same, of known ranks int[N]."""
    best = scores.argmax(1)
    tied = np.flatnonzero((best == labels) & (place > 0))
    rest = np.where(np.arange(scores.shape[1]) == labels[tied, None], -np.inf, scores[tied])
    best[tied] = rest.argmax(1)
    return best


def softmax(logits: np.ndarray) -> np.ndarray:
    """float[N, C] → probabilities, float64[N, C]."""
    shifted = logits.astype(np.float64)
    shifted -= logits.max(1, keepdims=True)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(1, keepdims=True)
    return shifted


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> dict[str, list]:
    """Equal-width bins of the largest probability: edges [bins + 1]; count, mean confidence and accuracy [bins]."""
    return _binned(probabilities.max(1), rank(probabilities, labels) < 1, bins)


def _binned(confidence: np.ndarray, correct: np.ndarray, bins: int) -> dict[str, list]:
    """The same, of the largest probability float[N] and whether it is the label's alone, bool[N]."""
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


def confusion(labels: np.ndarray, predictions: np.ndarray, classes: int) -> list[list[int]] | dict[str, list[int]]:
    """Counts [C, C]: rows are labels, columns are predictions; of more than `FULL` classes only those that
    are not zero, as `contracts.Confused` has them."""
    if classes <= FULL:
        return confusion_matrix(labels, predictions, labels=range(classes)).tolist()
    pairs, counts = np.unique(labels.astype(np.int64) * classes + predictions, return_counts=True)
    return {"label": (pairs // classes).tolist(), "prediction": (pairs % classes).tolist(), "count": counts.tolist()}


def stored(matrix: np.ndarray) -> list[list[int]] | dict[str, list[int]]:
    """Counts int[C, C], as `confusion` gives them."""
    if len(matrix) <= FULL:
        return matrix.tolist()
    label, prediction = matrix.nonzero()
    return {"label": label.tolist(), "prediction": prediction.tolist(), "count": matrix[label, prediction].tolist()}


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
