"""k nearest neighbours: do frozen embeddings know the classes, with nothing learnt?

Each row is given to the class of its nearest labelled rows (the bank) by cosine, every vote weighted by exp(similarity / T).

Order decides nothing: where several rows are equally near and there are seats among the k for some of them only, they share these
seats equally; where the true class ties with another, the answer is wrong. An embedding that gives the same for all pictures
so scores what always saying the bank's largest class scores, or nothing.

Source: Wu et al. 2018, arXiv:1805.01978; DINOv2 §7.1 and its k of 10, 20, 100, 200 with T = .07, arXiv:2304.07193.

    >>> evaluate(Config(name="knn"), predict, dataset, {}, bank).metrics
    {'knn': 0.61, 'knn_mean_per_class': 0.58, 'knn@10': 0.60, 'knn@20': 0.61, 'knn@100': 0.57, 'knn@200': 0.52}
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pydantic import Field

from adapt.contracts import BankedEvalConfig

if TYPE_CHECKING:
    import numpy as np

    from adapt.evals.result import Result

BLOCK = 2**22
"""Shares of votes that are in memory together."""


class Config(BankedEvalConfig):
    """Weighted vote of the nearest rows of the bank."""

    version = 2
    main = "knn"
    predictor = "image_embedding"
    quick = {"pictures": 0}

    k: int = Field(20, ge=1)
    """Neighbours of the main number."""
    also: list[int] = [10, 20, 100, 200]
    """Further numbers of neighbours; those beyond the bank's size are left out."""
    temperature: float = Field(0.07, gt=0)
    """T: votes weigh exp(cosine / T)."""
    pictures: int = Field(0, ge=0, le=24)
    """How many pictures are shown beside their patch features as colours (PCA)."""


def evaluate(config: Config, predict: Callable, dataset, protocol: dict[str, Any], bank=None) -> Result:
    """Measure a predictor.

    Args:
        predict: (a data set, predictor's name) → embeddings float32[N, D].
        dataset: rows with `id` and `label`.
        protocol: what the caller knows.
        bank: rows of `config.bank_split`; `dataset` itself, where that is the split that is measured: then no row votes for itself.
    """
    import numpy as np

    from adapt.evals import feature_bank, metrics
    from adapt.train.processes import once

    truth, stands, names = feature_bank.labels(dataset, bank, config.name)
    embeddings, stored = predict(dataset, config.predictor), predict(bank, config.predictor)
    itself = list(range(len(stands))) if bank is dataset else None  # an id is that of a picture in its own split alone
    ks = sorted({config.k, *(k for k in config.also if k <= len(stands))})

    def decided() -> tuple[dict[int, np.ndarray], np.ndarray]:
        """For each k the classes that win, int64[N], and the shares by which those of the main k do."""
        best, sure = {k: np.empty(len(truth), np.int64) for k in ks}, np.empty(len(truth))
        for rows, shares in votes(embeddings, stored, stands, len(names), ks, config.temperature, itself):
            sure[rows] = shares[config.k].max(1)
            for k in ks:
                best[k][rows] = metrics.answers(shares[k], truth[rows])
        return best, sure

    best, sure = once(decided)
    more = {f"knn@{k}": float((best[k] == truth).mean()) for k in ks}
    out = feature_bank.result(config, best[config.k], sure, truth, dataset, protocol, **more)
    out.protocol["bank"] = len(stands)
    out.pictures = feature_bank.pca_pictures(predict, dataset, config.pictures, protocol)
    return out


def statistic(table: dict[str, list]):
    """Top-1 of a table, as a function of how often each picture was drawn."""
    from adapt.evals.bootstrap import mean

    return mean(table["correct"])


def vote(
    queries: np.ndarray,
    bank: np.ndarray,
    labels: np.ndarray,
    classes: int,
    ks: list[int],
    temperature: float,
    itself: list[int] | None = None,
) -> dict[int, np.ndarray]:
    """Shares of the vote: for each k, float64[N, C].

    Args:
        queries: float[N, D]; bank: float[M, D]; both are L2-normalised here.
        labels: int64[M], the bank's classes.
        itself: for each query the row of the bank that is the same picture, or −1.
    """
    import numpy as np

    blocks = [shares for _, shares in votes(queries, bank, labels, classes, ks, temperature, itself)]
    return {k: np.concatenate([shares[k] for shares in blocks]) for k in ks}


def votes(
    queries: np.ndarray,
    bank: np.ndarray,
    labels: np.ndarray,
    classes: int,
    ks: list[int],
    temperature: float,
    itself: list[int] | None = None,
) -> Iterator[tuple[slice, dict[int, np.ndarray]]]:
    """The same in blocks of rows: shares of many classes need not lie in memory together."""
    import numpy as np

    from adapt.evals.knn.neighbours import DIGITS, Bank

    stored, own = Bank(bank), np.asarray([-1] * len(queries) if itself is None else itself)
    most = min(max(ks), len(bank))
    step = max(1, min(1024, BLOCK // (classes * len(ks))))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        near, best = stored.nearest(queries[rows], most, own[rows])
        weights = np.exp((best - best[:, :1]) / temperature)  # the same shares, without overflow
        found, every, out = np.zeros((len(near), classes)), np.arange(len(near)), {}
        for c in range(most):
            found[every, labels[near[:, c]]] += weights[:, c]
            for k in ks:
                if c + 1 == min(k, most):
                    shares = found.copy()
                    tied = np.flatnonzero(best[:, c] == best[:, c + 1]) if c + 1 < best.shape[1] else every[:0]
                    for row, cosines in zip(tied, stored.all_of(queries[rows][tied], own[rows][tied]), strict=True):
                        cosines = cosines.round(DIGITS)
                        each = _seats(cosines, best[row, : c + 1]) * np.exp((cosines - best[row, 0]) / temperature)
                        shares[row] = np.bincount(labels, each, classes)
                    out[k] = (shares / shares.sum(1, keepdims=True)).round(DIGITS)
        yield rows, out


def _seats(similar: np.ndarray, best: np.ndarray) -> np.ndarray:
    """How much of a seat each row of the bank has among the k nearest: 1 for those that are nearer than the last, an equal part of what is
    left for those that are as near, 0 for the others.

    Args:
        similar: float[M], to the bank.
        best: float[k], the k highest of them, falling.
    """
    tied = similar == best[-1]
    return (similar > best[-1]) + tied * ((best == best[-1]).sum() / tied.sum())
