"""Metrics as `evaluate.Metric`s of our own: no hub is asked, scikit-learn computes."""

from __future__ import annotations

import datasets
import evaluate
import numpy as np
from sklearn.metrics import confusion_matrix, recall_score, top_k_accuracy_score


class Classification(evaluate.Metric):
    """Top-1, top-k, mean per class, ECE and NLL of class probabilities."""

    def _info(self):
        features = datasets.Features(
            {"predictions": datasets.List(datasets.Value("float64")), "references": datasets.Value("int64")}
        )
        return evaluate.MetricInfo(
            description="Top-1, top-k, mean per class, ECE (Guo et al. 2017, arXiv:1706.04599), NLL.",
            citation="",
            inputs_description="predictions: probabilities [C] a sample; references: labels",
            features=features,
        )

    def _compute(self, predictions, references, top: int = 5, bins: int = 15) -> dict[str, float]:
        probabilities, labels = np.asarray(predictions), np.asarray(references)
        classes = probabilities.shape[1]
        best = probabilities.argmax(1)
        ordered = 1.0 if top >= classes else (best == labels).mean()
        if 1 < top < classes:
            ordered = top_k_accuracy_score(labels, probabilities, k=top, labels=range(classes))
        truth = np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, None)
        return {
            "top1": float((best == labels).mean()),
            f"top{top}": float(ordered),
            "mean_per_class": float(recall_score(labels, best, labels=np.unique(labels), average="macro", zero_division=0)),
            "ece": calibration_error(reliability(probabilities, labels, bins)),
            "nll": float(-np.log(truth).mean()),
        }


def softmax(logits: np.ndarray) -> np.ndarray:
    """float[N, C] → probabilities, float64[N, C]."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> dict[str, list]:
    """Equal-width bins of the largest probability: edges [bins + 1]; count, mean confidence and accuracy [bins]."""
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
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


def bootstrap(values: np.ndarray, samples: int, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of float[N]."""
    draws = np.random.default_rng(seed).integers(0, len(values), (samples, len(values)))
    low, high = np.percentile(values[draws].mean(1), [2.5, 97.5])
    return float(low), float(high)


def difference(before: np.ndarray, after: np.ndarray, samples: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of after − before on the same samples, with its paired 95 % interval: (difference, low, high)."""
    gain = np.asarray(after, float) - np.asarray(before, float)
    return float(gain.mean()), *bootstrap(gain, samples, seed)
