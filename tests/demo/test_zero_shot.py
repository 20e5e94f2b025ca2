"""The tab Zero-shot, as a person uses it."""

from __future__ import annotations

PICTURE, LABELS, BARS = "#zero-shot-picture", "#zero-shot-labels textarea", "#zero-shot-bars"


def test_bars_change_as_one_types(page, picture, upload):
    upload(page, PICTURE, picture())
    page.locator(f"{BARS} .bar[title=apple]").wait_for()
    page.locator(LABELS).fill("red")
    page.get_by_text("'red' alone always has 100 %").wait_for()
    page.locator(LABELS).press_sequentially(", blue")
    page.locator(f"{BARS} .bar[title=blue]").wait_for()
    assert page.locator(f"{BARS} .bar").count() == 2
