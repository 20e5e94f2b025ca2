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
    eval: str = ""
    """The plug-in of `adapt/evals` whose result holds it; empty: none does yet, and only its function is there."""
    key: str = ""
    """Its name in that result; empty: its own."""
    needs: str = ""
    """A field of the set without which it cannot be computed: groups of pictures, or severities of corruptions."""
    higher_is_better: bool = True
    """Which way it is better."""
    fraction: bool = True
    """Is it a share, which tables show in per cent?"""


METRICS: dict[str, Metric] = {
    "top1": Metric("class", "top-1", "zeroshot"),
    "top5": Metric("class", "top-5", "zeroshot"),
    "mean_per_class": Metric("class", "mean per class", "zeroshot"),
    "ece": Metric("class", "ECE", "zeroshot", higher_is_better=False),
    "retained": Metric("class", "top-1 retained under corruptions", needs="corruptions", fraction=False),
    "f1_macro": Metric("class", "F1, macro"),
    "worst_group": Metric("class", "top-1, worst group", needs="group"),
    "top5_worst_group": Metric("class", "top-5, worst group", needs="group"),
    "knn": Metric("class", "kNN", "knn"),
    "linear": Metric("class", "linear", "linear"),
    "map": Metric("classes", "mAP"),
    "r1": Metric("captions", "picture → text R@1", "retrieval"),
    "r5": Metric("captions", "picture → text R@5", "retrieval"),
    "r10": Metric("captions", "picture → text R@10", "retrieval"),
    "text_r1": Metric("captions", "text → picture R@1", "retrieval"),
    "text_r5": Metric("captions", "text → picture R@5", "retrieval"),
    "text_r10": Metric("captions", "text → picture R@10", "retrieval"),
    "mean_r1": Metric("captions", "R@1, mean of both ways"),
    "choice": Metric("choice", "right caption chosen", "choice"),
    "text_score": Metric("pairs", "text score"),
    "image_score": Metric("pairs", "image score"),
    "group_score": Metric("pairs", "group score"),
    "jaccard": Metric("cues", "Jaccard"),
    "jaccard_10_12": Metric("cues", "Jaccard, 10 and 12 candidates"),
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
"""Name → metric. What no eval gives yet is a function of `adapt/evals/by_set.py`."""


def measured_by(metrics: list[str]) -> list[str]:
    """The evals that give these metrics, each once."""
    return list(dict.fromkeys(METRICS[name].eval for name in metrics if name in METRICS and METRICS[name].eval))


def of_eval(name: str, key: str) -> str | None:
    """The metric that is this key of this eval's result, if there is one: top1 of zeroshot, class_miou of semantic."""
    return next((each for each, metric in METRICS.items() if metric.eval == name and (metric.key or each) == key), None)
