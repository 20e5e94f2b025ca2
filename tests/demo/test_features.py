"""The tab Features: colours and similarity of patches, and in a browser as a person uses it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image, ImageDraw
from playwright.sync_api import TimeoutError, expect

from adapt.demo.features import alike, colours, features, patch
from adapt.demo.parts import Upload
from adapt.plug import UserError

FIRST, SECOND, MAPS, SAID = "#features-picture-1", "#features-picture-2", "#features-map-{}", "#features-said"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two grey pictures, 128 × 64 pixels, with a red disk: left in the first, right in the second."""
    folder, paths = tmp_path_factory.mktemp("drawn"), []
    for number, left in enumerate((16, 80)):
        picture = Image.new("RGB", (128, 64), "grey")
        ImageDraw.Draw(picture).ellipse((left, 16, left + 32, 48), fill="red", outline="black")
        paths.append(folder / f"{number}.png")
        picture.save(paths[-1])
    return paths


def test_the_patch_of_a_place_is_found_at_the_edges_too():
    assert patch((0, 0), (128, 64), (12, 24)) == (0, 0)
    assert patch((128, 64), (128, 64), (12, 24)) == (11, 23)
    assert patch((63.9, 32.1), (128, 64), (12, 24)) == (6, 11)


def test_what_is_alike_is_found_in_the_other_picture_and_has_its_colour(desk, drawn):
    uploads = [Upload(str(path), (128, 64)) for path in drawn]
    found = [features(desk, "dinov2-tiny", upload, 16) for upload in uploads]
    assert [tuple(each.shape) for each in found] == [(192, 8, 16)] * 2, "the picture's own shape"
    here, there = alike(found, 0, (32, 32), (128, 64))
    assert here[4, 4] == pytest.approx(1, abs=1e-5) and here.max() == here[4, 4]
    row, column = divmod(int(there.argmax()), 16)
    assert 2 <= row <= 5 and 10 <= column <= 13, "on the disk"
    first, second = (each.astype(int) for each in colours(found))
    disk, ground = first[4, 4], first[1, 14]
    assert np.abs(disk - second[4, 12]).sum() < np.abs(disk - ground).sum() / 2
    with pytest.raises(UserError, match=r"patches: 7 is none of 8, 16"):
        features(desk, "dinov2-tiny", uploads[0], 7)


def test_a_picture_of_one_colour_and_one_patch_has_colours(desk, tmp_path):
    Image.new("RGB", (300, 4), "blue").save(tmp_path / "thin.png")
    found = features(desk, "dinov2-tiny", Upload(str(tmp_path / "thin.png"), (300, 4)), 8)
    assert colours([found])[0].shape == (1, 8, 3)
    assert colours([found[:, :, :1] * 0])[0].tolist() == [[[0, 0, 0]]]


def clicked(page, click, place: str, across: float, said: str) -> None:
    """Click until it is said: a click in the moment in which a picture is exchanged is lost."""
    for last in (False, False, False, True):
        click(page, place, across, 0.5)
        try:
            return page.get_by_text(re.compile(said)).wait_for(timeout=10_000)
        except TimeoutError:
            if last:
                raise


def test_colours_then_a_click_then_another_picture(page, drawn, click):
    page.get_by_role("tab", name="Features").click()
    page.set_input_files(f"{FIRST} input[type=file]", drawn[0])
    page.get_by_text("24 × 12 patches of 192 numbers").wait_for()
    page.set_input_files(f"{SECOND} input[type=file]", drawn[1])
    page.get_by_text("24 × 12 and 24 × 12 patches").wait_for()
    before = page.locator(f"{MAPS.format(2)} img").get_attribute("src")
    clicked(page, click, FIRST, 0.25, r"Clicked: 3[123], 3[123]\.")
    page.wait_for_function(
        "([part, before]) => document.querySelector(part).src != before", arg=[f"{MAPS.format(2)} img", before]
    )
    clicked(page, click, MAPS.format(2), 0.75, r"Clicked: 9[567], 3[123]\.")
    page.get_by_role("button", name="Colours again").click()
    page.get_by_text("24 × 12 and 24 × 12 patches").wait_for()
    text = {"name": "notes.png", "mimeType": "image/png", "buffer": b"no picture at all"}
    page.set_input_files(f"{SECOND} input[type=file]", text)
    page.get_by_text("picture: not a usable picture: unreadable").wait_for()
    expect(page.locator(SAID)).to_have_text(re.compile(r"^\s*24 × 12 patches of 192 numbers"))
    expect(page.locator(f"{MAPS.format(2)} img")).to_have_count(0)
