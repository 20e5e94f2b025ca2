"""The report: metrics by the names that the field gives them, and files that are none."""

from __future__ import annotations

import pytest

from adapt.plug import UserError
from adapt.report import build, label


@pytest.mark.parametrize(
    ("metrics", "names"),
    [
        ("top1 top5 top3 mean_per_class ece nll", "top-1, top-5, top-3, mean per class, ECE, NLL"),
        ("map map50 map75 recall unread", "mAP, mAP@50, mAP@75, recall, unread"),
        ("miou boundary_f iou_1 iou_3 mask_ap mask_ap50", "mIoU, boundary F, IoU@1 click, IoU@3 clicks, mask AP, mask AP@50"),
        ("box_ap pixel_accuracy weighted_iou", "box AP, pixel accuracy, weighted IoU"),
        ("knn knn@20 knn_mean_per_class", "kNN, kNN@20, kNN mean per class"),
        ("linear linear_lr linear_holdout", "linear, linear lr, linear holdout"),
        ("exact bleu4 cider r1 within_one", "exact, BLEU-4, CIDEr, R@1, within one"),
    ],
)
def test_a_table_names_metrics_alike(metrics, names):
    assert ", ".join(map(label, metrics.split())) == names


@pytest.mark.parametrize("text", ["[]", "{}", '{"entries": [], "guards": []}', '{"entries": ['])
def test_numbers_that_are_none_are_one_line(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=r"metrics\.json: (no entries|cannot be read)"):
        build(tmp_path)
