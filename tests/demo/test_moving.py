"""A moving picture of the demo as a visitor sees it; `make pictures` keeps it as docs/demo.gif."""

from __future__ import annotations

import io
import itertools
import os
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageDraw
from playwright.sync_api import expect

from adapt.pipeline import load_data
from adapt.recipe import load_recipe

SIZE = (1120, 720)
LABELS, ZERO_SHOT, SEGMENT = "#zero-shot-labels textarea", "#zero-shot-picture", "#segment-picture"
BARS, REGIONS = "#zero-shot-bars .bar", "#segment-list .region"
POINTER = [(0, 0), (0, 17), (4, 13), (7, 19), (10, 18), (7, 12), (12, 12)]
LARGEST = 600_000
"""Bytes of a picture that a README shows."""


class Film:
    """Pictures of a page, each with the time that it stays."""

    def __init__(self, page):
        self.page, self.frames, self.times, self.mouse = page, [], [], None
        page.expose_function("moved", lambda x, y: setattr(self, "mouse", (x, y)))
        page.evaluate("addEventListener('mousedown', event => moved(event.clientX, event.clientY), true)")

    def shot(self, seconds: float) -> None:
        """Keep what the page shows, with the pointer where it last clicked."""
        frame = Image.open(io.BytesIO(self.page.screenshot(animations="disabled", caret="hide"))).convert("RGB")
        if self.mouse:
            corners = [(self.mouse[0] + x, self.mouse[1] + y) for x, y in POINTER]
            ImageDraw.Draw(frame).polygon(corners, fill="black", outline="white")
        self.frames.append(frame)
        self.times.append(round(1000 * seconds))

    def save(self, path: Path) -> None:
        """Write a GIF that begins again at its end; its frames share a palette."""
        sheet = Image.new("RGB", (SIZE[0], SIZE[1] * len(self.frames)))
        for number, frame in enumerate(self.frames):
            sheet.paste(frame, (0, SIZE[1] * number))
        palette = sheet.quantize(255, Image.Quantize.MEDIANCUT)
        first, *rest = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames]
        first.save(path, save_all=True, append_images=rest, duration=self.times, loop=0, optimize=False)


@pytest.fixture
def scene(tmp_path):
    """A scene of the embedded world, 128 × 128 pixels, on disk; and the boxes of its things in pixels."""
    options = ["train=1", "validation=1", "test=2", "things=all", "classes=thing", "hands=[noto]", "cast=null", "max_things=3"]
    row = load_data(load_recipe("sam_semantic_student", [f"data.{option}" for option in options]))["test"][1]
    assert row["caption"] == "a shaved ice, a magnifying glass tilted right and an otter"
    row["image"].save(tmp_path / "scene.png")
    return tmp_path / "scene.png", row["objects"]["bbox"]


def test_a_visitor_names_things_and_cuts_them_out(visit, tigers, scene, click, tmp_path):
    page = visit(viewport=dict(zip(("width", "height"), SIZE, strict=True)))
    film = Film(page)
    named(page, film, click, *tigers)
    cut_out(page, film, click, *scene)
    path = Path(os.environ.get("ADAPT_PICTURES") or tmp_path) / "demo.gif"
    film.save(path)
    with Image.open(path) as kept:
        assert kept.is_animated and kept.size == SIZE and kept.info["loop"] == 0
        shown = [kept.seek(number) or kept.convert("RGB") for number in range(kept.n_frames)]
    assert all(ImageChops.difference(*pair).getbbox() for pair in itertools.pairwise(shown))
    assert path.stat().st_size < LARGEST


def named(page, film, click, picture, corners) -> None:
    """Labels are typed, and a box is drawn around the banana."""
    first = page.locator(BARS).first
    page.set_input_files(f"{ZERO_SHOT} input[type=file]", picture)
    first.wait_for()
    page.locator(LABELS).fill("")
    page.locator(LABELS).press_sequentially("tiger face, red car")
    for word in ("red car", "banana"):
        page.locator(f"{BARS}[title='{word}']").wait_for()
        film.shot(1)
        page.locator(LABELS).press_sequentially(", banana" if word == "red car" else "")
    expect(first).to_have_attribute("title", "tiger face")
    left, top = corners[-1]
    click(page, ZERO_SHOT, (left - 3) / 190, (top - 3) / 128)
    page.get_by_text("The first corner is set.").wait_for()
    film.shot(0.8)
    click(page, ZERO_SHOT, (left + 49) / 190, (top + 49) / 128)
    expect(first).to_have_attribute("title", "banana")
    film.shot(2)


def cut_out(page, film, click, picture, boxes) -> None:
    """A box, and its mask; then another region."""
    page.get_by_role("tab", name="Segment").click()
    page.set_input_files(f"{SEGMENT} input[type=file]", picture)
    page.get_by_text("Click on a thing.").wait_for()
    page.locator("#segment-mode").get_by_text("Box", exact=True).click()
    for number, (left, top, right, bottom) in enumerate(boxes[:0:-1], 1):
        film.shot(1)
        click(page, SEGMENT, left / 128, top / 128)
        page.get_by_text("Now the second corner.").wait_for()
        film.shot(0.6)
        click(page, SEGMENT, right / 128, bottom / 128)
        expect(page.locator(REGIONS)).to_have_count(number)
        film.shot(1.2)
        page.get_by_role("button", name="New region").click()
    film.times[-1] = 2500
