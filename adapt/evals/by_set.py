"""The metrics by which single sets of the literature are reported: plain numpy, a function each (SugarCrepe: `choice.py`). Ties count against the model.

    macro_f1(labels, predictions)               # iWildCam
    worst(group_means(correct, regions), {"Other"})  # FMoW, GeoDE; of top-5 and income: Dollar Street
    average_precision(logits, truth).mean()     # VOC 2007, several classes a picture
    jaccard(scores, truth)                      # WinoGAViL, a cue
    winoground(scores)                          # text, image and group score
    clicks_until(ious, 0.9).mean()              # SAM and interactive segmentation
    concept_f1(matched, found, there)           # SAM 3's cgF1

Sources are at the functions; references are the published code of WILDS, DataComp and CLIP_benchmark (MIT), which tests write out.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence

import numpy as np


def macro_f1(labels: np.ndarray, predictions: np.ndarray) -> float:
    """F1, averaged over the classes that occur among the labels, as WILDS reports iWildCam (arXiv:2012.07421).

    An answer that is a class without labels costs its own class recall, and counts in no other class's precision.

    Args:
        labels: int[N]; predictions: int[N].
    """
    classes, truth = np.unique(labels, return_inverse=True)
    hits = np.bincount(truth[labels == predictions], minlength=len(classes))
    said = np.array([(predictions == each).sum() for each in classes])
    there = np.bincount(truth, minlength=len(classes))
    return float((2 * hits / (said + there)).mean())


def group_means(correct: np.ndarray, groups: Sequence[Hashable]) -> dict[Hashable, float]:
    """The share of each group's pictures that is right, of groups in the order of their first picture.

    Args:
        correct: bool[N], such as `rank < 1` of top-1, or `rank < 5` of top-5.
        groups: N names or numbers of groups.
    """
    names = list(dict.fromkeys(groups))
    place = {name: number for number, name in enumerate(names)}
    rows = np.array([place[name] for name in groups], np.int64)
    means = np.bincount(rows, weights=np.asarray(correct, float), minlength=len(names)) / np.bincount(
        rows, minlength=len(names)
    )
    return dict(zip(names, means.tolist(), strict=True))


def worst(means: dict[Hashable, float], without: Collection[Hashable] = ()) -> tuple[Hashable, float]:
    """The group that fares worst, and its mean; those of `without`, such as FMoW's region Other, are passed over.

    Source: WILDS, arXiv:2012.07421 (FMoW); DataComp, eval_utils/fairness_eval.py (GeoDE by region, Dollar Street's top-5 by income).

    Raises:
        ValueError: no group is left.
    """
    kept = {name: mean for name, mean in means.items() if name not in without}
    if not kept:
        raise ValueError(f"no group is left of {list(means)} without {list(without)}")
    name = min(kept, key=kept.__getitem__)
    return name, kept[name]


def average_precision(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Average precision of each class over all ranks: the mean of the precisions at the ranks of its own pictures.

    Of equal scores, pictures without the class come first. A class without pictures has 0. The mean of all is the mAP that
    CLIP_benchmark reports of VOC 2007 (metrics/zeroshot_classification.py); the challenge itself took the mean at 11 recalls.

    Args:
        scores: float[N, C]; truth: bool[N, C].

    Returns:
        float64[C].
    """
    truth = np.asarray(truth, bool)
    found = np.zeros(scores.shape[1])
    ranks = np.arange(1, len(scores) + 1)
    for column in range(scores.shape[1]):
        order = np.lexsort((truth[:, column], -scores[:, column].astype(np.float64)))
        hits = truth[order, column]
        found[column] = (np.cumsum(hits)[hits] / ranks[hits]).sum() / max(1, hits.sum())
    return found


def jaccard(scores: np.ndarray, truth: np.ndarray) -> float:
    """Of one cue: intersection over union of the pictures that go with it and of as many that score highest.

    Source: WinoGAViL, arXiv:2207.12576; DataComp, eval_utils/wino_eval.py. Of equal scores, the wrong picture is taken.

    Args:
        scores: float[K] of the cue's candidates; truth: bool[K], which go with it.

    Raises:
        ValueError: none goes with it.
    """
    truth = np.asarray(truth, bool)
    if not truth.any():
        raise ValueError("a cue without an associated picture has no Jaccard index")
    taken = np.zeros(len(truth), bool)
    taken[np.lexsort((truth, -np.asarray(scores, np.float64)))[: truth.sum()]] = True
    return float((taken & truth).sum() / (taken | truth).sum())


def jaccards(scores: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> dict[str, float]:
    """WinoGAViL's mean over all cues, and over those with 10 and 12 candidates, if there are any (DataComp's main metric)."""
    each = np.array([jaccard(*pair) for pair in zip(scores, truth, strict=True)])
    many = np.array([len(row) >= 10 for row in truth], bool)
    found = {"jaccard": float(each.mean())}
    return found | ({"jaccard_10_12": float(each[many].mean())} if many.any() else {})


def winoground(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Winoground's scores of each pair (arXiv:2204.03162): both captions found, both pictures found, all of it.

    Args:
        scores: float[N, 2, 2]: picture i with caption j; they belong together where i = j.

    Returns:
        text_score, image_score and group_score, bool[N] each.
    """
    own = np.diagonal(scores, axis1=1, axis2=2)
    text = (own > np.stack([scores[:, 0, 1], scores[:, 1, 0]], 1)).all(1)
    image = (own > np.stack([scores[:, 1, 0], scores[:, 0, 1]], 1)).all(1)
    return {"text_score": text, "image_score": image, "group_score": text & image}


def clicks_until(ious: np.ndarray, enough: float) -> np.ndarray:
    """How many clicks each object needed for an IoU of `enough`; where it never was, all (NoC, Xu et al. 2016, arXiv:1603.04042).

    Args:
        ious: float[N, K] after 1 to K clicks.

    Returns:
        int64[N], 1 to K.
    """
    reached = ious >= enough
    return np.where(reached.any(1), reached.argmax(1) + 1, ious.shape[1])


def concept_f1(matched: np.ndarray, found: np.ndarray, there: np.ndarray) -> dict[str, float]:
    """SAM 3's measure of words to masks (arXiv:2511.16719): how well masks fit where the words apply, times whether that is known.

    `positive_f1` is F1 over all masks of rows where the words apply, averaged over the IoU thresholds. `presence_mcc` is Matthews'
    correlation of "masks were found" with "the words apply", over all rows, so that words that are not on a picture count; 0 where one
    of the two never varies. `cgf1` is their product (SAM 3 writes it times 100).

    Args:
        matched: int[N, T], masks of a row that match one of its objects, one to one, at each IoU threshold.
        found: int[N], masks that were found; there: int[N], objects that there are.
    """
    scores = concept_scores(concept_counts(matched, found, there).sum(0))
    return {name: float(value) for name, value in scores.items()}


def concept_counts(matched: np.ndarray, found: np.ndarray, there: np.ndarray) -> np.ndarray:
    """What each row brings to the sums that `concept_scores` needs, float[N, 5 + T]; arguments as in `concept_f1`."""
    applies, said = there > 0, found > 0
    counts = [applies & said, applies & ~said, ~applies & said, ~applies & ~said, applies * (found + there)]
    return np.concatenate([np.stack(counts, 1), applies[:, None] * matched], 1).astype(float)


def concept_scores(sums: np.ndarray) -> dict[str, np.ndarray]:
    """The scores of `concept_f1`, float[…] each, from sums over rows of `concept_counts`, float[…, 5 + T]."""
    both, missed, false, neither, total = np.moveaxis(sums[..., :5], -1, 0)
    fit = (2 * sums[..., 5:]).mean(-1) / np.maximum(total, 1)
    below = (both + false) * (both + missed) * (neither + false) * (neither + missed)
    mcc = np.where(below > 0, (both * neither - false * missed) / np.sqrt(np.maximum(below, 1)), 0.0)
    return {"positive_f1": fit, "presence_mcc": mcc, "cgf1": fit * mcc}
