"""The metrics that a set of data can be reported by, as the literature does: what labels each needs, and which eval gives it."""

from __future__ import annotations

from dataclasses import dataclass

LABELS: dict[str, str] = {
    "class": "one class a picture",
    "classes": "several classes a picture",
    "captions": "captions a picture, all of them right",
    "choice": "captions a picture, the first of them right",
    "pairs": "two pictures with two captions",
    "cues": "a word and candidate pictures, some of which go with it",
    "objects": "objects with masks",
    "maps": "a class a pixel",
}
"""Kind of labels → what a row has."""


@dataclass(frozen=True)
class Metric:
    """A metric that a set can be reported by."""

    labels: str
    """The kind of labels that it needs, of `LABELS`."""
    title: str
    """How tables call it."""
    eval: str
    """The plug-in of `adapt/evals` whose result holds it; empty: none does, and only its function in `evals/by_set.py` is there."""
    key: str = ""
    """Its name in that result; empty: its own."""
    needs: str = ""
    """A field of the set without which it cannot be computed: groups of pictures, severities of corruptions, a split to fit on."""
    higher_is_better: bool = True
    """Which way it is better."""
    fraction: bool = True
    """Is it a share, which tables show in per cent?"""


METRICS: dict[str, Metric] = {
    "top1": Metric("class", "top-1", "zeroshot"),
    "top5": Metric("class", "top-5", "zeroshot"),
    "mean_per_class": Metric("class", "mean per class", "zeroshot"),
    "ece": Metric("class", "ECE", "zeroshot", higher_is_better=False),
    "ece_fitted": Metric("class", "ECE, temperature fitted", "zeroshot", needs="fitted_on", higher_is_better=False),
    "retained": Metric("class", "top-1 retained under corruptions", "robustness", needs="corruptions", fraction=False),
    "corrupted_top1": Metric("class", "top-1 under corruptions", "robustness", needs="corruptions"),
    "f1_macro": Metric("class", "macro F1", "zeroshot"),
    "worst_group": Metric("class", "top-1, worst group", "groups", needs="group"),
    "top5_worst_group": Metric("class", "top-5, worst group", "groups", needs="group"),
    "template_mean": Metric("class", "top-1, mean of single templates", "templates"),
    "template_sd": Metric("class", "top-1, sd over single templates", "templates", higher_is_better=False),
    "template_min": Metric("class", "top-1, worst template", "templates"),
    "template_max": Metric("class", "top-1, best template", "templates"),
    "knn": Metric("class", "kNN", "knn"),
    "linear": Metric("class", "linear", "linear"),
    "map": Metric("classes", "mAP", "multilabel"),
    "r1": Metric("captions", "picture → text R@1", "retrieval"),
    "r5": Metric("captions", "picture → text R@5", "retrieval"),
    "r10": Metric("captions", "picture → text R@10", "retrieval"),
    "text_r1": Metric("captions", "text → picture R@1", "retrieval"),
    "text_r5": Metric("captions", "text → picture R@5", "retrieval"),
    "text_r10": Metric("captions", "text → picture R@10", "retrieval"),
    "mean_r1": Metric("captions", "R@1, mean of both ways", "retrieval"),
    "choice": Metric("choice", "right caption chosen", "choice"),
    "text_score": Metric("pairs", "text score", "pairs"),
    "image_score": Metric("pairs", "image score", "pairs"),
    "group_score": Metric("pairs", "group score", "pairs"),
    "jaccard": Metric("cues", "Jaccard", "cues"),
    "jaccard_10_12": Metric("cues", "Jaccard, 10 and 12 candidates", "cues"),
    "miou": Metric("objects", "mIoU, box", "segmentation"),
    "iou_1": Metric("objects", "mIoU, one point", "segmentation"),
    "iou_3": Metric("objects", "mIoU, three clicks", "segmentation"),
    "clicks_90": Metric("objects", "clicks to 90 % IoU", "clicks", higher_is_better=False, fraction=False),
    "clicks_85": Metric("objects", "clicks to 85 % IoU", "clicks", higher_is_better=False, fraction=False),
    "miou_1": Metric("objects", "mIoU, first click", "clicks"),
    "miou_3": Metric("objects", "mIoU, three clicks with the mask before", "clicks"),
    "miou_5": Metric("objects", "mIoU, five clicks with the mask before", "clicks"),
    "cgf1": Metric("objects", "cgF1, text → masks", "concepts"),
    "positive_f1": Metric("objects", "F1 of masks, words that are there", "concepts"),
    "presence_mcc": Metric("objects", "MCC of which words are there", "concepts", fraction=False),
    "class_miou": Metric("maps", "mIoU", "semantic", "miou"),
    "pixel_accuracy": Metric("maps", "pixel accuracy", "semantic"),
}
"""Name → metric."""


def measured_by(metrics: list[str]) -> list[str]:
    """The evals that give these metrics, each once."""
    return list(dict.fromkeys(METRICS[name].eval for name in metrics if name in METRICS))


def of_eval(name: str, key: str) -> str | None:
    """The metric that is this key of this eval's result, if there is one: top1 of zeroshot, class_miou of semantic."""
    return next((each for each, metric in METRICS.items() if metric.eval == name and (metric.key or each) == key), None)
