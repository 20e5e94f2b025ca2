"""The page's part on corrupted pictures: bars for all models, and every number."""

from __future__ import annotations

import re

import pytest

from adapt.report import charts
from adapt.report.entries import Entry
from adapt.report.robustness import section

FOUND = {
    "corruptions": ["fog", "jpeg_compression"],
    "severities": [1, 5],
    "accuracy": [[0.5, 0.25], [0.75, 0.5]],
    "clean": 0.8,
    "pictures": 40,
}


def entry(name: str, kept: tuple[float, float, float] = (0.625, 0.5, 0.75), **facts) -> Entry:
    metrics = dict(zip(("retained", "retained_fog", "retained_jpeg_compression"), kept, strict=True))
    intervals = {metric: (value - 0.1, value + 0.05) for metric, value in metrics.items()}
    about = {
        "main": "corrupted_top1",
        "metrics": {"corrupted_top1": 0.5} | metrics,
        "intervals": intervals,
        "robustness": FOUND,
    }
    return Entry(name=name, title=name, **about | facts)


def test_the_tables_hold_every_number():
    html = section([entry("zero-shot <b>"), entry("student")])
    assert html.count("<details") == 2 and html.count("<details open") == 1
    rows = re.findall(r"<tr><th>(.*?)</th>(.*?)</tr>", html)
    cells = {name: re.findall(r"<td>(.*?)</td>", rest) for name, rest in rows}
    assert cells["fog"] == ["50.0", "25.0", "37.5", "50 % (40–55)"]
    assert cells["jpeg compression"] == ["75.0", "50.0", "62.5", "75 % (65–80)"]
    assert cells["mean of all"] == ["62.5", "37.5", "50.0", "62 % (52–68)"]
    assert "80.0 % as they are" in html and "40 pictures" in html and "not ImageNet-C" in html
    assert "zero-shot &lt;b&gt;" in html and "<b>" not in html


def test_where_nothing_was_measured_nothing_is_said():
    assert section([entry("a", robustness=None)]) == ""
    html = section([entry("a", metrics={"corrupted_top1": 0.5}, intervals={})])
    assert "<svg" not in html and "37.5" in html, "nothing was right to begin with: no bar, but the numbers"
    assert section([entry("a", robustness=None), entry("b")]).count("<details") == 1


def bars(svg: str) -> list[str]:
    """Colours of the bars, in the order in which they are drawn."""
    return re.findall(r'<path d="[^"]*" clip-path="[^"]*" style="fill: (#[0-9a-f]{6}); opacity', svg)


@pytest.mark.parametrize("count", [1, 4, 8])
def test_each_model_has_a_bar_for_each_corruption(count):
    names = [f"model number {i}" for i in range(count)]
    svg = charts.retained(
        [entry(name) for name in names], {"retained": "mean of all", "retained_fog": "fog", "retained_jpeg_compression": "jpeg"}
    )
    assert len(bars(svg)) == 3 * count
    assert all(name in svg for name in names)


def test_the_highest_is_first_below_the_mean():
    metrics = {"retained": "mean of all", "retained_fog": "fog", "retained_jpeg_compression": "jpeg"}
    svg = charts.retained([entry("a"), entry("b", (0.4, 0.6, 0.2))], metrics)
    # fog .5 and .6, jpeg .75 and .2: fog has the higher mean
    assert svg.index("mean of all") < svg.index(">fog<") < svg.index(">jpeg<")
    svg = charts.retained([entry("a")], metrics)
    assert svg.index("mean of all") < svg.index(">jpeg<") < svg.index(">fog<")


def test_a_model_without_a_number_has_no_bar_there():
    metrics = {"retained": "mean of all", "retained_fog": "fog", "retained_jpeg_compression": "jpeg", "retained_snow": "snow"}
    svg = charts.retained([entry("a"), entry("b")], metrics)
    assert "snow" in svg and "nan" not in svg.lower()
