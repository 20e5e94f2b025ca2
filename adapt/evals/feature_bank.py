"""What evals on frozen embeddings share: the labelled bank, the table, pictures of patch features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from adapt.evals import bootstrap, metrics
from adapt.evals.result import Result
from adapt.plug import UserError
from adapt.vision.images import view


def labels(dataset, bank, name: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels of the measured rows, int64[N], and of the bank, int64[M], with the names of all classes.

    Raises:
        UserError: there is no bank, or either has no labels.
    """
    if bank is None:
        raise UserError(f"evals: {name} compares with labelled rows. Name their split, such as bank_split: train.")
    for rows, what in ((dataset, "the measured split"), (bank, "bank_split")):
        if "label" not in rows.column_names:
            raise UserError(f"evals: {name} needs labels, and {what} has none. Have: {', '.join(rows.column_names)}.")
    return np.asarray(dataset["label"][:]), np.asarray(bank["label"][:]), dataset.features["label"].names


def result(
    config, best: np.ndarray, confidence: np.ndarray, truth: np.ndarray, dataset, protocol: dict[str, Any], **more: float
) -> Result:
    """Top-1, its interval, the table and the confusion; `more` metrics beside them.

    Args:
        best: the classes that rows are given to, int64[N], as `metrics.answers` has them.
        confidence: their probabilities, float[N].
        truth: the rows' labels, int64[N].
    """
    names = dataset.features["label"].names
    correct = best == truth
    count = np.bincount(truth)
    seen = count > 0
    mean = float(np.mean(np.bincount(truth, correct)[seen] / count[seen]))
    own = {
        name: value for name, value in config.model_dump(mode="json").items() if name not in ("name", "bootstrap", "pictures")
    }
    return Result(
        metrics={config.name: float(correct.mean()), f"{config.name}_mean_per_class": mean} | more,
        protocol=protocol | {"eval": config.name} | own,
        intervals={config.name: bootstrap.interval(bootstrap.mean(correct), config.bootstrap)},
        floor=float(np.bincount(truth).max() / len(truth)),
        table={
            "id": dataset["id"][:],
            "label": [names[i] for i in truth],
            "prediction": [names[i] for i in best],
            "confidence": confidence.tolist(),
            "correct": correct.tolist(),
        },
        figures={"classes": names, "confusion": metrics.confusion(truth, best, len(names))},
    )


def pca_colours(features: np.ndarray) -> np.ndarray:
    """Patch features as colours: their first three principal components over all the images together.

    Args:
        features: float[N, D, h, w], D ≥ 3.

    Returns:
        uint8[N, h, w, 3]; like colours are like features. Each component is stretched from its 2nd to its 98th percentile, and
        turned so that its largest loading is positive (DINOv2 figure 1, arXiv:2304.07193).
    """
    n, d, h, w = features.shape
    rows = features.transpose(0, 2, 3, 1).reshape(-1, d).astype(np.float64)
    rows -= rows.mean(0)
    _, axes = np.linalg.eigh(rows.T @ rows)
    axes = axes[:, ::-1][:, :3]
    axes = axes * np.sign(axes[np.abs(axes).argmax(0), range(3)])
    parts = rows @ axes
    low, high = np.percentile(parts, [2, 98], axis=0)
    parts = np.clip((parts - low) / np.maximum(high - low, 1e-12), 0, 1)
    return (255 * parts).round().astype(np.uint8).reshape(n, h, w, 3)


def pca_pictures(predict: Callable, dataset, count: int, protocol: dict[str, Any]) -> list[tuple[str, Image.Image]]:
    """Up to `count` rows, each beside its patch features as colours; none from a module without `patch_features`."""
    rows = dataset.select(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(int)) if count else []
    if not len(rows):
        return []
    try:
        colours = pca_colours(predict(rows, "patch_features"))
    except (LookupError, UserError):
        return []
    out = []
    for row, colour in zip(rows, colours, strict=True):
        spec = protocol.get("input")
        seen = Image.fromarray(view(row["image"], spec).permute(1, 2, 0).numpy()) if spec else row["image"].convert("RGB")
        pair = Image.new("RGB", (2 * 128 + 4, 128), "white")
        pair.paste(seen.resize((128, 128), Image.Resampling.BICUBIC), (0, 0))
        pair.paste(Image.fromarray(colour).resize((128, 128), Image.Resampling.NEAREST), (132, 0))
        out.append((f"{row['id']}: patch features, PCA" if "id" in row else "patch features, PCA", pair))
    return out
