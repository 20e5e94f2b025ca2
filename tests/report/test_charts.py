"""Figures: names are data, whatever is in them; drawing them changes nothing else and prints nothing."""

from __future__ import annotations

import json
import warnings
from html import unescape

import matplotlib
import pytest

from adapt.report import charts
from adapt.report.entries import Entry, Sweep

AWKWARD = [
    "$5_bill_$",
    "$x^{2$",
    "\\frac{1}",
    "<script>alert(1)</script>",
    "_under",
    "a & b",
    "蚂蚁",
    "日本語",
    "हिन्दी",
    "العربية",
    "😀",
    "a\nb",
]


def entries(titles: list[str]) -> list[Entry]:
    bins = {"count": [4, 0, 6], "confidence": [0.2, 0, 0.9], "accuracy": [0.3, 0, 0.8]}
    return [
        Entry(
            name=f"row {i}",
            title=title,
            main="top1",
            metrics={"top1": 0.5 + i / 100},
            reliability=bins,
            size_bytes=1e6,
            latency={"p50_ms": 1.0 + i, "p99_ms": 2.0},
        )
        for i, title in enumerate(titles)
    ]


def drawn(kind: str, names: list[str]) -> str:
    if kind == "confusion":
        return charts.confusion([[int(i == j) for j in range(len(names))] for i in range(len(names))], names)
    if kind == "reliability":
        return charts.reliability(entries(names))
    return charts.trade_off(entries(names), "top1", names[0], {f"row {i}": name for i, name in enumerate(names)})


@pytest.mark.parametrize("kind", ["confusion", "reliability", "trade_off"])
def test_names_are_shown_as_they_are_whatever_is_in_them(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = drawn(kind, AWKWARD)
    assert "<script" not in svg
    text = unescape(svg).replace("\u200b", "")
    for name in AWKWARD:
        assert " ".join(name.split()) in text, name


def test_other_warnings_are_not_hidden():
    with pytest.warns(UserWarning, match="of something else"), charts.style("a"):
        warnings.warn("of something else", stacklevel=1)


def test_drawing_leaves_the_users_settings_alone():
    before = dict(matplotlib.rcParams)
    drawn("confusion", ["a", "b"])
    charts.curves([{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5, "validation": 0.4}])
    assert dict(matplotlib.rcParams) == before


def test_the_same_numbers_give_the_same_figure():
    assert drawn("reliability", ["a", "b"]) == drawn("reliability", ["a", "b"])


def test_every_row_is_drawn_also_the_seventh():
    titles = [f"row number {i}" for i in range(9)]
    for kind in ("reliability", "trade_off"):
        assert all(title in drawn(kind, titles) for title in titles)


def test_a_long_name_keeps_its_beginning_and_its_end():
    assert charts.short("a " * 200 + "the end") == "a a a a a a a a a a a a… a a the end"
    assert len(charts.short("x" * 500)) == charts.LONGEST
    assert charts.short("short") == "short"


def test_a_font_that_is_installed_draws_what_the_usual_one_lacks(monkeypatch):
    """The usual font for measure: what it has needs no other, what none has is given up."""
    assert charts._fonts(frozenset("abc é")) == ()
    assert charts._fonts(frozenset("\ue000")) == ()
    from matplotlib import font_manager

    usual = font_manager.findfont("DejaVu Sans")
    other = next(font for font in font_manager.fontManager.ttflist if font.name == "STIXGeneral" and font.style == "normal")
    more = set(font_manager.get_font(other.fname).get_charmap()) - set(font_manager.get_font(usual).get_charmap())
    lacking = next(chr(code) for code in sorted(more) if chr(code).isprintable())
    found = charts._fonts(frozenset(lacking))
    assert any(
        ord(lacking) in font_manager.get_font(font.fname).get_charmap()
        for font in font_manager.fontManager.ttflist
        if font.name in found
    )


def test_curves_are_drawn_of_what_there_is():
    assert "validation" not in charts.curves([{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}])
    assert "validation" in charts.curves([{"step": 1, "loss": 1.0, "validation": 0.2}])
    assert charts.curves([{"step": 1, "validation": 0.2}, {"step": 2, "validation": 0.3}]).startswith("<svg")


@pytest.mark.parametrize("by", ["canary", "target"])
@pytest.mark.parametrize("name", AWKWARD)
def test_a_sweep_is_drawn_whatever_its_metric_is_called(by, name, tmp_path):
    rows = [{"scale": i / 10, "value": 0.3 + i / 50, "interval": (0.2, 0.6), "kept": 1 - i / 50} for i in range(11)]
    of_canary = [row | {"canary": 0.8 - row["scale"] / 9, "canary_interval": (0.6, 0.9)} for row in rows]
    held = {"target": {"0": 0.3, "chosen": 0.35, "1": 0.5}, "canary": {"0": 0.8, "chosen": 0.79}}
    facts = {"metric": name, "by": by, "keep": 0.9, "budget": 0.72 if by == "canary" else 0.9, "chosen": 0.5, "held": held}
    sweep = Sweep.model_validate_json(json.dumps(facts | {"rows": of_canary if by == "canary" else rows}))
    drawing = charts.forgetting(sweep, name, tmp_path / "sweep.png")
    assert "chosen: 0.5" in drawing and "90 %" in drawing
    assert ("90 % of zero-shot" in drawing) == (by == "canary")
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
