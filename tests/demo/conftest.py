"""The page in a real browser: one server for all tests, one browser, a fresh page a test that records all requests.

Debian's chromium is driven by playwright; where there is none, the tests of this folder are skipped, loudly.
"""

from __future__ import annotations

import io
import os
import shutil
import struct
import warnings
import zlib
from urllib.parse import urlsplit

import pytest

from adapt import hardware

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60_000
"""Milliseconds for a page to show what it should; the first question of a model loads it, on a machine that others use too."""


@pytest.fixture(scope="session")
def small():
    """(folder) → a classifier that has learnt nothing, as `distill` leaves one."""

    def write(folder) -> None:
        from adapt.students.classifier import Student

        spec = {"size": (32, 32), "resize": (32, 32), "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}
        Student("test_resnet", spec | {"crop": None}, ["red", "blue", "green"]).save(folder)

    return write


@pytest.fixture(scope="session")
def desk(small, tmp_path_factory):
    """The embedded checkpoints and a small student, loaded when they are first asked."""
    from adapt.demo.desk import Choice, Desk, choices

    hardware.guard()
    place = tmp_path_factory.mktemp("student") / "small"
    small(place)
    found = choices()
    return Desk([*found, Choice("a student", found[0].recipe, "small", place)])


@pytest.fixture(scope="session")
def server(desk, tmp_path_factory):
    """The address of the page, served once; it works in a folder of its own."""
    from adapt.demo.app import served
    from adapt.demo.request import Request

    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("demo"))
    with served(desk, Request(port=0)) as address:
        yield address
    os.chdir(before)


@pytest.fixture(scope="session")
def browser():
    """Chromium, without a window."""
    if CHROMIUM is None:
        text = "NO BROWSER: the demo is NOT tested here. On Debian: apt-get install chromium"
        warnings.warn(text, stacklevel=1)
        pytest.skip(text)
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, server):
    """() → the page as a new visitor has it, 1280 × 900 pixels; options as those of playwright's `new_context`.

    At the end: no request went to another host, and no script of the page failed.
    """
    contexts, asked, failed = [], [], []

    def new(**options):
        options = {"viewport": {"width": 1280, "height": 900}} | options
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto(server)
        page.get_by_role("tab").first.wait_for()
        return page

    yield new
    for context in contexts:
        context.close()
    own = urlsplit(server).netloc
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts <= {own}, f"requests to other hosts: {hosts - {own}}"
    assert not failed


@pytest.fixture
def page(visit):
    """The page of one visitor."""
    return visit()


@pytest.fixture(scope="session")
def picture():
    """(colour, size, kind) → a picture of one colour, as playwright's `set_input_files` takes it."""
    from PIL import Image

    def made(colour="red", size=(96, 64), kind="PNG") -> dict:
        out = io.BytesIO()
        Image.new("RGB", size, colour).save(out, kind)
        return {"name": f"{colour}.{kind.lower()}", "mimeType": f"image/{kind.lower()}", "buffer": out.getvalue()}

    return made


@pytest.fixture(scope="session")
def huge():
    """The same of a real PNG of 30,000 × 30,000 pixels, black."""
    side = 30_000

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)  # one bit a pixel
    rows = zlib.compress(bytes(side * (1 + side // 8)), 1)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return {"name": "huge.png", "mimeType": "image/png", "buffer": data}


@pytest.fixture(scope="session")
def tigers(tmp_path_factory):
    """Two tigers and a banana on white, 46 pixels each, in a picture of 190 × 128 on disk; and their corners."""
    from PIL import Image

    from adapt.data import world

    corners = [("tiger face", (6, 8)), ("tiger face", (70, 66)), ("banana", (72, 6))]
    rows = {row["caption"]: row["image"] for row in world.read("noto")}
    picture = Image.new("RGB", (190, 128), "white")
    for name, corner in corners:
        thing = rows[name].convert("RGBA").resize((46, 46))
        picture.paste(thing, corner, thing)
    path = tmp_path_factory.mktemp("tigers") / "tigers.png"
    picture.save(path)
    return path, [corner for _, corner in corners]


@pytest.fixture(scope="session")
def upload():
    """(page, part, file) → put a file into a picture of the page, by the CSS selector of its component, such as `#zero-shot-picture`."""

    def put(page, part: str, file: dict) -> None:
        page.set_input_files(f"{part} input[type=file]", file)

    return put


@pytest.fixture(scope="session")
def spot():
    """(page, part, x, y) → where in its frame a picture of the page has this share of its width and height, as playwright's `position`."""

    def of(page, part: str, x: float, y: float) -> dict[str, float]:
        shown = page.locator(f"{part} img")
        wide, high = shown.evaluate(
            "async image => { await image.decode(); return [image.naturalWidth, image.naturalHeight]; }"
        )
        frame = shown.bounding_box()
        assert shown.evaluate("image => getComputedStyle(image).objectFit") == "scale-down"
        scale = min(1, frame["width"] / wide, frame["height"] / high)
        left, top = (frame["width"] - scale * wide) / 2, (frame["height"] - scale * high) / 2
        return {"x": left + x * scale * wide, "y": top + y * scale * high}

    return of


@pytest.fixture(scope="session")
def click(spot):
    """(page, part, x, y) → click on a picture of the page, at a share of its width and height, wherever its frame shows it."""

    def at(page, part: str, x: float, y: float) -> None:
        page.locator(f"{part} img").click(position=spot(page, part, x, y))

    return at
