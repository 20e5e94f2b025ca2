"""The pages: built without a warning, nothing fetched, every option there, and the examples are those that are run."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from adapt.manual import PAGES
from adapt.options import leaves, lookup, options
from adapt.plug import SECTIONS, names
from adapt.recipe import Recipe, available

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    here = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def text(page: Path) -> str:
    """A page's words, without its tags."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_nothing_is_fetched_from_another_host(site):
    for page in set(site.rglob("*.html")) - {site / "404.html"}:  # it names the root of a server that we have not
        content = page.read_text(encoding="utf-8")
        loaded = re.findall(r"""<(?:script|img|iframe)[^>]*\ssrc=["']?([^"'\s>]+)""", content)
        loaded += re.findall(r"""<link[^>]*\shref=["']?([^"'\s>]+)""", content)
        loaded = [address for address in loaded if not address.startswith("data:")]
        assert not [address for address in loaded if "//" in address], page.name
        assert all((page.parent / address.split("?")[0]).exists() for address in loaded), page.name


def test_the_code_that_builds_it_is_not_published(site):
    assert (ROOT / "docs" / "__pycache__").is_dir(), "the build has compiled its hooks"
    assert not [*site.rglob("*.py"), *site.rglob("*.pyc")]


def test_search_works_from_a_folder(site):
    """The index is a script, since a page of a folder may not read files; the worker's stand-in is beside it."""
    assert "tip_adapter" in (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert 'src="assets/iframe-worker.js"' in (site / "index.html").read_text(encoding="utf-8")
    assert "MIT" in (site / "assets" / "iframe-worker.js").read_text(encoding="utf-8").splitlines()[0]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_option_of_every_plug_in_is_on_its_page(site, section):
    page = text(site / "options" / f"{section}.html")
    for name in names(SECTIONS[section][0]):
        for option in leaves(lookup([section, name])[2]):
            assert option.path in page and option.allowed in page, f"{name}: {option.path}"
            assert option.text.split("`")[0].strip() in page, f"{name}: {option.path}"


def test_every_option_of_a_recipe_and_every_verb_has_its_place(site):
    page = text(site / "options" / "recipe.html")
    for option in options(Recipe):
        assert option.name in SECTIONS or option.path in page
    assert all(option.path in page for name in ("prompts", "train") for option in leaves(lookup([name])[2]))
    verbs = text(site / "commands.html")
    assert all(line in verbs for words in PAGES.values() for line in words.splitlines())
    assert all(name in text(site / "recipes.html") for name in available("recipes"))


def test_the_examples_of_plug_ins_are_those_that_go_the_road(site):
    page = text(site / "extend.html")
    for line in (
        'value.requires_grad_(name.endswith("weight"))',
        "class Averages(Family):",
        "torch.export.save(program, path)",
    ):
        assert line in page
        assert line in (ROOT / "tests" / "contracts" / "test_stranger.py").read_text(encoding="utf-8")
    assert "stranger:" not in (ROOT / "docs" / "extend.md").read_text(encoding="utf-8").replace("<!-- stranger:", "")
