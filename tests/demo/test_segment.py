"""The tab Segment in a browser, as a person uses it; and its endpoint."""

from __future__ import annotations

import json
import re
import threading

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from adapt.demo import masks
from adapt.demo.segment import NEW
from adapt.vision.masks import rle, unrle

PICTURE, ROWS, CLASS = "#segment-picture", "#segment-list .region", "#segment-class input, #segment-class textarea"


@pytest.fixture
def scene(tigers):
    """Two tigers and a banana."""
    return tigers[0]


@pytest.fixture
def tab(page):
    """The page with the tab open."""
    page.get_by_role("tab", name="Segment").click()
    return page


def press(page, name: str) -> None:
    page.get_by_role("tabpanel").get_by_role("button", name=name, exact=True).locator("visible=true").click()


def mode(page, name: str) -> None:
    page.locator("#segment-mode").get_by_text(name, exact=True).click()


def rows(page, count: int) -> list[str]:
    """The list, once it has so many regions."""
    expect(page.locator(ROWS)).to_have_count(count, timeout=60_000)
    return page.locator(ROWS).all_inner_texts()


def save(page, name: str, place):
    """Press a button and save what the browser downloads."""
    with page.expect_download() as waiting:
        press(page, name)
    path = place / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_clicks_are_where_they_are_on_small_and_large_pictures_of_both_orientations(tab, picture, upload, click, monkeypatch):
    asked, real = [], masks.prompted
    monkeypatch.setattr(masks, "prompted", lambda *given: asked.append(given[3][-1]) or real(*given))
    for number, size in enumerate([(96, 64), (40, 60), (2400, 1200), (1000, 2000)]):
        upload(tab, PICTURE, picture(["red", "blue", "green", "white"][number], size))
        tab.get_by_text(f"{size[0]:,} × {size[1]:,} pixels").locator("visible=true").wait_for()
        rows(tab, 0)  # those of the picture before are gone
        click(tab, PICTURE, 0.25, 0.8)
        rows(tab, 1)
        x, y, inside = asked[-1]
        shown = max(size) / 378  # pixels of the picture under one of the page's, at most
        assert (x, y) == pytest.approx((0.25 * size[0], 0.8 * size[1]), abs=1.5 * shown) and inside


def test_clicks_undo_box_and_the_three_files(tab, tigers, click, tmp_path):
    scene, (tiger, _, banana) = tigers
    tab.set_input_files(f"{PICTURE} input[type=file]", scene)
    tab.get_by_text("Click on a thing.").wait_for()
    click(tab, PICTURE, 29 / 190, 31 / 128)
    (first,) = rows(tab, 1)
    assert "1: thing" in first and "predicted IoU" in first
    mode(tab, "Subtract")
    click(tab, PICTURE, 29 / 190, 46 / 128)
    expect(tab.locator(ROWS)).not_to_have_text(first, timeout=60_000)
    press(tab, "Undo")
    tab.locator(ROWS).get_by_text(first.split("\n")[-1]).wait_for()
    tab.locator(CLASS).fill("tiger")
    press(tab, "New region")
    tab.locator(ROWS, has_text="1: tiger").wait_for()
    expect(tab.locator("#segment-chosen input")).to_have_value(NEW)  # else what is typed names the first
    tab.locator(CLASS).fill("banana")
    mode(tab, "Box")
    for x, y in ((120, 54), (70, 4)):
        click(tab, PICTURE, x / 190, y / 128)
    assert "2: banana" in rows(tab, 2)[1]

    data = json.loads(save(tab, "COCO JSON", tmp_path).read_text())
    found = [unrle(one["segmentation"]) for one in data["annotations"]]
    assert [one["name"] for one in data["categories"]] == ["tiger", "banana"]
    assert (data["images"][0]["width"], data["images"][0]["height"]) == (190, 128)
    for mask, (left, top) in zip(found, (tiger, banana), strict=True):
        assert mask[top : top + 46, left : left + 46].sum() > 0.8 * mask.sum() > 300
    numbers = Image.open(save(tab, "Mask PNG", tmp_path))
    assert numbers.format == "PNG" and json.loads(numbers.text["regions"]) == ["tiger", "banana"]
    assert (np.asarray(numbers) == np.where(found[1], 2, found[0])).all()
    cut = Image.open(save(tab, "Cut-out PNG", tmp_path))
    either = found[0] | found[1]
    ys, xs = either.nonzero()
    place = np.s_[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    assert (np.asarray(cut)[..., 3] == 255 * either[place]).all()
    assert (np.asarray(cut)[..., :3][either[place]] == np.asarray(Image.open(scene))[either]).all()

    frame = tab.locator(f"{PICTURE} img").bounding_box()
    tab.mouse.click(frame["x"] - 20, frame["y"] + frame["height"] / 2)
    press(tab, "Clear")
    rows(tab, 0)
    assert json.loads(save(tab, "COCO JSON", tmp_path).read_text())["annotations"] == []
    press(tab, "Cut-out PNG")
    tab.get_by_text("Nothing is marked yet").wait_for()
    press(tab, "Undo")
    rows(tab, 2)


def test_a_click_while_the_drawing_of_the_one_before_loads_counts(tab, tigers, spot):
    tab.set_input_files(f"{PICTURE} input[type=file]", tigers[0])
    tab.get_by_text("Click on a thing.").wait_for()
    shown = tab.locator(f"{PICTURE} img")
    corners, waits = [spot(tab, PICTURE, x / 190, y / 128) for x, y in ((120, 54), (70, 4))], []
    tab.route(re.compile(r"file=.*picture\.png"), lambda route: waits.append(route), times=1)
    mode(tab, "Box")
    for corner in corners:
        shown.click(position=corner)
        while not waits:
            tab.wait_for_timeout(20)
        assert not shown.evaluate("image => image.naturalWidth")
    waits[0].continue_()
    assert "1: thing" in rows(tab, 1)[0]


def test_what_is_typed_while_a_mask_is_made_stays(tab, tigers, click, monkeypatch):
    scene, ((left, top), *_) = tigers
    real, typed = masks.prompted, threading.Event()
    monkeypatch.setattr(masks, "prompted", lambda *given: typed.wait(60) and real(*given))
    tab.set_input_files(f"{PICTURE} input[type=file]", scene)
    tab.get_by_text("Click on a thing.").wait_for()
    click(tab, PICTURE, (left + 23) / 190, (top + 23) / 128)
    tab.locator(CLASS).fill("tiger")
    typed.set()
    assert "1: thing" in rows(tab, 1)[0]
    expect(tab.locator(CLASS)).to_have_value("tiger")
    tab.locator(CLASS).press("Enter")
    expect(tab.locator(ROWS)).to_contain_text("1: tiger")


def test_words_and_then_all_like_it(tab, scene):
    press(tab, "Undo")
    tab.get_by_text("Upload a picture first.").wait_for()
    tab.set_input_files(f"{PICTURE} input[type=file]", scene)
    tab.get_by_text("Click on a thing.").wait_for()
    words = tab.locator("#segment-words input, #segment-words textarea")
    words.fill("tiger face")
    words.press("Enter")
    assert "1: tiger face" in rows(tab, 1)[0]
    press(tab, "All like this")
    listed = rows(tab, 2)
    assert all("tiger face" in one and "similarity" in one for one in listed)
    press(tab, "All like this")
    tab.get_by_text("Nothing else is like this tiger face").wait_for()
    press(tab, "Remove this")
    rows(tab, 1)


def test_a_script_gets_the_masks_that_the_verb_gives(server, desk, scene, tmp_path):
    from gradio_client import Client, handle_file
    from gradio_client.exceptions import AppError

    client = Client(server, verbose=False)
    called = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/segment"]["parameters"]
    assert [one["parameter_name"] for one in called] == ["picture", "points", "outside", "box", "words", "model"]
    file = handle_file(scene)
    found = client.predict(file, [[95, 28]], [[30, 30]], None, "", "sam-tiny", api_name="/segment")
    with desk.using("sam-tiny") as model:
        options = {"points": [(np.array([[[95, 28], [30, 30]]]), np.array([[1, 0]]))]}
        (expected,) = model.module.predictors()["masks"]([{"image": Image.open(scene)}], **options)
    assert found["size"] == [190, 128]
    assert found["masks"][0]["rle"] == rle(expected["masks"][0])
    named = client.predict(file, None, None, None, "banana", "sam-tiny", api_name="/segment")
    assert [one["name"] for one in named["masks"]] == ["banana"]
    for given, told in (
        ((None, None, None, "", "sam-tiny"), "give points or a box"),
        (([[95, 28]], None, None, "banana", "sam-tiny"), "one of the two"),
        (([[500, 28]], None, None, "", "sam-tiny"), "a point leaves its picture"),
        (([[5]], None, None, "", "sam-tiny"), "points: write [[x, y], …]"),
        ((None, None, [9, 9, 3, 3], "", "sam-tiny"), "is reversed or empty"),
        ((None, None, [9, 9], "", "sam-tiny"), "boxes are four numbers"),
        (([[95, 28]], None, None, "", "clip-tiny"), "clip-tiny: it does not answer clicks"),
    ):
        with pytest.raises(AppError, match=re.escape(told)):
            client.predict(file, *given, api_name="/segment")
